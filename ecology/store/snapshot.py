"""A folder read once, so that what is checked, what is named and what is reported are the same bytes.

Whoever hashes a file, then opens it again to look into it, can be shown two files. Here each file is opened once, by
its name inside a folder that is held open, without following links, and the digest is taken of the very bytes that are
looked into: small files stay in memory, the large one goes by once, through its reader. A swap before is another
artifact, a swap after is found by whoever compares the digest when the bytes are used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import stat
import types
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Literal

from ecology.contracts.artifact import CLAIMS_FILE, Artifact, FileRecord
from ecology.contracts.identity import Digest
from ecology.errors import MalformedArtifact
from ecology.kernel.canonical import digest
from ecology.store.folders import MAX_FILES

CHUNK_BYTES = 1 << 20
"""Bytes that are in memory of a file that goes by."""

Kind = Literal["file", "link", "folder", "device"]


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One name in the folder."""

    name: str
    kind: Kind
    size_bytes: int
    digest: Digest | None
    """None for what was not read: no plain file, or larger than its bound."""


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """One reading of a folder."""

    entries: tuple[Entry, ...]
    """Sorted by name."""
    contents: Mapping[str, bytes]
    """Of the files that were asked for, are within their bounds and have no reader."""
    looked_into: frozenset[str]
    """Names of these, and of the files whose readers saw them."""

    @property
    def artifact(self) -> Artifact | None:
        """The name of these bytes, as ``folders.describe`` gives it; None where an entry has no digest."""
        files = [entry for entry in self.entries if entry.name != CLAIMS_FILE]
        if any(entry.digest is None for entry in files):
            return None
        records = tuple(sorted(FileRecord(entry.name, entry.size_bytes, entry.digest or Digest("")) for entry in files))
        return Artifact(digest(records), records)


class Passing:
    """A file as it goes by: what was read is in the digest, whoever read it.

    Args:
        name: Of the file.
        stream: The open file.
        size: Bytes that it had when it was opened; what is appended while we read is not ours.
    """

    def __init__(self, name: str, stream: io.RawIOBase, size: int) -> None:
        """Begins before the first byte."""
        self._stream, self._left, self._hash = stream, size, hashlib.sha256()
        self.name, self.size_bytes = name, size
        self.seen_bytes = 0

    def read(self, size: int, /) -> bytes:
        """``size`` bytes, fewer only at the end of the file."""
        parts = []
        while size and self._left:
            part = self._stream.read(min(size, self._left, CHUNK_BYTES))
            if not part:  # it was cut off: the digest is another one
                self._left = 0
                break
            self._hash.update(part)
            self._left -= len(part)
            self.seen_bytes += len(part)
            size -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> Digest:
        """Reads what nobody wanted, and names the whole."""
        while self.read(CHUNK_BYTES):
            pass
        return Digest(f"sha256:{self._hash.hexdigest()}")


Reader = Callable[[Passing, dict[str, bytes]], None]
"""Looks into a file as it goes by, with the contents of those that were kept at hand; raises nothing."""


def _keep(passing: Passing, contents: dict[str, bytes]) -> None:
    contents[passing.name] = passing.read(passing.size_bytes)


def take(
    folder: Path,
    bounds: Mapping[str, int],
    other_bytes: int,
    readers: Mapping[str, Reader] = types.MappingProxyType({}),
) -> Snapshot:
    """Reads a folder once. Sub-folders are listed and not entered.

    Args:
        folder: The adapter's own folder.
        bounds: Files that are looked into, with the most bytes that are read of each. Their bytes are kept, unless
            they have a reader.
        other_bytes: The most bytes of any other file; such a file is hashed and not kept; a larger one is not read.
        readers: Files that are too large to be kept, with what looks into them; they are read after the others.

    Raises:
        MalformedArtifact: It is no folder, is a link, or holds more than ``MAX_FILES`` entries.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise MalformedArtifact(f"not a folder: {error}", where=str(folder)) from error
    try:
        with os.scandir(handle) as listed:
            names = sorted(entry.name for entry in islice(listed, MAX_FILES + 1))
        if len(names) > MAX_FILES:
            raise MalformedArtifact(f"more than {MAX_FILES} entries", where=str(folder))
        contents: dict[str, bytes] = {}
        found = {}
        for name in sorted(names, key=lambda name: name in readers):
            look = readers.get(name, _keep) if name in bounds else None
            found[name] = _entry(handle, name, bounds.get(name, other_bytes), look, contents)
        seen = {name for name in names if name in bounds and found[name].digest is not None}
        return Snapshot(tuple(found[name] for name in names), contents, frozenset(seen))
    except OSError as error:
        raise MalformedArtifact(f"cannot be read: {error}", where=str(folder)) from error
    finally:
        os.close(handle)


def _entry(folder: int, name: str, bound: int, look: Reader | None, contents: dict[str, bytes]) -> Entry:
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False)
    kind: Kind = "link" if stat.S_ISLNK(mode.st_mode) else "folder" if stat.S_ISDIR(mode.st_mode) else "file"
    if kind != "file":
        return Entry(name, kind, mode.st_size, None)
    if not stat.S_ISREG(mode.st_mode):
        return Entry(name, "device", mode.st_size, None)
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(handle, "rb", buffering=0) as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            return Entry(name, "device", 0, None)
        if found.st_size > bound:
            return Entry(name, "file", found.st_size, None)
        passing = Passing(name, stream, found.st_size)
        if look is not None:
            look(passing, contents)
        digest_ = passing.finish()
        return Entry(name, "file", passing.seen_bytes, digest_)
