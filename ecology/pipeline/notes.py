"""What a home keeps in small JSON files, read back as the value it was written from, in one place.

A file of a home may be cut off or overwritten by whatever befalls a disk. So nobody reads one as plain data: it is
strict JSON, and it has the shape that its reader names, or it is damaged. What follows from a damaged file is not the
same everywhere. A result can be computed again; what only this file knew cannot, and then a person has to decide.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from ecology.errors import ConfigError, IntegrityError, MalformedArtifact
from ecology.kernel.codec import structure
from ecology.store.files import parse_json

T = TypeVar("T")


def read_kept(path: Path, shape: type[T], todo: str = "") -> T | None:
    """What lies in a file of this home; None where there is no file.

    Args:
        path: Canonical JSON, written whole by ``store.files.write_atomic``.
        shape: A frozen dataclass, or any type its fields use.
        todo: What a reader of the message can do.

    Raises:
        IntegrityError: It is not JSON, or not of this shape.
        OSError: It is there and cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return structure(shape, parse_json(data, str(path)))
    except (MalformedArtifact, ConfigError) as error:
        place = "" if error.where in {"", str(path)} else f"{error.where}: "
        raise IntegrityError(f"this file is damaged: {place}{error.what}", where=str(path), todo=todo) from error
