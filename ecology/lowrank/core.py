"""What a set of parents spans: small matrices on a basis that they share.

With [B_1 | .. | B_N] = Q_B R_B and [A_1; ..; A_N]^T = Q_A R_A, every dW_i is Q_B M_i Q_A^T exactly, where
M_i = R_B,i R_A,i^T is at most R x R for R the sum of ranks. Each operator that stays in the span works on the M_i and
costs O(R^3) a child and a module, whatever the width of the model; ``lift`` turns the result into factors, projected to
any rank, by two products over the parents' stacked factors.
Source: "Accurate and Efficient Low-Rank Model Merging in Core Space", arXiv:2509.17786.

A list of parents is walked module by module and nothing tall is kept. A ``ParentSet`` keeps the stacked factors, so
that each further child of the same parents costs its cores and its own two products: the sweep's case.

Entrywise operators see the basis. That of the stack depends on the order and the gauge of the parents, so ``joint``
turns it to the singular basis of all parents together, which depends on the set of dW_i alone (up to signs, and to
rotations among equal singular values): left, the eigenvectors of sum dW_i dW_i^T; right, those of sum dW_i^T dW_i. The
left half is KnOTS' (arXiv:2410.19735).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ecology.lowrank.basis import Array, Basis, basis
from ecology.lowrank.lowrank import (
    RANK_TOLERANCE,
    Components,
    Factors,
    LowRank,
    core_components,
    lifted,
    module_names,
    project,
    zero,
)

BATCH_BYTES = 64 * 2**20
"""Cores of one shape that are decomposed in one call hold at most this much."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ModuleCore:
    """One module of a parent set: dW_i = left cores[i] right^T."""

    left: Basis
    """p columns of length m."""
    right: Basis
    """q columns of length n."""
    R_B: Array
    """p x R: the parents' B on ``left``, side by side."""
    R_A: Array
    """q x R: the parents' A^T on ``right``, side by side."""
    columns: tuple[slice, ...]
    """Which of the R columns are whose, one a parent; empty for a parent that does not change the module."""
    shape: tuple[int, int]
    """(m, n)."""

    @property
    def cores(self) -> Array:
        """N x p x q; zero for a parent that does not change the module."""
        made = np.empty((len(self.columns), self.R_B.shape[0], self.R_A.shape[0]))
        for i, mine in enumerate(self.columns):
            np.matmul(self.R_B[:, mine], self.R_A[:, mine].T, out=made[i])
        return made

    @property
    def ranks(self) -> tuple[int, ...]:
        """Columns of each parent's factors."""
        return tuple(mine.stop - mine.start for mine in self.columns)

    def weighted(self, weights: Sequence[float]) -> Array:
        """sum_i w_i M_i, p x q."""
        spread = np.repeat(np.asarray(weights, np.float64), self.ranks)
        total: Array = (self.R_B * spread) @ self.R_A.T
        return total

    def lift(self, core: Array) -> Components:
        """Thin SVD of left ``core`` right^T, for a p x q ``core``."""
        return core_components(self.left, core, self.right)


@dataclasses.dataclass(frozen=True, slots=True)
class Ticks:
    """Whom to tell how far a child is."""

    looked: Callable[[], None]
    """A module of a parent is looked at for the first time."""
    made: Callable[[], None]
    """A module of the child is put into its final form."""


class Span(Mapping[str, ModuleCore]):
    """What a set of parents spans: its modules by name, sorted.

    Args:
        modules: The modules.
        ticks: Whom to tell how far it is.
    """

    def __init__(self, modules: Mapping[str, ModuleCore], ticks: Ticks | None = None) -> None:
        self._modules, self.ticks = modules, ticks

    def __getitem__(self, name: str) -> ModuleCore:
        return self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def joint(self) -> Span:
        """The same parents on their joint singular bases."""
        return Span({name: joint(module) for name, module in self.items()}, self.ticks)


class ParentSet(Sequence[LowRank]):
    """Parents that will breed more than once: what they span is worked out once and kept.

    Any operator takes it in place of a list. It holds their stacked factors in fp64: 8 bytes for each number in the
    parents' files, besides the cores.

    Args:
        parents: In the operators' order.
        keep: Whether to keep the stacked factors too; without, memory stays low and a further child reads them again.
        ticks: Whom to tell how far a child is. What an operator does with its parents is its own, but it has to look
            at every module of theirs, so that is where the first half of the way is measured, for all operators.
    """

    def __init__(self, parents: Sequence[LowRank], *, keep: bool = True, ticks: Ticks | None = None) -> None:
        self._keep, self.ticks = keep, ticks
        self._parents = tuple(parents if ticks is None else (_watched(parent, ticks) for parent in parents))

    def __len__(self) -> int:
        return len(self._parents)

    @overload
    def __getitem__(self, index: int) -> LowRank: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LowRank]: ...
    def __getitem__(self, index: int | slice) -> LowRank | Sequence[LowRank]:
        return self._parents[index]

    @functools.cached_property
    def span(self) -> Span:
        """What the parents span."""
        return _span(self._parents, self._keep, self.ticks)


class _Watched(Factors):
    """Factors that tell when they are looked at for the first time."""

    def __init__(self, factors: Factors, look: Callable[[], None]) -> None:
        object.__setattr__(self, "_factors", factors)
        object.__setattr__(self, "_look", functools.cache(look))

    @property
    def B(self) -> Array:  # noqa: N802
        self._look()
        return self._factors.B

    @property
    def A(self) -> Array:  # noqa: N802
        self._look()
        return self._factors.A

    @property
    def rank(self) -> int:
        return self._factors.rank

    @property
    def shape(self) -> tuple[int, int]:
        return self._factors.shape

    def raw(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], float]:
        self._look()
        return self._factors.raw()

    _factors: Factors
    _look: Callable[[], None]


def _watched(parent: LowRank, ticks: Ticks) -> LowRank:
    return LowRank.of({name: _Watched(f, ticks.looked) for name, f in parent.modules.items()}, parent.lost)


def ticks_of(parents: Sequence[LowRank]) -> Ticks | None:
    """Whom to tell how far a child of these parents is."""
    return parents.ticks if isinstance(parents, ParentSet) else None


def share(parents: Sequence[LowRank]) -> Span:
    """What ``parents`` span, by module, sorted by name; at once for a ``ParentSet`` that has bred before.

    Raises:
        ConfigError: A module has different shapes in two parents.
    """
    return parents.span if isinstance(parents, ParentSet) else _span(parents, False, None)


def _span(parents: Sequence[LowRank], keep: bool, ticks: Ticks | None) -> Span:
    return Span({name: _module(parents, name, keep) for name in module_names(parents)}, ticks)


def _module(parents: Sequence[LowRank], name: str, keep: bool) -> ModuleCore:
    present = [parent.modules.get(name) for parent in parents]
    factors = [f for f in present if f is not None]
    ends = list(itertools.accumulate((0 if f is None else f.rank for f in present), initial=0))
    left, R_B = basis(_kept(lambda: _side_by_side(factors), keep))  # noqa: N806
    right, R_A = basis(_kept(lambda: _stacked(factors), keep))  # noqa: N806
    columns = tuple(itertools.starmap(slice, itertools.pairwise(ends)))
    return ModuleCore(left, right, R_B, R_A, columns, factors[0].shape)


def _side_by_side(factors: Sequence[Factors]) -> Array:
    """[s_1 B_1 | .. | s_N B_N], widened and scaled in one pass each."""
    parts = [f.raw() for f in factors]
    stack: Array = np.concatenate([B for B, _, _ in parts], axis=1, dtype=np.float64)
    if any(scale != 1 for _, _, scale in parts):
        stack *= np.repeat([scale for _, _, scale in parts], [f.rank for f in factors])
    return stack


def _stacked(factors: Sequence[Factors]) -> Array:
    """[A_1; ..; A_N]^T, as a view of rows that lie one after another."""
    return np.concatenate([f.raw()[1] for f in factors], axis=0, dtype=np.float64).T


def _kept(make: Callable[[], Array], keep: bool) -> Callable[[], Array]:
    if not keep:
        return make
    made = make()
    return lambda: made


def joint(module: ModuleCore) -> ModuleCore:
    """The same parents on their joint singular basis; directions that no parent uses are dropped."""
    cores = module.cores
    U, s_left, _ = np.linalg.svd(np.concatenate(list(cores), axis=1), full_matrices=False)  # noqa: N806
    _, s_right, Vt = np.linalg.svd(np.concatenate(list(cores), axis=0), full_matrices=False)  # noqa: N806
    U = U[:, s_left > RANK_TOLERANCE * s_left[:1].sum()]  # noqa: N806
    V = Vt[s_right > RANK_TOLERANCE * s_right[:1].sum()].T  # noqa: N806
    return dataclasses.replace(
        module, left=module.left.turned(U), right=module.right.turned(V), R_B=U.T @ module.R_B, R_A=V.T @ module.R_A
    )


def lift(span: Span, cores: Mapping[str, Array], rank: int | Mapping[str, int] | None = None) -> LowRank:
    """The child left core right^T of every module, at its best approximation of at most ``rank``.

    Cores of one shape are decomposed together. Factors are canonical; ``lost`` says what the projection cost.

    Args:
        span: What the parents span.
        cores: p x q for each of its modules.
        rank: For all modules, by module, or None for no projection.
    """
    modules: dict[str, Factors] = {}
    lost: dict[str, float] = {}
    for names in _batches(cores):
        U, s, Vt = np.linalg.svd(np.stack([cores[name] for name in names]), full_matrices=False)  # noqa: N806
        for i, name in enumerate(names):
            k = s.shape[1] if rank is None else rank if isinstance(rank, int) else rank[name]
            module = span[name]
            lost[name] = float(np.sum(s[i, k:] ** 2))
            if not s[i, :1].sum() > 0 or k == 0:
                modules[name] = zero(module.shape)
            else:
                modules[name] = lifted(module.left, U[i, :, :k], s[i, :k], Vt[i, :k], module.right).factors()
            if span.ticks is not None:
                span.ticks.made()
    return LowRank.of(modules, lost, settled=True)


def cut(child: LowRank, rank: int | None, parents: Sequence[LowRank]) -> LowRank:
    """A child of these parents at its best approximation of at most ``rank``, where that is given."""
    if rank is None:
        return child
    ticks = ticks_of(parents)
    return project(child, rank) if ticks is None else project(child, rank, ticks.made)


def _batches(cores: Mapping[str, Array]) -> Iterator[list[str]]:
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, core in cores.items():
        by_shape.setdefault(core.shape, []).append(name)
    for shape, names in by_shape.items():
        size = max(1, BATCH_BYTES // (8 * max(1, *shape) ** 2))
        for start in range(0, len(names), size):
            yield names[start : start + size]
