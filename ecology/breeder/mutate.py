"""Mutate: a random neighbour of one parent, at a distance that is set relative to the parent.

In its span, every singular value is scaled by 1 + eps with eps ~ N(0, ``spectrum``^2). Out of its span, one
rank-1 term is added to every module, along directions orthogonal to what the module already uses, of norm ``noise``
x ||dW||_F of that module. Noise on the entries of B and A instead would have an effect that depends on the other
factor's norm, which means nothing. A module whose span is full gets no term.

Source: the SVD mutation of "Agent Skill Acquisition for LLMs via CycleQD", arXiv:2410.14735; the
term out of span is ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ecology.breeder.options import check_range, check_rank
from ecology.lowrank.core import cut
from ecology.lowrank.lowrank import Array, LowRank, components, freeze, zero


@dataclasses.dataclass(frozen=True, slots=True)
class MutateOptions:
    """Options of ``mutate``."""

    spectrum: float = 0.1
    """Standard deviation of the relative change of a singular value, 0 to 1."""
    noise: float = 0.05
    """Norm of the rank-1 term relative to the module's ||dW||_F, 0 to 1."""
    rank: int | None = None
    """Largest rank of the child, 1 to 4096; None: the parent's plus one where ``noise`` is above 0."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_range(self.spectrum, 0, 1, "mutate.spectrum")
        check_range(self.noise, 0, 1, "mutate.noise")
        check_rank(self.rank, "mutate.rank")


def mutate(parents: Sequence[LowRank], options: MutateOptions, seed: int) -> LowRank:
    """A mutant of the one parent; modules draw in sorted order."""
    generator = np.random.Generator(np.random.PCG64(seed))
    modules = {}
    for name, factors in parents[0].modules.items():
        parts = components(factors)
        if not parts.s.size:  # no draw, so that a zero change and a module left out are the same
            modules[name] = zero(factors.shape)
            continue
        s = parts.s * (1 + options.spectrum * generator.standard_normal(parts.s.size))
        root = np.sqrt(np.abs(s))
        B, A = parts.U * np.copysign(root, s), (parts.V * root).T  # noqa: N806
        u, v = _outside(parts.U, generator), _outside(parts.V, generator)
        if options.noise > 0 and u is not None and v is not None:
            length = np.sqrt(options.noise * np.linalg.norm(parts.s))
            B, A = np.column_stack([B, length * u]), np.vstack([A, length * v])  # noqa: N806
        modules[name] = freeze(B, A)
    child = LowRank.of(modules)
    return cut(child, options.rank, parents)


def _outside(basis: Array, generator: np.random.Generator) -> Array | None:
    """A random unit vector orthogonal to the columns of ``basis``; None where they fill the space."""
    vector: Array = generator.standard_normal((basis.shape[0],))
    if basis.shape[0] == basis.shape[1]:
        return None
    for _ in range(2):  # twice is enough (Giraud, Langou and Rozloznik 2005)
        vector = np.subtract(vector, basis @ (basis.T @ vector))
    return np.divide(vector, np.linalg.norm(vector))
