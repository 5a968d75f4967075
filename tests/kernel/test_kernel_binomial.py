"""The binomial distribution function against exact fractions, SciPy and its own laws."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import special, stats

from ecology.errors import ConfigError
from ecology.kernel.binomial import binomial_cdf, binomial_tail


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.data(), st.floats(1e-9, 1 - 1e-9))
def test_both_tails_equal_exact_fractions(n: int, data: st.DataObject, p: float) -> None:
    k = data.draw(st.integers(0, n))
    exact = Fraction(p)
    mass = [math.comb(n, i) * exact**i * (1 - exact) ** (n - i) for i in range(n + 1)]
    for found, expected in ((binomial_cdf(k, n, p), sum(mass[: k + 1])), (binomial_tail(k, n, p), sum(mass[k:]))):
        assert found == pytest.approx(float(expected), rel=1e-12, abs=1e-300)


@settings(max_examples=300, deadline=None)
@given(
    st.floats(0, 7),
    st.floats(0.001, 0.999),
    st.floats(-12, 12),
    st.booleans(),
)
@example(size=7.0, p=0.5, sigmas=0.0, whole=True)
@example(size=6.8, p=0.999, sigmas=0.5, whole=True)
def test_it_equals_scipys_from_one_trial_to_ten_million(size: float, p: float, sigmas: float, whole: bool) -> None:
    n = 10**size
    k = min(max(n * p + sigmas * math.sqrt(n * p * (1 - p)), 1e-3), n)
    if whole:
        n, k = max(1, round(n)), max(1, round(k))
        k = min(k, n)
    rel = 1e-12 * max(1.0, n / 1e5)  # what is left of 16 digits: n p itself is rounded
    assert binomial_tail(k, n, p) == pytest.approx(float(special.betainc(k, n - k + 1, p)), rel=rel, abs=1e-250)
    if k < n:
        theirs = float(special.betainc(n - k, k + 1, 1 - p))
        assert binomial_cdf(k, n, p) == pytest.approx(theirs, rel=rel * 10, abs=1e-250)  # they know only 1 - p


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 200), st.integers(-3, 210), st.floats(0, 1))
def test_whole_numbers_outside_and_inside_the_range_equal_scipys(n: int, k: int, p: float) -> None:
    assert binomial_cdf(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), abs=1e-12)
    assert binomial_tail(k, n, p) == pytest.approx(stats.binom.sf(k - 1, n, p), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.floats(0.01, 1e5), st.floats(0, 1), st.floats(0, 1))
def test_the_tails_are_complements_and_mirror_each_other(n: float, share: float, p: float) -> None:
    k = share * n
    assert binomial_tail(k + 1, n, p) == pytest.approx(1 - binomial_cdf(k, n, p), abs=1e-11)
    mirrored = 1 - p
    if 1 - mirrored == p:  # else the mirror is another question
        assert binomial_tail(n - k, n, mirrored) == pytest.approx(binomial_cdf(k, n, p), rel=1e-9, abs=1e-300)


def test_it_is_monotone_and_smooth_between_whole_numbers() -> None:
    values = [binomial_cdf(k / 10, 20, 0.3) for k in range(200)]
    assert all(a <= b for a, b in pairwise(values))
    values = [binomial_tail(180, 200, 0.5 + i / 1000) for i in range(499)]
    assert all(a <= b for a, b in pairwise(values))


def test_what_is_certain_is_certain() -> None:
    assert (binomial_cdf(3, 5, 0.0), binomial_cdf(3, 5, 1.0)) == (1.0, 0.0)
    assert (binomial_tail(3, 5, 0.0), binomial_tail(3, 5, 1.0)) == (0.0, 1.0)
    assert (binomial_cdf(-1, 5, 0.5), binomial_cdf(5, 5, 0.5)) == (0.0, 1.0)
    assert (binomial_tail(0, 5, 0.5), binomial_tail(6, 5, 0.5)) == (1.0, 0.0)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_refused(p: float) -> None:
    for function in (binomial_cdf, binomial_tail):
        with pytest.raises(ConfigError, match="a probability is 0 to 1"):
            function(1, 2, p)
