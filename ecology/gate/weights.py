"""One forward pass over the tensors of a weights file: what is not finite, and how large each module's change is.

This is what runs in the process that reads weights (``weighing`` starts it). It imports the standard library, NumPy and
``order``, opens no file, knows no key and no path, and sees the bytes once, in the order in which they lie.

What stays of them is small. Of a factor it is its Gram matrix on the side of the rank, so that the memory of a pass is
one block, the largest tensor that the configuration implies, and r x r numbers a module: less than the file. Tensors
that nothing implies, and factors of a rank that the policy refuses anyway, are looked through for what is not finite
and no more.

What is measured, by module:

* LoRA, rsLoRA: dW = s B A exactly, by ||B A||_F^2 = <B^T B, A A^T>; its singular values are the roots of the
  eigenvalues of (B^T B)(A A^T), so that no matrix larger than a block of the factors is ever built;
* TinyLoRA: dW = B R A with R = sum_i v_i P_i (arXiv:2602.04118). Which vector a module shares depends on the order of
  the base's modules, so the largest change over all vectors in the file counts;
* DoRA: s B A as above, and ||m|| of the magnitudes.

Grams are summed in double precision: the square of a finite F32, F16 or BF16 is finite in it, so a Gram matrix is
finite exactly if its factor is, and counting what is not has to be done only for a file that is refused.

What is measured is an upper bound. Columns of B that cancel leave <B^T B, A A^T> with a rounding error that is relative
to ||B||_F^2 ||A||_F^2 and not to the difference: at most gamma_k of it, gamma_k = k u / (1 - k u), u = 2^-53, k the
number of roundings on the longest way (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.1 and 3.5: m
for B^T B, n for A A^T, r^2 for the sum over both; as many again for the eigenvalues, whose errors are of the order
r u ||B||^2 ||A||^2, LAPACK Users' Guide, 4.7). This is added before the root is taken, so ||dW||_F may be said too
large by some 10^-6 s ||B||_F ||A||_F, and never too small. ``bounds`` limits s ||B||_F ||A||_F, and with it what
cancellation can hide from PEFT, which multiplies in fewer digits.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ecology.gate.order import OUT_OF_MEMORY, SHORTER, Answer, Factored, Frames, Order, Size, Stored, Stream

BLOCK = 1 << 18
"""Values that are widened at a time."""
SLACK_BYTES = 24 << 20
"""What a pass may take of memory beyond twice the bytes that go by: blocks, the request, the eigenvalues' workspace."""
_KINDS: Mapping[str, str] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}

Floats = npt.NDArray[np.float64]
Raw = npt.NDArray[Any]


def weigh(stream: Stream, order: Order) -> Answer:
    """Reads every tensor once.

    Args:
        stream: The bytes of the tensors.
        order: What they are, and what is to be measured.

    Raises:
        EOFError: They ended early.
    """
    scales = _Scales(order)
    infinite = {}
    with np.errstate(all="ignore"):  # what is not finite is larger than any bound
        for tensor in order.tensors:
            keep = scales.take(tensor)
            if bad := _in_blocks(stream, tensor) if keep is None else _whole(stream, tensor, keep):
                infinite[tensor.key] = bad
        return Answer(infinite, scales.sizes())


class _Scales:
    """What is kept of the implied tensors until a module is complete."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.roles: dict[str, tuple[int, str]] = dict.fromkeys(order.vectors, (-1, "v"))
        for at, module in enumerate(order.modules):
            roles = {module.a: "a", module.b: "b", module.m: "m", module.p: "p"}
            self.roles.update({key: (at, role) for key, role in roles.items() if key})
        self.dtypes = {tensor.key: tensor.dtype for tensor in order.tensors}
        self.lines = {tensor.key: tensor.shape for tensor in order.tensors}
        self.held: dict[int, dict[str, Raw]] = {}
        self.vectors: dict[str, Floats] = {}
        self.found: dict[int, Size] = {}

    def take(self, tensor: Stored) -> Callable[[Raw], bool] | None:
        """What is done with a tensor's values as they are stored, True if all are finite; None: nothing."""
        if tensor.key not in self.roles:
            return None
        at, role = self.roles[tensor.key]

        def kept(values: Raw) -> bool:
            if at < 0:
                self.vectors[tensor.key] = _wide(values, tensor.dtype)
                return bool(np.isfinite(self.vectors[tensor.key]).all())
            module, held = self.order.modules[at], self.held.setdefault(at, {})
            if role in ("a", "b"):
                gram = _gram(values, tensor.dtype, columns=role == "b")
                held[role] = gram
                fine = bool(np.isfinite(gram.diagonal()).all())
            elif role == "m":
                held[role] = _wide(values, tensor.dtype)
                fine = bool(np.isfinite(held[role]).all())
            else:
                held[role] = values
                fine = _infinite(values, tensor.dtype) == 0
            if not module.p and len(held) == 2 + bool(module.m):
                self._finish(at, module)
            return fine

        return kept

    def _finish(self, at: int, module: Factored) -> None:
        held = self.held.pop(at)
        left, right = held["b"], held["a"]
        lines = self.lines[module.b][0] + self.lines[module.a][-1] + len(left) ** 2
        factors = _root(left), _root(right)
        if module.p:
            vectors = np.stack([self.vectors[key] for key in self.order.vectors])
            mixes, between = _mixes(vectors, held["p"], self.dtypes[module.p])
            product = factors[0] * between * factors[1]
            ends, astray = factors[0] * factors[1], vectors.shape[1] * 2.0**-52 * product
            norm, spectrum = _largest(left, right, mixes, (2 * lines, ends), astray)
        else:
            between, product = 0.0, abs(module.scale) * factors[0] * factors[1]
            norm, spectrum = _size(left, right, abs(module.scale), _rounding(2 * lines, product))
        magnitude = _magnitude(held["m"]) if module.m else 0.0
        largest = max(*factors, between)
        if not (math.isfinite(norm) and math.isfinite(product)):  # also of what is not a number
            norm, spectrum, product, largest = math.inf, (), math.inf, math.inf
        self.found[at] = Size(norm, spectrum, magnitude, product, largest)

    def sizes(self) -> tuple[Size, ...]:
        for at in list(self.held):  # TinyLoRA: its vectors may lie behind everything else
            self._finish(at, self.order.modules[at])
        return tuple(self.found[at] for at in range(len(self.order.modules)))


def _whole(stream: Stream, tensor: Stored, keep: Callable[[Raw], bool]) -> int:
    """Hands a whole tensor on as it is stored; how many of its values are not finite."""
    data = bytearray(tensor.size_bytes)
    view, at = memoryview(data), 0
    while at < len(data):
        part = stream.read(min(4 * BLOCK, len(data) - at))
        if not part:
            raise EOFError(SHORTER)
        view[at : at + len(part)] = part
        at += len(part)
    values: Raw = np.frombuffer(data, _KINDS[tensor.dtype]).reshape(tensor.shape)
    return 0 if keep(values) else _infinite(values, tensor.dtype)


def _in_blocks(stream: Stream, tensor: Stored) -> int:
    """Passes over a tensor that nothing implies; how many of its values are not finite."""
    kind = np.dtype(_KINDS[tensor.dtype]) if tensor.dtype in _KINDS else None  # integers are finite
    left, rest, bad = tensor.size_bytes, b"", 0
    while left:
        part = stream.read(min(4 * BLOCK, left))
        if not part:
            raise EOFError(SHORTER)
        left -= len(part)
        if kind is not None:
            part = rest + part
            count = len(part) // kind.itemsize
            bad += _infinite(np.frombuffer(part, kind, count), tensor.dtype)
            rest = part[count * kind.itemsize :]
    return bad


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


def _root(gram: Floats) -> float:
    """||X||_F of its Gram matrix; NaN where a value is not finite."""
    return math.sqrt(max(0.0, float(np.trace(gram)))) if np.isfinite(gram).all() else math.nan


def _rounding(count: int, product: float) -> float:
    """Most that ``count`` roundings take from the square of a norm of which ``product`` is a bound."""
    return (count + 16) * 2.0**-52 * product**2 if product < 1e150 else math.inf


def _size(left: Floats, right: Floats, scale: float, error: float) -> tuple[float, tuple[float, ...]]:
    square = scale**2 * float(np.sum(left * right)) + error
    if not math.isfinite(square):
        return math.inf, ()
    found = [scale * value for value in _singular(left, right)]
    return math.sqrt(max(error, square)), (math.hypot(found[0], math.sqrt(error)), *found[1:])


def _singular(left: Floats, right: Floats) -> list[float]:
    """Of B A from B^T B and A A^T: the roots of the eigenvalues of S (A A^T) S with S S = B^T B."""
    values, vectors = np.linalg.eigh(left)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    squares = np.linalg.eigvalsh(root @ right @ root)
    return [float(value) for value in np.sqrt(np.maximum(squares, 0.0))[::-1]]


def _mixes(vectors: Floats, projections: Raw, dtype: str) -> tuple[Floats, float]:
    """sum_i v_i P_i for each vector, and the largest sum_i |v_i| ||P_i||_F."""
    count, rank, _ = projections.shape
    mixes, sums = np.zeros((len(vectors), rank, rank)), np.zeros(len(vectors))
    step = max(1, BLOCK // max(1, rank * rank))
    for at in range(0, count, step):
        block = _wide(projections[at : at + step], dtype)
        mixes += np.tensordot(vectors[:, at : at + step], block, 1)
        sums += np.abs(vectors[:, at : at + step]) @ np.sqrt(np.einsum("ijk,ijk->i", block, block))
    return mixes, float(sums.max())


def _largest(
    left: Floats, right: Floats, mixes: Floats, ends: tuple[int, float], astray: float
) -> tuple[float, tuple[float, ...]]:
    """The largest ||B R A||_F over the mixes R, and the singular values of that change.

    Args:
        left: B^T B.
        right: A A^T.
        mixes: The R, rounded.
        ends: Number of roundings in a norm, and ||B||_F ||A||_F.
        astray: ||B||_F ||A||_F times what rounding took from the largest R.
    """
    squares = np.einsum("gij,gij->g", left @ mixes @ right, mixes)
    error = _rounding(ends[0], ends[1] * float(np.sqrt(np.einsum("gij,gij->g", mixes, mixes)).max()))
    if not (np.isfinite(squares).all() and math.isfinite(error) and math.isfinite(astray)):
        return math.inf, ()
    mix = mixes[int(np.argmax(squares))]
    found = _singular(mix.T @ left @ mix, right)
    largest = math.sqrt(max(0.0, float(squares.max())) + error) + astray
    return largest, (math.hypot(found[0], math.sqrt(error)) + astray, *found[1:])


def _magnitude(values: Floats) -> float:
    return float(np.linalg.norm(values)) if bool((values > 0).all()) else math.inf


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answers one request after the other until there are no more.

    Args:
        requests: Lines and frames, as in ``order``.
        replies: A line for each.
    """
    bounded = _confined()
    while line := requests.readline():
        frames = Frames(requests)
        try:
            order = Order.of(line)
            bounded(2 * sum(tensor.size_bytes for tensor in order.tensors) + len(line))
            reply = weigh(frames, order).line()
        except MemoryError:
            reply = _error(OUT_OF_MEMORY)
        except Exception as error:
            reply = _error(str(error) if isinstance(error, EOFError) else f"{type(error).__name__}: {error}")
        frames.drain()
        replies.write(reply)
        replies.flush()


def _error(why: str) -> bytes:
    return json.dumps({"error": why[:500]}).encode() + b"\n"


def _confined() -> Callable[[int], None]:
    """Gives up what a reader of bytes has no need of; returns what bounds the memory of the pass that follows.

    No file can be opened or written, no process started, no core left where it crashes. Anonymous memory beyond what
    is there now can be had only as a pass is allowed to, on systems that tell how much is there (Linux; see
    ``getrlimit(2)``, RLIMIT_DATA).
    """
    weigh(_Zeros(), _REHEARSAL)  # whatever is loaded on first use is loaded now
    present = 0
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as pages:
        present = int(pages.read().split()[5]) * resource.getpagesize()
    for kind, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 3)):
        resource.setrlimit(kind, (most, most))
    with contextlib.suppress(ValueError, OSError):  # not every system counts a user's processes
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)

    def bounded(more: int) -> None:
        wanted = present + SLACK_BYTES + more
        if present and (hard == resource.RLIM_INFINITY or wanted <= hard):
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))

    return bounded


class _Zeros:
    """A file of zeros."""

    def read(self, size: int, /) -> bytes:
        return bytes(size)


_REHEARSAL = Order(
    tensors=(
        Stored("a", "F32", (2, 3), 24),
        Stored("b", "BF16", (3, 2), 12),
        Stored("m", "F16", (3,), 6),
        Stored("A", "F32", (2, 3), 24),
        Stored("B", "F32", (3, 2), 24),
        Stored("P", "F32", (4, 2, 2), 64),
        Stored("v", "F32", (4,), 16),
        Stored("x", "F32", (1,), 4),
    ),
    modules=(Factored("a", "b", "m", "", 1.0), Factored("A", "B", "", "P", 1.0)),
    vectors=("v",),
)


def main() -> None:
    """Serves on standard input and output."""
    serve(sys.stdin.buffer, sys.stdout.buffer)
