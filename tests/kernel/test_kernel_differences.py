"""Non-inferiority and independent rates: against closed forms and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ecology.errors import ConfigError
from ecology.kernel.differences import independent, non_inferior
from ecology.kernel.statistics import mcnemar, tango


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
        lambda: non_inferior(5, 5, 8, 0.05),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    with pytest.raises(ConfigError):
        call()  # type: ignore[operator]
