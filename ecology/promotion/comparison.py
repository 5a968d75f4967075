"""Two arms of unpaired traffic compared: how much the candidate differs from the incumbent at least and at most.

Every bound is one-sided at level ``alpha`` (0 to 0.5, not included): the truth lies beyond it with probability
``alpha``. An arm without data gives bounds that prove nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from ecology.contracts.evidence import Proportion
from ecology.kernel.differences import independent

Bounds = tuple[float, float]
"""Lower and upper."""


def difference(candidate: Proportion, incumbent: Proportion, alpha: float) -> Bounds:
    """Bounds of the difference of two independent proportions, candidate minus incumbent, -1 to 1."""
    if candidate.n == 0 or incumbent.n == 0:
        return -1.0, 1.0
    return independent(candidate.k, candidate.n, incumbent.k, incumbent.n, 1 - alpha)


def latency_ratio(candidate: Sequence[float], incumbent: Sequence[float], alpha: float) -> tuple[float, float, float]:
    """Median of all ratios of a candidate's latency to an incumbent's, with its bounds.

    The Hodges-Lehmann estimate on logarithms. Unlike the ratio of the two medians it stays steady when traffic
    mixes short and long answers, because pairs of one kind lie around the middle and pairs of two kinds cancel on
    both sides.

    Args:
        candidate: Seconds, above 0.
        incumbent: Seconds, above 0.
        alpha: One-sided level of each bound.

    Returns:
        Estimate, lower, upper; (nan, 0, inf) without data. Bounds are 0 and infinity while the samples are too few.

    Source: Hollander, Wolfe and Chicken, "Nonparametric Statistical Methods", 3rd ed. (2014), section 4.3,
    large-sample form.
    """
    m, n = len(candidate), len(incumbent)
    if m == 0 or n == 0:
        return math.nan, 0.0, math.inf
    logs = np.subtract.outer(np.log(np.asarray(candidate)), np.log(np.asarray(incumbent)))
    shifts = np.sort(logs, axis=None)
    place = math.floor(m * n / 2 - _z(alpha) * math.sqrt(m * n * (m + n + 1) / 12))
    estimate = math.exp(float(np.median(shifts)))
    if place < 1:
        return estimate, 0.0, math.inf
    return estimate, math.exp(float(shifts[place - 1])), math.exp(float(shifts[m * n - place]))


def _z(alpha: float) -> float:
    return NormalDist().inv_cdf(1 - alpha)
