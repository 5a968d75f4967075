"""The entries of parents' changes, for operators that look at entries: three spaces to look in.

``core``   dW_i on the joint singular basis of all parents: R x R numbers a parent, O(R^3), and the child's rank is at
           most the sum of theirs (arXiv:2509.17786)
``knots``  the rows of [dW_1 | .. | dW_N] = U S [V_1^T | .. | V_N^T]: parent i is S V_i^T on U, and V_i is looked at;
           R x n numbers a parent (KnOTS, arXiv:2410.19735)
``delta``  dW_i itself, m x n numbers a parent: what papers on whole models mean. It is never stacked: blocks of rows
           of all parents are made, used and dropped, and only the merged m x n matrix of one module is held. Cost: one
           product of 2 N m n r operations for each pass, two passes where a share of the largest entries is asked
           for, and then an eigendecomposition of min(m, n)^3, since the merged matrix has full rank and must be
           projected back.

``core`` and ``knots`` are free of gauge and order up to signs and rotations among equal singular values; a rule that
treats x and -x alike does not see signs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ecology.lowrank.basis import Array
from ecology.lowrank.core import ModuleCore, joint, share, ticks_of
from ecology.lowrank.lowrank import RANK_TOLERANCE, Factors, LowRank, components, freeze, truncate

Space = Literal["core", "knots", "delta"]

BLOCK_BYTES = 32 * 2**20
"""Entries of all parents that are made at once hold about this much."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """One module's entries: N matrices of p x q, rows at a time."""

    shape: tuple[int, int]
    """(p, q)."""
    rows: Callable[[int, int], Array]
    """(start, stop) -> N x (stop - start) x q, made anew."""
    close: Callable[[Array, int], tuple[Factors, float]]
    """(merged entries p x q, rank) -> the child's factors at its best approximation of ``rank``, ||cut off||_F^2."""
    full: int
    """Sum of the ranks of the parents' dW."""
    level: float
    """Root mean square of all parents' entries: what rounding errors are measured against."""

    def blocks(self, parents: int) -> Iterator[tuple[int, Array]]:
        """Row number of the first row, and N x b x q entries, in order; memory stays within ``BLOCK_BYTES``."""
        p, q = self.shape
        step = max(1, BLOCK_BYTES // (8 * max(1, q) * parents))
        for start in range(0, p, step):
            yield start, self.rows(start, min(p, start + step))


def entries(parents: Sequence[LowRank], space: Space) -> dict[str, Entries]:
    """The entries of ``parents`` by module, sorted.

    Raises:
        ConfigError: A module has different shapes in two parents.
    """
    span = share(parents)
    if space == "delta":
        return {name: _delta(parents, name, core) for name, core in span.items()}
    look = _core if space == "core" else _knots
    return {name: look(core) for name, core in span.items()}


def merge(
    entries_: Mapping[str, Entries],
    parents: Sequence[LowRank],
    rule: Callable[[str, Array], Array],
    scale: float,
    rank: int | None,
) -> LowRank:
    """The child whose entries are ``scale`` x ``rule``, at its best approximation of ``rank``.

    Args:
        entries_: By module.
        parents: Whose they are.
        rule: (module, N x b x q) -> b x q; called for blocks of rows in order.
        scale: Factor on the merged entries.
        rank: Largest rank of the child; None for the sum of the parents' ranks.
    """
    modules: dict[str, Factors] = {}
    lost: dict[str, float] = {}
    ticks = ticks_of(parents)
    for name, these in entries_.items():
        merged = np.empty(these.shape)
        for start, block in these.blocks(len(parents)):
            merged[start : start + block.shape[1]] = scale * rule(name, block)
        modules[name], lost[name] = these.close(merged, rank or these.full)
        if ticks is not None:
            ticks.made()
    return LowRank.of(modules, lost, settled=True)


def cuts(
    entries_: Mapping[str, Entries], parents: int, density: float, scope: Literal["module", "global"] = "module"
) -> Mapping[str, Array]:
    """For each module and parent, the magnitude of the smallest entry among the largest ``density`` of its entries.

    At least one entry is among them. Exact, in two passes over the blocks: the first counts magnitudes by their leading
    bits, the second keeps those that share the bits of the one sought.

    Args:
        entries_: By module.
        parents: How many there are.
        density: Share of entries, above 0 and at most 1.
        scope: Whether the share is of each module's entries, or of all modules' together.

    Returns:
        N magnitudes by module; 0 where there is no entry.
    """
    if scope == "module":
        return {name: _cuts([these], parents, density) for name, these in entries_.items()}
    return dict.fromkeys(entries_, _cuts(list(entries_.values()), parents, density))


def _cuts(modules: Sequence[Entries], parents: int, density: float) -> Array:
    size = sum(these.shape[0] * these.shape[1] for these in modules)
    if not size:
        return np.zeros(parents)
    keep = max(1, int(np.ceil(density * size - 1e-9)))  # 0.2 x 5 is one entry, whatever the binary fraction
    counts = np.zeros((parents, 2**16), np.int64)
    for these in modules:
        for _, block in these.blocks(parents):
            for i, values in enumerate(_lead(block)):
                counts[i] += np.bincount(values.ravel(), minlength=2**16)
    above = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]  # entries with these leading bits or larger ones
    bins = [int(np.flatnonzero(above[i] >= keep)[-1]) for i in range(parents)]
    found: list[list[Array]] = [[] for _ in range(parents)]
    for these in modules:
        for _, block in these.blocks(parents):
            for i, lead in enumerate(_lead(block)):
                found[i].append(np.abs(block[i][lead == bins[i]]))
    result = np.empty(parents)
    for i, parts in enumerate(found):
        same = np.sort(np.concatenate(parts))[::-1]
        result[i] = same[keep - 1 - (int(above[i, bins[i]]) - int(counts[i, bins[i]]))]
    return result


def _lead(block: Array) -> npt.NDArray[np.int64]:
    """The 16 leading bits of |x|: larger magnitudes have larger ones."""
    leading: npt.NDArray[np.int64] = np.abs(np.ascontiguousarray(block)).view(np.int64) >> 48
    return leading


def _level(cores: Array, shape: tuple[int, int]) -> float:
    """From matrices with the same Frobenius norms as the entries, p x q."""
    return float(np.linalg.norm(cores) / np.sqrt(max(1, shape[0] * shape[1] * cores.shape[0])))


def _full(core: ModuleCore) -> int:
    return int(np.linalg.matrix_rank(core.cores).sum())


def _core(module: ModuleCore) -> Entries:
    turned = joint(module)
    cores = turned.cores

    def close(merged: Array, rank: int) -> tuple[Factors, float]:
        return truncate(turned.lift(merged), rank)

    shape = (cores.shape[1], cores.shape[2])
    return Entries(shape, lambda a, b: cores[:, a:b], close, _full(module), _level(cores, shape))


def _knots(module: ModuleCore) -> Entries:
    cores = module.cores
    U, s, _ = np.linalg.svd(np.concatenate(list(cores), axis=1), full_matrices=False)  # noqa: N806
    keep = s > RANK_TOLERANCE * s[:1].sum()
    U, s = U[:, keep], s[keep]  # noqa: N806
    on_basis = (U / s).T @ cores  # S^-1 U^T M_i: N x k x q

    def rows(start: int, stop: int) -> Array:
        return np.stack([module.right.at(core[start:stop].T).T for core in on_basis])

    def close(merged: Array, rank: int) -> tuple[Factors, float]:
        return truncate(components(freeze(module.left.at(U * s), merged)), rank)

    shape = (s.size, module.shape[1])
    return Entries(shape, rows, close, _full(module), _level(on_basis, shape))


def _delta(parents: Sequence[LowRank], name: str, module: ModuleCore) -> Entries:
    factors = [parent.modules.get(name) for parent in parents]

    def rows(start: int, stop: int) -> Array:
        made = np.zeros((len(factors), stop - start, module.shape[1]))
        for out, f in zip(made, factors, strict=True):
            if f is not None:
                np.matmul(f.B[start:stop], f.A, out=out)
        return made

    return Entries(module.shape, rows, _best, _full(module), _level(module.cores, module.shape))


def _best(dense: Array, rank: int) -> tuple[Factors, float]:
    """The best approximation of a dense matrix, by the eigenvectors of its smaller Gram matrix.

    Vectors are those of the Gram matrix, values those of the matrix on them, so that a component is exact to about
    1e-8 of the largest singular value.
    """
    wide = dense.shape[0] < dense.shape[1]
    tall = dense.T if wide else dense
    _, V = np.linalg.eigh(tall.T @ tall)  # noqa: N806
    V = np.ascontiguousarray(V[:, ::-1][:, :rank])  # noqa: N806
    parts = components(freeze(V, V.T @ dense) if wide else freeze(dense @ V, V.T))
    total, kept = float(np.sum(dense**2)), float(np.sum(parts.s**2))
    return parts.factors(), total - kept if total - kept > 1e-13 * total else 0.0
