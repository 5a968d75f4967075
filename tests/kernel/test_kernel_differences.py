"""Independent rates: against simulation and a published example."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ecology.errors import ConfigError
from ecology.kernel.differences import independent


def test_independent_rates_cover() -> None:
    rng = np.random.Generator(np.random.PCG64(7))
    runs = 1000
    edges = [independent(rng.binomial(64, 0.8), 64, rng.binomial(64, 0.7), 64, 0.95) for _ in range(runs)]
    for share in (np.mean([low > 0.1 for low, _ in edges]), np.mean([high < 0.1 for _, high in edges])):
        assert share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_the_published_example() -> None:
    """Newcombe 1998, table II (a): 56 of 70 against 48 of 80, method 10, two-sided 95 %."""
    assert independent(56, 70, 48, 80, 0.975) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("counts", [(5, 4, 1, 2), (1, 2, 5, 4), (0, 0, 1, 2), (-1, 2, 1, 2)])
def test_nonsense_is_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError):
        independent(*counts, 0.95)
