"""The difference of two rates on two sets of items: public against hidden, one arm of traffic against the other.

Of rates on the same items ``statistics.tango`` tells the difference.
"""

from __future__ import annotations

import math

from ecology.kernel.statistics import wilson


def independent(k: float, n: float, other_k: float, other_n: float, confidence: float) -> tuple[float, float]:
    """One-sided bounds of ``k / n - other_k / other_n`` for two independent sets of items, -1 to 1.

    Raises:
        ConfigError: Arguments out of range, or an empty set.

    Source: Newcombe, "Interval estimation for the difference between independent proportions", Statistics in
    Medicine 17 (1998), method 10: square and add the distances to the Wilson bounds.
    """
    low, high = wilson(k, n, confidence)
    other_low, other_high = wilson(other_k, other_n, confidence)
    p, q = k / n, other_k / other_n
    return p - q - math.hypot(p - low, other_high - q), p - q + math.hypot(high - p, q - other_low)
