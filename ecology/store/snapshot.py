"""A folder read once, so that what is checked, what is named and what is reported are the same bytes.

Whoever hashes a file, then opens it again to look into it, can be shown two files. Here each file is opened once, by
its name inside a folder that is held open, without following links; the bytes of the files that are looked into stay
in memory, and the digest is taken of those very bytes. A swap before is another artifact, a swap after is found by
whoever compares the digest when the bytes are used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Literal

from ecology.contracts.artifact import CLAIMS_FILE, Artifact, FileRecord
from ecology.contracts.identity import Digest
from ecology.errors import MalformedArtifact
from ecology.kernel.canonical import digest
from ecology.store.folders import MAX_FILES

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
    """Of the files that were asked for and are within their bounds."""

    @property
    def artifact(self) -> Artifact | None:
        """The name of these bytes, as ``folders.describe`` gives it; None where an entry has no digest."""
        files = [entry for entry in self.entries if entry.name != CLAIMS_FILE]
        if any(entry.digest is None for entry in files):
            return None
        records = tuple(sorted(FileRecord(entry.name, entry.size_bytes, entry.digest or Digest("")) for entry in files))
        return Artifact(digest(records), records)


def take(folder: Path, bounds: Mapping[str, int], other_bytes: int) -> Snapshot:
    """Reads a folder once. Sub-folders are listed and not entered.

    Args:
        folder: The adapter's own folder.
        bounds: Files whose bytes are kept, with the most bytes that are read of each.
        other_bytes: The most bytes of any other file; such a file is hashed and not kept; a larger one is not read.

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
        entries = tuple(
            _entry(handle, name, bounds.get(name, other_bytes), contents if name in bounds else None) for name in names
        )
        return Snapshot(entries, contents)
    except OSError as error:
        raise MalformedArtifact(f"cannot be read: {error}", where=str(folder)) from error
    finally:
        os.close(handle)


def _entry(folder: int, name: str, bound: int, keep: dict[str, bytes] | None) -> Entry:
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
        data = _read(stream, found.st_size)
        if keep is not None:
            keep[name] = data
        return Entry(name, "file", len(data), Digest(f"sha256:{hashlib.sha256(data).hexdigest()}"))


def _read(stream: object, size: int) -> bytes:
    """At most ``size`` bytes: what is appended while we read is not ours, and what is cut off changes the digest."""
    parts, left = [], size
    while left and (part := stream.read(left)):  # type: ignore[attr-defined]
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
