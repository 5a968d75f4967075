"""What a rule can see: that it is found by halving, and that what no n shows is said at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.policy import Decidable, Rule
from ecology.kernel import planning, sight
from ecology.kernel.decisions import decide_bounds, decide_pairs, decide_rate
from ecology.kernel.statistics import quantile_interval

WANTED = Decidable(drop=0.05, gain=0.05, probability=0.8)
RULES = st.builds(
    Rule,
    id=st.just("r"),
    title=st.just("t"),
    metric=st.sampled_from(["orders.exact", "resource.latency_s"]),
    comparator=st.sampled_from([">=", "<=", "=="]),
    threshold=st.floats(0, 1),
    split=st.just("hidden"),
    against=st.sampled_from(["absolute", "incumbent"]),
    confidence=st.sampled_from([0.8, 0.95, 0.999]),
    quantile=st.floats(0.05, 0.95),
    decide=st.sampled_from(["proven", "not_refuted"]),
    anytime=st.booleans(),
    min_samples=st.just(2),
)


@settings(max_examples=150, deadline=None)
@given(RULES, st.integers(2, 40), st.sampled_from(["pass", "deny"]))
def test_outcomes_begin_and_end_where_a_look_at_every_count_says(rule: Rule, n: int, outcome: Any) -> None:
    wrong = rule.threshold + (1 if rule.comparator == "<=" else -1)

    def rate(k: int) -> bool:
        return planning._decided(rule, decide_rate(rule, k, n), outcome)

    def pairs(k: int) -> bool:
        return planning._decided(rule, decide_pairs(rule, k, n - k, n), outcome)

    def samples(k: int) -> bool:
        edges = quantile_interval(rule, [rule.threshold] * k + [wrong] * (n - k))
        return planning._decided(rule, decide_bounds(rule, *edges), outcome)

    for decided in (rate, pairs, samples):
        every = [k for k in range(n + 1) if decided(k)]
        found = planning._ends(rule, n, decided)
        assert (found[:1], found[-1:]) == (every[:1], every[-1:])


RATE = Rule("RATE", "t", "s.correct", ">=", 0.75, "hidden")
NEVER = {
    "proven, of all": (dataclasses.replace(RATE, threshold=1.0), WANTED),
    "proven, of none": (dataclasses.replace(RATE, comparator="<=", threshold=0.0), WANTED),
    "a screen below none": (dataclasses.replace(RATE, threshold=0.0, decide="not_refuted"), WANTED),
    "no gain": (RATE, dataclasses.replace(WANTED, gain=0.0)),
    "a gain that rounds away": (RATE, dataclasses.replace(WANTED, gain=1e-18)),
    "no drop": (dataclasses.replace(RATE, decide="not_refuted"), dataclasses.replace(WANTED, drop=0.0)),
    "pairs": (dataclasses.replace(RATE, against="incumbent", threshold=1.0), WANTED),
}


@pytest.mark.parametrize("name", NEVER)
def test_what_no_number_shows_is_said_without_a_search(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, wanted = NEVER[name]
    assert not any(sight.sees(sight.sight(rule, n, wanted), rule, wanted) for n in (16, 200, 5000))
    monkeypatch.setattr(sight, "sight", None)  # nothing is looked at
    assert sight.sufficient(rule, wanted) is None


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (RATE, WANTED),
        (dataclasses.replace(RATE, decide="not_refuted"), WANTED),
        (dataclasses.replace(RATE, threshold=1.0, decide="not_refuted"), WANTED),  # a demand of all can be refuted
        (RATE, dataclasses.replace(WANTED, drop=0.0)),  # of a proof only the gain counts
        (dataclasses.replace(RATE, against="incumbent", threshold=-0.05), WANTED),
        (RATE, dataclasses.replace(WANTED, gain=0.0, probability=0.01)),  # as often as it errs
    ],
)
def test_what_some_number_shows_is_found(rule: Rule, wanted: Decidable) -> None:
    enough = sight.sufficient(rule, wanted)
    assert enough is not None
    assert sight.sees(sight.sight(rule, enough, wanted), rule, wanted)
