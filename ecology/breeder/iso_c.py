"""Iso-C: the sum of all parents with its singular values made equal.

dW = U S V^T of sum_i dW_i becomes ``scale`` x mean(S) U V^T. The mean is over the support, the numerically non-zero
singular values, of which a sum of adapters has at most the sum of their ranks; over all min(m, n) values, as the paper
has it for full models, it would be smaller by that ratio. Adapters want a ``scale`` well above 1, so it is an option to
be searched, not a constant.

Source: "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces", arXiv:2502.04959, Iso-C.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ecology.breeder.options import check_range, check_rank, check_weights, weights_for
from ecology.lowrank.core import lift, share
from ecology.lowrank.lowrank import RANK_TOLERANCE, Array, LowRank


@dataclasses.dataclass(frozen=True, slots=True)
class IsoCOptions:
    """Options of ``iso_c``."""

    scale: float = 1.0
    """Factor on the child, above 0 and at most 100."""
    weights: tuple[float, ...] | None = None
    """One a parent, any sign; None: 1 each, as in the paper."""
    rank: int | None = None
    """Directions that are kept, 1 to 4096, before their values are made equal; None: all."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_range(self.scale, 0, 100, "iso_c.scale", open_low=True)
        check_weights(self.weights, "iso_c.weights")
        check_rank(self.rank, "iso_c.rank")


def iso_c(parents: Sequence[LowRank], options: IsoCOptions, seed: int) -> LowRank:
    """The isotropic sum. ``seed`` has no effect."""
    weights = weights_for(options.weights, len(parents), 1.0, "iso_c.weights")
    span = share(parents)
    cores = {
        name: options.scale * _isotropic(module.weighted(weights), _size(module.R_B, module.R_A), options.rank)
        for name, module in span.items()
    }
    return lift(span, cores)


def _size(R_B: Array, R_A: Array) -> float:  # noqa: N803
    """What rounding errors of the weighted core are measured against: parents that cancel leave no direction."""
    return float(np.linalg.norm(R_B) * np.linalg.norm(R_A))


def _isotropic(core: Array, size: float, rank: int | None) -> Array:
    U, s, Vt = np.linalg.svd(core, full_matrices=False)  # noqa: N806
    keep = int(np.sum((s > RANK_TOLERANCE * s[:1].sum()) & (s > 1e-13 * size)))
    keep = keep if rank is None else min(keep, rank)
    mean = float(s[:keep].mean()) if keep else 0.0
    flat: Array = mean * (U[:, :keep] @ Vt[:keep])
    return flat
