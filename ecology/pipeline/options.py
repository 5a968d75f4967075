"""Options of one kind from plain data: what a ``kind`` names, and what its keys hold.

Every mistake is told at once, with its path and the nearest known name. Hydra and pydantic are not needed for it, so
that ``ecology breed`` starts without them; ``compose`` checks the configuration as a whole.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from ecology.contracts.identity import Json
from ecology.errors import ConfigError, EcologyError
from ecology.kernel.codec import structure


def read_options(kind: type[Any], data: Mapping[str, Json], where: str) -> Any:
    """Options of one kind (a frozen dataclass) from plain data.

    Raises:
        ConfigError: All mistakes at once, each with its path and the nearest known name.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    problems = [f"{where}.{key}: no such option{nearest(key, fields)}" for key in data if key not in fields]
    values = {}
    for name, field in fields.items():
        if name in data:
            try:
                values[name] = structure(hints[name], data[name], f"{where}.{name}")
            except ConfigError as error:
                problems.append(f"{error.where}: {error.what}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{where}.{name}: missing")
    if not problems:
        try:
            return kind(**values)
        except EcologyError as error:  # a range that the dataclass itself checks
            place = ".".join([where, *error.where.split(".")[1:]])  # it names itself: ``ties.density``
            problems.append("; ".join(part for part in (f"{place}: {error.what}", error.todo) if part))
    raise ConfigError("\n  ".join(problems), todo=f"known options: {', '.join(sorted(fields))}")


def choose(table: Mapping[str, Any], name: str, where: str) -> Any:
    """The entry of a room's table that a ``kind`` names.

    Raises:
        ConfigError: Unknown; lists the known ones.
    """
    if name not in table:
        known = ", ".join(sorted(table))
        raise ConfigError(f"unknown kind {name!r}{nearest(name, table)}", where=where, todo=f"known kinds: {known}")
    return table[name]


def nearest(name: str, known: Iterable[object]) -> str:
    """`` (did you mean 'x'?)`` for the nearest of the known names; empty where none is near."""
    near = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
