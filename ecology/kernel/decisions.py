"""Whether evidence proves that a demand is met, proves that it is missed, or leaves it open.

A bound meets a threshold exactly when the test of that threshold rejects: the lower Clopper-Pearson bound is at least t
where k or more successes would have a probability of at most ``1 - confidence`` if the rate were t, Tango's where the
score at t is at least z, and one that holds at any time where the e-value against "at most t" is at least ``1 / (1 -
confidence)``. So a decision needs one evaluation of a function and no search for its root; a bound, which is that root,
is for people to read (``statistics.bounds``). Samples are counted: an order statistic meets a threshold where enough
of them do.

Law, property-tested: ``decide`` says what the bounds say wherever they are further from the threshold than rounding.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

from ecology.contracts.evidence import Count, Paired, Proportion, Statistic
from ecology.contracts.policy import Rule
from ecology.errors import ConfigError
from ecology.kernel import sequential, statistics
from ecology.kernel.binomial import binomial_cdf, binomial_tail

Decision = Literal["met", "missed", "open"]


def decide(rule: Rule, statistic: Statistic) -> Decision:
    """What the evidence says of the rule's demand, at the rule's confidence.

    Raises:
        ConfigError: The statistic is not possible (k > n, a NaN).
    """
    if isinstance(statistic, Proportion):
        worth = statistics.shrinkage(rule, statistic)
        return decide_rate(rule, statistic.k * worth, statistic.n * worth)
    if isinstance(statistic, Paired):
        statistics.check_pairs(statistic.n10, statistic.n01, statistic.n, rule.confidence)
        worth = statistics.shrinkage(rule, statistic)
        won, n = statistic.n10 * worth, statistic.n * worth
        return decide_pairs(rule, won, min(statistic.n01 * worth, n - won), n)
    if isinstance(statistic, Count) or statistics.exact(rule, statistic) or (rule.clustered and statistic.families):
        return decide_bounds(rule, *statistics.bounds(rule, statistic))
    return _decided(rule, *_sample_sides(rule, statistic.values))


def decide_rate(rule: Rule, k: float, n: float) -> Decision:
    """As ``decide``, of a rate: real-valued counts too, for projections.

    Raises:
        ConfigError: Not k of n.
    """
    statistics.check_rate(k, n, rule.confidence)
    return _decided(rule, *_rate_sides(k, n, rule.threshold, rule.confidence, rule.anytime))


def decide_pairs(rule: Rule, n10: float, n01: float, n: float) -> Decision:
    """As ``decide``, of a paired difference: real-valued counts too, for projections.

    Raises:
        ConfigError: More discordant pairs than pairs.
    """
    statistics.check_pairs(n10, n01, n, rule.confidence)
    return _decided(rule, *_pair_sides(n10, n01, n, rule.threshold, rule.confidence, rule.anytime))


def decide_bounds(rule: Rule, lower: float | None, upper: float | None) -> Decision:
    """What bounds say of the rule's demand; None is a side that the evidence cannot bound."""
    low = -1 if lower is None else _sign(lower - rule.threshold)
    return _decided(rule, low, 1 if upper is None else _sign(upper - rule.threshold))


def _decided(rule: Rule, low: int, high: int) -> Decision:
    """From the signs of (lower bound - threshold) and (upper bound - threshold)."""
    met = {">=": low >= 0, "<=": high <= 0, "==": low >= 0 >= high}[rule.comparator]
    if met:
        return "met"
    missed = {">=": high < 0, "<=": low > 0, "==": high < 0 or low > 0}[rule.comparator]
    return "missed" if missed else "open"


@functools.lru_cache(maxsize=65_536)
def _rate_sides(k: float, n: float, threshold: float, confidence: float, anytime: bool) -> tuple[int, int]:
    """Signs for the bounds of a rate, from the tests that they invert."""
    if not 0 <= threshold <= 1:
        return (1, 1) if threshold < 0 else (-1, -1)
    if anytime:
        low, high = (sequential.rate_log_e(k, n, threshold, side) for side in ("at_most", "at_least"))
        return _proven(low, confidence), -_proven(high, confidence)
    alpha = 1 - confidence
    at_least = _sign(alpha - binomial_tail(k, n, threshold)) if k > 0 else _sign(-threshold)
    at_most = _sign(binomial_cdf(k, n, threshold) - alpha) if k < n else _sign(1 - threshold)
    return at_least, at_most


@functools.lru_cache(maxsize=65_536)
def _pair_sides(
    n10: float, n01: float, n: float, threshold: float, confidence: float, anytime: bool
) -> tuple[int, int]:
    """Signs for the bounds of a paired difference; Tango's score is z at the lower bound and -z at the upper one."""
    if not -1 < threshold < 1:  # no bound is beyond, and one is at an end only where every pair is
        reached = abs(threshold) == 1 and (n01 if threshold < 0 else n10) == n
        return (1 - reached, 1) if threshold < 0 else (-1, reached - 1)
    if anytime:
        low, high = (sequential.paired_log_e(n10, n01, n, threshold, side) for side in ("at_most", "at_least"))
        return _proven(low, confidence), -_proven(high, confidence)
    score, z = statistics.tango_score(n10, n01, n, threshold), _normal_quantile(confidence)
    return _sign(score - z), _sign(score + z)


def _sample_sides(rule: Rule, values: Sequence[float]) -> tuple[int, int]:
    """Signs for the bounds of a quantile, which are two of the samples: so many of them lie on their side of it."""
    below, above = statistics.order_statistics(rule, len(values))
    if any(map(math.isnan, values)):
        raise ConfigError("a NaN among samples has no place in an order")
    ordered, n = sorted(values), len(values)
    less, more = bisect.bisect_left(ordered, rule.threshold), n - bisect.bisect_right(ordered, rule.threshold)
    low = high = 0
    if above is None or n - less < above:
        low = -1
    elif more >= above:
        low = 1
    if below is None or n - more < below:
        high = 1
    elif less >= below:
        high = -1
    return low, high


def _proven(log_e: float, confidence: float) -> int:
    """1 where the e-value rejects, else -1."""
    return 1 if log_e >= -math.log(1 - confidence) else -1


@functools.lru_cache(maxsize=256)
def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(confidence)


def _sign(value: float) -> int:
    return int(value > 0) - int(value < 0)
