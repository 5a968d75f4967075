"""What a set of parents spans: one small matrix a parent, on a basis that they share.

With [B_1 | .. | B_N] = Q_B R_B and [A_1; ..; A_N]^T = Q_A R_A, every dW_i is Q_B M_i Q_A^T exactly, where M_i is at
most R x R for R the sum of ranks. Each operator that stays in the span works on the M_i and costs O(R^3) a child.
Source: "Accurate and Efficient Low-Rank Model Merging in Core Space", arXiv:2509.17786.

Entrywise operators see the basis. That of QR depends on the order and the gauge of the parents, so ``joint`` turns it
to the singular basis of all parents together, which depends on the set of dW_i alone (up to signs, and to rotations
among equal singular values): left, the eigenvectors of sum dW_i dW_i^T; right, those of sum dW_i^T dW_i. The left half
is KnOTS' (arXiv:2410.19735).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ecology.lowrank.lowrank import (
    RANK_TOLERANCE,
    Array,
    Components,
    LowRank,
    core_components,
    module_names,
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ModuleCore:
    """One module of a parent set: dW_i = left cores[i] right^T."""

    left: Array
    """m x p, orthonormal columns."""
    right: Array
    """n x q, orthonormal columns."""
    cores: Array
    """N x p x q; zero for a parent that does not change the module."""

    def lift(self, core: Array) -> Components:
        """Thin SVD of left ``core`` right^T, for a p x q ``core``."""
        return core_components(self.left, core, self.right)


def share(parents: Sequence[LowRank]) -> Mapping[str, ModuleCore]:
    """The shared cores of ``parents`` by module, sorted by name.

    Raises:
        ConfigError: A module has different shapes in two parents.
    """
    return {name: _share([(i, p) for i, p in enumerate(parents)], name) for name in module_names(parents)}


def _share(parents: Sequence[tuple[int, LowRank]], name: str) -> ModuleCore:
    present = [(i, parent.modules[name]) for i, parent in parents if name in parent.modules]
    left, R_B = np.linalg.qr(np.concatenate([f.B for _, f in present], axis=1))  # noqa: N806
    right, R_A = np.linalg.qr(np.concatenate([f.A for _, f in present], axis=0).T)  # noqa: N806
    cores = np.zeros((len(parents), R_B.shape[0], R_A.shape[0]))
    start = 0
    for i, factors in present:
        mine = slice(start, start + factors.rank)
        cores[i] = R_B[:, mine] @ R_A[:, mine].T
        start += factors.rank
    return ModuleCore(left, right, cores)


def joint(module: ModuleCore) -> ModuleCore:
    """The same parents on their joint singular basis; directions that no parent uses are dropped."""
    wide = np.concatenate(list(module.cores), axis=1)  # p x N q
    tall = np.concatenate(list(module.cores), axis=0)  # N p x q
    U, s_left, _ = np.linalg.svd(wide, full_matrices=False)  # noqa: N806
    _, s_right, Vt = np.linalg.svd(tall, full_matrices=False)  # noqa: N806
    U = U[:, s_left > RANK_TOLERANCE * s_left[:1].sum()]  # noqa: N806
    Vt = Vt[s_right > RANK_TOLERANCE * s_right[:1].sum()]  # noqa: N806
    return ModuleCore(module.left @ U, module.right @ Vt.T, U.T @ module.cores @ Vt.T)


def weighted_sum(module: ModuleCore, weights: Sequence[float]) -> Array:
    """sum_i w_i M_i, p x q."""
    total: Array = np.tensordot(np.asarray(weights, np.float64), module.cores, axes=1)
    return total
