"""JSON in replies: strict, no duplicates, exact by type."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecology.errors import ConfigError
from ecology.verifier.schema import check_extraction, parse_json

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["item", "count"],
    "properties": {"item": {"type": "string"}, "count": {"type": "integer"}},
}
WANTED = {"item": "lamp", "count": 3}


@pytest.mark.parametrize(
    ("reply", "valid", "fits", "exact", "fields"),
    [
        ('{"item": "lamp", "count": 3}', True, True, True, 1.0),
        (' {"count":3,"item":"lamp"}\n', True, True, True, 1.0),
        ('{"item": "lamp", "count": 4}', True, True, False, 0.5),
        ('{"item": "lamp", "count": "3"}', True, False, False, 0.5),
        ('{"item": "lamp", "count": true}', True, False, False, 0.5),
        ('{"item": "lamp"}', True, False, False, 0.5),
        ('{"item": "lamp", "count": 3, "city": "Oslo"}', True, False, False, 1.0),
        ('Sure! {"item": "lamp", "count": 3}', False, False, False, 0.0),
        ('```json\n{"item": "lamp", "count": 3}\n```', False, False, False, 0.0),
        ('{"item": "lamp", "count": 3, "count": 3}', False, False, False, 0.0),
        ('{"item": "lamp", "count": NaN}', False, False, False, 0.0),
        ("[1, 2]", False, False, False, 0.0),
        ("", False, False, False, 0.0),
        ("[" * 15_000, False, False, False, 0.0),
    ],
)
def test_how_far_a_reply_comes(reply: str, valid: bool, fits: bool, exact: bool, fields: float) -> None:
    found = check_extraction(reply, WANTED, SCHEMA)
    assert (found.valid_json, found.schema_valid, found.exact, found.fields) == (valid, fits, exact, fields)


@given(
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(-9, 9), st.text(max_size=5), st.booleans()), max_size=4)
)
def test_a_reference_always_matches_itself(reference: dict[str, object]) -> None:
    found = check_extraction(json.dumps(reference), reference, {})
    assert found.exact
    assert found.fields == 1.0


@given(st.text(max_size=60))
def test_nothing_escapes(reply: str) -> None:
    parse_json(reply)


def test_a_schema_that_is_none_is_our_error() -> None:
    with pytest.raises(ConfigError, match="not a JSON Schema"):
        check_extraction('{"a": 1}', {}, {"type": 7})
