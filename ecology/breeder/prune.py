"""Prune: one budget of singular components for the whole adapter, spent where they are largest.

All singular values of all modules are sorted together and the largest stay, so a module that does much keeps rank
that a module that does little gives up. Pruning ranks makes an adapter smaller and faster; pruning entries saves
nothing in a dense runtime.

Source: Eckart and Young 1936 per module; one budget over modules as in "AdaLoRA", arXiv:2303.10512, section 3.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ecology.breeder.options import check_range, check_rank
from ecology.errors import ConfigError
from ecology.lowrank.lowrank import LowRank, components, truncate


@dataclasses.dataclass(frozen=True, slots=True)
class PruneOptions:
    """Options of ``prune``: exactly one of the two."""

    rank: int | None = None
    """Mean rank of the child, 1 to 4096: ``rank`` x modules with an effect components stay."""
    energy: float | None = None
    """Share of ||dW||_F^2 that must stay, above 0 and at most 1: the fewest components that hold it do."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range, or for both or none."""
        if (self.rank is None) == (self.energy is None):
            raise ConfigError(
                "exactly one of rank and energy says how much stays", where="prune", todo="give one of them"
            )
        check_rank(self.rank, "prune.rank")
        if self.energy is not None:
            check_range(self.energy, 0, 1, "prune.energy", open_low=True)


def prune(parents: Sequence[LowRank], options: PruneOptions, seed: int) -> LowRank:
    """The one parent with its smallest singular components cut off. ``seed`` has no effect."""
    parts = {name: components(factors) for name, factors in parents[0].modules.items()}
    # Largest first; equals in the order of module names, so that the choice is a function of dW.
    ranking = sorted((-float(s), name) for name, part in parts.items() for s in part.s)
    if options.rank is not None:
        budget = options.rank * sum(part.s.size > 0 for part in parts.values())
    else:
        energies = np.cumsum([s * s for s, _ in ranking])
        wanted = (options.energy or 0.0) * (energies[-1] if ranking else 0.0)
        budget = int(np.searchsorted(energies, wanted * (1 - 1e-12))) + 1
    ranks = dict.fromkeys(parts, 0)
    for _, name in ranking[:budget]:
        ranks[name] += 1
    modules, lost = {}, {}
    for name, part in parts.items():
        modules[name], lost[name] = truncate(part, ranks[name])
    return LowRank.of(modules, lost)
