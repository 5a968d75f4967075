"""Negate: the opposite change, dW' = -scale dW, which unlearns what the parent has learnt.

Source: "Editing Models with Task Arithmetic", arXiv:2212.04089, section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ecology.breeder.options import check_range
from ecology.lowrank.lowrank import LowRank, concat


@dataclasses.dataclass(frozen=True, slots=True)
class NegateOptions:
    """Options of ``negate``."""

    scale: float = 1.0
    """How much of it is taken back, above 0 and at most 100."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_range(self.scale, 0, 100, "negate.scale", open_low=True)


def negate(parents: Sequence[LowRank], options: NegateOptions, seed: int) -> LowRank:
    """Minus ``scale`` times the one parent. ``seed`` has no effect."""
    return concat(parents, [-options.scale])
