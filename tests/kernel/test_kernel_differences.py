"""Clustered errors, non-inferiority, independent rates: against closed forms and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ecology.errors import ConfigError
from ecology.kernel.differences import clustered, independent, non_inferior
from ecology.kernel.statistics import mcnemar, tango


def test_one_item_a_family_is_the_textbook_standard_error() -> None:
    values = [0.5, -1.0, 1.0, 0.0, 0.25, 1.0]
    found = clustered(values, range(6), 0.95)
    assert found.standard_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(6))
    assert found.design_effect == pytest.approx(1)
    assert found.mean == pytest.approx(np.mean(values))


def test_copies_of_items_add_nothing() -> None:
    values = [1.0, 0.0, -1.0, 1.0, 1.0, 0.0, 0.0, -1.0]
    single = clustered(values, range(8), 0.95)
    tripled = clustered(values * 3, [*range(8)] * 3, 0.95)
    assert (tripled.lower, tripled.upper) == pytest.approx((single.lower, single.upper))
    assert tripled.design_effect > 2.5


def test_clustered_bounds_cover_where_naive_ones_do_not() -> None:
    rng = np.random.Generator(np.random.PCG64(5))
    runs, naive_missed, missed = 600, 0, 0
    families = np.repeat(np.arange(30), 8)
    for _ in range(runs):
        values = rng.normal(size=30)[families] + 0.5 * rng.normal(size=240)  # the true mean is 0
        found = clustered(list(values), list(families), 0.95)
        missed += found.lower > 0
        naive_missed += values.mean() - 1.645 * values.std(ddof=1) / math.sqrt(240) > 0
    error = 3 * math.sqrt(0.05 * 0.95 / runs)
    assert abs(missed / runs - 0.05) <= error
    assert naive_missed / runs > 0.15


def test_non_inferiority_agrees_with_the_bound_and_holds_its_level() -> None:
    for n10, n01, n, margin in [(5, 9, 200, 0.05), (0, 0, 100, 0.05), (12, 3, 150, 0.02), (3, 20, 200, 0.05)]:
        assert (non_inferior(n10, n01, n, margin) < 0.05) == (tango(n10, n01, n, 0.95)[0] > -margin)
    rng = np.random.Generator(np.random.PCG64(6))
    runs = 2000
    draws = rng.multinomial(400, [0.025, 0.075, 0.9], size=runs)  # worse by the margin exactly
    wrong = sum(non_inferior(int(w), int(lost), 400, 0.05) < 0.05 for w, lost, _ in draws)
    assert wrong / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs) + 0.005  # a score test is not exact


def test_mcnemar_holds_its_level() -> None:
    rng = np.random.Generator(np.random.PCG64(8))
    draws = rng.binomial(40, 0.5, size=2000)
    assert np.mean([mcnemar(int(k), 40 - int(k)) < 0.05 for k in draws]) <= 0.05


def test_independent_rates_cover() -> None:
    rng = np.random.Generator(np.random.PCG64(7))
    runs = 1000
    edges = [independent(rng.binomial(64, 0.8), 64, rng.binomial(64, 0.7), 64, 0.95) for _ in range(runs)]
    for share in (np.mean([low > 0.1 for low, _ in edges]), np.mean([high < 0.1 for _, high in edges])):
        assert share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize(
    "call",
    [
        lambda: clustered([1.0, 2.0], [1], 0.95),
        lambda: clustered([1.0, 2.0], [1, 1], 0.95),
        lambda: clustered([1.0, math.nan], [1, 2], 0.95),
        lambda: clustered([1.0, 0.0], [1, 2], 0.4),
        lambda: non_inferior(5, 5, 8, 0.05),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    with pytest.raises(ConfigError):
        call()  # type: ignore[operator]
