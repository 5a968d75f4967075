"""Crossover: a child whose modules, or whole layers, come from its parents by chance.

``method: inherit``      every unit is inherited from one parent, drawn at random, with its whole dW and its rank. A
                         parent that does not change a module passes on just that: no change
``method: interpolate``  every unit has its own random weights (Dirichlet), and is the parents' weighted sum with them
``method: exchange``     every module is built from singular components: its j-th is the j-th of one parent, drawn at
                         random; their sum is made orthogonal again by QR and a small SVD

All three look at dW alone. Swapping entries or rows of A and B between parents would mix bases that have nothing in
common.

Source: uniform crossover (Syswerda, "Uniform crossover in genetic algorithms", ICGA 1989) on modules and components.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ecology.breeder.options import check_rank, check_weights, weights_for
from ecology.errors import ConfigError
from ecology.lowrank.core import cut, lift, share
from ecology.lowrank.lowrank import Array, Factors, LowRank, components, freeze, module_names, zero

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


@dataclasses.dataclass(frozen=True, slots=True)
class CrossoverOptions:
    """Options of ``crossover``."""

    unit: Literal["module", "layer"] = "module"
    """What is inherited together; a layer is all modules with the same first number in their names. Components are
    exchanged module by module."""
    weights: tuple[float, ...] | None = None
    """Chances of the parents, relative, at least 0; None: equal."""
    method: Literal["inherit", "interpolate", "exchange"] = "inherit"
    """How parents are mixed; see the module's docstring."""
    rank: int | None = None
    """Largest rank of the child, 1 to 4096; None: no projection."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_weights(self.weights, "crossover.weights")
        check_rank(self.rank, "crossover.rank")
        if self.weights is not None and (min(self.weights) < 0 or sum(self.weights) <= 0):
            raise ConfigError(
                f"{self.weights!r} are no chances", where="crossover.weights", todo="give numbers of at least 0"
            )


def crossover(parents: Sequence[LowRank], options: CrossoverOptions, seed: int) -> LowRank:
    """A child of all parents; units draw in the order of their first module."""
    chances = np.asarray(weights_for(options.weights, len(parents), 1.0, "crossover.weights"))
    chances = chances / chances.sum()
    generator = np.random.Generator(np.random.PCG64(seed))
    method = {"inherit": _inherit, "interpolate": _interpolate, "exchange": _exchange}[options.method]
    child = method(parents, chances, options.unit == "layer", generator)
    return cut(child, options.rank, parents)


def _inherit(parents: Sequence[LowRank], chances: Array, layers: bool, generator: np.random.Generator) -> LowRank:
    heirs: dict[str, int] = {}
    modules: dict[str, Factors] = {}
    for name in module_names(parents):
        unit = _layer(name) if layers else name
        if unit not in heirs:
            heirs[unit] = int(generator.choice(len(parents), p=chances))
        modules[name] = parents[heirs[unit]].modules.get(name) or zero(_shape(parents, name))
    return LowRank.of(modules)


def _interpolate(parents: Sequence[LowRank], chances: Array, layers: bool, generator: np.random.Generator) -> LowRank:
    span = share(parents)
    weights: dict[str, Array] = {}
    cores = {}
    for name, module in span.items():
        unit = _layer(name) if layers else name
        if unit not in weights:  # Dirichlet of mean ``chances``; a parent without a chance has weight 0
            parts = np.array([generator.standard_gamma(len(parents) * c) if c > 0 else 0.0 for c in chances])
            weights[unit] = parts / parts.sum() if parts.sum() > 0 else chances
        cores[name] = module.weighted(weights[unit].tolist())
    return lift(span, cores)


def _exchange(parents: Sequence[LowRank], chances: Array, layers: bool, generator: np.random.Generator) -> LowRank:
    del layers
    modules: dict[str, Factors] = {}
    for name in module_names(parents):
        empty = zero(_shape(parents, name))
        parts = [components(parent.modules.get(name, empty)) for parent in parents]
        slots = range(max(part.s.size for part in parts))
        drawn = [(int(generator.choice(len(parents), p=chances)), j) for j in slots]
        taken = [(parts[i], j) for i, j in drawn if j < parts[i].s.size]
        if not taken:
            modules[name] = empty
            continue
        root = np.sqrt([part.s[j] for part, j in taken])
        pooled = freeze(
            np.stack([part.U[:, j] for part, j in taken], axis=1) * root,
            (np.stack([part.V[:, j] for part, j in taken], axis=1) * root).T,
        )
        modules[name] = components(pooled).factors()
    return LowRank.of(modules, settled=True)


def _shape(parents: Sequence[LowRank], name: str) -> tuple[int, int]:
    return next(parent.modules[name].shape for parent in parents if name in parent.modules)


def _layer(name: str) -> str:
    match = _LAYER.search(name)
    return name if match is None else name[: match.end()]
