"""Reading what strangers wrote and writing what must not be torn.

Whatever stands in a candidate's folder is read through ``read_bounded`` and ``parse_json``: no links, no devices, no
file larger than its use needs, no JSON that two parsers could read differently. Whatever this package writes goes
through ``write_atomic``: a reader sees the old bytes or the new ones, never half of either, also after a power cut.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from ecology.contracts.identity import Json
from ecology.errors import MalformedArtifact

MAX_JSON_DEPTH = 16
"""Levels of nesting; PEFT's deepest configuration has 4."""


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replaces ``path`` with ``data``: temporary file beside it, fsync, rename, fsync of the folder.

    The file gets ``mode`` less the process' umask, from its first byte on. The folder must exist.

    Raises:
        OSError: The disk is full or the folder is missing; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove_drafts(folder: Path) -> None:
    """Removes temporary files of ``write_atomic`` whose process is gone: it was killed before the rename."""
    for path in folder.glob(".*.tmp") if folder.is_dir() else ():
        writer = path.name.split(".")[-3:-2]
        if writer and writer[0].isdigit() and not _alive(int(writer[0])):
            path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Makes renames inside ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def open_plain(path: Path) -> Iterator[io.BufferedReader]:
    """Opens a regular file for reading; follows no link and waits for no pipe.

    Raises:
        MalformedArtifact: It is missing, a link, or not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = "is a link" if path.is_symlink() else f"cannot be read ({error})"
        raise MalformedArtifact(f"{path.name} {reason}", where=str(path), todo="put a plain file there") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise MalformedArtifact(f"{path.name} is not a regular file", where=str(path), todo="put a plain file there")
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """All bytes of a regular file of at most ``limit_bytes``.

    Raises:
        MalformedArtifact: As ``open_plain``, or the file is larger.
    """
    with open_plain(path) as stream:
        data = stream.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise MalformedArtifact(f"{path.name} is larger than {limit_bytes} bytes", where=str(path))
    return data


def parse_json(data: bytes, where: str) -> Json:
    """JSON that has one reading: strict UTF-8, no duplicate keys, no NaN, no lone surrogates, bounded depth.

    Args:
        data: The document's bytes, already bounded in length.
        where: File name for messages.

    Raises:
        MalformedArtifact: It is none of that.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        _check(value, MAX_JSON_DEPTH)
    except (ValueError, RecursionError) as error:  # UnicodeError and JSONDecodeError are ValueErrors
        detail = str(error) or type(error).__name__
        raise MalformedArtifact(f"not well-formed JSON: {detail:.200}", where=where) from error
    return value


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!a} stands twice in one object")
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check(value: Json, depth: int) -> None:
    if depth < 0:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH}")
    if isinstance(value, str):
        value.encode()  # UnicodeEncodeError, a ValueError, for a lone surrogate
    elif isinstance(value, dict):
        for key, item in value.items():
            key.encode()
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
