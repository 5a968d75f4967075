"""Keys of a suite's or corpus's file: which are there, which are not known, and of what type they are.

Every mistake in a file is reported at once, each with its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ecology.contracts.identity import Json
from ecology.documents.source import read_source
from ecology.errors import ConfigError


def shape_mistakes(data: Json, required: Mapping[str, type], optional: Mapping[str, type], where: str) -> list[str]:
    """Return missing, unknown and mistyped keys of one mapping."""
    if not isinstance(data, dict):
        return [f"{where.rstrip('.') or 'file'}: is not a mapping of keys to values"]
    known = {**required, **optional}
    errors = [f"{where}{key}: is missing" for key in required if key not in data]
    errors += [f"{where}{key}: is unknown; known: {', '.join(known)}" for key in data if key not in known]
    return errors + [
        f"{where}{key}: is {type(data[key]).__name__}, not {kind.__name__}"
        for key, kind in known.items()
        if key in data and type(data[key]) is not kind
    ]


def refuse(path: Path, errors: Sequence[str]) -> None:
    """Nothing, if there are no mistakes.

    Raises:
        ConfigError: There are; all of them are listed.
    """
    if errors:
        raise ConfigError("\n  ".join(("", *errors)) if len(errors) > 1 else errors[0], where=str(path))


def read_yaml(path: Path, what: str) -> tuple[Json, bytes]:
    """What a file says, and its bytes.

    Raises:
        ConfigError: It cannot be read, or is not plain YAML.
    """
    source = read_source(path, ConfigError, str(path))
    return source.plain(what), source.raw
