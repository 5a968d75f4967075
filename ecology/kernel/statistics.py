"""How sure we may be: one-sided bounds, and how many items it takes to know.

Every bound here is one-sided at ``confidence``: "the truth is at least ``lower``" is wrong in at most ``1 -
confidence`` of all experiments, and the same for ``upper``; both together make a two-sided interval at ``2 * confidence
- 1``. Gates need one side only, and the side that is safe.

- ``clopper_pearson``: a rate, k of n. Exact: never wrong more often than stated.
- ``wilson``: a rate, for display. Right on average.
- ``tango``: a difference of two rates on the same items. A score interval, close to what is stated for n >= 30.
- ``quantile_bounds``: a quantile of any continuous distribution. Exact: never wrong more often than stated.

``needed_n`` and ``power`` answer the two questions that a gate has to answer before it asks anything: how many items
would decide, and how probable is a pass. SciPy is imported inside the functions that need it, so that the static gate
never pays for them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

from ecology.contracts.evidence import Count, Paired, Proportion, Samples, Statistic
from ecology.contracts.policy import Rule
from ecology.errors import ConfigError

MOST_SAMPLES = 10_000_000
"""Where the search for a deciding n gives up."""


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

    _check_rate(k, n, confidence)
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
    _check_rate(k, n, confidence)
    z = NormalDist().inv_cdf(confidence)
    rate = k / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return (max(0.0, middle - half) if k > 0 else 0.0, min(1.0, middle + half) if k < n else 1.0)


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
    _check_pairs(n10, n01, n, confidence)
    z = NormalDist().inv_cdf(confidence)
    if n10 == n01 == 0:
        return -z * z / (n + z * z), z * z / (n + z * z)
    estimate = (n10 - n01) / n
    # The statistic falls as the hypothetical difference grows: it is z at the lower bound and -z at the upper one.
    lower = -1.0 if n01 == n else _bisect(lambda d: tango_score(n10, n01, n, d) - z, -1.0, estimate)
    upper = 1.0 if n10 == n else _bisect(lambda d: tango_score(n10, n01, n, d) + z, estimate, 1.0)
    return lower, upper


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
    if variance <= 1e-300:
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


def mcnemar(n10: int, n01: int) -> float:
    """Exact two-sided p-value of "the two are equally often right", from the discordant pairs.

    Args:
        n10: Pairs that only the candidate answered right.
        n01: Pairs that only the comparator answered right.

    Returns:
        0 to 1; 1 where no pair is discordant.

    Raises:
        ConfigError: A negative count.

    Source: McNemar, Psychometrika 12, 1947, in its exact (binomial) form.
    """
    from scipy.special import bdtr  # noqa: PLC0415

    _check_pairs(n10, n01, n10 + n01 or 1, 0.5)
    if n10 == n01:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(n10, n01), n10 + n01, 0.5)))


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
    from scipy.special import bdtr  # noqa: PLC0415

    _check_quantile(quantile, confidence)
    if any(math.isnan(value) for value in values):
        raise ConfigError("a NaN among samples has no place in an order")
    n, ordered = len(values), sorted(values)
    below = _first(lambda k: float(bdtr(k - 1, n, quantile)) >= confidence, 1, n)
    above = _first(lambda k: float(bdtr(k - 1, n, 1 - quantile)) >= confidence, 1, n)  # the same law from the other end
    return (None if above is None else ordered[n - above], None if below is None else ordered[below - 1])


def bounds(rule: Rule, statistic: Statistic) -> tuple[float | None, float | None]:
    """The one-sided bounds that a rule looks at; None for a side that the evidence cannot bound.

    A count is exact. A single sample under a rule that asks for no more is a deterministic quantity and exact too.

    Raises:
        ConfigError: The statistic is not possible (k > n, a NaN).
    """
    if isinstance(statistic, Count):
        return float(statistic.count), float(statistic.count)
    if isinstance(statistic, Proportion):
        return clopper_pearson(statistic.k, statistic.n, rule.confidence)
    if isinstance(statistic, Paired):
        return tango(statistic.n10, statistic.n01, statistic.n, rule.confidence)
    if exact(rule, statistic):
        return statistic.values[0], statistic.values[0]
    return quantile_bounds(statistic.values, rule.quantile, rule.confidence)


def exact(rule: Rule, statistic: Statistic) -> bool:
    """Whether the evidence has no sampling error: a count, or the one sample of a rule that asks for one."""
    return isinstance(statistic, Count) or (
        isinstance(statistic, Samples) and len(statistic.values) == 1 and rule.min_samples == 1
    )


def needed_n(rule: Rule, statistic: Statistic) -> int | None:
    """The fewest samples that would decide the rule if what was observed went on at the same rate.

    "Decide" is to prove the demand or to prove that it is missed. Computed with real-valued counts, so that it does not
    jump with rounding; it is a plan and not a promise.

    Returns:
        A number of samples, never below ``rule.min_samples``; None where none up to ten million would decide, as when
        the observed rate is the threshold itself, or where the evidence is exact or empty.
    """
    size = sample_size(statistic)
    if isinstance(statistic, Count) or size == 0 or exact(rule, statistic):
        return None
    decides = _projection(rule, statistic)
    if not decides(float(MOST_SAMPLES)):
        return None
    low, high = 0, max(1, rule.min_samples)
    while not decides(float(high)):
        low, high = high, min(2 * high, MOST_SAMPLES)
    while high - low > 1 and high > max(1, rule.min_samples):
        middle = (low + high) // 2
        low, high = (low, middle) if decides(float(middle)) else (middle, high)
    return max(high, rule.min_samples)


def power(rule: Rule, n: int, truth: float, discordance: float = 0.0) -> float:
    """Probability that ``n`` samples let the rule pass, computed exactly, with no simulation.

    Args:
        rule: Over a rate (``against`` is ``absolute``), a paired difference or a quantile of samples (``resource.*``).
        n: Samples, more than 0.
        truth: The true rate; for a paired rule the true difference; for a rule over samples the share of samples that
            satisfy the threshold.
        discordance: For a paired rule: the share of pairs on which the two differ, at least ``abs(truth)``.

    Returns:
        0 to 1.

    Raises:
        ConfigError: Arguments out of range.
    """
    if n < 1:
        raise ConfigError(f"power needs at least one sample, found {n}", where=rule.id)
    if n < rule.min_samples:
        return 0.0
    if rule.metric.startswith("resource."):
        return _samples_power(rule, n, truth)
    return _rate_power(rule, n, truth) if rule.against == "absolute" else _paired_power(rule, n, truth, discordance)


def meets(rule: Rule, lower: float | None, upper: float | None) -> bool:
    """Whether the bounds prove that the rule's demand is met."""
    if rule.comparator == ">=":
        return lower is not None and lower >= rule.threshold
    if rule.comparator == "<=":
        return upper is not None and upper <= rule.threshold
    return lower is not None and upper is not None and lower >= rule.threshold >= upper


def misses(rule: Rule, lower: float | None, upper: float | None) -> bool:
    """Whether the bounds prove that the rule's demand is missed."""
    too_low = upper is not None and upper < rule.threshold
    too_high = lower is not None and lower > rule.threshold
    return {">=": too_low, "<=": too_high, "==": too_low or too_high}[rule.comparator]


def sample_size(statistic: Statistic) -> int:
    """On how many samples the statistic rests; a count rests on one look."""
    if isinstance(statistic, Count):
        return 1
    return len(statistic.values) if isinstance(statistic, Samples) else statistic.n


def observed(rule: Rule, statistic: Statistic) -> float:
    """The point estimate: count, rate, difference or sample quantile.

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
    ordered = sorted(statistic.values)
    return ordered[max(0, math.ceil(rule.quantile * len(ordered)) - 1)]


def _projection(rule: Rule, statistic: Proportion | Paired | Samples) -> Callable[[float], bool]:
    """Whether n samples like those seen would decide, as a function of n."""

    def decides(n: float) -> bool:
        if isinstance(statistic, Samples):
            return _samples_decide(rule, statistic, n)
        grown = n / statistic.n
        if isinstance(statistic, Proportion):
            edges = clopper_pearson(min(statistic.k * grown, n), n, rule.confidence)
        else:
            edges = tango(
                statistic.n10 * grown, min(statistic.n01 * grown, n - statistic.n10 * grown), n, rule.confidence
            )
        return meets(rule, *edges) or misses(rule, *edges)

    return decides


def _samples_decide(rule: Rule, statistic: Samples, n: float) -> bool:
    # x(m) <= t is the upper bound's demand, and P(Bin(n, q) <= m - 1) = I_{1-q}(n - m + 1, m) carries over to real m.
    from scipy.special import betainc  # noqa: PLC0415

    count = len(statistic.values)
    at_most = sum(value <= rule.threshold for value in statistic.values) / count * n
    below = sum(value < rule.threshold for value in statistic.values) / count * n

    def reached(share: float, quantile: float) -> bool:
        return share > 0 and float(betainc(n - share + 1, share, 1 - quantile)) >= rule.confidence

    proves_upper = reached(at_most, rule.quantile)  # quantile <= threshold
    proves_above = reached(n - at_most, 1 - rule.quantile)  # quantile > threshold
    proves_lower = reached(n - below, 1 - rule.quantile)  # quantile >= threshold
    proves_below = reached(below, rule.quantile)  # quantile < threshold
    if rule.comparator == "<=":
        return proves_upper or proves_above
    if rule.comparator == ">=":
        return proves_lower or proves_below
    return proves_above or proves_below


def _passes(rule: Rule, lower: float | None, upper: float | None) -> bool:
    return meets(rule, lower, upper) if rule.decide == "proven" else not misses(rule, lower, upper)


def _rate_power(rule: Rule, n: int, truth: float) -> float:
    from scipy.stats import binom  # noqa: PLC0415

    if not 0 <= truth <= 1:
        raise ConfigError(f"a rate is between 0 and 1, found {truth}", where=rule.id)
    return float(
        sum(binom.pmf(k, n, truth) for k in range(n + 1) if _passes(rule, *clopper_pearson(k, n, rule.confidence)))
    )


def _paired_power(rule: Rule, n: int, truth: float, discordance: float) -> float:
    from scipy.stats import binom  # noqa: PLC0415

    if not abs(truth) <= discordance <= 1:
        raise ConfigError(
            f"the share of discordant pairs is between |difference| = {abs(truth)} and 1, found {discordance}",
            where=rule.id,
        )
    z = NormalDist().inv_cdf(rule.confidence)
    won_share = (discordance + truth) / 2 / discordance if discordance else 0.0
    total = 0.0
    for discordant in range(n + 1):
        mass = float(binom.pmf(discordant, n, discordance))
        if mass < 1e-12:  # what is left out cannot change the eleventh digit
            continue
        # More wins never hurt a ">=" rule and never help a "<=" rule, so one critical number of wins parts the two.
        wins = [k for k in range(discordant + 1) if _pair_passes(rule, k, discordant - k, n, z)]
        if wins:
            total += mass * float(
                binom.cdf(wins[-1], discordant, won_share) - binom.cdf(wins[0] - 1, discordant, won_share)
            )
    return min(1.0, total)


def _pair_passes(rule: Rule, n10: int, n01: int, n: int, z: float) -> bool:
    # lower >= t exactly when the score at t is at least z: no root has to be found.
    score = tango_score(n10, n01, n, rule.threshold)
    if rule.decide == "proven":
        return {">=": score >= z, "<=": score <= -z, "==": False}[rule.comparator]
    return {">=": score >= -z, "<=": score <= z, "==": abs(score) <= z}[rule.comparator]


def _samples_power(rule: Rule, n: int, truth: float) -> float:
    from scipy.stats import binom  # noqa: PLC0415

    if not 0 <= truth <= 1:
        raise ConfigError(
            f"the share of samples that satisfy the threshold is between 0 and 1, found {truth}", where=rule.id
        )
    if n == 1 and rule.min_samples == 1:
        return truth
    total, at_zero = 0.0, dataclasses.replace(rule, threshold=0.0)
    for good in range(n + 1):
        # As many samples on the good side of the threshold 0 as ``good`` says; their values do not matter, only their
        # order does.
        side = -1.0 if rule.comparator == "<=" else 1.0
        values = [side] * good + [-side] * (n - good)
        if _passes(at_zero, *quantile_bounds(values, rule.quantile, rule.confidence)):
            total += float(binom.pmf(good, n, truth))
    return min(1.0, total)


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


def _check_rate(k: float, n: float, confidence: float) -> None:
    _check_confidence(confidence)
    if not (n > 0 and 0 <= k <= n):
        raise ConfigError(f"a rate is k of n with 0 <= k <= n and n > 0, found {k} of {n}")


def _check_pairs(n10: float, n01: float, n: float, confidence: float) -> None:
    _check_confidence(confidence)
    if not (n > 0 and n10 >= 0 and n01 >= 0 and n10 + n01 <= n):
        raise ConfigError(f"discordant pairs are at most all pairs, found {n10} and {n01} of {n}")


def _check_quantile(quantile: float, confidence: float) -> None:
    _check_confidence(confidence)
    if not 0 < quantile < 1:
        raise ConfigError(f"a quantile is between 0 and 1 (both not included), found {quantile}")
