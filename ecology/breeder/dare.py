"""DARE, native to low rank: drop at random, rescale what stays by 1/density, then take the weighted sum.

The expectation over seeds is the exact weighted sum. DARE on the entries of dW destroys its rank, and on the entries of
mixed factors makes cross terms, so two variants act within each parent, on its canonical form:

``variant: rank1``     drops singular components s_k u_k v_k^T with probability 1 - density; the child gets smaller
``variant: factors``   drops entries of B and of A by two independent masks; E[B~ A~] = B A because they are independent
``variant: delta``     drops entries of dW, as the paper does; the result has full rank and is projected back, to
                       ``rank`` or the sum of the parents', which is what then biases it; see
                       ``ecology.lowrank.entries`` for what it costs

The canonical form makes the result a function of dW and the seed, whatever factors the parent came in.

Source: "Language Models are Super Mario" (DARE), arXiv:2311.03099, section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ecology.breeder.options import check_range, check_rank, check_weights, draws, weights_for
from ecology.lowrank.core import cut
from ecology.lowrank.entries import entries, merge
from ecology.lowrank.lowrank import Array, Components, Factors, LowRank, components, concat


@dataclasses.dataclass(frozen=True, slots=True)
class DareOptions:
    """Options of ``dare``."""

    density: float = 0.5
    """Probability that a component or an entry stays, above 0 and at most 1."""
    weights: tuple[float, ...] | None = None
    """One a parent, any sign; None: 1/N each."""
    variant: Literal["rank1", "factors", "delta"] = "rank1"
    """What is dropped; see the module's docstring."""
    rank: int | None = None
    """Largest rank of the child, 1 to 4096; None: no projection, or for ``delta`` the sum of the parents' ranks."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_range(self.density, 0, 1, "dare.density", open_low=True)
        check_weights(self.weights, "dare.weights")
        check_rank(self.rank, "dare.rank")


def dare(parents: Sequence[LowRank], options: DareOptions, seed: int) -> LowRank:
    """Thins out every parent by itself, then sums. The draws follow the parents' order, modules sorted."""
    weights = weights_for(options.weights, len(parents), 1 / len(parents), "dare.weights")
    if options.variant == "delta":
        return _delta(parents, weights, options, seed)
    generator = np.random.Generator(np.random.PCG64(seed))
    thin = _components if options.variant == "rank1" else _entries
    thinned = [
        LowRank.of({name: thin(components(f), options.density, generator) for name, f in parent.modules.items()})
        for parent in parents
    ]
    child = concat(thinned, weights)
    return cut(child, options.rank, parents)


def _components(parts: Components, density: float, generator: np.random.Generator) -> Factors:
    stays = generator.random(parts.s.size) < density
    return Components(parts.U[:, stays], parts.s[stays] / density, parts.V[:, stays]).factors()


def _entries(parts: Components, density: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    factors = parts.factors()
    B = factors.B * (generator.random(factors.B.shape) < density) / density  # noqa: N806
    A = factors.A * (generator.random(factors.A.shape) < density) / density  # noqa: N806
    return B, A


def _delta(parents: Sequence[LowRank], weights: Sequence[float], options: DareOptions, seed: int) -> LowRank:
    random = draws(seed)

    def rule(name: str, block: Array) -> Array:
        total = np.zeros(block.shape[1:])
        for i, (weight, part) in enumerate(zip(weights, block, strict=True)):
            total += np.where(random(i, name, part.shape) < options.density, weight / options.density * part, 0.0)
        return total

    return merge(entries(parents, "delta"), parents, rule, 1.0, options.rank)
