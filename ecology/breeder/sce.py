"""SCE: select the entries on which parents differ most, calculate a weight a module, erase minority signs.

Select: the ``density`` share of a module's entries with the largest variance over the parents. Calculate: a parent's
weight in a module is the mean square of its selected entries, over the sum of all parents'. Erase: entries against the
sign of the parents' sum are left out; what remains is averaged with those weights.

Source: "FuseChat: Knowledge Fusion of Chat Models", arXiv:2408.07990, section 3.3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ecology.breeder.election import TIE_TOLERANCE
from ecology.breeder.options import check_range, check_rank
from ecology.lowrank.entries import Entries, Space, cuts, entries, merge
from ecology.lowrank.lowrank import Array, LowRank


@dataclasses.dataclass(frozen=True, slots=True)
class SceOptions:
    """Options of ``sce``."""

    density: float = 0.1
    """Share of entries that are selected, above 0 and at most 1."""
    scale: float = 1.0
    """Factor on the merged change, 0 to 100."""
    space: Space = "core"
    """Whose entries are meant; see ``ecology.lowrank.entries``."""
    rank: int | None = None
    """Largest rank of the child, 1 to 4096; None: the sum of the parents' ranks."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_range(self.density, 0, 1, "sce.density", open_low=True)
        check_range(self.scale, 0, 100, "sce.scale")
        check_rank(self.rank, "sce.rank")


def sce(parents: Sequence[LowRank], options: SceOptions, seed: int) -> LowRank:
    """Select, calculate, erase. ``seed`` has no effect."""
    looked = entries(parents, options.space)
    cut = cuts({name: _variances(these) for name, these in looked.items()}, 1, options.density)
    weights = _weights(looked, len(parents), cut)

    def rule(name: str, block: Array) -> Array:
        chosen = np.where(_variance(looked[name], block) >= cut[name][0], block, 0.0)
        balance = chosen.sum(axis=0)
        sign = np.where(np.abs(balance) > TIE_TOLERANCE * np.abs(chosen).sum(axis=0), np.sign(balance), 0.0)
        agrees = (np.sign(chosen) == sign) & (chosen != 0)
        shares = weights[name][:, None, None] * agrees
        total, divisor = (shares * chosen).sum(axis=0), shares.sum(axis=0)
        averaged: Array = np.divide(total, divisor, out=np.zeros_like(total), where=divisor > 0)
        return averaged

    return merge(looked, parents, rule, options.scale, options.rank)


def _variance(these: Entries, block: Array) -> Array:
    """Over the parents; rounding errors of equal entries are none."""
    variance = block.var(axis=0)
    spread: Array = np.where(variance > (TIE_TOLERANCE * these.level) ** 2, variance, 0.0)
    return spread


def _variances(these: Entries) -> Entries:
    return dataclasses.replace(these, rows=lambda start, stop: _variance(these, these.rows(start, stop))[None])


def _weights(looked: Mapping[str, Entries], parents: int, cut: Mapping[str, Array]) -> Mapping[str, Array]:
    squares = {}
    for name, these in looked.items():
        total = np.zeros(parents)
        for _, block in these.blocks(parents):
            total += np.where(_variance(these, block) >= cut[name][0], block**2, 0.0).sum(axis=(1, 2))
        squares[name] = total
    return squares
