"""TIES: trim each parent, elect a sign per entry, average those that agree.

Published tools disagree on where the weights go, so both choices have names here:

``sign_weighting: weighted``     weights count in the election (mergekit)
``sign_weighting: unweighted``   parents vote with their bare entries (paper, PEFT)
``normalise: weights``           divide by the sum of |w| of those that agree: weights are shares (mergekit)
``normalise: count``             divide by their number: weights also scale (paper, PEFT)
``normalise: none``              do not divide

Entries of what: ``space: core`` looks at the parents on their joint singular basis, which keeps the child's rank at
most the sum of theirs, costs O(R^3) and does not depend on their factors or order; ``space: delta`` looks at dW itself,
which is the paper's TIES, forms every dense dW and has to be projected back (to ``rank``, or to the sum of the
parents' ranks). A parent that does not change a module votes nothing there and is not counted.

Source: "TIES-Merging", arXiv:2306.01708, section 4; core space, arXiv:2509.17786.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from ecology.breeder.options import check_range, check_rank, check_weights, weights_for
from ecology.lowrank.core import share
from ecology.lowrank.lowrank import Array, LowRank, components, core_components, freeze, truncate

TIE_TOLERANCE = 1e-9
"""A majority smaller than this share of the votes is none."""


@dataclasses.dataclass(frozen=True, slots=True)
class TiesOptions:
    """Options of ``ties``."""

    density: float = 0.2
    """Share of a parent's entries that survive trimming, above 0 and at most 1; at least one entry does."""
    weights: tuple[float, ...] | None = None
    """One a parent; None: 1 each."""
    scale: float = 1.0
    """The paper's lambda, 0 to 100: factor on the merged change."""
    space: Literal["core", "delta"] = "core"
    """Whose entries are meant; see the module's docstring."""
    sign_weighting: Literal["weighted", "unweighted"] = "weighted"
    """Whether weights count in the election of signs."""
    normalise: Literal["weights", "count", "none"] = "weights"
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
    cores = share(parents)
    if options.space == "core":
        cores = cores.joint()
        stacks = {name: core.cores for name, core in cores.items()}
    else:
        stacks = {
            name: np.stack([p.modules[name].dense() if name in p.modules else np.zeros(core.shape) for p in parents])
            for name, core in cores.items()
        }
    trimmed = _trim(stacks, options)
    modules, lost = {}, {}
    for name, stack in trimmed.items():
        merged = options.scale * _merge(stack, weights, options)
        if options.space == "core":
            parts = core_components(cores[name].left, merged, cores[name].right)
        else:
            parts = components(freeze(merged, np.eye(merged.shape[1])))
        full = int(np.linalg.matrix_rank(cores[name].cores).sum())
        modules[name], lost[name] = truncate(parts, options.rank or full)
    return LowRank.of(modules, lost)


def _trim(stacks: Mapping[str, Array], options: TiesOptions) -> dict[str, Array]:
    """Zeroes all but the largest entries of each parent; stacks are N x p x q. Equal magnitudes stay or go together."""
    if options.trim_scope == "module":
        cuts = {name: [_cut(core, options.density) for core in stack] for name, stack in stacks.items()}
    else:
        by_parent = zip(*stacks.values(), strict=True)
        shared = [_cut(np.concatenate([core.ravel() for core in cores]), options.density) for cores in by_parent]
        cuts = dict.fromkeys(stacks, shared)
    return {
        name: np.where(np.abs(stack) >= np.reshape(cuts[name], (-1, 1, 1)), stack, 0.0)
        for name, stack in stacks.items()
    }


def _cut(entries: Array, density: float) -> float:
    """Magnitude of the smallest entry that stays."""
    if entries.size == 0:
        return 0.0
    keep = max(1, math.ceil(density * entries.size - 1e-9))  # 0.2 x 5 is one entry, whatever the binary fraction
    return float(np.partition(np.abs(entries), entries.size - keep, axis=None)[entries.size - keep])


def _merge(stack: Array, weights: Array, options: TiesOptions) -> Array:
    """Elects and averages N x p x q trimmed entries into p x q."""
    weighted = stack * weights[:, None, None]
    votes = weighted if options.sign_weighting == "weighted" else stack * (weights != 0)[:, None, None]
    balance = votes.sum(axis=0)
    # Where parents cancel to rounding, noise must not elect a sign.
    elected = np.where(np.abs(balance) > TIE_TOLERANCE * np.abs(votes).sum(axis=0), np.sign(balance), 0.0)
    agrees = (np.sign(votes) == elected) & (votes != 0)
    total: Array = np.where(agrees, weighted, 0.0).sum(axis=0)
    if options.normalise == "none":
        return total
    # |w|, because a parent of negative weight has its sign turned already.
    shares = np.abs(weights) if options.normalise == "weights" else np.ones_like(weights)
    divisor = np.tensordot(shares, agrees.astype(np.float64), axes=1)
    return np.divide(total, divisor, out=np.zeros_like(total), where=divisor > 0)
