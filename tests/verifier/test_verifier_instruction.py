"""Form is judged by code: every constraint has a reply that keeps it and one that does not."""

from __future__ import annotations

import pytest

from ecology.errors import ConfigError
from ecology.verifier.instruction import CHECKS, followed, unknown_constraints

CASES = {
    "words": (2, "two words", "one"),
    "max_words": (2, "two words", "one two three"),
    "lines": (2, "one\n\ntwo", "one"),
    "items": (3, "a, b, c", "a, b"),
    "case": ("upper", "ALL CAPITALS, 3!", "Not all"),
    "contains": ("sea", "The SEA is wide", "The hill"),
    "without": ("very", "It is nice", "It is Very nice"),
    "starts": ("yes", "Yes, it is", "It is, yes"),
    "ends": ("over", "I am here, OVER", "over here"),
}


def test_every_constraint_is_tried() -> None:
    assert set(CASES) == set(CHECKS)


@pytest.mark.parametrize("name", CASES)
def test_kept_and_broken(name: str) -> None:
    value, kept, broken = CASES[name]
    assert followed(f' "{kept}" ', {name: value}) == {name: True}
    assert followed(broken, {name: value}) == {name: False}


def test_an_empty_reply_keeps_nothing_that_has_content() -> None:
    assert not any(followed("", {"words": 1, "max_words": 5, "without": "x", "contains": "x"}).values())


@pytest.mark.parametrize("constraints", [{}, {"rhymes": 1}, {"words": True}, {"words": 1.5}])
def test_what_is_no_constraint_is_refused(constraints: dict[str, object]) -> None:
    assert list(unknown_constraints(constraints))
    with pytest.raises(ConfigError):
        followed("x", constraints)
