"""Items come in families (a template, a passage, a conversation), which are right and wrong together.

Two hundred items of ten templates tell less than two hundred of two hundred. How much less is the *design effect*: the
variance of the mean over families divided by the variance that independent items would have. Two ways to take it in:

- ``effective``: the number of independent items that would tell as much. A rate or a paired difference is then judged
  by the same exact or score bounds as always, on so many items. Unlike the bare clustered standard error it gives no
  interval of width 0 where nothing was wrong, and it is never wider than the sample deserves: a design effect below 1
  counts as 1.
- ``clustered``: mean and standard error of real-valued differences, with Student's t.

Both pay for few families by degrees of freedom, G - 1: with five families a bound is drawn as if a third of the items
were missing, however alike they were.

Sources: Miller, "Adding error bars to evals", arXiv 2411.00640, equation 4 (clustered standard error); Cameron and
Miller, Journal of Human Resources 50(2), 2015 (the factor G / (G - 1), t with G - 1 degrees of freedom); Korn and
Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated from survey
data", Survey Methodology 24(2), 1998 (exact bounds on the effective size, with the t correction).
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import NormalDist

from ecology.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class Family:
    """Sufficient statistics of one family: its items' values need not be kept."""

    n: int
    total: float
    """Sum of the values."""


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


def design_effect(families: Sequence[Family], squares: float) -> float:
    """Variance of the mean over families over the variance of independent items; NaN where nothing varies.

    Args:
        families: At least two.
        squares: Sum of the squares of all values.

    Raises:
        ConfigError: Fewer than two families, or an empty one.
    """
    n, error = _clustered_error(families)
    mean = math.fsum(one.total for one in families) / n
    naive = (squares - n * mean * mean) / max(1, n - 1) / n
    return error**2 / naive if naive > 1e-15 else math.nan


def effective(families: Sequence[Family], squares: float, confidence: float) -> float:
    """Independent items that would tell as much, for a bound at this confidence.

    Args:
        families: At least two.
        squares: Sum of the squares of all values.
        confidence: One-sided, 0.5 to 1 (not included).

    Returns:
        More than 0, at most the number of items.

    Raises:
        ConfigError: Fewer than two families, an empty one, or a confidence out of range.
    """
    _check_confidence(confidence)
    found = design_effect(families, squares)
    n = sum(one.n for one in families)
    penalty = (
        (_student(len(families) - 1, confidence) / NormalDist().inv_cdf(confidence)) ** 2 if confidence > 0.5 else 1
    )
    return n / (max(1.0, found) if math.isfinite(found) else 1.0) / penalty


def clustered(differences: Sequence[float], families: Sequence[Hashable], confidence: float) -> Difference:
    """Mean of paired differences with a standard error that is robust to families of items.

    Args:
        differences: Candidate's score minus comparator's, one an item.
        families: What each item was made from; all different for independent items.
        confidence: Of each one-sided bound, 0.5 to 1 (not included).

    Raises:
        ConfigError: Fewer than two families, lengths that differ, or a value that is not finite.
    """
    if len(differences) != len(families):
        raise ConfigError(f"{len(differences)} differences of {len(families)} families: one each is needed")
    if not all(math.isfinite(value) for value in differences):
        raise ConfigError("a difference is not a finite number")
    _check_confidence(confidence)
    values = defaultdict[Hashable, list[float]](list)
    for value, family in zip(differences, families, strict=True):
        values[family].append(value)
    groups = [Family(len(some), math.fsum(some)) for some in values.values()]
    n, error = _clustered_error(groups)
    mean = math.fsum(differences) / n
    half = _student(len(groups) - 1, confidence) * error
    effect = design_effect(groups, math.fsum(value * value for value in differences))
    return Difference(mean, error, mean - half, mean + half, n, len(groups), effect)


def _clustered_error(families: Sequence[Family]) -> tuple[int, float]:
    """Number of items, and the clustered standard error of their mean."""
    groups, n = len(families), sum(one.n for one in families)
    if groups < 2 or any(one.n < 1 for one in families):
        raise ConfigError(f"a standard error needs at least two families with items, found {groups}")
    mean = math.fsum(one.total for one in families) / n
    squares = math.fsum((one.total - one.n * mean) ** 2 for one in families)
    return n, math.sqrt(groups / (groups - 1) * squares) / n


def _student(degrees: int, confidence: float) -> float:
    from scipy.special import stdtrit  # noqa: PLC0415  (SciPy only where it is needed)

    return float(stdtrit(degrees, confidence))


def _check_confidence(confidence: float) -> None:
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"a confidence is between 0.5 and 1 (not included), found {confidence}")
