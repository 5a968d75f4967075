"""Differences of rates: non-inferior on the same items, and between two sets of items.

- ``non_inferior``: the p-value of "worse by the margin or more". Not the same as "no significant difference", which a
  small sample always gives.
- ``independent``: rates on two different sets of items, as for public against hidden. Over several strata: ``strata``.
"""

from __future__ import annotations

from statistics import NormalDist

from ecology.contracts.evidence import Proportion
from ecology.errors import ConfigError
from ecology.kernel.statistics import check_rate, tango_score, wilson
from ecology.kernel.strata import rate_difference


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


def independent(k: int, n: int, other_k: int, other_n: int, confidence: float) -> tuple[float, float]:
    """One-sided bounds of ``k / n - other_k / other_n`` for two independent sets of items, -1 to 1.

    Raises:
        ConfigError: Arguments out of range, or an empty set.

    Source: Newcombe, Statistics in Medicine 17, 1998, method 10.
    """
    for share, whole in ((k, n), (other_k, other_n)):
        check_rate(share, whole, confidence)
    found = rate_difference([(Proportion(k, n), Proportion(other_k, other_n))], confidence, wilson)
    return found.lower, found.upper
