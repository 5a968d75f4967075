"""Looking as often as one likes: e-values, and bounds that hold at every moment at once.

Looking at a p-value after every item and stopping when it is small makes a false alarm likely. An e-value may be looked
at: it is the wealth of a gambler who bets against a hypothesis under which no bet pays on average, so by Ville's
inequality the probability that it ever reaches ``1 / alpha`` is at most ``alpha``, whenever one stops.

All tests here are one: values x in [0, 1] and the hypothesis "their mean is at most m". A bettor who stakes the share f
of what may be staked multiplies wealth by ``1 + f (x / m - 1)`` for every item, and no single f is best, so wealth is
spread evenly over a fixed grid of shares (``SHARES``). Three consequences are used everywhere:

- Wealth is a function of counts, not of their order: a verdict can be recomputed from sufficient statistics.
- It falls as m grows (each factor does), so the hypotheses that are not rejected form an interval: a confidence bound.
- "At least m" is "at most 1 - m" of ``1 - x``; a paired difference d in {-1, 0, 1} is the mean of ``(1 + d) / 2``.

What it asks for: items in an order fixed before anyone answered (a seeded shuffle), so that whatever was seen so far
says nothing about which item comes next.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS-B 86(1), 2024
(arXiv 2010.09686), sections 3 and 4; Ville, 1939; Ramdas et al., "Game-theoretic statistics and safe anytime-valid
inference", Statistical Science 38(4), 2023.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from ecology.errors import ConfigError

SHARES = tuple(1 / (1 + math.exp(-(-5 + 9 * i / 23))) for i in range(24))
"""Staked shares, 0.7 % to 98 %: dense at both ends, because weak and strong evidence are both common."""

Weighted = Sequence[tuple[float, float]]
"""Values in [0, 1], each with how often it was seen."""


def log_e(seen: Weighted, mean: float) -> float:
    """Natural logarithm of the e-value against "the mean is at most ``mean``".

    Args:
        seen: Values in [0, 1] with their counts.
        mean: 0 to 1.

    Returns:
        Log of the gambler's wealth; infinite where the hypothesis is impossible (a value above 0 and a mean of 0).

    Raises:
        ConfigError: A value or the mean is outside 0 to 1, or a count is negative.
    """
    if not 0 <= mean <= 1:
        raise ConfigError(f"a mean of values in 0 to 1 is one itself, found {mean}")
    if any(not 0 <= value <= 1 or count < 0 for value, count in seen):
        raise ConfigError("betting needs values in 0 to 1 with counts of at least 0")
    if mean == 0:
        return math.inf if any(value > 0 and count > 0 for value, count in seen) else 0.0
    gains = [(value / mean - 1, count) for value, count in seen if count]
    wealth = [math.fsum(count * math.log1p(share * gain) for gain, count in gains) for share in SHARES]
    top = max(wealth)
    if math.isinf(top):  # a mean so small that no double holds the gain
        return top
    return top + math.log(math.fsum(math.exp(one - top) for one in wealth) / len(SHARES))


def rate_log_e(k: float, n: float, rate: float, side: str) -> float:
    """Log e-value against "the rate is at most ``rate``" or "at least ``rate``".

    Args:
        k: Successes, 0 to n.
        n: Trials, at least 0.
        rate: 0 to 1.
        side: The hypothesis: ``at_most`` or ``at_least``.

    Raises:
        ConfigError: Arguments out of range.
    """
    _check_counts(k, n - k)
    hits, misses = (k, n - k) if side == "at_most" else (n - k, k)
    return log_e(((1.0, hits), (0.0, misses)), rate if side == "at_most" else 1 - rate)


def paired_log_e(n10: float, n01: float, n: float, difference: float, side: str) -> float:
    """Log e-value against "candidate minus comparator is at most (or at least) ``difference``".

    With ``difference = -margin`` and side ``at_most`` this proves non-inferiority; with ``at_least`` it proves that the
    candidate is worse by more than the margin.

    Args:
        n10: Pairs that only the candidate answered right.
        n01: Pairs that only the comparator answered right.
        n: All pairs.
        difference: -1 to 1.
        side: The hypothesis: ``at_most`` or ``at_least``.

    Raises:
        ConfigError: Arguments out of range.
    """
    _check_counts(n10, n01, n - n10 - n01)
    won, lost = (n10, n01) if side == "at_most" else (n01, n10)
    mean = (1 + difference) / 2 if side == "at_most" else (1 - difference) / 2
    return log_e(((1.0, won), (0.5, n - n10 - n01), (0.0, lost)), mean)


def mean_bounds(seen: Weighted, confidence: float) -> tuple[float, float]:
    """One-sided bounds of a mean of values in [0, 1], valid at every sample size at once.

    Args:
        seen: Values in [0, 1] with their counts.
        confidence: Of each bound, 0.5 to 1 (not included).

    Returns:
        Lower and upper bound; 0 and 1 where nothing was seen.

    Raises:
        ConfigError: Arguments out of range.
    """
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"a confidence is between 0.5 and 1 (not included), found {confidence}")
    mirrored = [(1 - value, count) for value, count in seen]
    return _lower(seen, confidence), 1 - _lower(mirrored, confidence)


def rate_bounds(k: float, n: float, confidence: float) -> tuple[float, float]:
    """One-sided anytime-valid bounds of a rate, k of n. Wider than Clopper-Pearson: the price of looking.

    Raises:
        ConfigError: Arguments out of range.
    """
    _check_counts(k, n - k)
    return mean_bounds(((1.0, k), (0.0, n - k)), confidence)


def paired_bounds(n10: float, n01: float, n: float, confidence: float) -> tuple[float, float]:
    """One-sided anytime-valid bounds of the paired difference ``(n10 - n01) / n``, -1 to 1.

    Raises:
        ConfigError: Arguments out of range.
    """
    _check_counts(n10, n01, n - n10 - n01)
    lower, upper = mean_bounds(((1.0, n10), (0.5, n - n10 - n01), (0.0, n01)), confidence)
    return 2 * lower - 1, 2 * upper - 1


def quantile_bounds(values: Sequence[float], quantile: float, confidence: float) -> tuple[float | None, float | None]:
    """One-sided anytime-valid bounds of a quantile: the order statistics whose share is proven.

    ``P(X <= v) >= quantile`` is a statement about a rate, so the least sample v for which it is proven is an upper
    bound, and from the other end alike.

    Returns:
        Lower and upper bound; None where there are too few samples for one.

    Raises:
        ConfigError: Arguments out of range or a NaN.

    Source: Howard and Ramdas, "Sequential estimation of quantiles", Bernoulli 28(3), 2022, section 2, with the bound
    on a rate above.
    """
    if not 0 < quantile < 1 or any(math.isnan(value) for value in values):
        raise ConfigError(f"a quantile is between 0 and 1 and of numbers, found {quantile}")
    n, ordered = len(values), sorted(values)
    below, above = order_statistics(n, quantile, confidence)
    return (None if above is None else ordered[n - above], None if below is None else ordered[below - 1])


@functools.lru_cache(maxsize=4096)
def order_statistics(n: int, quantile: float, confidence: float) -> tuple[int | None, int | None]:
    """Which order statistics bound the quantile: counted from the smallest for above, from the largest for below.

    Args:
        n: Samples.
        quantile: 0 to 1 (both not included).
        confidence: Of each bound, 0.5 to 1 (not included).

    Returns:
        Positions from 1 to n; None where there are too few samples for one.
    """
    bar = -math.log(1 - confidence)
    below = _least(lambda k: rate_log_e(k, n, quantile, "at_most") >= bar, n)
    return below, _least(lambda k: rate_log_e(k, n, 1 - quantile, "at_most") >= bar, n)


def _lower(seen: Weighted, confidence: float) -> float:
    """The largest mean that is rejected: wealth falls as the mean grows, so it is found by halving."""
    total = math.fsum(count for _, count in seen)
    if total == 0:
        return 0.0
    bar = -math.log(1 - confidence)
    low, high = 0.0, min(1.0, math.fsum(value * count for value, count in seen) / total)
    for _ in range(60):
        middle = (low + high) / 2
        if log_e(seen, middle) >= bar:
            low = middle
        else:
            high = middle
    return low


def _least(holds: Callable[[int], bool], n: int) -> int | None:
    """Least k in 1 to n for which a monotone predicate holds."""
    if n < 1 or not holds(n):
        return None
    low, high = 1, n
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


def _check_counts(*counts: float) -> None:
    if any(not count >= 0 for count in counts):
        raise ConfigError(f"counts are at least 0 and sum to n, found {counts}")
