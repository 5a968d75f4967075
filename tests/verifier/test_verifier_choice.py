"""Choices: the likeliest per character, and the Brier score's range."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecology.errors import ConfigError
from ecology.verifier.choice import choose


def test_length_is_taken_out() -> None:
    assert choose([-4.0, -6.0], ["ab", "abcdef"], 1).chosen == 1
    assert choose([-4.0, -6.0], ["ab", "ab"], 0).correct


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=5), st.data())
def test_brier_is_between_0_and_2_and_smallest_for_the_truth(scores: list[float], data: st.DataObject) -> None:
    options = ["x"] * len(scores)
    answer = data.draw(st.integers(0, len(scores) - 1))
    found = choose(scores, options, answer)
    assert 0 <= found.brier <= 2
    assert found.correct == (scores.index(max(scores)) == answer)
    best = choose(scores, options, found.chosen)
    assert best.brier <= found.brier + 1e-12


def test_certainty() -> None:
    assert choose([0.0, -math.inf], ["a", "b"], 0).brier == 0
    assert choose([0.0, -math.inf], ["a", "b"], 1).brier == 2
    assert choose([-math.inf, -math.inf], ["a", "b"], 0).brier == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("scores", "options", "answer"),
    [([], [], 0), ([0.0], ["a", "b"], 0), ([0.0, 0.0], ["a", "b"], 2), ([math.nan, 0.0], ["a", "b"], 0)],
)
def test_what_is_no_item_is_refused(scores: list[float], options: list[str], answer: int) -> None:
    with pytest.raises(ConfigError):
        choose(scores, options, answer)
