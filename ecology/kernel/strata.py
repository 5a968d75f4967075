"""Two arms compared within strata, such as the steps of a canary: what differs between strata cannot tilt it.

Requests go to the arms at random within a step, with another share in each step, so the arms are alike within a step
and nowhere else. Pooled over steps, an arm that got more of the easy traffic looks better although it is worse in
every step (Simpson 1951). Here each stratum compares its own two arms, and the comparisons are averaged with weights
that follow from the arms' sizes alone.

- ``rate_difference``: weights of Mantel and Haenszel, ``m n / (m + n)``. Each arm's weighted rate has the limits of a
  rate over so many requests as the weights leave it; the distances to them are squared and added. With one stratum
  and Wilson's limits this is Newcombe's method 10. No common difference is assumed: the bounds are those of the
  weighted mean of the differences.
- ``ratio``: van Elteren's stratified rank sum, inverted. Pairs are formed within strata only. With one stratum it is
  the Hodges-Lehmann estimate with the bounds of the Wilcoxon rank sum.

A stratum with an empty arm compares nothing and is left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from statistics import NormalDist

from ecology.contracts.evidence import Proportion
from ecology.errors import ConfigError
from ecology.kernel.statistics import check_rate, clopper_pearson

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

    With m and n requests of the two arms in a stratum, successes x and y, and ``w = m n / (m + n)`` as a share of the
    sum over strata::

        p = sum w x / m      size of the first arm:   1 / sum w^2 / m
        q = sum w y / n      size of the second arm:  1 / sum w^2 / n
        lower = p - q - sqrt((p - l)^2 + (u' - q)^2)
        upper = p - q + sqrt((u - p)^2 + (q - l')^2)

    where (l, u) are the limits of ``p * size`` of ``size``, and (l', u') those of q. The size is what the weights make
    of an arm; that strata differ in their rates would allow a little more and is not used, since that cannot be
    estimated from arms of three. Exact limits are the default: where arms are tiny, Wilson's limits, the constrained
    score, and limits of each stratum squared and added err three to nine times as often as stated
    (``benchmarks/canary.py``).

    Args:
        strata: The two arms of each stratum.
        confidence: Of each bound, 0.5 to 1 (not included).
        limits: Of a single rate.

    Returns:
        -1 to 1; bounds of -1 and 1 where no stratum has two arms.

    Raises:
        ConfigError: Not k of n, or the confidence is out of range.

    Source: Mantel and Haenszel, Journal of the National Cancer Institute 22, 1959 (weights); Kish, "Survey Sampling",
    1965, section 11.7 (size under weights); Korn and Graubard, Survey Methodology 24, 1998 (exact limits at that size);
    Newcombe, Statistics in Medicine 17, 1998, method 10 (squaring and adding).
    """
    _check(confidence)
    for rate in (rate for pair in strata for rate in pair if rate.n):
        check_rate(rate.k, rate.n, confidence)
    full = [(ours, theirs) for ours, theirs in strata if ours.n and theirs.n]
    if not full:
        return Estimate(math.nan, -1.0, 1.0)
    # Fractions, so that a single stratum is that stratum and not almost, and the order of strata changes nothing.
    weights = [Fraction(ours.n * theirs.n, ours.n + theirs.n) for ours, theirs in full]
    p, p_low, p_high = _weighted([ours for ours, _ in full], weights, confidence, limits)
    q, q_low, q_high = _weighted([theirs for _, theirs in full], weights, confidence, limits)
    return Estimate(p - q, p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low))


def _weighted(
    rates: Sequence[Proportion], weights: Sequence[Fraction], confidence: float, limits: Limits
) -> tuple[float, float, float]:
    """An arm's weighted rate and its limits."""
    total = sum(weights, Fraction())
    rate = sum((weight * r.k / r.n for weight, r in zip(weights, rates, strict=True)), Fraction()) / total
    size = total**2 / sum((weight**2 / r.n for weight, r in zip(weights, rates, strict=True)), Fraction())
    return float(rate), *limits(float(rate * size), float(size), confidence)


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
