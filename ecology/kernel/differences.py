"""Differences of rates: non-inferior on the same items, and between two sets of items.

- ``non_inferior``: the p-value of "worse by the margin or more". Not the same as "no significant difference", which a
  small sample always gives.
- ``independent``: rates on two different sets of items, as for public against hidden.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from ecology.errors import ConfigError
from ecology.kernel.statistics import tango_score, wilson


def non_inferior(n10: float, n01: float, n: float, margin: float) -> float:
    """One-sided p-value of "the candidate is worse by ``margin`` or more", from paired answers.

    It is below ``alpha`` exactly where Tango's lower bound at ``1 - alpha`` is above ``-margin``.

    Args:
        n10: Pairs that only the candidate answered right.
        n01: Pairs that only the comparator answered right.
        n: All pairs, more than 0.
        margin: What may be lost, 0 to 1.

    Raises:
        ConfigError: Arguments out of range.

    Source: Tango, Statistics in Medicine 17(8), 1998, section 4.
    """
    if not (n > 0 and n10 >= 0 and n01 >= 0 and n10 + n01 <= n and 0 <= margin <= 1):
        raise ConfigError(f"found {n10} won and {n01} lost of {n} pairs with margin {margin}")
    return 1 - NormalDist().cdf(tango_score(n10, n01, n, -margin))


def independent(k: float, n: float, other_k: float, other_n: float, confidence: float) -> tuple[float, float]:
    """One-sided bounds of ``k / n - other_k / other_n`` for two independent sets of items, -1 to 1.

    Raises:
        ConfigError: Arguments out of range, or an empty set.

    Source: Newcombe, Statistics in Medicine 17, 1998, method 10.
    """
    low, high = wilson(k, n, confidence)
    other_low, other_high = wilson(other_k, other_n, confidence)
    p, q = k / n, other_k / other_n
    return p - q - math.hypot(p - low, other_high - q), p - q + math.hypot(high - p, q - other_low)
