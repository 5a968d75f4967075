r"""A low-rank change of a model: module name -> dW = B A.

The genotype is dW, never (B, A): for every invertible G the factors (B G, G^-1 A) are the same function, so nothing
here looks at one factor alone. Scales are folded into B before a ``LowRank`` is made. Cores are fp64; values are
rounded once, by whoever writes them down.

The canonical form of a module is the balanced SVD: with dW = U diag(s) V^T, B = U diag(sqrt s), A = diag(sqrt s) V^T,
s descending and numerically zero components left out, each column of U with its largest entry (the first of equals)
positive. It is unique where the singular values are distinct; inside a group of equal ones any rotation is as good.

The SVD of B A costs O((m + n) r^2): with B = Q_B R_B and A^T = Q_A R_A it is that of the r x r core R_B R_A^T.

Parents may be larger than memory is comfortable with: ``Stored`` factors stay as they lie in the file and are widened
each time that they are looked at. Children are ``Factors`` in fp64.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ecology.errors import ConfigError
from ecology.lowrank.basis import Array, Basis, basis

__all__ = [
    "RANK_TOLERANCE",
    "Array",
    "Components",
    "Factors",
    "Held",
    "LowRank",
    "Stored",
    "canonical",
    "components",
    "concat",
    "core_components",
    "freeze",
    "frobenius",
    "lifted",
    "module_names",
    "owned",
    "project",
    "singular_values",
    "spectral",
    "total_norm",
    "truncate",
    "zero",
]

RANK_TOLERANCE = 1e-12
"""Singular values below this share of the module's largest are rounding errors of fp64."""


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """One module's dW = B A. Read-only fp64 arrays; rank 0 is the zero change."""

    B: Array
    """Out features m x rank r."""
    A: Array
    """Rank r x in features n."""

    @property
    def rank(self) -> int:
        """Columns of B; at least the rank of dW."""
        return int(self.B.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n), the shape of dW."""
        return self.B.shape[0], self.A.shape[1]

    def raw(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], float]:
        """(B, A, s) as they came: what depends on the gauge, and so is for presets of other tools alone."""
        return self.B, self.A, 1.0

    def dense(self) -> Array:
        """DW itself, m x n: for tests and for operators that need every entry."""
        product: Array = self.B @ self.A
        return product


class Held(Protocol):
    """A matrix that is somewhere: an array, or something that becomes one when it is looked at."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Known without a look."""
        ...

    def __array__(self) -> npt.NDArray[Any]:
        """NumPy's array protocol."""
        ...


class Stored(Factors):
    """Factors s B A that stay where and as they are; ``B`` and ``A`` are fp64 copies made at every look.

    Args:
        B: m x r, any float type, or in a file and widened at every look; not changed afterwards.
        A: r x n.
        scale: The adapter's s, folded into ``B`` as it is widened.
    """

    def __init__(self, B: Held, A: Held, scale: float = 1.0) -> None:  # noqa: N803
        object.__setattr__(self, "_stored", (B, A, float(scale)))

    @property
    def B(self) -> Array:  # noqa: N802
        """M x r, scale folded in."""
        stored, _, scale = self._stored
        widened: Array = np.multiply(np.asarray(stored), scale, dtype=np.float64)
        return widened

    @property
    def A(self) -> Array:  # noqa: N802
        """R x n."""
        return np.asarray(np.asarray(self._stored[1]), np.float64)

    @property
    def rank(self) -> int:
        """Columns of B, without a look at it."""
        return int(self._stored[0].shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n), without a look at the values."""
        return int(self._stored[0].shape[0]), int(self._stored[1].shape[1])

    def raw(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], float]:
        """(B, A, s) as they lie, or in float32 where NumPy lacks the type."""
        B, A, scale = self._stored  # noqa: N806
        return np.asarray(B), np.asarray(A), scale

    _stored: tuple[Held, Held, float]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Components:
    """Thin SVD of a module: dW = U diag(s) V^T, s descending and positive."""

    U: Array
    """m x k, orthonormal columns, signs as in the canonical form."""
    s: Array
    """k."""
    V: Array
    """n x k, orthonormal columns."""

    def factors(self) -> Factors:
        """The balanced factors."""
        root = np.sqrt(self.s)
        return owned(self.U * root, np.ascontiguousarray((self.V * root).T))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """A whole adapter. A module that is not named does not change. Make it with ``LowRank.of``."""

    modules: Mapping[str, Factors]
    """By module name, sorted."""
    lost: Mapping[str, float]
    """||cut off||_F^2 by module, where making this meant projecting to a lower rank; modules without loss left out."""
    settled: bool = False
    """Whether the factors are known to be in canonical form."""

    @classmethod
    def of(
        cls,
        modules: Mapping[str, Factors | tuple[npt.NDArray[Any], npt.NDArray[Any]]],
        lost: Mapping[str, float] | None = None,
        *,
        settled: bool = False,
    ) -> LowRank:
        """Checks, copies to fp64 and sorts.

        Args:
            modules: Module name -> (B, A), scale folded in.
            lost: As the field.
            settled: As the field.

        Raises:
            ConfigError: Factors whose shapes do not fit or that hold NaN or infinity.
        """
        checked = {}
        for name in sorted(modules):
            pair = modules[name]
            checked[name] = pair if isinstance(pair, Factors) else _checked(name, *pair)
        cut = {name: float(value) for name, value in sorted((lost or {}).items()) if value > 0}
        return cls(types.MappingProxyType(checked), types.MappingProxyType(cut), settled)

    @property
    def retained_energy(self) -> float:
        """Share of ||dW||_F^2 that projection kept, 0 to 1; 1 where nothing was projected or all was zero."""
        lost = sum(self.lost.values())
        return 1.0 if lost == 0 else float(_energy(self) / (_energy(self) + lost))

    @property
    def retained(self) -> Mapping[str, float]:
        """Share of ||dW||_F^2 that projection kept, by module; modules that lost nothing are left out."""
        kept = frobenius(LowRank.of({name: self.modules[name] for name in self.lost}))
        return {name: kept[name] ** 2 / (kept[name] ** 2 + lost) for name, lost in self.lost.items()}

    @property
    def max_rank(self) -> int:
        """Largest rank of a module's factors; 0 for none."""
        return max((factors.rank for factors in self.modules.values()), default=0)

    @property
    def parameters(self) -> int:
        """Numbers in all factors."""
        return sum(factors.rank * sum(factors.shape) for factors in self.modules.values())


def freeze(B: npt.NDArray[Any], A: npt.NDArray[Any]) -> Factors:  # noqa: N803
    """Factors over read-only fp64 copies of ``B`` and ``A``."""
    left, right = np.array(B, np.float64, order="C"), np.array(A, np.float64, order="C")
    left.flags.writeable = right.flags.writeable = False
    return Factors(left, right)


def owned(B: Array, A: Array) -> Factors:  # noqa: N803
    """Factors over ``B`` and ``A`` themselves, which the caller made and gives away: they become read-only."""
    B.flags.writeable = A.flags.writeable = False
    return Factors(B, A)


def zero(shape: tuple[int, int]) -> Factors:
    """No change, of rank 0, to an m x n module."""
    return freeze(np.zeros((shape[0], 0)), np.zeros((0, shape[1])))


def _checked(name: str, B: npt.NDArray[Any], A: npt.NDArray[Any]) -> Factors:  # noqa: N803
    if B.ndim != 2 or A.ndim != 2 or B.shape[1] != A.shape[0]:
        raise ConfigError(f"B {B.shape} and A {A.shape} are no factors", where=name)
    if not (np.isfinite(B).all() and np.isfinite(A).all()):
        raise ConfigError("the factors hold NaN or infinity", where=name)
    return freeze(B, A)


def components(factors: Factors) -> Components:
    """Thin SVD in O((m + n) r^2), numerically zero components left out."""
    left, R_B = basis(lambda: factors.B)  # noqa: N806
    right, R_A = basis(lambda: factors.A.T)  # noqa: N806
    return core_components(left, R_B @ R_A.T, right)


def core_components(left: Basis, core: Array, right: Basis) -> Components:
    """Thin SVD of left core right^T.

    Args:
        left: Of p columns of length m.
        core: p x q.
        right: Of q columns of length n.
    """
    U, s, Vt = np.linalg.svd(core, full_matrices=False)  # noqa: N806
    return lifted(left, U, s, Vt, right)


def lifted(left: Basis, U: Array, s: Array, Vt: Array, right: Basis) -> Components:  # noqa: N803
    """The canonical components from the thin SVD of a core; numerically zero ones are left out."""
    keep = s > RANK_TOLERANCE * s[:1].sum()  # the sum of one or none; all False for the zero core
    tall, s, wide = left.at(U[:, keep]), s[keep], right.at(Vt[keep].T)
    signs = np.where(np.take_along_axis(tall, np.abs(tall).argmax(0)[None], 0)[0] < 0, -1.0, 1.0) if s.size else s
    return Components(tall * signs, s, wide * signs)


def canonical(adapter: LowRank, made: Callable[[], None] = lambda: None) -> LowRank:
    """The same function in canonical form; ``made`` is called for each module that is put into it."""
    if adapter.settled:
        return adapter
    modules = {}
    for name, factors in adapter.modules.items():
        modules[name] = components(factors).factors()
        made()
    return LowRank.of(modules, adapter.lost, settled=True)


def truncate(parts: Components, rank: int) -> tuple[Factors, float]:
    """The best approximation of at most ``rank`` (Eckart-Young) and ||cut off||_F^2."""
    kept = Components(parts.U[:, :rank], parts.s[:rank], parts.V[:, :rank])
    return kept.factors(), float(np.sum(parts.s[rank:] ** 2))


def project(adapter: LowRank, rank: int, made: Callable[[], None] = lambda: None) -> LowRank:
    """Every module at its best approximation of at most ``rank`` (1 or more); ``lost`` says what it cost.

    ``made`` is called for each module that is projected.
    """
    modules, lost = {}, {}
    for name, factors in adapter.modules.items():
        modules[name], lost[name] = truncate(components(factors), rank)
        made()
    return LowRank.of(modules, lost, settled=True)


def concat(parents: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """The weighted sum of dW, exactly: B = [w_1 B_1 | w_2 B_2 | ...], A = [A_1; A_2; ...].

    A weight goes on one factor only, so negative weights are exact too. A parent without the module, or of weight 0,
    adds nothing and no rank.

    Args:
        parents: Any ranks and any modules; a module has the same shape wherever it occurs.
        weights: One a parent.

    Raises:
        ConfigError: A module has two shapes.
    """
    modules: dict[str, Factors | tuple[Array, Array]] = {}
    for name in module_names(parents):
        present = [(w, p.modules[name]) for p, w in zip(parents, weights, strict=True) if name in p.modules]
        terms = [(w, f) for w, f in present if w != 0]
        if terms:
            modules[name] = (
                np.concatenate([w * f.B for w, f in terms], axis=1),
                np.concatenate([f.A for _, f in terms], axis=0),
            )
        else:
            modules[name] = zero(present[0][1].shape)
    return LowRank.of(modules)


def module_names(parents: Sequence[LowRank]) -> tuple[str, ...]:
    """Sorted names of all modules.

    Raises:
        ConfigError: A module has different shapes in two parents.
    """
    shapes: dict[str, tuple[int, int]] = {}
    for parent in parents:
        for name, factors in parent.modules.items():
            if shapes.setdefault(name, factors.shape) != factors.shape:
                raise ConfigError(
                    f"one parent changes {shapes[name]}, another {factors.shape} weights",
                    where=name,
                    todo="breed adapters of one base",
                )
    return tuple(sorted(shapes))


def singular_values(adapter: LowRank) -> Mapping[str, Array]:
    """Singular values of dW by module, descending, numerically zero ones left out."""
    return {name: components(factors).s for name, factors in adapter.modules.items()}


def frobenius(adapter: LowRank) -> Mapping[str, float]:
    """||dW||_F by module."""
    return {name: _norm(factors) for name, factors in adapter.modules.items()}


def spectral(adapter: LowRank) -> Mapping[str, float]:
    """||dW||_2 by module."""
    return {name: float(s[0]) if s.size else 0.0 for name, s in singular_values(adapter).items()}


def _norm(factors: Factors) -> float:
    """Through QR: the Gram form sqrt(tr(B^T B A A^T)) loses half the digits when terms cancel."""
    R_B, R_A = np.linalg.qr(factors.B).R, np.linalg.qr(factors.A.T).R  # noqa: N806
    return float(np.linalg.norm(R_B @ R_A.T))


def _energy(adapter: LowRank) -> float:
    return sum(norm**2 for norm in frobenius(adapter).values())


def total_norm(adapter: LowRank) -> float:
    """||dW||_F over all modules together."""
    return float(np.sqrt(_energy(adapter)))
