"""The difference of two rates on two sets of items: public against hidden, one arm of traffic against the other.

Of rates on the same items ``statistics.tango`` tells the difference; over several strata, ``strata``.
"""

from __future__ import annotations

from ecology.contracts.evidence import Proportion
from ecology.kernel.statistics import check_rate, wilson
from ecology.kernel.strata import rate_difference


def independent(k: int, n: int, other_k: int, other_n: int, confidence: float) -> tuple[float, float]:
    """One-sided bounds of ``k / n - other_k / other_n`` for two independent sets of items, -1 to 1.

    Raises:
        ConfigError: Arguments out of range, or an empty set.

    Source: Newcombe, "Interval estimation for the difference between independent proportions", Statistics in
    Medicine 17 (1998), method 10: square and add the distances to the Wilson bounds.
    """
    for share, whole in ((k, n), (other_k, other_n)):
        check_rate(share, whole, confidence)
    found = rate_difference([(Proportion(k, n), Proportion(other_k, other_n))], confidence, wilson)
    return found.lower, found.upper
