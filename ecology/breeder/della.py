"""DELLA: drop entries at random, small ones more often, rescale each by its own chance; then elect signs as in TIES.

Within every row of a parent's entries the chance to stay falls evenly with the rank by magnitude, from ``density`` +
``epsilon`` / 2 for the largest to ``density`` - ``epsilon`` / 2 for the smallest. What stays is divided by its own
chance, so a parent's expectation over seeds is the parent; one common factor instead, as some tools take, is biased.

Source: "DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling", arXiv:2406.11617.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ecology.breeder.election import Normalise, SignWeighting, elect
from ecology.breeder.options import check_range, check_rank, check_weights, draws, weights_for
from ecology.errors import ConfigError
from ecology.lowrank.entries import Space, entries, merge
from ecology.lowrank.lowrank import Array, LowRank


@dataclasses.dataclass(frozen=True, slots=True)
class DellaOptions:
    """Options of ``della``."""

    density: float = 0.5
    """Mean chance that an entry stays, above 0 and at most 1."""
    epsilon: float = 0.2
    """Difference between the chances of the largest and the smallest entry of a row; both stay within (0, 1]."""
    weights: tuple[float, ...] | None = None
    """One a parent; None: 1 each."""
    scale: float = 1.0
    """Factor on the merged change, 0 to 100."""
    space: Space = "core"
    """Whose entries are meant; see ``ecology.lowrank.entries``."""
    sign_weighting: SignWeighting = "weighted"
    """Whether weights count in the election of signs."""
    normalise: Normalise = "weights"
    """What the sum of agreeing entries is divided by."""
    rank: int | None = None
    """Largest rank of the child, 1 to 4096; None: the sum of the parents' ranks."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_range(self.density, 0, 1, "della.density", open_low=True)
        check_range(self.epsilon, 0, 1, "della.epsilon")
        if not (self.density - self.epsilon / 2 > 0 and self.density + self.epsilon / 2 <= 1):
            raise ConfigError(
                f"density {self.density!r} +- epsilon {self.epsilon!r} / 2 are no chances", where="della.epsilon"
            )
        check_weights(self.weights, "della.weights")
        check_range(self.scale, 0, 100, "della.scale")
        check_rank(self.rank, "della.rank")


def della(parents: Sequence[LowRank], options: DellaOptions, seed: int) -> LowRank:
    """Sample by magnitude, elect, merge. Each module of each parent has its own draws."""
    weights = np.asarray(weights_for(options.weights, len(parents), 1.0, "della.weights"))
    random = draws(seed)

    def rule(name: str, block: Array) -> Array:
        width = block.shape[2]
        places = np.argsort(np.argsort(-np.abs(block), axis=2, kind="stable"), axis=2, kind="stable")
        chance = options.density + options.epsilon * (0.5 - places / max(1, width - 1))
        drawn = np.stack([random(i, name, block.shape[1:]) for i in range(len(parents))])
        return elect(np.where(drawn < chance, block / chance, 0.0), weights, options.sign_weighting, options.normalise)

    return merge(entries(parents, options.space), parents, rule, options.scale, options.rank)
