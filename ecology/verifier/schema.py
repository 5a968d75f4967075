"""Does a reply hold the JSON that was asked for?

Strict: the whole reply, white space at its ends aside, has to be one JSON object. A program that reads it has no use
for a friendly sentence before it or a code fence around it. Duplicate keys are refused, because two readers may see
two values.
Source: JSON Schema Draft 2020-12, through ``jsonschema``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jsonschema

from ecology.contracts.identity import Json
from ecology.errors import ConfigError

MAX_CHARACTERS = 20_000
"""A longer reply is not read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Extraction:
    """How far a reply comes."""

    valid_json: bool
    """It is one JSON object."""
    schema_valid: bool
    """It satisfies the schema."""
    exact: bool
    """It equals the reference, key for key."""
    fields: float
    """Share of the reference's keys with the right value, 0 to 1; 0 where it is no object."""


def parse_json(reply: str) -> Mapping[str, Json] | None:
    """The object that a reply is, or None."""
    if len(reply) > MAX_CHARACTERS:
        return None
    try:
        value = json.loads(reply.strip(), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def check_extraction(reply: str, reference: Mapping[str, Json], schema: Mapping[str, Json]) -> Extraction:
    """Compares one reply with its reference.

    Args:
        reply: What the model said.
        reference: What it had to say.
        schema: JSON Schema Draft 2020-12.

    Raises:
        ConfigError: The schema is none.
    """
    found = parse_json(reply)
    if found is None:
        return Extraction(False, False, False, 0.0)
    right = [_same(found.get(key), value) for key, value in reference.items()]
    exact = all(right) and set(found) == set(reference)
    share = sum(right) / len(right) if right else 1.0
    return Extraction(True, _validator(schema).is_valid(found), exact, share)


def _validator(schema: Mapping[str, Json]) -> Any:
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"not a JSON Schema: {error.message}", where="suite: schema") from error
    return jsonschema.Draft202012Validator(schema)


def _same(found: Json, wanted: Json) -> bool:
    return type(found) is type(wanted) and bool(found == wanted)  # True is not 1, and 3.0 is not 3


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is not JSON")
