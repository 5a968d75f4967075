"""What the process that reads weights is asked and what it answers: lines of JSON, and the file's bytes in frames.

A request is one line, an ``Order``, then the bytes of the tensors in the order of the line, in frames: four bytes of
big-endian length and as many bytes. A frame of length zero ends them, early where the file became shorter. The answer
is one line: an ``Answer``, or ``{"error": why}``. Both sides are of one version and one machine.

Nothing but the standard library is imported here: this is the half that the reading process shares with the gate.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Protocol

FRAME_BYTES = 1 << 18
"""Most bytes of a frame."""
READABLE = frozenset({"F32", "F16", "BF16"})
"""Types whose values are looked at; the gate refuses the others, whatever they hold."""
SHORTER = "the file became shorter while it was read"
OUT_OF_MEMORY = "it needs more memory than twice the file, or than there is"


class Stream(Protocol):
    """Bytes that go by once."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """One tensor, as the header describes it."""

    key: str
    dtype: str
    """As in a safetensors header."""
    shape: tuple[int, ...]
    size_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Factored:
    """The tensors of one module, by key; empty for those that its kind does not have."""

    a: str
    """rank x inputs."""
    b: str
    """outputs x rank."""
    m: str
    """Magnitudes of a DoRA."""
    p: str
    """Projections of a TinyLoRA, u x rank x rank."""
    scale: float


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """What is in a file, and what is to be measured of it."""

    tensors: tuple[Stored, ...]
    """As they lie, without a gap."""
    modules: tuple[Factored, ...]
    vectors: tuple[str, ...]
    """Keys of what TinyLoRA modules share."""

    def line(self) -> bytes:
        """As it is sent."""
        rows = [dataclasses.astuple(one) for one in self.tensors], [dataclasses.astuple(one) for one in self.modules]
        return json.dumps([*rows, self.vectors]).encode() + b"\n"

    @classmethod
    def of(cls, line: bytes) -> Order:
        """As it was sent."""
        tensors, modules, vectors = json.loads(line)
        stored = (Stored(key, dtype, tuple(shape), size) for key, dtype, shape, size in tensors)
        return cls(tuple(stored), tuple(Factored(*one) for one in modules), tuple(vectors))


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """What one module does to its weight, in numbers."""

    norm: float
    """At least ||dW||_F (of s B A alone for a DoRA), by no more than rounding; infinite where a value is not finite."""
    spectrum: tuple[float, ...]
    """Singular values of dW, largest first, that one at least, likewise; empty where ``norm`` is not finite."""
    magnitude: float
    """||m|| of a DoRA, 0 otherwise; infinite where an entry is not positive."""
    product: float
    """s ||B||_F ||A||_F, with sum_i |v_i| ||P_i||_F between them for a TinyLoRA: what rounding is relative to."""
    factor: float
    """The largest of ||A||_F, ||B||_F and that sum."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What one pass over a file found."""

    infinite: Mapping[str, int]
    """How many values are not finite, by key; none that has none."""
    sizes: tuple[Size, ...]
    """Of the modules, in their order."""

    def line(self) -> bytes:
        """As it is sent."""
        sizes = [[one.norm, one.spectrum, one.magnitude, one.product, one.factor] for one in self.sizes]
        return json.dumps({"infinite": self.infinite, "sizes": sizes}).encode() + b"\n"

    @classmethod
    def of(cls, said: Any, order: Order) -> Answer:
        """As it was sent; not taken at its word.

        Args:
            said: The parsed line.
            order: What was asked.

        Raises:
            ValueError: It is no answer to that.
        """
        counts, sizes = said["infinite"], said["sizes"]
        keys = {tensor.key for tensor in order.tensors}
        if len(sizes) != len(order.modules) or not all(
            key in keys and type(count) is int and count > 0 for key, count in counts.items()
        ):
            raise ValueError("no answer to what was asked")
        return cls(
            counts, tuple(Size(_size(n), tuple(map(_size, s)), *map(_size, (m, p, f))) for n, s, m, p, f in sizes)
        )


def _size(value: Any) -> float:
    if type(value) is not float or not value >= 0.0 or math.isnan(value):
        raise ValueError(f"{value!r} is no size")
    return value


class Frames:
    """The receiving end: a stream that ends with an empty frame.

    Args:
        source: Where frames come from.
    """

    def __init__(self, source: BinaryIO) -> None:
        """Begins before the first frame."""
        self._source, self._left, self._over = source, 0, False

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        if not self._left and not self._over:
            head = self._source.read(4)
            self._left = int.from_bytes(head, "big")
            self._over = not self._left
        data = self._source.read(min(size, self._left))
        self._left -= len(data)
        return data

    def drain(self) -> None:
        """Passes over what nobody wanted, so that the next line is a line."""
        while self.read(FRAME_BYTES):
            pass


def framed(stream: Stream, size: int) -> Iterator[bytes]:
    """The sending end: at most ``size`` bytes of a stream in frames, and the empty frame.

    Args:
        stream: Read from where it stands.
        size: Bytes that are expected; fewer where it ends before.
    """
    while size and (part := stream.read(min(size, FRAME_BYTES))):
        size -= len(part)
        yield len(part).to_bytes(4, "big")
        yield part
    yield bytes(4)
