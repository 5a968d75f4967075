"""Bounds against SciPy, brute force and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from ecology.contracts.evidence import Count, Paired, Proportion, Samples
from ecology.contracts.policy import Rule
from ecology.errors import ConfigError
from ecology.kernel import statistics

RNG = np.random.Generator(np.random.PCG64(20260101))


@pytest.mark.parametrize(("n", "proves"), [(30, 0.905), (59, 0.950), (100, 0.970), (299, 0.990), (598, 0.995)])
def test_zero_failures_prove_what_the_tables_say(n: int, proves: float) -> None:
    assert statistics.clopper_pearson(n, n, 0.95)[0] == pytest.approx(proves, abs=6e-4)
    assert statistics.clopper_pearson(n, n, 0.95)[0] == pytest.approx(0.05 ** (1 / n))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.data(), st.floats(0.5, 0.999))
def test_exact_and_score_bounds_of_a_rate_equal_scipys(n: int, data: st.DataObject, confidence: float) -> None:
    k = data.draw(st.integers(0, n))
    result = stats.binomtest(k, n)
    for name, bounds in (("exact", statistics.clopper_pearson), ("wilson", statistics.wilson)):
        two_sided = 2 * confidence - 1
        ours = bounds(k, n, confidence)
        if two_sided > 0.01:  # SciPy has two-sided intervals only
            theirs = result.proportion_ci(two_sided, method=name)
            assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        assert 0 <= ours[0] <= k / n + 1e-12
        assert k / n - 1e-12 <= ours[1] <= 1


@pytest.mark.parametrize(("n", "rate"), [(20, 0.9), (64, 0.75), (200, 0.9), (10, 0.02)])
def test_exact_bounds_cover_at_least_as_stated(n: int, rate: float) -> None:
    lower, upper = zip(*(statistics.clopper_pearson(k, n, 0.95) for k in range(n + 1)), strict=True)
    mass = stats.binom.pmf(range(n + 1), n, rate)
    assert sum(m for m, bound in zip(mass, lower, strict=True) if bound <= rate) >= 0.95
    assert sum(m for m, bound in zip(mass, upper, strict=True) if bound >= rate) >= 0.95


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 500), st.floats(0.5, 0.999))
def test_tango_without_discordance_is_exact(n: int, confidence: float) -> None:
    z = stats.norm.ppf(confidence)
    lower, upper = statistics.tango(0, 0, n, confidence)
    assert lower == pytest.approx(-(z**2) / (n + z**2))
    assert upper == -lower
    # The limit of few discordant pairs is the same: nothing jumps at zero.
    assert statistics.tango(1e-9, 1e-9, n, confidence) == pytest.approx((lower, upper), abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 300), st.data())
def test_tango_bounds_solve_the_score_equation(n: int, data: st.DataObject) -> None:
    n10 = data.draw(st.integers(0, n))
    n01 = data.draw(st.integers(0, n - n10))
    lower, upper = statistics.tango(n10, n01, n, 0.95)
    z = stats.norm.ppf(0.95)
    assert -1 <= lower <= (n10 - n01) / n <= upper <= 1
    if lower > -1 + 1e-6:
        assert statistics.tango_score(n10, n01, n, lower) == pytest.approx(z, abs=1e-4)
    if upper < 1 - 1e-6:
        assert statistics.tango_score(n10, n01, n, upper) == pytest.approx(-z, abs=1e-4)
    swapped = statistics.tango(n01, n10, n, 0.95)
    assert swapped == pytest.approx((-upper, -lower), abs=1e-9)


@pytest.mark.parametrize(("n10", "n01", "n"), [(7, 3, 40), (0, 4, 44), (5, 0, 30), (12, 12, 200)])
@pytest.mark.parametrize("difference", [-0.4, -0.05, 0.0, 0.02, 0.3])
def test_tango_score_equals_one_with_a_numerical_maximum_of_the_likelihood(
    n10: int, n01: int, n: int, difference: float
) -> None:
    def against(p21: float) -> float:
        cells = ((n10, p21 + difference), (n01, p21), (n - n10 - n01, 1 - 2 * p21 - difference))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    p21 = optimize.minimize_scalar(against, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    variance = n * (2 * p21 + difference - difference**2)
    expected = (n10 - n01 - n * difference) / math.sqrt(variance)
    assert statistics.tango_score(n10, n01, n, difference) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(("n", "p10", "p01"), [(200, 0.05, 0.05), (200, 0.1, 0.02), (64, 0.1, 0.1)])
def test_tango_covers_about_as_stated(n: int, p10: float, p01: float) -> None:
    draws = RNG.multinomial(n, (p10, p01, 1 - p10 - p01), size=1500)
    found: dict[tuple[int, int], float] = {}
    for n10, n01, _ in draws:
        found.setdefault((int(n10), int(n01)), statistics.tango(int(n10), int(n01), n, 0.95)[0])
    covered = np.mean([found[int(a), int(b)] <= p10 - p01 for a, b, _ in draws])
    assert 0.93 <= covered <= 0.985


@pytest.mark.parametrize(("n", "position"), [(59, 59), (200, 196), (500, 484), (1000, 962)])
def test_order_statistic_of_a_95th_percentile(n: int, position: int) -> None:
    assert statistics.quantile_bounds(range(1, n + 1), 0.95, 0.95)[1] == position


def test_too_few_samples_bound_nothing() -> None:
    assert statistics.quantile_bounds(range(58), 0.95, 0.95)[1] is None
    assert statistics.quantile_bounds((), 0.5, 0.95) == (None, None)
    assert statistics.quantile_bounds((1.0,) * 4, 0.5, 0.95) == (None, None)
    assert statistics.quantile_bounds((1.0,) * 5, 0.5, 0.95) == (1.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 120), st.floats(0.02, 0.98), st.floats(0.5, 0.99))
def test_quantile_bounds_equal_brute_force(n: int, quantile: float, confidence: float) -> None:
    masses = stats.binom.cdf(range(n), n, quantile)
    assume(min(abs(confidence - m) for m in (*masses, *(1 - masses))) > 1e-9)  # a tie is decided by rounding
    lower, upper = statistics.quantile_bounds(list(range(1, n + 1)), quantile, confidence)
    above = [k for k in range(1, n + 1) if stats.binom.cdf(k - 1, n, quantile) >= confidence]
    below = [k for k in range(1, n + 1) if stats.binom.sf(k - 1, n, quantile) >= confidence]
    assert upper == (min(above) if above else None)
    assert lower == (max(below) if below else None)


def test_quantile_bounds_cover_at_least_as_stated() -> None:
    samples = RNG.exponential(size=(400, 100))
    truth = stats.expon.ppf(0.9)
    found = [statistics.quantile_bounds(list(row), 0.9, 0.95) for row in samples]
    assert np.mean([upper >= truth for _, upper in found if upper is not None]) >= 0.93
    assert np.mean([lower <= truth for lower, _ in found if lower is not None]) >= 0.93


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.clopper_pearson(3, 2, 0.95),
        lambda: statistics.clopper_pearson(0, 0, 0.95),
        lambda: statistics.clopper_pearson(1, 2, 1.0),
        lambda: statistics.wilson(-1, 2, 0.95),
        lambda: statistics.tango(2, 2, 3, 0.95),
        lambda: statistics.tango(-1, 0, 3, 0.95),
        lambda: statistics.tango(0, 0, 3, 0.4),
        lambda: statistics.quantile_bounds((1.0,), 0.0, 0.95),
        lambda: statistics.quantile_bounds((math.nan,), 0.5, 0.95),
        lambda: statistics.observed(Rule("r", "t", "m", ">=", 0), Samples((), "s")),
    ],
)
def test_impossible_arguments_are_refused(call: object) -> None:
    with pytest.raises(ConfigError):
        call()  # type: ignore[operator]


def test_point_estimates() -> None:
    rule = Rule("r", "t", "m", ">=", 0, quantile=0.95)
    assert statistics.observed(rule, Count(3, ())) == 3
    assert statistics.observed(rule, Proportion(1, 4)) == 0.25
    assert statistics.observed(rule, Paired(10, 1, 3)) == -0.2
    assert statistics.observed(rule, Samples(tuple(map(float, range(1, 101))), "s")) == 95
