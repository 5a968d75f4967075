"""Plain data back into contract values: the inverse of ``canonical.plain``.

Law: ``structure(type(v), plain(v)) == v`` for every contract value. Unknown and missing keys and wrong types are
errors that name the path, so nothing malformed becomes a value.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from ecology.contracts.identity import Json
from ecology.errors import ConfigError

T = TypeVar("T")


def structure(kind: type[T], data: Json, where: str = "") -> T:
    """``data`` as a value of ``kind``.

    Args:
        kind: A frozen dataclass of ``ecology.contracts`` or any type its fields use.
        data: Parsed JSON.
        where: Path prefix for messages.

    Raises:
        ConfigError: Wrong shape; the message names the path.
    """
    return cast(T, _value(kind, data, where))


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    import ecology.contracts.genome  # noqa: PLC0415  (SignedArtifact names Genome under TYPE_CHECKING)

    return typing.get_type_hints(kind, localns={"Genome": ecology.contracts.genome.Genome})


def _fail(where: str, wanted: object, data: Json) -> ConfigError:
    return ConfigError(f"expected {wanted}, found {type(data).__name__} {data!r:.80}", where=where)


def _value(kind: Any, data: Json, where: str) -> Any:  # noqa: PLR0911  (one branch a kind of type)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or kind is object:
        return data
    if isinstance(kind, typing.NewType):
        return _value(kind.__supertype__, data, where)
    if origin is typing.Literal:
        if data not in args:
            raise _fail(where, "one of " + ", ".join(map(str, args)), data)
        return data
    if origin in (typing.Union, types.UnionType):
        return _union(args, data, where)
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            raise _fail(where, "a list", data)
        return tuple(_value(args[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise _fail(where, "a mapping", data)
        return {str(key): _value(args[1], item, f"{where}.{key}") for key, item in data.items()}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(data)
        except ValueError:
            raise _fail(where, "one of " + ", ".join(str(m.value) for m in kind), data) from None
    if dataclasses.is_dataclass(kind):
        return _dataclass(cast(type, kind), data, where)
    return _scalar(kind, data, where)


def _scalar(kind: type, data: Json, where: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)  # RFC 8785 writes 1.0 as 1
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise _fail(where, kind.__name__, data)
    return data


def _union(args: tuple[Any, ...], data: Json, where: str) -> Any:
    if data is None and type(None) in args:
        return None
    options = [a for a in args if a is not type(None)]
    if len(options) == 1:
        return _value(options[0], data, where)
    if isinstance(data, Mapping) and "kind" in data:  # our tagged unions: every member has a ``kind`` with its tag
        for option in options:
            if dataclasses.is_dataclass(option) and data["kind"] in typing.get_args(_hints(cast(type, option))["kind"]):
                return _value(option, data, where)
    raise _fail(where, " or ".join(getattr(a, "__name__", str(a)) for a in options), data)


def _dataclass(kind: type, data: Json, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise _fail(where, f"the fields of {kind.__name__}", data)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(data) - set(fields)):
        raise ConfigError(f"unknown key {unknown[0]!r}; {kind.__name__} has {', '.join(fields)}", where=where)
    hints = _hints(kind)
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _value(hints[name], data[name], f"{where}.{name}" if where else name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"missing key {name!r} of {kind.__name__}", where=where)
    return kind(**values)
