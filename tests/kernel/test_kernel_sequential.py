"""Anytime-valid bounds: right at every look at once, monotone, and the same as brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.evidence import Paired, Proportion, Samples
from ecology.contracts.policy import Rule
from ecology.errors import ConfigError
from ecology.kernel import planning, sequential, statistics

ALPHA, RUNS = 0.05, 400
BELOW = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)
"""Alpha and three Monte Carlo errors."""


def bettor(values: np.ndarray, mean: float) -> np.ndarray:
    """Log wealth after every item, item by item: what the formula over counts has to equal."""
    shares = np.array(sequential.SHARES)
    wealth = np.cumsum(np.log1p(shares * (values[:, None] / mean - 1)), axis=0)
    top = wealth.max(1)
    return np.asarray(top + np.log(np.exp(wealth - top[:, None]).mean(1)))


def test_wealth_is_that_of_a_bettor_who_plays_item_by_item() -> None:
    values = np.array([1.0, 0.0, 0.5, 0.5, 1.0, 0.0, 1.0])
    counts = [(value, float((values == value).sum())) for value in (0.0, 0.5, 1.0)]
    assert sequential.log_e(counts, 0.4) == pytest.approx(bettor(values, 0.4)[-1], abs=1e-12)


@pytest.mark.parametrize("rate", [0.02, 0.25, 0.75, 0.9])
def test_looking_after_every_item_raises_no_more_false_alarms_than_stated(rate: float) -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    alarms = sum((bettor((rng.random(600) < rate).astype(float), rate) >= -math.log(ALPHA)).any() for _ in range(RUNS))
    assert alarms / RUNS <= BELOW


def test_a_peeked_p_value_does_raise_false_alarms() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    n = np.arange(1, 601)
    draws = (rng.random((RUNS, 600)) < 0.5).cumsum(1)
    z = (draws / n - 0.5) / np.sqrt(0.25 / n)
    assert ((z[:, 19::20] > 1.645).any(1)).mean() > 2 * ALPHA  # what the e-value is for


@pytest.mark.parametrize("kind", [(0.05, 0.05), (0.02, 0.12), (0.3, 0.2)])
def test_paired_bounds_hold_at_every_look_at_once(kind: tuple[float, float]) -> None:
    rng = np.random.Generator(np.random.PCG64(2))
    truth, missed = kind[0] - kind[1], 0
    for _ in range(100):
        draws = rng.random(400)
        won, lost = (draws < kind[0]).cumsum(), (draws > 1 - kind[1]).cumsum()
        for n in (10, 30, 60, 100, 150, 250, 400):
            w, lo = int(won[n - 1]), int(lost[n - 1])
            if sequential.paired_log_e(w, lo, n, truth, "at_most") >= -math.log(ALPHA):
                missed += 1
                break
    assert missed / 100 <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 100)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 80), st.integers(0, 80), st.floats(0.01, 0.98), st.floats(0.001, 0.3))
def test_wealth_falls_as_the_mean_grows(hits: int, others: int, mean: float, step: float) -> None:
    higher = min(1.0, mean + step)
    seen = ((1.0, hits), (0.0, others))
    assert sequential.log_e(seen, higher) <= sequential.log_e(seen, mean) + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.data())
def test_bounds_enclose_the_estimate_and_are_where_wealth_crosses(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    lower, upper = sequential.rate_bounds(k, n, 0.95)
    assert 0 <= lower <= k / n + 1e-12
    assert k / n - 1e-12 <= upper <= 1
    if lower > 0:
        assert sequential.rate_log_e(k, n, lower * 0.999, "at_most") >= math.log(20) - 1e-6
        assert sequential.rate_log_e(k, n, min(1.0, lower * 1.001 + 1e-9), "at_most") < math.log(20) + 1e-6
    assert (lower, upper) == pytest.approx(tuple(1 - b for b in reversed(sequential.rate_bounds(n - k, n, 0.95))))


def test_anytime_bounds_are_wider_than_those_of_one_look_and_shrink() -> None:
    for n in (50, 200, 2000):
        lower, upper = sequential.rate_bounds(0.8 * n, n, 0.95)
        exact = statistics.clopper_pearson(0.8 * n, n, 0.95)
        assert lower < exact[0]
        assert exact[1] < upper
        assert upper - lower < 3.5 / math.sqrt(n)


def test_quantile_bounds_cover_at_every_look() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    missed = 0
    for _ in range(100):
        values = rng.exponential(size=400)
        edges = [sequential.quantile_bounds(list(values[:n]), 0.95, 0.95)[1] for n in (100, 200, 400)]
        missed += any(edge is not None and edge < -math.log(0.05) for edge in edges)
    assert missed / 100 <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 100)
    assert sequential.quantile_bounds([1.0] * 20, 0.95, 0.95)[1] is None
    assert sequential.quantile_bounds([1.0] * 400, 0.95, 0.95)[1] == 1.0


def test_a_rule_that_says_anytime_takes_these_bounds() -> None:
    rate = Rule("R", "t", "s.correct", ">=", 0.9, "hidden", anytime=True)
    assert statistics.bounds(rate, Proportion(198, 200)) == sequential.rate_bounds(198, 200, 0.95)
    paired = Rule("P", "t", "s.correct", ">=", -0.05, "hidden", "incumbent", anytime=True)
    assert statistics.bounds(paired, Paired(300, 9, 5)) == sequential.paired_bounds(9, 5, 300, 0.95)
    late = Rule("L", "t", "resource.latency_s", "<=", 2.0, quantile=0.95, min_samples=59, anytime=True)
    assert statistics.bounds(late, Samples((1.0,) * 400, "s"))[1] == 1.0
    assert (planning.needed_n(rate, Proportion(95, 100)) or 0) > 200
    assert 0.5 < planning.power(paired, 600, 0.0, 0.1) < 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: sequential.log_e(((2.0, 1),), 0.5),
        lambda: sequential.log_e(((1.0, -1),), 0.5),
        lambda: sequential.log_e(((1.0, 1),), 1.5),
        lambda: sequential.rate_bounds(5, 3, 0.95),
        lambda: sequential.mean_bounds(((1.0, 1),), 1.0),
        lambda: sequential.quantile_bounds([math.nan], 0.5, 0.95),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    with pytest.raises(ConfigError):
        call()  # type: ignore[operator]
