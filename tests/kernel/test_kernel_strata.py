"""Two arms within strata: against published figures, hand counts, every assignment, and simulation."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, norm

from ecology.contracts.evidence import Proportion
from ecology.errors import ConfigError
from ecology.kernel.differences import independent
from ecology.kernel.statistics import wilson
from ecology.kernel.strata import rate_difference, ratio

Arms = tuple[Proportion, Proportion]


def strata(*counts: tuple[int, int, int, int]) -> list[Arms]:
    return [(Proportion(a, b), Proportion(c, d)) for a, b, c, d in counts]


SIMPSON = strata((0, 3, 5, 27), (0, 12, 7, 38), (33, 40, 39, 40))
"""Worse in each step; pooled 33/55 against 51/105 it looks better by 11 points."""


def test_newcombe_against_the_published_example() -> None:
    # Newcombe 1998, table II (a), method 10: 56/70 against 48/80 gives 0.0524 to 0.3339 at two-sided 95 %.
    found = rate_difference(strata((56, 70, 48, 80)), 0.975, wilson)
    assert (round(found.lower, 4), round(found.upper, 4)) == (0.0524, 0.3339)
    assert independent(56, 70, 48, 80, 0.975) == (found.lower, found.upper)


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_one_stratum_is_two_independent_rates(m: int, n: int, data: st.DataObject) -> None:
    k, other = data.draw(st.integers(0, m)), data.draw(st.integers(0, n))
    found = rate_difference(strata((k, m, other, n)), 0.99)
    (low, high), (other_low, other_high) = exact(k, m, 0.99), exact(other, n, 0.99)
    gap = k / m - other / n
    assert found.value == pytest.approx(gap, abs=1e-12)
    assert found.lower == pytest.approx(gap - math.hypot(k / m - low, other_high - other / n), abs=1e-9)
    assert found.upper == pytest.approx(gap + math.hypot(high - k / m, other / n - other_low), abs=1e-9)
    assert -1 <= found.lower <= found.value <= found.upper <= 1


def exact(k: float, n: float, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson from SciPy's beta distribution."""
    return (
        float(beta.ppf(1 - confidence, k, n - k + 1)) if k > 0 else 0.0,
        float(beta.ppf(confidence, k + 1, n - k)) if k < n else 1.0,
    )


def test_simpsons_paradox_by_hand() -> None:
    # Weights 3*27/30, 12*38/50 and 40*40/80; differences -5/27, -7/38 and -6/40.
    weights = [Fraction(27, 10), Fraction(228, 25), Fraction(20)]
    gaps = [Fraction(-5, 27), Fraction(-7, 38), Fraction(-6, 40)]
    value = sum(w * d for w, d in zip(weights, gaps, strict=True)) / sum(weights)
    p = weights[2] * Fraction(33, 40) / sum(weights)
    q = sum(w * r for w, r in zip(weights, (Fraction(5, 27), Fraction(7, 38), Fraction(39, 40)), strict=True))
    q /= sum(weights)
    sizes = [
        sum(weights) ** 2 / sum(w * w / n for w, n in zip(weights, ns, strict=True))
        for ns in ((3, 12, 40), (27, 38, 40))
    ]
    (low, high), (other_low, other_high) = (
        exact(float(rate * size), float(size), 0.95) for rate, size in zip((p, q), sizes, strict=True)
    )
    found = rate_difference(SIMPSON, 0.95)
    assert found.value == pytest.approx(float(value))
    assert found.value < -0.15
    assert found.lower == pytest.approx(float(value) - math.hypot(float(p) - low, other_high - float(q)))
    assert found.upper == pytest.approx(float(value) + math.hypot(high - float(p), float(q) - other_low))
    pooled = rate_difference(strata((33, 55, 51, 105)), 0.95)
    assert pooled.value > 0.1  # what it was judged by before


@settings(max_examples=40)
@given(st.lists(st.booleans(), min_size=5, max_size=5), st.lists(st.booleans(), min_size=4, max_size=4))
def test_equal_arms_are_not_biased_by_the_strata(easy: list[bool], hard: list[bool]) -> None:
    """The mean over every way to deal the requests of each step to the arms is 0, whatever the answers are."""
    total, ways = 0.0, 0
    for first in itertools.combinations(range(5), 1):
        for second in itertools.combinations(range(4), 2):
            total += rate_difference([dealt(easy, first), dealt(hard, second)], 0.95).value
            ways += 1
    assert total / ways == pytest.approx(0, abs=1e-12)


def dealt(answers: Sequence[bool], chosen: Sequence[int]) -> Arms:
    ours = [answers[i] for i in chosen]
    return Proportion(sum(ours), len(ours)), Proportion(sum(answers) - sum(ours), len(answers) - len(ours))


def test_strata_that_compare_nothing_change_nothing() -> None:
    assert rate_difference([*SIMPSON, *strata((0, 0, 9, 9), (3, 3, 0, 0))], 0.95) == rate_difference(SIMPSON, 0.95)
    nothing = rate_difference(strata((0, 0, 9, 9)), 0.95)
    assert math.isnan(nothing.value)
    assert (nothing.lower, nothing.upper) == (-1.0, 1.0)
    assert rate_difference(SIMPSON[::-1], 0.95) == rate_difference(SIMPSON, 0.95)
    none = ratio([([], [1.0])], 0.95)
    assert math.isnan(none.value)
    assert (none.lower, none.upper) == (0.0, math.inf)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((3, 12, 40), (27, 38, 40)),
        ((5, 30), (15, 30)),
        ((3, 3, 200), (27, 200, 200)),
        ((3,), (27,)),
        ((3, 100), (100, 3)),
    ],
)
@pytest.mark.parametrize("rates", [(0.5, 0.5, 0.5), (0.97, 0.97, 0.97), (0.12, 0.12, 0.12), (0.15, 0.5, 0.95)])
@pytest.mark.parametrize("gap", [0.0, -0.1])
def test_bounds_err_as_often_as_stated(
    first: tuple[int, ...], second: tuple[int, ...], rates: tuple[float, ...], gap: float
) -> None:
    runs, alpha = 600, 0.05
    rng = np.random.Generator(np.random.PCG64(11))
    q = np.asarray(rates[: len(first)])
    ours, theirs = rng.binomial(first, q + gap, (runs, len(first))), rng.binomial(second, q, (runs, len(first)))
    above = below = 0
    for won, other in zip(ours.tolist(), theirs.tolist(), strict=True):
        found = rate_difference(strata(*zip(won, first, other, second, strict=True)), 1 - alpha)
        above += found.lower > gap + 1e-9
        below += found.upper < gap - 1e-9
    limit = alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert above / runs <= limit
    assert below / runs <= limit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"), [((3, 12, 40), (27, 38, 40)), ((5, 30), (15, 30)), ((3, 3, 200), (27, 200, 200))]
)
@pytest.mark.parametrize("rate", [0.11, 0.3, 0.5, 0.7, 0.9, 0.999])
@pytest.mark.parametrize("gap", [0.0, -0.1, -0.3])
def test_bounds_err_as_often_as_a_canary_of_three_steps_asks(
    first: tuple[int, ...], second: tuple[int, ...], rate: float, gap: float
) -> None:
    if rate + gap < 0:
        return
    runs, alpha = 20_000, 0.05 / 6
    rng = np.random.Generator(np.random.PCG64(12))
    ours, theirs = rng.binomial(first, rate + gap, (runs, len(first))), rng.binomial(second, rate, (runs, len(first)))
    above = below = 0
    for won, other in zip(ours.tolist(), theirs.tolist(), strict=True):
        found = rate_difference(strata(*zip(won, first, other, second, strict=True)), 1 - alpha)
        above += found.lower > gap + 1e-9
        below += found.upper < gap - 1e-9
    limit = alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert above / runs <= limit
    assert below / runs <= limit


def test_the_bounds_tighten_with_more_requests() -> None:
    """Power: a check that never says anything would pass the tests of error."""
    small = rate_difference(strata((2, 3, 9, 27), (30, 40, 20, 40)), 0.95)
    large = rate_difference(strata((20, 30, 90, 270), (300, 400, 200, 400)), 0.95)
    assert large.value == pytest.approx(small.value)
    assert small.lower < 0.1 < large.lower < large.value < large.upper < small.upper


# ------------------------------------------------------------------------------------------------ ratios


def oracle(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], confidence: float) -> tuple[float, float]:
    """The factors that van Elteren's rank sum does not reject, one by one, in fractions and without sorting."""
    shifts = [(x / y, Fraction(1, len(a) + len(b) + 1)) for a, b in pairs for x in a for y in b]
    mean = sum((c for _, c in shifts), Fraction()) / 2
    variance = sum(Fraction(len(a) * len(b) * (len(a) + len(b) + 1), 12 * (len(a) + len(b) + 1) ** 2) for a, b in pairs)
    reach = float(mean) - float(norm.ppf(confidence)) * math.sqrt(variance)
    low = [t for t, _ in shifts if sum((c for s, c in shifts if s <= t), Fraction()) <= reach]
    high = [t for t, _ in shifts if sum((c for s, c in shifts if s >= t), Fraction()) <= reach]
    return max(low, default=0.0), min(high, default=math.inf)


def drawn(chance: random.Random, sizes: Sequence[tuple[int, int]], pace: Sequence[float], theta: float):
    return [
        (
            [theta * scale * chance.lognormvariate(0, 0.4) for _ in range(m)],
            [scale * chance.lognormvariate(0, 0.4) for _ in range(n)],
        )
        for (m, n), scale in zip(sizes, pace, strict=False)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_ratio_bounds_against_the_tests_they_invert(seed: int) -> None:
    chance = random.Random(seed)
    pairs = drawn(chance, [(2, 9), (5, 7), (8, 8)][: 1 + seed % 3], (1.0, 6.0, 0.2), 1.3)
    found = ratio(pairs, 0.9)
    assert (found.lower, found.upper) == pytest.approx(oracle(pairs, 0.9))
    for a, b in pairs:
        chance.shuffle(a)
        chance.shuffle(b)
    assert ratio(pairs, 0.9) == found
    turned = ratio(pairs[::-1], 0.9)
    assert (turned.lower, turned.upper) == pytest.approx((found.lower, found.upper))


def test_the_estimate_is_the_median_of_the_pairs() -> None:
    assert ratio([([2.0, 4.0], [1.0])], 0.9).value == pytest.approx(math.sqrt(8))  # between 2 and 4
    assert ratio([([3.0], [1.0, 2.0, 3.0])], 0.9).value == pytest.approx(1.5)
    assert ratio([([1.0], [2.0])], 0.95).lower == 0.0
    assert ratio([([1.0], [2.0])], 0.95).upper == math.inf


@pytest.mark.parametrize("theta", [1.0, 1.5])
def test_ratio_bounds_err_as_often_as_stated_whatever_the_steps_ask(theta: float) -> None:
    runs, alpha, above, below, chance = 500, 0.05, 0, 0, random.Random(4)
    for _ in range(runs):
        found = ratio(drawn(chance, [(3, 27), (12, 38), (40, 40)], (1.0, 8.0, 0.1), theta), 1 - alpha)
        above += found.lower > theta
        below += found.upper < theta
    limit = alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert above / runs <= limit
    assert below / runs <= limit


def test_hard_traffic_does_not_tilt_the_ratio() -> None:
    """Equal arms; the step in which the candidate got most is five times as slow. Pooled it looked slower."""
    pairs = drawn(random.Random(5), [(3, 27), (12, 38), (40, 40)], (1.0, 1.0, 5.0), 1.0)
    within, pooled = (
        ratio(pairs, 0.95),
        ratio([tuple(list(itertools.chain(*arm)) for arm in zip(*pairs, strict=True))], 0.95),
    )
    assert within.lower < 1 < within.upper
    assert pooled.lower > 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: rate_difference(strata((4, 3, 1, 2)), 0.95),
        lambda: rate_difference(strata((-1, 3, 1, 2)), 0.95),
        lambda: rate_difference(SIMPSON, 1.0),
        lambda: ratio([([0.0], [1.0])], 0.95),
        lambda: ratio([([1.0], [math.nan])], 0.95),
        lambda: ratio([([1.0], [1.0])], 0.4),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    with pytest.raises(ConfigError):
        call()  # type: ignore[operator]
