"""Differences of means and rates: paired, clustered, non-inferior, and between two sets of items.

- ``clustered``: paired real-valued scores whose items come in families (one template, one passage, one conversation).
  Items of a family are wrong together, so the family is the unit: the naive standard error is too small by the square
  root of ``1 + (family size - 1) * correlation``.
- ``non_inferior``: the p-value of "worse by the margin or more". Not the same as "no significant difference", which a
  small sample always gives.
- ``independent``: rates on two different sets of items, as for public against hidden.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import NormalDist

from ecology.errors import ConfigError
from ecology.kernel.statistics import tango_score, wilson


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """A mean paired difference and how sure it is."""

    mean: float
    standard_error: float
    """Clustered."""
    lower: float
    upper: float
    """One-sided bounds, from Student's t with ``clusters - 1`` degrees of freedom."""
    n: int
    clusters: int
    design_effect: float
    """Clustered over naive variance; 1 where items are independent, NaN where nothing varies."""


def clustered(differences: Sequence[float], families: Sequence[Hashable], confidence: float) -> Difference:
    """Mean of paired differences with a standard error that is robust to families of items.

    Args:
        differences: Candidate's score minus comparator's, one an item.
        families: What each item was made from; all different for independent items.
        confidence: Of each one-sided bound, 0.5 to 1 (not included).

    Raises:
        ConfigError: Fewer than two families, lengths that differ, or a value that is not finite.

    Source: Miller, "Adding error bars to evals", arXiv 2411.00640, equation 4 (clustered standard error); the factor
    G / (G - 1) and t with G - 1 degrees of freedom: Cameron and Miller, Journal of Human Resources 50(2), 2015.
    """
    from scipy.special import stdtrit  # noqa: PLC0415  (SciPy only where it is needed)

    if len(differences) != len(families):
        raise ConfigError(f"{len(differences)} differences of {len(families)} families: one each is needed")
    if not all(math.isfinite(value) for value in differences):
        raise ConfigError("a difference is not a finite number")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"a confidence is between 0.5 and 1 (not included), found {confidence}")
    n, sums = len(differences), defaultdict[Hashable, float](float)
    mean = math.fsum(differences) / max(1, n)
    for value, family in zip(differences, families, strict=True):
        sums[family] += value - mean
    groups = len(sums)
    if groups < 2:
        raise ConfigError(f"a standard error needs at least two families, found {groups}")
    error = math.sqrt(groups / (groups - 1) * math.fsum(total * total for total in sums.values())) / n
    naive = math.sqrt(math.fsum((value - mean) ** 2 for value in differences) / (n - 1) / n)
    half = float(stdtrit(groups - 1, confidence)) * error
    effect = (error / naive) ** 2 if naive > 0 else math.nan
    return Difference(mean, error, mean - half, mean + half, n, groups, effect)


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
