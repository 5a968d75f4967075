"""Breadcrumbs: drop each parent's largest entries as outliers and its small ones as noise; sum what is between.

The ``gamma`` share of a module's entries that are largest goes, the ``density`` share after them stays. ``gamma`` 0
drops no outlier. With ``elect`` the sum is over the parents that agree with the elected sign, as in TIES.

Source: "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks", arXiv:2312.06795.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ecology.breeder.election import elect
from ecology.breeder.options import check_range, check_rank, check_weights, weights_for
from ecology.errors import ConfigError
from ecology.lowrank.entries import Space, cuts, entries, merge
from ecology.lowrank.lowrank import Array, LowRank


@dataclasses.dataclass(frozen=True, slots=True)
class BreadcrumbsOptions:
    """Options of ``breadcrumbs``."""

    density: float = 0.9
    """Share of a parent's entries that stay, above 0; with ``gamma`` at most 1."""
    gamma: float = 0.01
    """Share of a parent's entries that go because they are largest, at least 0."""
    weights: tuple[float, ...] | None = None
    """One a parent, any sign; None: 1/N each."""
    elect: bool = False
    """Whether entries against the elected sign are left out."""
    space: Space = "core"
    """Whose entries are meant; see ``ecology.lowrank.entries``."""
    rank: int | None = None
    """Largest rank of the child, 1 to 4096; None: the sum of the parents' ranks."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_range(self.density, 0, 1, "breadcrumbs.density", open_low=True)
        check_range(self.gamma, 0, 1, "breadcrumbs.gamma")
        if self.density + self.gamma > 1 + 1e-12:
            raise ConfigError(
                f"density {self.density!r} and gamma {self.gamma!r} are more than everything", where="breadcrumbs.gamma"
            )
        check_weights(self.weights, "breadcrumbs.weights")
        check_rank(self.rank, "breadcrumbs.rank")


def breadcrumbs(parents: Sequence[LowRank], options: BreadcrumbsOptions, seed: int) -> LowRank:
    """Mask both tails, then sum. ``seed`` has no effect."""
    weights = np.asarray(weights_for(options.weights, len(parents), 1 / len(parents), "breadcrumbs.weights"))
    looked = entries(parents, options.space)
    low = cuts(looked, len(parents), min(1.0, options.density + options.gamma))
    high = cuts(looked, len(parents), options.gamma) if options.gamma > 0 else dict.fromkeys(looked)

    def rule(name: str, block: Array) -> Array:
        size, top = np.abs(block), high[name]
        stays = size >= low[name][:, None, None]
        if top is not None:
            stays &= size < top[:, None, None]
        masked = np.where(stays, block, 0.0)
        if options.elect:
            return elect(masked, weights, "weighted", "none")
        summed: Array = np.tensordot(weights, masked, axes=1)
        return summed

    return merge(looked, parents, rule, 1.0, options.rank)
