"""Where data is not what a JSON Schema says, worded for people, with the line.

Our own small reader of the part of JSON Schema Draft 2020-12 that the three schemas of this room use. It stands on the
path of every static gate, which has a second for everything, and importing a general validator takes a fifth of
that. It claims no more than ``KEYWORDS``: a schema with another keyword is refused before it judges anything, so that
none is silently left out. ``tests/policy/test_policy_shape.py`` compares its answers with those of ``jsonschema``.

Source: JSON Schema Validation, draft 2020-12, sections 6.1 to 6.5; a boolean is no number, and 1.0 is an integer.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ecology.contracts.identity import Json
from ecology.documents.source import Mistake, Place, Source
from ecology.errors import ConfigError

Schema = Mapping[str, Any]

NOTES = frozenset({"$schema", "$id", "$defs", "title", "description"})
"""Keywords that demand nothing."""
KEYWORDS = NOTES | {
    *("$ref", "type", "enum", "pattern", "minLength", "maxLength", "items", "minItems", "maxItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("properties", "additionalProperties", "required", "dependentRequired", "anyOf"),
}
"""What is understood. ``anyOf`` only as a choice of required keys, ``$ref`` only to ``#/$defs/``."""


def _is_number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_KINDS: Mapping[str, Callable[[Json], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": _is_number,
}
_BOUNDS: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    ("minimum", lambda value, bound: value >= bound, "less than {}"),
    ("maximum", lambda value, bound: value <= bound, "more than {}"),
    ("exclusiveMinimum", lambda value, bound: value > bound, "not more than {}"),
    ("exclusiveMaximum", lambda value, bound: value < bound, "not less than {}"),
)


def understood(schema: Schema) -> Schema:
    """The schema, if nothing in it would be overlooked.

    Raises:
        ConfigError: It has a keyword, a type or a reference that is not understood.
    """
    _understood(schema, schema)
    return schema


def shape_mistakes(source: Source, schema: Schema) -> Iterator[Mistake]:
    """Where a document is not what a schema says.

    Args:
        source: The document.
        schema: One that ``understood`` let pass.
    """
    yield from _Shape(source, schema).mistakes(source.data, schema, ())


def near(name: str, known: list[str]) -> str:
    """The known names, the nearest one first, for a message about an unknown one."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}? Known: {', '.join(known)}" if close else f"known: {', '.join(known)}"


class _Shape:
    def __init__(self, source: Source, root: Schema) -> None:
        self.source, self.root = source, root

    def mistakes(self, value: Json, schema: Schema, place: Place) -> Iterator[Mistake]:
        if "$ref" in schema:
            yield from self.mistakes(value, _target(self.root, schema["$ref"]), place)
        if "type" in schema and not _KINDS[schema["type"]](value):
            yield self.source.mistake(place, f"expected {schema['type']}, found {_short(value)}")
        if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
            choices = ", ".join(str(choice) for choice in schema["enum"])
            yield self.source.mistake(place, f"expected one of {choices}, found {_short(value)}")
        if isinstance(value, dict):
            yield from self._object(value, schema, place)
        elif isinstance(value, list):
            yield from self._sized(len(value), schema, place, "Items", "entries")
            if "items" in schema:
                for index, item in enumerate(value):
                    yield from self.mistakes(item, schema["items"], (*place, index))
        elif isinstance(value, str):
            yield from self._sized(len(value), schema, place, "Length", "characters")
            if "pattern" in schema and not re.search(schema["pattern"], value):
                yield self.source.mistake(place, f"{_short(value)} does not match {schema['pattern']}")
        elif _is_number(value):
            for keyword, holds, words in _BOUNDS:
                if keyword in schema and not holds(value, schema[keyword]):
                    yield self.source.mistake(place, f"{value!r:.60} is {words.format(schema[keyword])}")

    def _object(self, value: Mapping[str, Json], schema: Schema, place: Place) -> Iterator[Mistake]:
        known = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        for key in sorted(set(value) - set(known)) if rest is False else ():
            yield self.source.mistake((*place, key), f"unknown key; {near(key, sorted(known))}")
        for key, item in value.items():
            if key in known:
                yield from self.mistakes(item, known[key], (*place, key))
            elif isinstance(rest, Mapping):
                yield from self.mistakes(item, rest, (*place, key))
        for key in schema.get("required", ()):
            if key not in value:
                yield self.source.mistake(place, f"missing key {key!r}")
        for key, needed in schema.get("dependentRequired", {}).items():
            if key in value and any(other not in value for other in needed):
                yield self.source.mistake((*place, key), f"it needs the key {needed[0]!r} beside it")
        choices = [choice["required"] for choice in schema.get("anyOf", ())]
        if choices and not any(all(key in value for key in keys) for keys in choices):
            yield self.source.mistake(place, f"missing key {' or '.join(repr(keys[0]) for keys in choices)}")

    def _sized(self, size: int, schema: Schema, place: Place, what: str, words: str) -> Iterator[Mistake]:
        if size < schema.get(f"min{what}", 0):
            yield self.source.mistake(place, f"{size} {words}; at least {schema[f'min{what}']}")
        if size > schema.get(f"max{what}", size):
            yield self.source.mistake(place, f"{size} {words}; at most {schema[f'max{what}']}")


def _understood(schema: Schema, root: Schema) -> None:
    if unknown := sorted(set(schema) - KEYWORDS):
        raise ConfigError(f"keywords that are not understood: {', '.join(unknown)}", where="a JSON schema")
    if schema.get("type", "object") not in _KINDS:
        raise ConfigError(f"a type that is not understood: {schema['type']!r:.80}", where="a JSON schema")
    if any(set(choice) != {"required"} for choice in schema.get("anyOf", ())):
        raise ConfigError("anyOf is understood as a choice of required keys alone", where="a JSON schema")
    if "$ref" in schema:
        _target(root, schema["$ref"])
    rest = schema.get("additionalProperties")
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    inner += [schema["items"]] if "items" in schema else []
    for one in [*inner, *([rest] if isinstance(rest, Mapping) else [])]:
        _understood(one, root)


def _target(root: Schema, reference: str) -> Schema:
    kind, _, name = reference.rpartition("/")
    if kind != "#/$defs" or name not in root.get("$defs", {}):
        raise ConfigError(f"a reference that is not understood: {reference!r:.80}", where="a JSON schema")
    found: Schema = root["$defs"][name]
    return found


def _same(value: Json, other: Json) -> bool:
    return value == other and isinstance(value, bool) is isinstance(other, bool)


def _short(value: Json) -> str:
    kinds = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    kind = kinds.get(type(value), type(value).__name__)
    return kind if isinstance(value, (dict, list)) or value is None else f"{kind} {value!r:.60}"
