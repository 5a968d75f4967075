"""Files of whole lines that only grow: signed envelopes, one a line, written by any number of processes.

Writers take a lock on the file and append; a line torn by a crash was never acknowledged, is not read and is cut off by
the next writer. Whoever reads it takes the same lock, shared.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ecology.errors import ConfigError, IntegrityError


def append(path: Path, lines: Iterable[str]) -> None:
    """Appends lines, those that are there already left out; the file is made if there is none.

    Raises:
        ConfigError: An entry is not one line.
        IntegrityError: What is there is not text.
    """
    wanted = tuple(dict.fromkeys(lines))
    if any(not line.strip() or "\n" in line or "\r" in line for line in wanted):
        raise ConfigError("an envelope is not one line", where=str(path), todo="write it as canonical JSON")
    with locked(path, fcntl.LOCK_EX) as descriptor:
        held, whole = _lines(descriptor, path)
        new = [line for line in wanted if line not in held]
        os.ftruncate(descriptor, whole)
        os.pwrite(descriptor, "".join(f"{line}\n" for line in new).encode(), whole)
        os.fsync(descriptor)


def read(path: Path) -> tuple[str, ...]:
    """Whole lines, in the order they were added; none where there is no file.

    Raises:
        IntegrityError: The file is not text.
    """
    if not path.exists():
        return ()
    with locked(path, fcntl.LOCK_SH) as descriptor:
        return tuple(_lines(descriptor, path)[0])


def stamp(path: Path) -> str:
    """What changes whenever the file does: its size, time and number; ``-`` where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return "-"
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"


@contextlib.contextmanager
def locked(path: Path, kind: int) -> Iterator[int]:
    """The file, open and locked (``fcntl.LOCK_EX``, ``fcntl.LOCK_SH``); made if there is none, links not followed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, kind)
        yield descriptor
    finally:
        os.close(descriptor)  # and so unlocks


def _lines(descriptor: int, path: Path) -> tuple[list[str], int]:
    """Whole lines, and the bytes they take."""
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    whole = data.rfind(b"\n") + 1
    try:
        return data[:whole].decode("utf-8").split("\n")[:-1], whole
    except UnicodeDecodeError as error:
        todo = "move the file away; what it says must be signed again"
        raise IntegrityError(f"{path.name} is not UTF-8", where=str(path), todo=todo) from error
