"""Linear: dW = sum_i w_i dW_i, exactly.

On the parents' shared core, so there are no cross terms B_i A_j, and a weight of 0.5 is half the change and not a
quarter. Negative weights take a change back. The ranks add up, less what the parents have in common; ``rank`` projects
the sum to its best approximation. Without weights every parent counts 1/N (a model soup).

Source: "Editing Models with Task Arithmetic", arXiv:2212.04089; for adapters "LoRA Soups" (CAT), arXiv:2410.13025.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ecology.breeder.options import check_rank, check_weights, weights_for
from ecology.breeder.svd import project_sum
from ecology.lowrank.lowrank import LowRank


@dataclasses.dataclass(frozen=True, slots=True)
class LinearOptions:
    """Options of ``linear``."""

    weights: tuple[float, ...] | None = None
    """One a parent, any sign; None: 1/N each."""
    rank: int | None = None
    """Largest rank of the child, 1 to 4096; None: the sum of the parents'."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_weights(self.weights, "linear.weights")
        check_rank(self.rank, "linear.rank")


def linear(parents: Sequence[LowRank], options: LinearOptions, seed: int) -> LowRank:
    """The exact weighted sum. ``seed`` has no effect."""
    weights = weights_for(options.weights, len(parents), 1 / len(parents), "linear.weights")
    return project_sum(parents, weights, options.rank)
