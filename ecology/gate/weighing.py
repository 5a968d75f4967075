"""What an adapter's tensors do to the base's weights, in numbers that another process found.

The bytes of a stranger's weights are looked into by a process of their own: it has no key, no file, no environment and
no network code, may not take more memory than twice the bytes that it is shown (``weights``), and is told nothing but
which tensors lie where. It is started when the first folder comes and serves all that follow; when this process ends,
however it ends, its input does and so does it. If it dies, or does not take or answer what it is sent for longer than
``PATIENCE_S`` and a second for every ``BYTES_A_SECOND``, it is ended and the folder refused; that says nothing about
the folder (``ReaderFailed``), so the refusal is not remembered.

The digest is taken here, of the very bytes that are handed over (``store.snapshot``). NumPy is not imported on this
side.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import fcntl
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ecology.contracts.artifact import WEIGHTS_FILE
from ecology.contracts.policy import AdapterLimits
from ecology.errors import EcologyError, MalformedArtifact, ReaderFailed
from ecology.gate.order import (
    FRAME_BYTES,
    OUT_OF_MEMORY,
    READABLE,
    SHORTER,
    Answer,
    Factored,
    Order,
    Size,
    Stored,
    Stream,
    framed,
)
from ecology.gate.tensors import Implied, Module
from ecology.gate.violation import Violation
from ecology.store.header import ITEM_BYTES, Header

MOST_ANSWERED_BYTES = 64 << 20
"""Of one line; 67 numbers a module are some hundred kilobytes."""
PATIENCE_S = 30.0
"""How long is waited for it in all, its start included, before what its bytes may take is added."""
BYTES_A_SECOND = 10_000_000
"""A tenth of what one slow core reads."""
_BOOT = "import sys; sys.path[:0] = sys.argv[1:]; from ecology.gate.weights import main; main()"
_PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""Of the environment: where the loader finds libraries."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change(Size):
    """What one module does to its weight."""

    module: Module


@dataclasses.dataclass(frozen=True, slots=True)
class Weighed:
    """What one pass found."""

    infinite: tuple[Violation, ...]
    """A tensor each that holds NaN or infinity."""
    changes: tuple[Change, ...]
    """Of the modules whose tensors are as implied and whose rank the policy allows; the others are refused for that."""


def weigh(stream: Stream, header: Header, meant: Implied | None, limits: AdapterLimits) -> Weighed:
    """Has every tensor read once, by the process that reads weights.

    Args:
        stream: The weights file, behind its header.
        header: Its header.
        meant: What the configuration implies; None where it implies nothing that can be trusted.
        limits: The policy's bounds; ``max_rank`` is read here.

    Raises:
        MalformedArtifact: The file became shorter while it was read, or is none that can be read.
        ReaderFailed: The process died, hung or lacked memory, whatever the file.
    """
    order, modules = _order(header, meant, limits)
    answer = _answer(order, stream)
    infinite = []
    for key, bad in sorted(answer.infinite.items()):
        info = header.tensors[key]
        size = (info.end - info.start) // ITEM_BYTES[info.dtype]
        infinite.append(
            Violation("non-finite", WEIGHTS_FILE, key[:200], f"{bad} of {size} values not finite", "finite values")
        )
    changes = (
        Change(size.norm, size.spectrum, size.magnitude, size.product, size.factor, module)
        for module, size in zip(modules, answer.sizes, strict=True)
    )
    return Weighed(tuple(infinite), tuple(changes))


def start() -> None:
    """Starts the process that reads weights, while there is other work; ``weigh`` would, where nobody did."""
    with _LOCK, contextlib.suppress(OSError):  # whoever weighs is told
        _reader()


def reader_id() -> int:
    """Process id of the process that reads weights; 0 while there is none."""
    with _LOCK:
        return _STARTED[0].process.pid if _STARTED else 0


def _order(header: Header, meant: Implied | None, limits: AdapterLimits) -> tuple[Order, tuple[Module, ...]]:
    """What is asked: modules whose tensors are as implied, unless a vector that they share is not."""
    lying = sorted(header.tensors.items(), key=lambda item: (item[1].start, item[1].end))
    tensors = tuple(Stored(key, info.dtype, info.shape, info.end - info.start) for key, info in lying)

    def whole(key: str, shape: tuple[int, ...]) -> bool:
        info = header.tensors.get(key)
        return info is not None and info.shape == shape and info.dtype in READABLE

    if meant is None or not all(whole(key, shape) for key, shape in meant.vectors.items()):
        return Order(tensors, (), ()), ()
    modules = tuple(
        module
        for module in meant.modules
        if module.rank <= limits.max_rank and all(whole(key, shape) for key, shape in module.shapes.items())
    )
    factored = (
        Factored(
            module.a,
            module.b,
            module.m if module.magnitudes else "",
            module.p if module.projections else "",
            module.scale,
        )
        for module in modules
    )
    return Order(tensors, tuple(factored), tuple(meant.vectors)), modules


@dataclasses.dataclass(frozen=True, slots=True)
class _Reader:
    """The process that reads weights, and who started it: a fork has none."""

    process: subprocess.Popen[bytes]
    requests: int
    """Descriptors, so that waiting can be bounded."""
    replies: int
    owner: int


class _Patience:
    """How long may still be waited for the process; what we do ourselves, such as reading the file, does not count.

    Args:
        size: Bytes that it is sent.
    """

    def __init__(self, size: int) -> None:
        self.whole = self.left = PATIENCE_S + size / BYTES_A_SECOND

    def wait(self, descriptor: int, event: int) -> None:
        """Until it can be written or read.

        Raises:
            TimeoutError: It was not in time.
        """
        ready = select.poll()
        ready.register(descriptor, event)
        began = time.monotonic()
        found = ready.poll(1000.0 * max(0.0, self.left))
        self.left -= time.monotonic() - began
        if not found:
            raise TimeoutError(f"it did not answer within {self.whole:.0f} s")


_LOCK = threading.Lock()
_STARTED: list[_Reader] = []


def _answer(order: Order, stream: Stream) -> Answer:
    with _LOCK:
        try:
            said = _said(_reader(), order, stream)
        except BaseException as error:  # out of step: the next folder gets a process of its own
            _end()
            if isinstance(error, OSError | ValueError | RecursionError):
                raise _failed(f"failed: {error}") from error
            raise
    try:
        if "error" in said:
            raise _unread(str(said["error"]))
        return Answer.of(said, order)
    except (ValueError, TypeError, KeyError) as error:
        raise _failed(f"answered something else: {error}") from error


def _said(reader: _Reader, order: Order, stream: Stream) -> Any:
    size = sum(tensor.size_bytes for tensor in order.tensors)
    patience = _Patience(size)
    _send(reader.requests, order.line(), patience)
    for part in framed(stream, size):
        _send(reader.requests, part, patience)
    line = bytearray()
    while not line.endswith(b"\n"):
        patience.wait(reader.replies, select.POLLIN)
        part = os.read(reader.replies, FRAME_BYTES)
        line += part
        if not part:
            with contextlib.suppress(subprocess.TimeoutExpired):
                reader.process.wait(1)
            raise OSError(f"it ended with code {reader.process.returncode}")
        if len(line) > MOST_ANSWERED_BYTES:
            raise OSError("its answer has no end")
    return json.loads(line)


def _send(descriptor: int, data: bytes, patience: _Patience) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            patience.wait(descriptor, select.POLLOUT)


def _reader() -> _Reader:
    """The process that reads weights; ``_LOCK`` is held."""
    if _STARTED and _STARTED[0].owner == os.getpid() and _STARTED[0].process.poll() is None:
        return _STARTED[0]
    _STARTED.clear()
    numpy = importlib.util.find_spec("numpy")
    if numpy is None or numpy.origin is None:
        raise OSError("NumPy is not installed")
    roots = dict.fromkeys(str(Path(place).parents[levels]) for place, levels in ((__file__, 2), (numpy.origin, 1)))
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BOOT, *roots],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env=threads | {name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        cwd="/",
    )
    if process.stdin is None or process.stdout is None:
        raise OSError("it has no pipes")
    with contextlib.suppress(OSError, AttributeError):  # then a frame goes over in more pieces
        fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, FRAME_BYTES)
    os.set_blocking(process.stdin.fileno(), False)
    _STARTED.append(_Reader(process, process.stdin.fileno(), process.stdout.fileno(), os.getpid()))
    return _STARTED[0]


@atexit.register
def _end() -> None:
    """Ends the process that reads weights, if this process started it."""
    if _STARTED and _STARTED[0].owner == os.getpid():
        reader = _STARTED.pop()
        reader.process.kill()
        with contextlib.suppress(OSError):  # what was not written is not wanted
            reader.process.__exit__(None, None, None)


def _unread(why: str) -> EcologyError:
    if why == OUT_OF_MEMORY:
        return _failed(why)
    todo = "judge a folder that nobody writes to" if why == SHORTER else ""
    return MalformedArtifact(why, where=WEIGHTS_FILE, todo=todo)


def _failed(why: str) -> ReaderFailed:
    what = f"the process that reads weights {why}" if why != OUT_OF_MEMORY else f"what reads weights stopped: {why}"
    return ReaderFailed(what, where=WEIGHTS_FILE, todo="see to memory and processor, and judge it again")
