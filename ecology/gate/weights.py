"""One forward pass over the tensors of a weights file: what is not finite, and how large each module's change is.

The bytes go by once, in the order in which they lie, and are hashed as they pass (``store.snapshot``); what stays is
small. Of a factor it is its Gram matrix on the side of the rank, so that the memory of a pass is one block, the
largest tensor that the configuration implies, and r x r numbers a module: less than the file. Tensors that nothing
implies, and factors of a rank that the policy refuses anyway, are looked through for what is not finite and no more.

What is measured, by module:

* LoRA, rsLoRA: dW = s B A exactly, by ||B A||_F^2 = <B^T B, A A^T>; its singular values are the roots of the
  eigenvalues of (B^T B)(A A^T), so that no matrix larger than a block of the factors is ever built;
* TinyLoRA: dW = B R A with R = sum_i v_i P_i (arXiv:2602.04118). Which vector a module shares depends on the order of
  the base's modules, so the largest change over all vectors in the file counts;
* DoRA: s B A as above, and ||m|| of the magnitudes.

Grams are summed in double precision: the square of a finite F32, F16 or BF16 is finite in it, so a Gram matrix is
finite exactly if its factor is, and counting what is not has to be done only for a file that is refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ecology.contracts.artifact import WEIGHTS_FILE
from ecology.contracts.policy import AdapterLimits
from ecology.errors import MalformedArtifact
from ecology.gate.tensors import Implied, Module
from ecology.gate.violation import Violation
from ecology.store.header import Header, TensorInfo

BLOCK = 1 << 18
"""Values that are widened at a time."""
READABLE: Mapping[str, str] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}

Floats = npt.NDArray[np.float64]
Raw = npt.NDArray[Any]


class Stream(Protocol):
    """Bytes that go by once."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What one module does to its weight, in numbers."""

    module: Module
    norm: float
    """||dW||_F (of s B A alone for a DoRA); infinite where a value is not finite."""
    spectrum: tuple[float, ...]
    """Singular values of dW, largest first; empty where ``norm`` is not finite."""
    magnitude: float
    """||m|| of a DoRA, 0 otherwise; infinite where an entry is not positive."""


@dataclasses.dataclass(frozen=True, slots=True)
class Weighed:
    """What one pass found."""

    infinite: tuple[Violation, ...]
    """A tensor each that holds NaN or infinity."""
    changes: tuple[Change, ...]
    """Of the modules whose tensors are as implied and whose rank the policy allows; the others are refused for that."""


def weigh(stream: Stream, header: Header, meant: Implied | None, limits: AdapterLimits) -> Weighed:
    """Reads every tensor once.

    Args:
        stream: The weights file, behind its header.
        header: Its header.
        meant: What the configuration implies; None where it implies nothing that can be trusted.
        limits: The policy's bounds; ``max_rank`` is read here.

    Raises:
        MalformedArtifact: The file became shorter while it was read.
    """
    scales = _Scales(header, meant, limits)
    infinite = []
    order = sorted(header.tensors.items(), key=lambda item: (item[1].start, item[1].end))
    with np.errstate(all="ignore"):  # what is not finite is larger than any bound
        for name, info in order:
            bad = _whole(stream, info, scales.take(name)) if scales.wants(name) else _in_blocks(stream, info)
            if bad:
                size = (info.end - info.start) // np.dtype(READABLE[info.dtype]).itemsize
                said = f"{bad} of {size} values not finite"
                infinite.append(Violation("non-finite", WEIGHTS_FILE, name[:200], said, "finite values"))
        return Weighed(tuple(sorted(infinite, key=lambda one: one.key)), scales.changes())


class _Scales:
    """What is kept of the implied tensors until a module is complete."""

    def __init__(self, header: Header, meant: Implied | None, limits: AdapterLimits) -> None:
        self.roles: dict[str, tuple[Module | None, str]] = {}
        self.held: dict[str, dict[str, Raw]] = {}
        self.vectors: dict[str, Floats] = {}
        self.found: dict[str, Change] = {}
        self.order: tuple[str, ...] = ()
        if meant is None:
            return

        def whole(key: str, shape: tuple[int, ...]) -> bool:
            info = header.tensors.get(key)
            return info is not None and info.shape == shape and info.dtype in READABLE

        if not all(whole(key, shape) for key, shape in meant.vectors.items()):
            return
        self.roles.update(dict.fromkeys(meant.vectors, (None, "v")))
        self.dtypes = {name: info.dtype for name, info in header.tensors.items()}
        self.wanted_vectors = tuple(meant.vectors)
        modules = [
            module
            for module in meant.modules
            if module.rank <= limits.max_rank and all(whole(key, shape) for key, shape in module.shapes.items())
        ]
        self.order = tuple(module.name for module in modules)
        for module in modules:
            roles = {module.a: "a", module.b: "b"}
            roles |= {module.m: "m"} if module.magnitudes else {}
            roles |= {module.p: "p"} if module.projections else {}
            self.roles.update({key: (module, role) for key, role in roles.items()})

    def wants(self, name: str) -> bool:
        return name in self.roles

    def take(self, name: str) -> Callable[[Raw], bool]:
        """What is done with a tensor's values, widened to no more than they are stored in; True if all are finite."""
        module, role = self.roles[name]

        def kept(values: Raw) -> bool:
            if module is None:
                self.vectors[name] = _wide(values, self.dtypes[name])
                return bool(np.isfinite(self.vectors[name]).all())
            held = self.held.setdefault(module.name, {})
            if role in ("a", "b"):
                gram = _gram(values, self.dtypes[name], columns=role == "b")
                held[role] = gram
                fine = bool(np.isfinite(gram.diagonal()).all())
            elif role == "m":
                held[role] = _wide(values, self.dtypes[name])
                fine = bool(np.isfinite(held[role]).all())
            else:
                held[role] = values
                fine = _infinite(values, self.dtypes[name]) == 0
            if not module.projections and len(held) == 2 + module.magnitudes:
                self._finish(module)
            return fine

        return kept

    def _finish(self, module: Module) -> None:
        held = self.held.pop(module.name)
        left, right = held["b"], held["a"]
        if module.projections:
            vectors = np.stack([self.vectors[key] for key in self.wanted_vectors])
            norm, spectrum = _largest(left, right, vectors, _wide(held["p"], self.dtypes[module.p]))
        else:
            norm, spectrum = _size(left, right, abs(module.scale))
        magnitude = _magnitude(held["m"]) if module.magnitudes else 0.0
        self.found[module.name] = Change(module, norm, spectrum, magnitude)

    def changes(self) -> tuple[Change, ...]:
        for module, _ in list(self.roles.values()):  # TinyLoRA: its vectors may lie behind everything else
            if module is not None and module.name in self.held:
                self._finish(module)
        return tuple(self.found[name] for name in self.order)


def _whole(stream: Stream, info: TensorInfo, keep: Callable[[Raw], bool]) -> int:
    """Hands a whole tensor on as it is stored; how many of its values are not finite."""
    data = bytearray(info.end - info.start)
    view, at = memoryview(data), 0
    while at < len(data):
        part = stream.read(min(4 * BLOCK, len(data) - at))
        if not part:
            raise _cut_off()
        view[at : at + len(part)] = part
        at += len(part)
    values: Raw = np.frombuffer(data, READABLE[info.dtype]).reshape(info.shape)
    return 0 if keep(values) else _infinite(values, info.dtype)


def _in_blocks(stream: Stream, info: TensorInfo) -> int:
    """Passes over a tensor that nothing implies; how many of its values are not finite."""
    kind = np.dtype(READABLE[info.dtype]) if info.dtype in READABLE else None  # integers are finite
    left, rest, bad = info.end - info.start, b"", 0
    while left:
        part = stream.read(min(4 * BLOCK, left))
        if not part:
            raise _cut_off()
        left -= len(part)
        if kind is not None:
            part = rest + part
            count = len(part) // kind.itemsize
            bad += _infinite(np.frombuffer(part, kind, count), info.dtype)
            rest = part[count * kind.itemsize :]
    return bad


def _cut_off() -> MalformedArtifact:
    return MalformedArtifact(
        "the file became shorter while it was read", where=WEIGHTS_FILE, todo="judge a folder that nobody writes to"
    )


def _float(block: Raw, dtype: str) -> npt.NDArray[np.floating]:
    """A block as floating point: BF16 is the upper half of a float32."""
    if dtype == "BF16":
        return (block.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return block


def _wide(values: Raw, dtype: str) -> Floats:
    return _float(values, dtype).astype(np.float64)


def _blocks(values: Raw) -> Iterator[Raw]:
    flat = values.reshape(-1)
    for at in range(0, flat.size, BLOCK):
        yield flat[at : at + BLOCK]


def _infinite(values: Raw, dtype: str) -> int:
    return sum(int(part.size - np.count_nonzero(np.isfinite(_float(part, dtype)))) for part in _blocks(values))


def _gram(values: Raw, dtype: str, *, columns: bool) -> Floats:
    """X^T X of B (outputs x rank), X X^T of A (rank x inputs); some of its lines at a time."""
    rank = values.shape[1 if columns else 0]
    step = max(1, BLOCK // max(1, rank))
    total = np.zeros((rank, rank))
    for at in range(0, values.shape[0 if columns else 1], step):
        if columns:
            block = _wide(values[at : at + step], dtype)
            total += block.T @ block
        else:
            block = _wide(np.ascontiguousarray(values[:, at : at + step]), dtype)
            total += block @ block.T
    return total


def _size(left: Floats, right: Floats, scale: float) -> tuple[float, tuple[float, ...]]:
    square = float(np.sum(left * right))
    if not math.isfinite(square):
        return math.inf, ()
    return scale * math.sqrt(max(0.0, square)), tuple(scale * value for value in _singular(left, right))


def _singular(left: Floats, right: Floats) -> list[float]:
    """Of B A from B^T B and A A^T: the roots of the eigenvalues of S (A A^T) S with S S = B^T B."""
    values, vectors = np.linalg.eigh(left)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    squares = np.linalg.eigvalsh(root @ right @ root)
    return [float(value) for value in np.sqrt(np.maximum(squares, 0.0))[::-1]]


def _largest(left: Floats, right: Floats, vectors: Floats, projections: Floats) -> tuple[float, tuple[float, ...]]:
    """The largest ||B R A||_F over the vectors, and the singular values of that change."""
    mixes = np.tensordot(vectors, projections, 1)
    squares = np.einsum("gij,gij->g", left @ mixes @ right, mixes)
    if not np.isfinite(squares).all():
        return math.inf, ()
    mix = mixes[int(np.argmax(squares))]
    return math.sqrt(max(0.0, float(squares.max()))), tuple(_singular(mix.T @ left @ mix, right))


def _magnitude(values: Floats) -> float:
    return float(np.linalg.norm(values)) if bool((values > 0).all()) else math.inf
