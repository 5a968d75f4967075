"""One reply read twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecology.verifier.strictness import Reading, read

SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    ("reply", "reading"),
    [
        ("7", Reading(True, True, True)),
        (" 7\n", Reading(True, True, True)),
        ("7.", Reading(True, True, True)),
        ("The answer is 7", Reading(False, True, False)),
        ("3 + 4 = 7", Reading(False, True, False)),
        ("8", Reading(False, False, True)),
        ("", Reading(False, False, False)),
        ("...", Reading(False, False, False)),
    ],
)
def test_numbers(reply: str, reading: Reading) -> None:
    assert read("numeric", reply, "7") == reading


@pytest.mark.parametrize(
    ("reply", "reading"),
    [
        ('{"n":1}', Reading(True, True, True)),
        ('Sure: {"n":1} there.', Reading(False, True, False)),
        ('{"n":2}', Reading(False, False, True)),
        ("none", Reading(False, False, False)),
    ],
)
def test_objects(reply: str, reading: Reading) -> None:
    assert read("extraction", reply, '{"n":1}', SCHEMA) == reading


def test_without_an_answer_only_the_form_is_read() -> None:
    assert read("numeric", "12") == Reading(False, False, True)
    assert read("extraction", "{}") == Reading(False, False, True)
    assert read("refusal", "12") == Reading(False, False, False)


@given(st.text(max_size=40), st.integers(-99, 99))
def test_strict_is_lenient_and_of_the_form(reply: str, wanted: int) -> None:
    found = read("numeric", reply, str(wanted))
    assert not found.strict or (found.lenient and found.form)
