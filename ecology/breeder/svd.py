"""SVD: the weighted sum at its best approximation of a given rank.

dW' = U_k S_k V_k^T of dW = sum_i w_i dW_i (Eckart-Young), computed on the parents' shared core. What is cut off can be
most of the merge: the child carries its retained energy, sum of S_k^2 over sum of S^2.

Source: Eckart and Young, "The approximation of one matrix by another of lower rank", Psychometrika 1 (1936).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ecology.breeder.options import check_rank, check_weights, weights_for
from ecology.lowrank.core import lift, share
from ecology.lowrank.lowrank import LowRank


@dataclasses.dataclass(frozen=True, slots=True)
class SvdOptions:
    """Options of ``svd``."""

    rank: int
    """Largest rank of the child, 1 to 4096."""
    weights: tuple[float, ...] | None = None
    """One a parent, any sign; None: 1/N each."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_rank(self.rank, "svd.rank")
        check_weights(self.weights, "svd.weights")


def svd(parents: Sequence[LowRank], options: SvdOptions, seed: int) -> LowRank:
    """The weighted sum of rank at most ``options.rank``. ``seed`` has no effect."""
    weights = weights_for(options.weights, len(parents), 1 / len(parents), "svd.weights")
    return project_sum(parents, weights, options.rank)


def project_sum(parents: Sequence[LowRank], weights: Sequence[float], rank: int | None) -> LowRank:
    """sum_i w_i dW_i, at its best approximation of at most ``rank`` where that is given; canonical factors."""
    span = share(parents)
    return lift(span, {name: module.weighted(weights) for name, module in span.items()}, rank)
