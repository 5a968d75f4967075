"""What a gate should know before it asks: how many samples would decide, and how probable a pass is.

A gate that cannot decide is worse than none, because it looks like one. ``needed_n`` goes into every finding that could
not be decided; ``power`` says what a rule can see at all. Both are computed and not simulated, from the same bounds
that judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Literal

from ecology.contracts.evidence import Count, Paired, Proportion, Samples, Statistic
from ecology.contracts.policy import Rule
from ecology.errors import ConfigError
from ecology.kernel.sequential import paired_log_e, rate_log_e
from ecology.kernel.statistics import (
    binomial_cdf,
    bounds,
    exact,
    meets,
    misses,
    observed,
    paired_interval,
    quantile_interval,
    rate_interval,
    sample_size,
    shrinkage,
    tango_score,
)

MOST_SAMPLES = 10_000_000
"""Where the search for a deciding n gives up."""
NEGLIGIBLE = 1e-12
"""Probability that a sum of a few thousand terms may leave out."""


def needed_n(rule: Rule, statistic: Statistic) -> int | None:
    """The fewest samples that would decide the rule if what was observed went on at the same rate.

    "Decide" is to prove the demand or to prove that it is missed. Computed with real-valued counts, so that it does not
    jump with rounding; it is a plan and not a promise.

    Returns:
        A number of samples, never below ``rule.min_samples``; None where none up to ten million would decide, as when
        the observed rate is the threshold itself, or where the evidence is exact or empty.

    Raises:
        ConfigError: The statistic is not possible.
    """
    if isinstance(statistic, Count) or sample_size(statistic) == 0 or exact(rule, statistic):
        return None
    decides = _projection(rule, statistic)
    if not decides(float(MOST_SAMPLES)):
        return None
    low, high = 0, max(1, rule.min_samples)
    while not decides(float(high)):
        low, high = high, min(2 * high, MOST_SAMPLES)
    while low > 0 and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(float(middle)) else (middle, high)
    return high


def power(
    rule: Rule, n: int, truth: float, discordance: float = 0.0, outcome: Literal["pass", "deny"] = "pass"
) -> float:
    """Probability that ``n`` samples let the rule pass, or make it deny.

    Args:
        rule: Over a rate (``against`` is ``absolute``), a paired difference, or a quantile of samples (``resource.*``).
        n: Samples, more than 0.
        truth: The true rate; for a paired rule the true difference; for a rule over samples the share of samples that
            satisfy the threshold.
        discordance: For a paired rule: the share of pairs on which the two differ, at least ``abs(truth)``.
        outcome: Of which outcome the probability is wanted; the rest of it is ``inconclusive``.

    Returns:
        0 to 1.

    Raises:
        ConfigError: Arguments out of range.
    """
    if n < 1:
        raise ConfigError(f"power needs at least one sample, found {n}", where=rule.id)
    paired, samples = rule.against != "absolute", rule.metric.startswith("resource.")
    if paired and not samples:
        if not abs(truth) <= discordance <= 1:
            low = abs(truth)
            raise ConfigError(f"the share of discordant pairs is {low} to 1, found {discordance}", where=rule.id)
    elif not 0 <= truth <= 1:
        raise ConfigError(f"a share is 0 to 1, found {truth}", where=rule.id)
    if n < rule.min_samples:
        return 0.0
    if samples:
        return _samples_power(rule, n, truth, outcome)
    if paired:
        return _paired_power(rule, n, truth, discordance, outcome)
    return _rate_power(rule, n, truth, outcome)


def _projection(rule: Rule, statistic: Proportion | Paired | Samples) -> Callable[[float], bool]:
    """Whether n samples like those seen would decide, as a function of n."""

    def decides(n: float) -> bool:
        if isinstance(statistic, Samples):
            return _samples_decide(rule, statistic, n)
        worth = shrinkage(rule, statistic)  # more items of the same families are worth as little
        grown, n = n * worth / statistic.n, n * worth
        if isinstance(statistic, Proportion):
            edges = rate_interval(rule, min(statistic.k * grown, n), n)
        else:
            won = statistic.n10 * grown
            edges = paired_interval(rule, won, min(statistic.n01 * grown, n - won), n)
        return meets(rule, *edges) or misses(rule, *edges)

    return decides


def _samples_decide(rule: Rule, statistic: Samples, n: float) -> bool:
    if rule.clustered and statistic.families:
        middle, edges = observed(rule, statistic), bounds(rule, statistic)
        shrunk = math.sqrt(len(statistic.values) / n)
        lower, upper = (None if edge is None else middle + (edge - middle) * shrunk for edge in edges)
        return meets(rule, lower, upper) or misses(rule, lower, upper)
    # The k-th smallest is a bound of the quantile, and it is on the threshold's side if at least k samples are.
    values = statistic.values
    at_most = sum(value <= rule.threshold for value in values) / len(values) * n
    below = sum(value < rule.threshold for value in values) / len(values) * n

    def reached(share: float, quantile: float) -> bool:
        if rule.anytime:
            return rate_log_e(min(share, n), n, quantile, "at_most") >= -math.log(1 - rule.confidence)
        return binomial_cdf(share - 1, n, quantile) >= rule.confidence

    not_above, above = reached(at_most, rule.quantile), reached(n - at_most, 1 - rule.quantile)
    not_below, under = reached(n - below, 1 - rule.quantile), reached(below, rule.quantile)
    return {"<=": not_above or above, ">=": not_below or under, "==": above or under}[rule.comparator]


def _decided(rule: Rule, lower: float | None, upper: float | None, outcome: str) -> bool:
    if outcome == "deny":
        return misses(rule, lower, upper)
    return meets(rule, lower, upper) if rule.decide == "proven" else not misses(rule, lower, upper)


def _rate_power(rule: Rule, n: int, truth: float, outcome: str) -> float:
    passing = [k for k in range(n + 1) if _decided(rule, *rate_interval(rule, k, n), outcome)]
    return _mass(passing, n, truth)


def _samples_power(rule: Rule, n: int, truth: float, outcome: str) -> float:
    if n == 1 and rule.min_samples == 1:
        return truth if outcome == "pass" else 1 - truth
    # Only the order matters: so many samples on the threshold, the others on its wrong side.
    wrong = rule.threshold + (math.inf if rule.comparator == "<=" else -math.inf)
    passing = []
    for good in range(n + 1):
        values = [rule.threshold] * good + [wrong] * (n - good)
        if _decided(rule, *quantile_interval(rule, values), outcome):
            passing.append(good)
    return _mass(passing, n, truth)


def _paired_power(rule: Rule, n: int, truth: float, discordance: float, outcome: str) -> float:
    z = NormalDist().inv_cdf(rule.confidence)
    won_share = (discordance + truth) / 2 / discordance if discordance else 0.0
    total = 0.0
    for discordant in range(n + 1):
        weight = _mass([discordant], n, discordance)
        if weight > NEGLIGIBLE:
            total += weight * _mass(_wins(rule, discordant, n, z, outcome), discordant, won_share)
    return min(1.0, total)


def _wins(rule: Rule, discordant: int, n: int, z: float, outcome: str) -> list[int]:
    """First and last number of won pairs with this outcome; the score rises with it, so one end is found by halving."""

    def decided(k: int) -> bool:
        return _pair_decided(rule, k, discordant - k, n, z, outcome)

    if rule.comparator == "==":
        return [k for k in range(discordant + 1) if decided(k)]
    first, last = decided(0), decided(discordant)
    if first == last:
        return [0, discordant] if first else []
    low, high = 0, discordant
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if decided(middle) == first else (low, middle)
    return [0, low] if first else [high, discordant]


def _pair_decided(rule: Rule, n10: int, n01: int, n: int, z: float, outcome: str) -> bool:
    # lower >= t exactly when the score at t is at least z: no root has to be found.
    if rule.anytime:
        score, z = _anytime_score(rule, n10, n01, n), 1.0
    else:
        score = tango_score(n10, n01, n, rule.threshold)
    if outcome == "pass" and rule.decide == "proven":
        return {">=": score >= z, "<=": score <= -z, "==": False}[rule.comparator]
    missed = {">=": score < -z, "<=": score > z, "==": abs(score) > z}[rule.comparator]
    if rule.anytime:
        missed = {">=": score <= -z, "<=": score >= z, "==": abs(score) >= z}[rule.comparator]
    return missed == (outcome == "deny")


def _anytime_score(rule: Rule, n10: int, n01: int, n: int) -> float:
    """1 where the lower anytime bound meets the threshold, -1 where the upper one does, else 0."""
    bar = -math.log(1 - rule.confidence)
    if paired_log_e(n10, n01, n, rule.threshold, "at_most") >= bar:
        return 1.0
    return -1.0 if paired_log_e(n10, n01, n, rule.threshold, "at_least") >= bar else 0.0


def _mass(passing: list[int], n: int, p: float) -> float:
    """Probability that Binomial(n, p) is one of these numbers, which have no gap, since bounds move with k."""
    if not passing:
        return 0.0
    return max(0.0, binomial_cdf(passing[-1], n, p) - binomial_cdf(passing[0] - 1, n, p))
