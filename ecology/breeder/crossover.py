"""Crossover: every module, or every layer as a whole, is inherited from one parent, drawn at random.

What is inherited is the whole dW of a module, with its rank. A parent that does not change a module passes on just
that: no change. Swapping entries or rows of A and B between parents would mix bases that have nothing in common.

Source: uniform crossover (Syswerda, "Uniform crossover in genetic algorithms", ICGA 1989) on whole modules.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ecology.breeder.options import check_weights, weights_for
from ecology.errors import ConfigError
from ecology.lowrank.lowrank import Factors, LowRank, module_names, zero

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


@dataclasses.dataclass(frozen=True, slots=True)
class CrossoverOptions:
    """Options of ``crossover``."""

    unit: Literal["module", "layer"] = "module"
    """What is inherited together; a layer is all modules with the same first number in their names."""
    weights: tuple[float, ...] | None = None
    """Chances of the parents, relative, at least 0; None: equal."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_weights(self.weights, "crossover.weights")
        if self.weights is not None and (min(self.weights) < 0 or sum(self.weights) <= 0):
            raise ConfigError(
                f"{self.weights!r} are no chances", where="crossover.weights", todo="give numbers of at least 0"
            )


def crossover(parents: Sequence[LowRank], options: CrossoverOptions, seed: int) -> LowRank:
    """A child whose units each come from one parent; units draw in the order of their first module."""
    chances = np.asarray(weights_for(options.weights, len(parents), 1.0, "crossover.weights"))
    generator = np.random.Generator(np.random.PCG64(seed))
    heirs: dict[str, int] = {}
    modules: dict[str, Factors] = {}
    for name in module_names(parents):
        unit = _layer(name) if options.unit == "layer" else name
        if unit not in heirs:
            heirs[unit] = int(generator.choice(len(parents), p=chances / chances.sum()))
        holder = next(parent.modules[name] for parent in parents if name in parent.modules)
        modules[name] = parents[heirs[unit]].modules.get(name) or zero(holder.shape)
    return LowRank.of(modules)


def _layer(name: str) -> str:
    match = _LAYER.search(name)
    return name if match is None else name[: match.end()]
