"""Does a model know how sure it may be? Smooth calibration error, without bins.

Binned calibration error depends on where the bins lie and is far above 0 for a perfectly calibrated model on a hundred
items. The smooth one replaces bins by a kernel of width sigma and takes the width at which the error is the width
itself, so it has no parameter, is continuous and is a consistent measure of the distance from calibration.

Source: Blasiok and Nakkiran, "Smooth ECE: principled reliability diagrams via kernel smoothing", ICLR 2024 (arXiv
2309.12236), definitions 3 and 4: reflected Gaussian kernel, fixed point smECE_sigma = sigma.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ecology.errors import ConfigError

GRID = 200
"""Points on [0, 1] at which the residual is smoothed."""
RESAMPLES = 200
STEPS = 12
"""Halvings of the width: to 1 / 4096."""


def smooth_ece(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Smooth calibration error.

    Args:
        confidences: Probability that the model gave its answer, 0 to 1.
        right: Whether it was right.

    Returns:
        0 (calibrated) to 1.

    Raises:
        ConfigError: No items, lengths that differ, or a confidence out of range: emptiness is no calibration.
    """
    f, y = _checked(confidences, right)
    return _Smoother(f, y).error(np.ones(len(f)))


def upper_bound(confidences: Sequence[float], right: Sequence[bool], confidence: float = 0.95, seed: int = 0) -> float:
    """Upper bound of the smooth calibration error, by resampling items.

    The estimate is biased upward for few items, as every estimate of a distance is, so the bound errs on the safe side.

    Args:
        confidences: Probability that the model gave its answer, 0 to 1.
        right: Whether it was right.
        confidence: One-sided, 0.5 to 1 (not included).
        seed: Of the resampling.

    Raises:
        ConfigError: No items, lengths that differ, or a number out of range.
    """
    f, y = _checked(confidences, right)
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"a confidence is between 0.5 and 1 (not included), found {confidence}")
    random = np.random.Generator(np.random.PCG64(seed))
    weights = random.multinomial(len(f), np.full(len(f), 1 / len(f)), size=RESAMPLES).astype(float)
    smoother = _Smoother(f, y)
    return float(np.quantile([smoother.error(weight) for weight in weights], confidence))


def brier(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Mean squared distance of confidence from truth, 0 to 1. Source: Brier, Monthly Weather Review 78, 1950.

    Raises:
        ConfigError: No items, lengths that differ, or a confidence out of range.
    """
    f, y = _checked(confidences, right)
    return float(np.mean((f - y) ** 2))


class _Smoother:
    """Smoothing at many widths of one set of confidences; the kernels are kept for resampling."""

    def __init__(self, f: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        self._f, self._residual = f, y - f
        self._kernels: dict[float, NDArray[np.float64]] = {}

    def error(self, weights: NDArray[np.float64]) -> float:
        """The width that equals the error at that width; it falls as the width grows, so they cross once."""
        low, high = 0.0, 1.0
        for _ in range(STEPS):
            sigma = (low + high) / 2
            if self._at(sigma, weights) > sigma:
                low = sigma
            else:
                high = sigma
        return self._at(high, weights)

    def _at(self, sigma: float, weights: NDArray[np.float64]) -> float:
        """Integral over t of the absolute smoothed residual."""
        smoothed = (weights * self._residual) @ self._kernel(sigma) / weights.sum()
        return float(np.abs(smoothed).mean())

    def _kernel(self, sigma: float) -> NDArray[np.float64]:
        if sigma not in self._kernels:
            t, f = (np.arange(GRID) + 0.5) / GRID, self._f[:, None]
            kernel = np.zeros((len(self._f), GRID))
            for image in (f - t, -f - t, 2 - f - t):  # reflected at 0 and at 1
                kernel += np.exp(-(image**2) / (2 * sigma**2))
            # Each item's kernel integrates to 1: what the grid and further reflections would lose is given back.
            self._kernels[sigma] = kernel / np.maximum(kernel.mean(1, keepdims=True), 1e-300)
        return self._kernels[sigma]


def _checked(confidences: Sequence[float], right: Sequence[bool]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    f, y = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    if len(f) != len(y) or not len(f) or not np.all((f >= 0) & (f <= 1)):
        raise ConfigError(
            f"calibration needs confidences from 0 to 1 and as many answers, found {len(f)} and {len(y)}",
            where="calibration",
        )
    return f, y
