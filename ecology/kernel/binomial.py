"""The binomial distribution function, from which every decision about a rate or a quantile follows.

Carried over to real k and n by the regularised incomplete beta function: P(X >= k) = I_p(k, n - k + 1). SciPy has that
function too, and importing it takes as long as everything else that ``policy lint`` does; these few lines are compared
with SciPy's and with exact fractions over the whole range in ``tests/kernel/test_kernel_binomial.py``.

The factor before the continued fraction is a binomial probability. By logarithms of gamma functions it would lose a
digit for every tenfold n; in Loader's saddle-point form it does not. The fraction is told the distance from the mean
rather than left to find it by a difference of two numbers near 1.

Sources: Abramowitz and Stegun, 26.5.24; Didonato and Morris, "Algorithm 708: significant digit computation of the
incomplete beta function ratios", ACM Transactions on Mathematical Software 18(3), 1992, equation 9 (the continued
fraction); Loader, "Fast and accurate computation of binomial probabilities", 2000.
"""

from __future__ import annotations

import itertools
import math

from ecology.errors import ConfigError

_NOTHING = 1e-20
"""With an a below this I_x(a, b) is 1 to the last bit, and quotients by it would leave the range of a double."""
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
"""Coefficients of odd powers of 1 / z."""


def binomial_cdf(k: float, n: float, p: float) -> float:
    """P(Binomial(n, p) <= k).

    Args:
        k: Any number.
        n: Trials, at least 0.
        p: Probability of a success, 0 to 1.

    Raises:
        ConfigError: p is no probability.
    """
    _check(p)
    if k < 0:
        return 0.0
    return 1.0 if k >= n else _incomplete_beta(n - k, k + 1, 1 - p, p)


def binomial_tail(k: float, n: float, p: float) -> float:
    """P(Binomial(n, p) >= k), exact where it is small, as one minus the other tail would not be.

    Args:
        k: Any number.
        n: Trials, at least 0.
        p: Probability of a success, 0 to 1.

    Raises:
        ConfigError: p is no probability.
    """
    _check(p)
    if k <= 0:
        return 1.0
    return 0.0 if k >= n + 1 else _incomplete_beta(k, n - k + 1, p, 1 - p)


def _incomplete_beta(a: float, b: float, x: float, y: float) -> float:
    """I_x(a, b) for a, b > 0; ``y`` is 1 - x, given apart because one of the two may be too close to 1 to tell."""
    if x <= 0 or y <= 0:
        return 0.0 if x <= 0 else 1.0
    if a < _NOTHING:
        return 1.0
    excess = (a + b) * y - b if x > y else a - (a + b) * x  # how far the mean is below a; the smaller product is exact
    if excess < 0:  # beyond the mean the fraction of the other tail converges faster
        return 1 - _small_tail(b, a, y, x, -excess)
    return _small_tail(a, b, x, y, excess)


def _small_tail(a: float, b: float, x: float, y: float, excess: float) -> float:
    """x^a y^b / B(a, b) times the continued fraction."""
    return a * b / (a + b) * _binomial_probability(a, b, x, y) * _fraction(a, b, x, y, excess)


def _fraction(a: float, b: float, x: float, y: float, excess: float) -> float:
    """Didonato and Morris's continued fraction by its three-term recurrence; about sqrt(a + b) steps."""
    above, below = (0.0, 1.0), (1.0, a * (1 + excess) / (a + 1))
    value = above[1] / below[1]
    for n in itertools.count(1):
        width = a + 2 * n - 1
        alpha = (a + n - 1) / width * (a + b + n - 1) / width * n * (b - n) * x * x
        beta = n + n * (b - n) * x / width + (a + n) / (width + 2) * (1 + excess + n * (1 + y))
        top = alpha * above[0] + beta * above[1]
        bottom = alpha * below[0] + beta * below[1]
        last, value = value, top / bottom
        if abs(value - last) <= 1e-16 * value:
            break
        above, below = (above[1] / bottom, value), (below[1] / bottom, 1.0)  # kept near 1: nothing overflows
    return value


def _binomial_probability(a: float, b: float, x: float, y: float) -> float:
    """Probability of a successes and b failures: Gamma(a + b + 1) / (Gamma(a + 1) Gamma(b + 1)) x^a y^b."""
    n = a + b
    exponent = _stirling_error(n) - _stirling_error(a) - _stirling_error(b) - _deviance(a, n * x) - _deviance(b, n * y)
    return math.exp(exponent) * math.sqrt(n / (2 * math.pi * a * b))


def _stirling_error(z: float) -> float:
    """Log Gamma(z + 1) minus Stirling's approximation of it, z > 0."""
    if z <= 15:
        return math.lgamma(z + 1) - (z + 0.5) * math.log(z) + z - _HALF_LOG_TWO_PI
    square, power, total = 1 / (z * z), 1 / z, 0.0
    for coefficient in _STIRLING:
        total += coefficient * power
        power *= square
    return total


def _deviance(value: float, mean: float) -> float:
    """``value log(value / mean) + mean - value`` without cancellation where the two are close."""
    if mean <= 0:  # n x is less than a double holds
        return math.inf
    difference = value - mean
    if abs(difference) >= 0.1 * (value + mean):
        return value * math.log(value / mean) - difference
    ratio = difference / (value + mean)
    term, total = 2 * value * ratio, difference * ratio
    for j in itertools.count(1):
        term *= ratio * ratio
        before, total = total, total + term / (2 * j + 1)
        if total == before:
            return total
    return total  # pragma: no cover  (the loop ends by itself)


def _check(p: float) -> None:
    if not 0 <= p <= 1:
        raise ConfigError(f"a probability is 0 to 1, found {p}")
