"""TIES: trim each parent, elect a sign per entry, average those that agree.

Published tools disagree on where the weights go, so both choices have names here:

``sign_weighting: weighted``     weights count in the election (mergekit)
``sign_weighting: unweighted``   parents vote with their bare entries (paper, PEFT)
``normalise: weights``           divide by the sum of |w| of those that agree: weights are shares (mergekit)
``normalise: count``             divide by their number: weights also scale (paper, PEFT)
``normalise: none``              do not divide

``space`` says whose entries are meant: ``core``, ``knots`` or ``delta`` (see ``ecology.lowrank.entries``, also for what
they cost). The first two keep the child's rank at most the sum of the parents' and do not depend on their factors or
order; ``delta`` is the paper's TIES, and has to be projected back (to ``rank``, or to the sum of the parents' ranks). A
parent that does not change a module votes nothing there and is not counted.

Source: "TIES-Merging", arXiv:2306.01708, section 4; core space, arXiv:2509.17786; KnOTS, arXiv:2410.19735.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ecology.breeder.election import Normalise, SignWeighting, elect
from ecology.breeder.options import check_range, check_rank, check_weights, weights_for
from ecology.lowrank.entries import Space, cuts, entries, merge
from ecology.lowrank.lowrank import Array, LowRank


@dataclasses.dataclass(frozen=True, slots=True)
class TiesOptions:
    """Options of ``ties``."""

    density: float = 0.2
    """Share of a parent's entries that survive trimming, above 0 and at most 1; at least one entry does."""
    weights: tuple[float, ...] | None = None
    """One a parent; None: 1 each."""
    scale: float = 1.0
    """The paper's lambda, 0 to 100: factor on the merged change."""
    space: Space = "core"
    """Whose entries are meant; see the module's docstring."""
    sign_weighting: SignWeighting = "weighted"
    """Whether weights count in the election of signs."""
    normalise: Normalise = "weights"
    """What the sum of agreeing entries is divided by."""
    trim_scope: Literal["module", "global"] = "module"
    """Whether each module keeps ``density`` of its entries, or the adapter as a whole does."""
    rank: int | None = None
    """Largest rank of the child, 1 to 4096; None: the sum of the parents' ranks."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_range(self.density, 0, 1, "ties.density", open_low=True)
        check_range(self.scale, 0, 100, "ties.scale")
        check_weights(self.weights, "ties.weights")
        check_rank(self.rank, "ties.rank")


def ties(parents: Sequence[LowRank], options: TiesOptions, seed: int) -> LowRank:
    """Trim, elect, merge. ``seed`` has no effect."""
    weights = np.asarray(weights_for(options.weights, len(parents), 1.0, "ties.weights"))
    looked = entries(parents, options.space)
    thresholds = cuts(looked, len(parents), options.density, options.trim_scope)

    def rule(name: str, block: Array) -> Array:
        trimmed = np.where(np.abs(block) >= thresholds[name][:, None, None], block, 0.0)
        return elect(trimmed, weights, options.sign_weighting, options.normalise)

    return merge(looked, parents, rule, options.scale, options.rank)
