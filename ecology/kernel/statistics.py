"""How sure we may be: one-sided bounds of what evidence says.

Every bound here is one-sided at ``confidence``: "the truth is at least ``lower``" is wrong in at most ``1 -
confidence`` of all experiments, and the same for ``upper``; both together make a two-sided interval at ``2 * confidence
- 1``. Gates need one side only, and the side that is safe.

- ``clopper_pearson``: a rate, k of n. Exact: never wrong more often than stated.
- ``wilson``: a rate, for display. Right on average.
- ``tango``: a difference of two rates on the same items. A score interval, close to what is stated for n >= 30.
- ``mean_bounds``: a mean over runs. Student's; exact where runs are normal.
- ``quantile_bounds``: a quantile of any continuous distribution. Exact: never wrong more often than stated.
- a rule that says ``anytime`` takes its bounds from ``sequential`` instead: wider, and valid whenever one stops.
- a rule that says ``clustered`` takes the same bounds on as many items as the families are worth (``clusters``).

SciPy is imported by ``clopper_pearson``, ``mean_bounds`` and ``clusters`` alone, when a number of theirs is asked for:
neither the static gate nor ``policy lint`` pays for it. Whether a rule's demand is met needs no bound (``decisions``);
what follows for planning is in ``planning``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

from ecology.contracts.evidence import Count, Paired, Proportion, Samples, Statistic
from ecology.contracts.policy import Rule
from ecology.errors import ConfigError
from ecology.kernel import clusters, sequential
from ecology.kernel.binomial import binomial_cdf


@functools.lru_cache(maxsize=65_536)
def clopper_pearson(k: float, n: float, confidence: float) -> tuple[float, float]:
    """Exact one-sided bounds of a rate.

    Law: ``clopper_pearson(n, n, c)[0] == (1 - c) ** (1 / n)``; 59 of 59 prove 95 %.

    Args:
        k: Successes, 0 to n; a real number is allowed, for projections.
        n: Trials, more than 0.
        confidence: Of each bound, 0.5 to 1 (not included).

    Returns:
        Lower and upper bound, 0 to 1.

    Raises:
        ConfigError: Arguments out of range.

    Source: Clopper and Pearson, Biometrika 26(4), 1934.
    """
    from scipy.special import betaincinv  # noqa: PLC0415  (SciPy only where it is needed)

    check_rate(k, n, confidence)
    lower = float(betaincinv(k, n - k + 1, 1 - confidence)) if k > 0 else 0.0
    upper = float(betaincinv(k + 1, n - k, confidence)) if k < n else 1.0
    return lower, upper


def wilson(k: float, n: float, confidence: float) -> tuple[float, float]:
    """One-sided score bounds of a rate, for display: narrower than the exact ones, without their guarantee.

    Args:
        k: Successes, 0 to n.
        n: Trials, more than 0.
        confidence: Of each bound, 0.5 to 1 (not included).

    Returns:
        Lower and upper bound, 0 to 1.

    Raises:
        ConfigError: Arguments out of range.

    Source: Wilson, Journal of the American Statistical Association 22, 1927.
    """
    check_rate(k, n, confidence)
    z = NormalDist().inv_cdf(confidence)
    rate = k / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return (max(0.0, middle - half) if k > 0 else 0.0, min(1.0, middle + half) if k < n else 1.0)


@functools.lru_cache(maxsize=65_536)
def tango(n10: float, n01: float, n: float, confidence: float) -> tuple[float, float]:
    """One-sided score bounds of the paired difference ``(n10 - n01) / n``.

    Unlike the Wald interval it does not shrink to a point where nothing differs: with no discordant pair the bounds are
    ``-z^2 / (n + z^2)`` and ``z^2 / (n + z^2)`` exactly.

    Args:
        n10: Pairs that only the candidate answered right.
        n01: Pairs that only the comparator answered right.
        n: All pairs, more than 0.
        confidence: Of each bound, 0.5 to 1 (not included).

    Returns:
        Lower and upper bound of candidate minus comparator, -1 to 1.

    Raises:
        ConfigError: Arguments out of range.

    Source: Tango, Statistics in Medicine 17(8), 1998: equations for the score statistic and the constrained estimate of
    p21.
    """
    check_pairs(n10, n01, n, confidence)
    z = NormalDist().inv_cdf(confidence)
    if n10 == n01 == 0:
        return -z * z / (n + z * z), z * z / (n + z * z)
    estimate = (n10 - n01) / n
    # The statistic falls as the hypothetical difference grows: it is z at the lower bound and -z at the upper one.
    lower = -1.0 if n01 == n else _bisect(lambda d: tango_score(n10, n01, n, d) - z, -1.0, estimate)
    upper = 1.0 if n10 == n else _bisect(lambda d: tango_score(n10, n01, n, d) + z, estimate, 1.0)
    return lower, upper


def mean_bounds(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """One-sided bounds of the mean of a normal distribution from a few draws, such as one number a seed.

    Args:
        values: Independent draws.
        confidence: Of each bound, 0.5 to 1 (not included).

    Returns:
        Lower and upper bound; infinite for fewer than two draws, which say nothing of their spread.

    Raises:
        ConfigError: The confidence is out of range.

    Source: Student, Biometrika 6(1), 1908.
    """
    from scipy.special import stdtrit  # noqa: PLC0415

    _check_confidence(confidence)
    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = float(stdtrit(n - 1, confidence)) * spread
    return mean - half, mean + half


def tango_score(n10: float, n01: float, n: float, difference: float) -> float:
    """Tango's score statistic for the hypothesis that the difference is ``difference``; standard normal if it is.

    Args:
        n10: Pairs that only the candidate answered right.
        n01: Pairs that only the comparator answered right.
        n: All pairs, more than 0.
        difference: -1 to 1.
    """
    # Tango 1998, with x12 = n10 and x21 = n01: p21 is estimated under the constraint p12 - p21 = difference.
    linear = -n10 - n01 + (2 * n - n10 + n01) * difference
    constant = -n01 * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear * linear - 8 * n * constant))
    p21 = max(0.0, (root - linear) / (4 * n), -difference)
    variance = n * (2 * p21 + difference * (1 - difference))
    excess = n10 - n01 - n * difference
    if variance <= 0:
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


def quantile_bounds(values: Sequence[float], quantile: float, confidence: float) -> tuple[float | None, float | None]:
    """Distribution-free one-sided bounds of a quantile, from order statistics.

    The number of samples below the true quantile is binomial; the k-th smallest is an upper bound for the least k with
    P(Binomial(n, quantile) <= k - 1) >= confidence. 59 samples are the fewest that bound a 95th percentile with 95 %.

    Args:
        values: Independent samples, in any order.
        quantile: 0 to 1 (both not included).
        confidence: Of each bound, 0.5 to 1 (not included).

    Returns:
        Lower and upper bound; None where there are too few samples for one.

    Raises:
        ConfigError: Arguments out of range or a NaN.

    Source: David and Nagaraja, Order Statistics, 3rd edition, section 7.1.
    """
    _check_quantile(quantile, confidence)
    if any(map(math.isnan, values)):
        raise ConfigError("a NaN among samples has no place in an order")
    n, ordered = len(values), sorted(values)
    below, above = _order_statistics(n, quantile, confidence)
    return (None if above is None else ordered[n - above], None if below is None else ordered[below - 1])


@functools.lru_cache(maxsize=4096)
def _order_statistics(n: int, quantile: float, confidence: float) -> tuple[int | None, int | None]:
    """Which order statistics bound the quantile: counted from the smallest for above, from the largest for below."""
    below = _first(lambda k: binomial_cdf(k - 1, n, quantile) >= confidence, 1, n)
    above = _first(lambda k: binomial_cdf(k - 1, n, 1 - quantile) >= confidence, 1, n)  # the same from the other end
    return below, above


def bounds(rule: Rule, statistic: Statistic) -> tuple[float | None, float | None]:
    """The one-sided bounds that a rule looks at; None for a side that the evidence cannot bound.

    A count is exact. A single sample under a rule that asks for no more is a deterministic quantity and exact too.

    Raises:
        ConfigError: The statistic is not possible (k > n, a NaN).
    """
    if isinstance(statistic, Count):
        return float(statistic.count), float(statistic.count)
    if isinstance(statistic, Proportion):
        worth = shrinkage(rule, statistic)
        return rate_interval(rule, statistic.k * worth, statistic.n * worth)
    if isinstance(statistic, Paired):
        check_pairs(statistic.n10, statistic.n01, statistic.n, rule.confidence)
        worth = shrinkage(rule, statistic)
        won, n = statistic.n10 * worth, statistic.n * worth
        return paired_interval(rule, won, min(statistic.n01 * worth, n - won), n)
    if exact(rule, statistic):
        return statistic.values[0], statistic.values[0]
    if rule.clustered and statistic.families:
        found = clusters.clustered(statistic.values, statistic.families, rule.confidence)
        return found.lower, found.upper
    return quantile_interval(rule, statistic.values)


def shrinkage(rule: Rule, statistic: Proportion | Paired) -> float:
    """What an item is worth under a rule: 1, or less where the rule is clustered and families are alike.

    Raises:
        ConfigError: Counts of families that are not those of all items, or fewer than two families.
    """
    if not rule.clustered or not statistic.families:
        return 1.0
    if isinstance(statistic, Proportion):
        totals = [(n, float(k), float(k)) for n, k in statistic.families]
        same = sum(k for _, k in statistic.families) == statistic.k
    else:
        totals = [(n, float(won - lost), float(won + lost)) for n, won, lost in statistic.families]
        sums = [sum(column) for column in zip(*statistic.families, strict=True)]
        same = sums[1:] == [statistic.n10, statistic.n01]
    if not same or sum(n for n, *_ in totals) != statistic.n:
        raise ConfigError("the counts of the families do not add up to those of all items")
    families = [clusters.Family(n, total) for n, total, _ in totals]
    squares = math.fsum(square for *_, square in totals)
    return clusters.effective(families, squares, rule.confidence) / statistic.n


def rate_interval(rule: Rule, k: float, n: float) -> tuple[float, float]:
    """Bounds of a rate as the rule wants them: exact for one look, or anytime-valid.

    Raises:
        ConfigError: Not k of n.
    """
    check_rate(k, n, rule.confidence)
    return (sequential.rate_bounds if rule.anytime else clopper_pearson)(k, n, rule.confidence)


def paired_interval(rule: Rule, n10: float, n01: float, n: float) -> tuple[float, float]:
    """Bounds of a paired difference as the rule wants them: score bounds for one look, or anytime-valid.

    Raises:
        ConfigError: More discordant pairs than pairs.
    """
    check_pairs(n10, n01, n, rule.confidence)
    return (sequential.paired_bounds if rule.anytime else tango)(n10, n01, n, rule.confidence)


def quantile_interval(rule: Rule, values: Sequence[float]) -> tuple[float | None, float | None]:
    """Bounds of a quantile as the rule wants them: order statistics for one look, or anytime-valid.

    Raises:
        ConfigError: A NaN.
    """
    if rule.anytime:
        return sequential.quantile_bounds(values, rule.quantile, rule.confidence)
    return quantile_bounds(values, rule.quantile, rule.confidence)


def order_statistics(rule: Rule, n: int) -> tuple[int | None, int | None]:
    """Which of n samples bound the rule's quantile: the k-th smallest from above, the k-th largest from below.

    Returns:
        Positions from 1 to n; None where there are too few samples for one.

    Raises:
        ConfigError: The rule's quantile or confidence is out of range.
    """
    _check_quantile(rule.quantile, rule.confidence)
    return (sequential.order_statistics if rule.anytime else _order_statistics)(n, rule.quantile, rule.confidence)


def exact(rule: Rule, statistic: Statistic) -> bool:
    """Whether the evidence has no sampling error: a count, or the one sample of a rule that asks for one."""
    return isinstance(statistic, Count) or (
        isinstance(statistic, Samples) and len(statistic.values) == 1 and rule.min_samples == 1
    )


def sample_size(statistic: Statistic) -> int:
    """On how many samples the statistic rests; a count rests on one look."""
    if isinstance(statistic, Count):
        return 1
    return len(statistic.values) if isinstance(statistic, Samples) else statistic.n


def observed(rule: Rule, statistic: Statistic) -> float:
    """The point estimate: count, rate, difference or sample quantile; of a clustered rule's real values the mean.

    The sample quantile is the smallest sample that a share of at least ``quantile`` does not exceed.

    Raises:
        ConfigError: There are no samples.
    """
    if isinstance(statistic, Count):
        return float(statistic.count)
    if sample_size(statistic) == 0:
        raise ConfigError("nothing was observed", where=rule.metric)
    if isinstance(statistic, Proportion):
        return statistic.k / statistic.n
    if isinstance(statistic, Paired):
        return (statistic.n10 - statistic.n01) / statistic.n
    if rule.clustered and statistic.families:
        return math.fsum(statistic.values) / len(statistic.values)
    ordered = sorted(statistic.values)
    return ordered[max(0, math.ceil(rule.quantile * len(ordered)) - 1)]


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses 0; 200 halvings are more than a double can tell apart."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _first(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """Least k in low to high (both included) from which on ``holds`` is true; None if it is not true at the end."""
    if high < low or not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


def _check_confidence(confidence: float) -> None:
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"a confidence is between 0.5 and 1 (not included), found {confidence}")


def check_rate(k: float, n: float, confidence: float) -> None:
    """Nothing, if these are k of n and a confidence.

    Raises:
        ConfigError: They are not.
    """
    _check_confidence(confidence)
    if not (n > 0 and 0 <= k <= n):
        raise ConfigError(f"a rate is k of n with 0 <= k <= n and n > 0, found {k} of {n}")


def check_pairs(n10: float, n01: float, n: float, confidence: float) -> None:
    """Nothing, if there are at most as many discordant pairs as pairs.

    Raises:
        ConfigError: There are more, or the confidence is none.
    """
    _check_confidence(confidence)
    if not (n > 0 and n10 >= 0 and n01 >= 0 and n10 + n01 <= n):
        raise ConfigError(f"discordant pairs are at most all pairs, found {n10} and {n01} of {n}")


def _check_quantile(quantile: float, confidence: float) -> None:
    _check_confidence(confidence)
    if not 0 < quantile < 1:
        raise ConfigError(f"a quantile is between 0 and 1 (both not included), found {quantile}")
