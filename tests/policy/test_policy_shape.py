"""Our reader of JSON Schema against jsonschema: the same places are wrong, whatever the document."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ecology.documents.source import Source, read_source, written
from ecology.errors import ConfigError, PolicyError
from ecology.policy import reader, testing, waivers
from ecology.policy.shape import shape_mistakes, understood

ROOT = Path(__file__).parents[2]
SCHEMAS: dict[str, Any] = {
    "policy": reader.schema(),
    "cases": testing._SCHEMA,
    "waiver": json.loads(waivers.SCHEMA_FILE.read_bytes()),
}
WAIVER = {
    "rule": "STA-001", "subject": "sha256:" + 64 * "0", "reason": "r", "approver": "a",
    "ticket": "t", "expires": "2027",
}  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.0, 0.5, 2**60, 1e300, "", "a", "a b", "warn", "x" * 1001, [], {}, [1], {"a": 1},
    ["F32"], {"rules": []}, "sha256:" + 64 * "a",
)  # fmt: skip


def documents() -> list[tuple[str, Any]]:
    data = [read_source(path, PolicyError).data for path in sorted((ROOT / "policies").glob("*[a-z].yaml"))]
    return [*(("cases" if "policy" in one else "policy", one) for one in data), ("waiver", WAIVER)]


def source(data: Any) -> Source:
    return Source("x", data, {}, (), PolicyError, b"")


def changed(data: Any, rng: random.Random) -> Any:
    """A document with a few values replaced, left out or added somewhere."""
    data = copy.deepcopy(data)
    for _ in range(rng.randint(1, 4)):
        node = data
        while isinstance(node, (dict, list)) and node and rng.random() < 0.8:
            key = rng.choice(sorted(node)) if isinstance(node, dict) else rng.randrange(len(node))
            if not isinstance(node[key], (dict, list)) or not node[key]:
                break
            node = node[key]
        if isinstance(node, list):
            node.append(rng.choice(ODD))
        elif isinstance(node, dict):
            key = rng.choice([*node, "rules", "extends", "tighten", "foreign"])
            if rng.random() < 0.3:
                node.pop(key, None)
            else:
                node[key] = rng.choice(ODD)
    return data


def peer(data: Any, schema: Any) -> set[str]:
    """Where jsonschema finds something, in our way of saying where."""
    found = set()
    for error in jsonschema.Draft202012Validator(schema).iter_errors(data):
        place = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            found |= {written((*place, key)) for key in set(error.instance) - set(error.schema["properties"])}
        elif error.validator == "dependentRequired":
            found |= {written((*place, key)) for key in error.validator_value if key in error.instance}
        else:
            found.add(written(place))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_same_places_are_wrong(seed: int) -> None:
    rng = random.Random(seed)
    bad = 0
    for kind, data in documents():
        for _ in range(12):
            other = changed(data, rng)
            ours = {mistake.place for mistake in shape_mistakes(source(other), SCHEMAS[kind])}
            assert ours == peer(other, SCHEMAS[kind]), other
            bad += bool(ours)
    assert bad > 20


def test_the_shipped_schemas_are_sound_and_the_shipped_files_follow_them() -> None:
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert understood(schema) is schema
    for kind, data in documents():
        assert list(shape_mistakes(source(data), SCHEMAS[kind])) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": []},
        {"type": "null"},
        {"$ref": "https://elsewhere/#/$defs/a"},
        {"$ref": "#/$defs/absent"},
        {"anyOf": [{"type": "string"}]},
        {"properties": {"a": {"format": "date"}}},
        {"items": {"uniqueItems": True}},
        {"additionalProperties": {"const": 1}},
        {"$defs": {"a": {"not": {}}}},
    ],
)
def test_what_is_not_understood_is_not_overlooked(schema: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="understood"):
        understood(schema)
