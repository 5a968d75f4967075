"""A folder as a set of bytes with one name.

The digest of an artifact is the digest of the canonical JSON of its file records (path, size, digest; sorted by
path), so it says which bytes are there and nothing about dates, modes or where the folder stands. Links are refused:
what they lead to may change behind the digest. ``claims.jsonl`` is left out, since signatures are added later.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ecology.contracts.artifact import (
    CLAIMS_FILE,
    MAX_CLAIMS,
    MAX_CLAIMS_BYTES,
    MAX_WIDE_CLAIMS_BYTES,
    Artifact,
    FileRecord,
)
from ecology.contracts.identity import Digest
from ecology.errors import MalformedArtifact
from ecology.kernel.canonical import digest
from ecology.store.files import open_plain, read_bounded

MAX_FILES = 1000
"""Files and folders, all levels together."""
MAX_DEPTH = 4
"""Levels of folders inside the artifact's."""


def describe(folder: Path, max_bytes: int | None = None) -> Artifact:
    """Names the bytes of a folder. Any plain files may be in it; ``claims.jsonl`` is left out.

    A file may have other names elsewhere (hard links): what is named is bytes, and whoever uses them compares first.

    Args:
        folder: The adapter's own folder.
        max_bytes: Of all files together; a file without end, or a sparse one of a terabyte, is not read. None: no end.

    Raises:
        MalformedArtifact: No such folder, a link, a device, more than ``MAX_FILES`` files and folders,
            more than ``max_bytes``, or a name that is not UTF-8; or it may not be read, or changes meanwhile.
    """
    if os.path.islink(folder) or not os.path.isdir(folder):  # unlike pathlib's, they raise for no name
        raise MalformedArtifact(
            "not a folder", where=str(folder), todo="give the adapter's own folder, not a link to it"
        )
    try:
        return _describe(folder, max_bytes)
    except OSError as error:
        raise MalformedArtifact(f"cannot be read: {error}", where=str(folder)) from error


def _describe(folder: Path, max_bytes: int | None) -> Artifact:
    paths = list(_walk(folder, MAX_DEPTH, folder / CLAIMS_FILE))
    if max_bytes is not None and (size := sum(path.lstat().st_size for path in paths)) > max_bytes:
        raise MalformedArtifact(f"its files have {size} bytes; at most {max_bytes} are read", where=str(folder))
    files = tuple(sorted(_record(folder, path) for path in paths))
    return Artifact(digest(files), files)


def nameless(folder: Path) -> Artifact:
    """A name for a folder that ``describe`` refuses, so that the refusal can be recorded.

    It is the digest of the folder's listing (name, kind and size of each entry), in a form that no artifact has.

    Raises:
        MalformedArtifact: There is no such folder.
    """
    try:
        with os.scandir(folder) as entries:
            listed = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in islice(entries, MAX_FILES))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise MalformedArtifact(f"cannot be listed: {error}", where=str(folder)) from error
    rows = [[ascii(name), stat.S_IFMT(found.st_mode), str(found.st_size)] for name, found in listed]
    return Artifact(digest({"refused unread": rows}), ())


def read_claims(folder: Path) -> tuple[str, ...]:
    """Lines of the folder's ``claims.jsonl``, not judged; empty when there is none.

    Raises:
        MalformedArtifact: It is a link, larger than ``MAX_CLAIMS_BYTES``, of more than ``MAX_CLAIMS`` lines, or of more
            than ``MAX_WIDE_CLAIMS_BYTES`` that are not ASCII, or not UTF-8.
    """
    path = folder / CLAIMS_FILE
    if not os.path.lexists(path):
        return ()
    data = read_bounded(path, MAX_CLAIMS_BYTES)
    count = data.count(b"\n") + (not data.endswith(b"\n"))
    if count > MAX_CLAIMS:  # counted before anything is made of them: a line of two bytes becomes a text of fifty
        raise MalformedArtifact(f"{CLAIMS_FILE} has {count} lines; at most {MAX_CLAIMS} are read", where=str(path))
    lines = [line for line in data.split(b"\n") if line.strip()]
    if (wide := sum(len(line) for line in lines if not line.isascii())) > MAX_WIDE_CLAIMS_BYTES:
        what = f"{CLAIMS_FILE} has {wide} bytes of lines that are not ASCII; at most {MAX_WIDE_CLAIMS_BYTES} are read"
        raise MalformedArtifact(what, where=str(path))
    try:
        return tuple(line.decode("utf-8") for line in lines)
    except UnicodeDecodeError as error:
        raise MalformedArtifact(f"{CLAIMS_FILE} is not UTF-8", where=str(path)) from error


def claims_beside(folder: Path) -> tuple[tuple[str, ...], str]:
    """The lines of ``read_claims``; where they cannot be read none, and why, as ``Submission`` carries it."""
    try:
        return read_claims(folder), ""
    except MalformedArtifact as error:
        return (), error.what


def _walk(folder: Path, depth: int, claims: Path, count: list[int] | None = None) -> Iterator[Path]:
    count = [0] if count is None else count
    try:
        with os.scandir(folder) as listed:
            entries = sorted(islice(listed, MAX_FILES + 2 - count[0]), key=lambda entry: entry.name)
    except OSError as error:
        raise MalformedArtifact(f"cannot be listed: {error}", where=str(folder)) from error
    count[0] += sum(Path(entry.path) != claims for entry in entries)
    if count[0] > MAX_FILES:  # folders too: an empty one costs as much to look at
        raise MalformedArtifact(f"more than {MAX_FILES} files and folders", where=str(folder))
    for entry in entries:
        if entry.is_symlink():
            raise MalformedArtifact(f"{entry.name!a} is a link", where=str(folder), todo="put a plain file there")
        if entry.is_dir(follow_symlinks=False):
            if depth == 0:
                raise MalformedArtifact(f"folders deeper than {MAX_DEPTH}", where=str(folder))
            yield from _walk(Path(entry.path), depth - 1, claims, count)
        elif Path(entry.path) != claims:
            yield Path(entry.path)


def _record(folder: Path, path: Path) -> FileRecord:
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise MalformedArtifact(f"the name {name!a} is not UTF-8", where=str(folder)) from error
    with open_plain(path) as stream:
        sha256 = hashlib.file_digest(stream, "sha256")
        return FileRecord(name, stream.tell(), Digest(f"sha256:{sha256.hexdigest()}"))
