"""A test decides as the bound does that inverts it."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ecology.contracts.evidence import Count, Paired, Proportion, Samples, Statistic
from ecology.contracts.policy import Comparator, Rule
from ecology.errors import ConfigError
from ecology.kernel import statistics
from ecology.kernel.decisions import decide, decide_bounds, decide_pairs, decide_rate

COMPARATORS: tuple[Comparator, ...] = (">=", "<=", "==")
CONFIDENCES = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


def rule(comparator: Comparator, threshold: float, confidence: float, *, paired: bool, anytime: bool) -> Rule:
    """A rule over a rate or over a paired difference."""
    against = "incumbent" if paired else "absolute"
    return Rule("r", "t", "m.x", comparator, threshold, against=against, confidence=confidence, anytime=anytime)


def agrees(one: Rule, statistic: Statistic) -> None:
    """Where no bound is so close to the threshold that rounding decides."""
    lower, upper = statistics.bounds(one, statistic)
    assume(all(bound is None or abs(bound - one.threshold) > 1e-11 for bound in (lower, upper)))
    assert decide(one, statistic) == decide_bounds(one, lower, upper)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 500), st.data(), st.floats(-0.2, 1.2), CONFIDENCES, st.sampled_from(COMPARATORS))
def test_a_rate_is_decided_as_its_bounds_decide_it(
    n: int, data: st.DataObject, threshold: float, confidence: float, comparator: Comparator
) -> None:
    k = data.draw(st.integers(0, n))
    agrees(rule(comparator, threshold, confidence, paired=False, anytime=False), Proportion(k, n))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 500), st.data(), st.floats(-1.2, 1.2), CONFIDENCES, st.sampled_from(COMPARATORS))
def test_a_difference_is_decided_as_its_bounds_decide_it(
    n: int, data: st.DataObject, threshold: float, confidence: float, comparator: Comparator
) -> None:
    n10 = data.draw(st.integers(0, n))
    n01 = data.draw(st.integers(0, n - n10))
    agrees(rule(comparator, threshold, confidence, paired=True, anytime=False), Paired(n, n10, n01))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 500), st.data(), st.floats(-0.2, 1.2), CONFIDENCES, st.sampled_from(COMPARATORS), st.booleans())
def test_what_is_valid_at_any_time_is_decided_as_its_bounds_decide_it(
    n: int, data: st.DataObject, threshold: float, confidence: float, comparator: Comparator, paired: bool
) -> None:
    n10 = data.draw(st.integers(0, n))
    statistic = Paired(n, n10, data.draw(st.integers(0, n - n10))) if paired else Proportion(n10, n)
    agrees(rule(comparator, threshold, confidence, paired=paired, anytime=True), statistic)


@settings(max_examples=100, deadline=None)
@given(st.floats(0.5, 1e5), st.floats(0, 1), st.floats(0.01, 0.99), st.sampled_from(COMPARATORS))
def test_projections_are_decided_as_their_bounds_decide_them(
    n: float, share: float, threshold: float, comparator: Comparator
) -> None:
    k = share * n
    one = rule(comparator, threshold, 0.95, paired=False, anytime=False)
    lower, upper = statistics.rate_interval(one, k, n)
    assume(min(abs(lower - threshold), abs(upper - threshold)) > 1e-9)
    assert decide_rate(one, k, n) == decide_bounds(one, lower, upper)
    pairs = rule(comparator, threshold - 0.5, 0.95, paired=True, anytime=False)
    lower, upper = statistics.paired_interval(pairs, k, (n - k) / 2, n)
    assume(min(abs(lower - pairs.threshold), abs(upper - pairs.threshold)) > 1e-9)
    assert decide_pairs(pairs, k, (n - k) / 2, n) == decide_bounds(pairs, lower, upper)


@pytest.mark.parametrize(
    ("comparator", "threshold", "statistic", "expected"),
    [
        (">=", 0.0, Proportion(0, 10), "met"),  # a rate is never below 0
        ("<=", 1.0, Proportion(10, 10), "met"),
        (">=", 1.0, Proportion(10, 10), "open"),  # ten of ten prove less than all
        ("<=", 0.0, Proportion(0, 10), "open"),
        (">=", 1.1, Proportion(10, 10), "missed"),
        ("<=", -0.1, Proportion(0, 10), "missed"),
        (">=", 0.1, Proportion(1, 1), "open"),
        (">=", 0.05, Proportion(1, 1), "met"),  # 0.05^1 is exactly alpha
        (">=", -1.0, Paired(10, 0, 10), "met"),
        ("<=", 1.0, Paired(10, 10, 0), "met"),
        (">=", 1.0, Paired(10, 10, 0), "open"),
        ("<=", -1.0, Paired(10, 0, 10), "open"),
        (">=", 1.5, Paired(10, 10, 0), "missed"),
        ("<=", -1.5, Paired(10, 0, 10), "missed"),
        ("==", 0.0, Count(0, ()), "met"),
        ("==", 0.0, Count(2, ()), "missed"),
        ("<=", 5.0, Samples((1.0,) * 59, "s"), "met"),
        ("<=", 5.0, Samples((1.0,) * 58, "s"), "open"),
    ],
)
def test_edges(comparator: Comparator, threshold: float, statistic: Statistic, expected: str) -> None:
    against = "incumbent" if isinstance(statistic, Paired) else "absolute"
    one = Rule("r", "t", "m.x", comparator, threshold, against=against, quantile=0.95, min_samples=2)
    assert decide(one, statistic) == expected
    lower, upper = statistics.bounds(one, statistic)
    if not (isinstance(statistic, Proportion) and statistic.n == 1):  # an exact tie: there rounding decides
        assert decide_bounds(one, lower, upper) == expected


@pytest.mark.parametrize("statistic", [Proportion(3, 2), Proportion(0, 0), Paired(3, 2, 2), Samples((math.nan,), "s")])
def test_what_is_not_possible_is_refused(statistic: Statistic) -> None:
    against = "incumbent" if isinstance(statistic, Paired) else "absolute"
    with pytest.raises(ConfigError):
        decide(Rule("r", "t", "m.x", ">=", 0.5, against=against, min_samples=2), statistic)
