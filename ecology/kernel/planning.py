"""What a gate should know before it asks: how many samples would decide, and how probable a pass is.

A gate that cannot decide is worse than none, because it looks like one. ``needed_n`` goes into every finding that could
not be decided; ``power`` says what a rule can see at all. Both are computed and not simulated, from the same bounds
that judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from ecology.contracts.evidence import Count, Paired, Proportion, Samples, Statistic
from ecology.contracts.policy import Rule
from ecology.errors import ConfigError
from ecology.kernel.binomial import binomial_cdf
from ecology.kernel.decisions import Decision, decide_bounds, decide_pairs, decide_rate
from ecology.kernel.sequential import rate_log_e
from ecology.kernel.statistics import bounds, exact, observed, quantile_interval, sample_size, shrinkage

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
            return decide_rate(rule, min(statistic.k * grown, n), n) != "open"
        won = statistic.n10 * grown
        return decide_pairs(rule, won, min(statistic.n01 * grown, n - won), n) != "open"

    return decides


def _samples_decide(rule: Rule, statistic: Samples, n: float) -> bool:
    if rule.clustered and statistic.families:
        middle, edges = observed(rule, statistic), bounds(rule, statistic)
        shrunk = math.sqrt(len(statistic.values) / n)
        lower, upper = (None if edge is None else middle + (edge - middle) * shrunk for edge in edges)
        return decide_bounds(rule, lower, upper) != "open"
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


def _decided(rule: Rule, decision: Decision, outcome: str) -> bool:
    if outcome == "deny":
        return decision == "missed"
    return decision == "met" if rule.decide == "proven" else decision != "missed"


def _rate_power(rule: Rule, n: int, truth: float, outcome: str) -> float:
    return _mass(_ends(rule, n, lambda k: _decided(rule, decide_rate(rule, k, n), outcome)), n, truth)


def _samples_power(rule: Rule, n: int, truth: float, outcome: str) -> float:
    if n == 1 and rule.min_samples == 1:
        return truth if outcome == "pass" else 1 - truth
    # Only the order matters: so many samples on the threshold, the others on its wrong side.
    wrong = rule.threshold + (math.inf if rule.comparator == "<=" else -math.inf)

    def decided(good: int) -> bool:
        values = [rule.threshold] * good + [wrong] * (n - good)
        return _decided(rule, decide_bounds(rule, *quantile_interval(rule, values)), outcome)

    return _mass(_ends(rule, n, decided), n, truth)


def _paired_power(rule: Rule, n: int, truth: float, discordance: float, outcome: str) -> float:
    won_share = (discordance + truth) / 2 / discordance if discordance else 0.0
    total = 0.0
    for discordant in range(n + 1):
        weight = _mass([discordant], n, discordance)
        if weight > NEGLIGIBLE:
            total += weight * _mass(_wins(rule, discordant, n, outcome), discordant, won_share)
    return min(1.0, total)


def _wins(rule: Rule, discordant: int, n: int, outcome: str) -> list[int]:
    return _ends(rule, discordant, lambda k: _decided(rule, decide_pairs(rule, k, discordant - k, n), outcome))


def _ends(rule: Rule, most: int, decided: Callable[[int], bool]) -> list[int]:
    """First and last of the numbers 0 to ``most`` that have an outcome; none where there is none.

    Bounds rise with the number, so the outcome is had from one end on, and where it begins is found by halving. Only of
    ``==`` it may begin and end in the middle.
    """
    if rule.comparator == "==":
        return [k for k in range(most + 1) if decided(k)]
    first, last = decided(0), decided(most)
    if first == last:
        return [0, most] if first else []
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if decided(middle) == first else (low, middle)
    return [0, low] if first else [high, most]


def _mass(passing: list[int], n: int, p: float) -> float:
    """Probability that Binomial(n, p) is one of these numbers, which have no gap, since bounds move with k."""
    if not passing:
        return 0.0
    return max(0.0, binomial_cdf(passing[-1], n, p) - binomial_cdf(passing[0] - 1, n, p))
