"""Slerp: from one parent to the other along the great circle through their directions.

With omega the angle between dW_1 and dW_2 (Frobenius inner product, from their shared cores), the child is
sin((1 - t) omega) / sin(omega) dW_1 + sin(t omega) / sin(omega) dW_2. As in mergekit the angle is that of the
directions and the coefficients act on the parents as they are; parents that are almost parallel, or of which one is
zero, are interpolated on a straight line.

Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985; for models as in mergekit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ecology.breeder.options import check_range, check_rank
from ecology.lowrank.core import lift, share
from ecology.lowrank.lowrank import Array, LowRank

PARALLEL = 0.9995
"""Cosine beyond which the circle is a line, as in mergekit."""


@dataclasses.dataclass(frozen=True, slots=True)
class SlerpOptions:
    """Options of ``slerp``."""

    t: float = 0.5
    """Where on the way from the first parent (0) to the second (1)."""
    scope: Literal["module", "adapter"] = "module"
    """Whether every module has its own angle, or the adapter as a whole has one."""
    rank: int | None = None
    """Largest rank of the child, 1 to 4096; None: the sum of the parents'."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_range(self.t, 0, 1, "slerp.t")
        check_rank(self.rank, "slerp.rank")


def slerp(parents: Sequence[LowRank], options: SlerpOptions, seed: int) -> LowRank:
    """The point at ``t`` between two parents. ``seed`` has no effect."""
    span = share(parents)
    products = {}
    for name, module in span.items():
        a, b = module.cores
        products[name] = np.array([np.sum(a * a), np.sum(a * b), np.sum(b * b)])
    if options.scope == "adapter" and products:
        products = dict.fromkeys(products, np.sum(list(products.values()), axis=0))
    cores = {name: module.weighted(_coefficients(products[name], options.t)) for name, module in span.items()}
    return lift(span, cores, options.rank)


def _coefficients(products: Array, t: float) -> tuple[float, float]:
    aa, ab, bb = map(float, products)
    lengths = math.sqrt(aa * bb)
    cosine = min(1.0, max(-1.0, ab / lengths)) if lengths > 0 else 1.0
    if abs(cosine) > PARALLEL:
        return 1 - t, t
    omega = math.acos(cosine)
    return math.sin((1 - t) * omega) / math.sin(omega), math.sin(t * omega) / math.sin(omega)
