"""TSV: singular vectors of all parents side by side, made orthogonal, with the singular values that they had.

With dW_i = U_i S_i V_i^T the stacked [U_1 | .. | U_N] is replaced by the nearest matrix with orthonormal columns (P Q^T
of its SVD P D Q^T: orthogonal Procrustes), the V_i alike, so that parents no longer interfere; the child is
``scale`` x U' diag(S_1, .., S_N) V'^T. Where the stack has dependent columns, as with the same parent twice, P Q^T is
taken on the part that is not. All of it happens on the parents' shared core.

Source: "Task Singular Vectors: Reducing Task Interference in Model Merging", arXiv:2412.00081, TSV-Merge.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ecology.breeder.options import check_range, check_rank
from ecology.lowrank.core import ModuleCore, lift, share
from ecology.lowrank.lowrank import RANK_TOLERANCE, Array, LowRank

DEPENDENT = 1e-9
"""Singular values of a stack of unit vectors below this are those of dependent columns."""


@dataclasses.dataclass(frozen=True, slots=True)
class TsvOptions:
    """Options of ``tsv``."""

    keep: float = 1.0
    """Share of each parent's components that take part, largest first, above 0 and at most 1; the paper, whose
    matrices have full rank, takes 1/N."""
    scale: float = 1.0
    """Factor on the child, above 0 and at most 100."""
    rank: int | None = None
    """Largest rank of the child, 1 to 4096; None: the sum of the parents'."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_range(self.keep, 0, 1, "tsv.keep", open_low=True)
        check_range(self.scale, 0, 100, "tsv.scale", open_low=True)
        check_rank(self.rank, "tsv.rank")


def tsv(parents: Sequence[LowRank], options: TsvOptions, seed: int) -> LowRank:
    """The sum without interference. ``seed`` has no effect."""
    span = share(parents)
    return lift(span, {name: options.scale * _merged(module, options) for name, module in span.items()}, options.rank)


def _merged(module: ModuleCore, options: TsvOptions) -> Array:
    left, values, right = [], [], []
    for core in module.cores:
        U, s, Vt = np.linalg.svd(core, full_matrices=False)  # noqa: N806
        whole = int(np.sum(s > RANK_TOLERANCE * s[:1].sum()))
        k = math.ceil(options.keep * whole - 1e-9)
        left.append(U[:, :k])
        values.append(s[:k])
        right.append(Vt[:k].T)
    U, V = _orthogonal(np.concatenate(left, axis=1)), _orthogonal(np.concatenate(right, axis=1))  # noqa: N806
    merged: Array = (U * np.concatenate(values)) @ V.T
    return merged


def _orthogonal(stack: Array) -> Array:
    P, d, Qt = np.linalg.svd(stack, full_matrices=False)  # noqa: N806
    keep = d > DEPENDENT
    nearest: Array = P[:, keep] @ Qt[keep]
    return nearest
