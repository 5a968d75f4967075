"""Two arms compared within strata, such as the steps of a canary: what differs between strata cannot tilt it.

Requests go to the arms at random within a step, with another share in each step, so the arms are alike within a step
and nowhere else. Pooled over steps, an arm that got more of the easy traffic looks better although it is worse in
every step (Simpson 1951). Here each stratum compares its own two arms, and the comparisons are averaged with weights
that follow from the arms' sizes alone.

- ``rate_difference``: weights of Mantel and Haenszel, ``m n / (m + n)``. For the bounds the distances of each rate to
  its own limits are weighted, squared and added (MOVER). With one stratum and Wilson's limits this is Newcombe's
  method 10. No common difference is assumed: the bounds are those of the weighted mean of the differences.
- ``ratio``: van Elteren's stratified rank sum, inverted. Pairs are formed within strata only. With one stratum it is
  the Hodges-Lehmann estimate with the bounds of the Wilcoxon rank sum.

A stratum with an empty arm compares nothing and is left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

from ecology.contracts.evidence import Proportion
from ecology.errors import ConfigError
from ecology.kernel.statistics import clopper_pearson

Limits = Callable[[float, float, float], tuple[float, float]]
"""One-sided limits of a rate from k, n and the confidence of each."""


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its two one-sided bounds."""

    value: float
    """NaN where no stratum compares anything."""
    lower: float
    upper: float


def rate_difference(
    strata: Sequence[tuple[Proportion, Proportion]], confidence: float, limits: Limits = clopper_pearson
) -> Estimate:
    """Difference of two rates, first minus second, averaged over strata.

    With rates p and q of m and n requests in a stratum, w its weight as a share of all, and (l, u), (l', u') the
    limits of p and q::

        value = sum w (p - q)
        lower = value - sqrt(sum w^2 ((p - l)^2 + (u' - q)^2))
        upper = value + sqrt(sum w^2 ((u - p)^2 + (q - l')^2))

    Exact limits are the default because score limits of a single arm of three are wrong up to four times as often as
    stated, and the square root does not make that good.

    Args:
        strata: The two arms of each stratum.
        confidence: Of each bound, 0.5 to 1 (not included).
        limits: Of a single rate.

    Returns:
        -1 to 1; bounds of -1 and 1 where no stratum has two arms.

    Raises:
        ConfigError: Not k of n, or the confidence is out of range.

    Source: Mantel and Haenszel, Journal of the National Cancer Institute 22, 1959 (weights); Zou, Huang and Zhang,
    Computational Statistics & Data Analysis 53, 2009, equation for linear functions of binomial proportions; Newcombe,
    Statistics in Medicine 17, 1998, method 10.
    """
    _check(confidence)
    full = [(ours, theirs) for ours, theirs in strata if ours.n > 0 and theirs.n > 0]
    if not full:
        return Estimate(math.nan, -1.0, 1.0)
    weights = [ours.n * theirs.n / (ours.n + theirs.n) for ours, theirs in full]
    total = math.fsum(weights)
    parts, below, above = [], [], []
    for (ours, theirs), weight in zip(full, weights, strict=True):
        share, p, q = weight / total, ours.k / ours.n, theirs.k / theirs.n
        p_low, p_high = limits(ours.k, ours.n, confidence)
        q_low, q_high = limits(theirs.k, theirs.n, confidence)
        parts.append(share * (p - q))
        below += [share * (p - p_low), share * (q_high - q)]
        above += [share * (p_high - p), share * (q - q_low)]
    value = math.fsum(parts)
    return Estimate(value, value - math.hypot(*below), value + math.hypot(*above))


def ratio(strata: Sequence[tuple[Sequence[float], Sequence[float]]], confidence: float) -> Estimate:
    """By what factor the first arm's values exceed the second's, from pairs within strata.

    If every value of the first arm is ``theta`` times what the second would have had, the pairs of a stratum lie above
    and below ``theta`` equally often, however the strata differ. A pair counts ``1 / (m + n + 1)`` in a stratum of m
    and n values. The estimate is the weighted median of the pairs' ratios; a bound is where the weight of the pairs
    below it meets ``sum c m n / 2 -+ z sqrt(sum c^2 m n (m + n + 1) / 12)``, c being a pair's weight.

    Args:
        strata: Values of both arms of each stratum, above 0, in any order.
        confidence: Of each bound, 0.5 to 1 (not included).

    Returns:
        Bounds are 0 and infinity while the samples are too few.

    Raises:
        ConfigError: A value is not above 0 and finite, or the confidence is out of range.

    Source: van Elteren, Bulletin de l'Institut International de Statistique 37, 1960 (weights and variance); Hollander,
    Wolfe and Chicken, "Nonparametric Statistical Methods", 3rd ed. (2014), sections 4.2 and 4.3, large-sample form.
    """
    import numpy as np  # noqa: PLC0415  (the kernel's laws are read where NumPy is not wanted)

    _check(confidence)
    full = [(ours, theirs) for ours, theirs in strata if len(ours) and len(theirs)]
    if not all(0 < value < math.inf for pair in full for arm in pair for value in arm):
        raise ConfigError("a ratio needs values above 0")
    if not full:
        return Estimate(math.nan, 0.0, math.inf)
    least = min(len(ours) + len(theirs) for ours, theirs in full)
    shifts, weights, variance = [], [], 0.0
    for ours, theirs in full:
        pairs, size = len(ours) * len(theirs), len(ours) + len(theirs) + 1
        weight = (least + 1) / size  # 1 in the smallest stratum, so that a single one counts its pairs exactly
        shifts.append(np.subtract.outer(np.log(np.asarray(ours)), np.log(np.asarray(theirs))).ravel())
        weights.append(np.full(pairs, weight))
        variance += weight * weight * pairs * size / 12
    values, worth = np.concatenate(shifts), np.concatenate(weights)
    order = np.lexsort((worth, values))  # equal values by weight: the order of arrival changes no sum
    values, worth = values[order], worth[order]
    below = np.cumsum(worth)
    total = float(below[-1])
    reach = total / 2 - NormalDist().inv_cdf(confidence) * math.sqrt(variance)
    slack = 1e-9 * total  # sums that are equal on paper
    first = int(np.searchsorted(below, total / 2 - slack))
    second = int(np.searchsorted(below, total / 2 + slack))
    estimate = math.exp(float(values[first] + values[second]) / 2)
    low = int(np.searchsorted(below, reach, side="right"))  # so many pairs weigh no more than the reach
    high = int(np.searchsorted(np.cumsum(worth[::-1]), reach, side="right"))
    return Estimate(
        estimate,
        math.exp(float(values[low - 1])) if low else 0.0,
        math.exp(float(values[len(values) - high])) if high else math.inf,
    )


def _check(confidence: float) -> None:
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"a confidence is between 0.5 and 1 (not included), found {confidence}")
