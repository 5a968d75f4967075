"""The cases: each gives back the largest relative error that it saw, or None where nothing was claimed.

What is asked of every operator: sound children of any mixture of ranks and targets, the zero change from zero parents,
parents left alone, equal bytes from equal arguments, a child that survives the file. What only some promise (``Claim``
in ``breeder.operators``, and the fields of ``Subject``) is asked where it is claimed.
"""

from __future__ import annotations

import dataclasses
import tempfile
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ecology.breeder.operators import Claim, Operator
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError
from ecology.lowrank.fingerprint import distance
from ecology.lowrank.lowrank import LowRank, canonical, concat, total_norm
from ecology.store.adapters import read_adapter, write_adapter
from ecology.testing import NonconformingError

Dense = Mapping[str, npt.NDArray[np.float64]]
"""Module name -> dW."""

TOLERANCE = 1e-6
"""Largest relative error in the Frobenius norm."""
SEEDS = 200
"""Children over which the mean is taken where unbiasedness is claimed."""
MOST_BIAS = 3.0
"""Largest squared distance of that mean from the exact sum, in units of what the draws' variance explains."""


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """An operator, options to run it with, and what it claims."""

    operator: Operator
    options: Any
    """For any number of parents, so without weights."""
    commutes: bool = False
    """The order of the parents does not matter."""
    identity: Any = None
    """Options under which one parent, alone or several times over, breeds itself; None: there are none."""
    weighted: Callable[[tuple[float, ...]], Any] | None = None
    """Weights -> options under which the child is linear in the weights."""
    oracle: Callable[[Sequence[Dense]], Dense] | None = None
    """What ``options`` make of dense parents, straight from the formula; a module without a change may be missing."""
    edges: tuple[Any, ...] = ()
    """Options at the ends of their ranges, such as density 0 and 1."""
    projected: Callable[[int], Any] | None = None
    """Rank -> options under which the child is the mean of the parents at its best approximation of that rank."""
    claims: frozenset[Claim] | None = None
    """What it is held to; None: what the operator's row claims."""
    one_rank: bool = False
    """It takes parents of one rank only; all cases but ``mixed_ranks`` give it such."""
    draws_for_zeros: bool = False
    """Random, and a zero change that is spelt out takes draws from the others: then the two are not compared."""
    through_file: Callable[[LowRank], LowRank] | None = None
    """Writes a child and reads it back; None: as ``ecology breed`` does."""

    def breed(self, parents: Sequence[LowRank], options: Any = None, seed: int = 7) -> LowRank:
        """Runs the operator."""
        return self.operator.function(parents, self.options if options is None else options, seed)

    def claimed(self, claim: Claim) -> bool:
        """Whether it is held to ``claim``: a row's ``in_span`` is about its default options."""
        if self.claims is not None:
            return claim in self.claims
        return claim in self.operator.claims and (claim != "in_span" or self._as_by_default())

    def _as_by_default(self) -> bool:
        try:
            return bool(self.options == self.operator.options())
        except (ConfigError, TypeError):  # something has to be chosen, so that there is no default
            return True

    @property
    def ranks(self) -> tuple[int, ...]:
        """Of the parents that a case gives it, where their ranks are not the question."""
        return (4, 4, 4) if self.one_rank else (4, 2, 3)

    @property
    def count(self) -> int:
        """How many parents the cases give it: three where it takes them."""
        return max(self.operator.parents_min, min(3, self.operator.parents_max or 3))


def population(
    count: int, seed: int = 1, *, ranks: Sequence[int] = (4, 4, 4), same_targets: bool = True
) -> list[LowRank]:
    """Random parents of a base with 5 modules of different shapes in 2 layers.

    Args:
        count: How many.
        seed: Of the draws.
        ranks: Cycled through by parent.
        same_targets: Whether all change all modules; else parent i leaves out modules with index = i modulo 3.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    shapes = {"q": (12, 12), "v": (6, 12), "up": (20, 12)}
    names = [f"model.layers.{layer}.{kind}" for layer in (0, 1) for kind in shapes][:5]
    adapters = []
    for i in range(count):
        rank = ranks[i % len(ranks)]
        modules = {}
        for j, name in enumerate(names):
            m, n = shapes[name.rsplit(".", 1)[1]]
            pair = generator.standard_normal((m, rank)) / m, generator.standard_normal((rank, n))
            if same_targets or j % 3 != i % 3:
                modules[name] = pair
        adapters.append(LowRank.of(modules))
    return adapters


def regauged(adapter: LowRank, seed: int = 2) -> LowRank:
    """The same function in other factors: B G and G^-1 A with a random, well-conditioned G for each module."""
    generator = np.random.Generator(np.random.PCG64(seed))
    modules = {}
    for name, factors in adapter.modules.items():
        r = factors.rank
        q, _ = np.linalg.qr(generator.standard_normal((r, r)))
        G = q * generator.uniform(0.3, 3.0, r)  # noqa: N806
        modules[name] = (factors.B @ G, np.linalg.solve(G, factors.A))
    return LowRank.of(modules)


def dense(adapter: LowRank) -> Dense:
    """Every dW of an adapter."""
    return {name: factors.dense() for name, factors in adapter.modules.items()}


def written(child: LowRank) -> LowRank:
    """``child`` through the files that we write, in canonical form and rounded to float32 once."""
    live = {name: (f.B, f.A) for name, f in canonical(child).modules.items() if f.rank}
    if not live:
        return child
    with tempfile.TemporaryDirectory() as folder:
        write_adapter(Path(folder) / "child", live, "base", Digest("sha256:" + "0" * 64))
        read = read_adapter(Path(folder) / "child").modules
        return LowRank.of({name: (f.scale * f.B.astype(np.float64), f.A) for name, f in read.items()})


def _same(what: str, found: LowRank, wanted: LowRank, tolerance: float = TOLERANCE) -> float:
    """The distance of the two functions, relative to the larger norm."""
    size = max(total_norm(found), total_norm(wanted))
    error = float(distance(found, wanted)) / size if size else 0.0
    if not error <= tolerance:
        allowed = f"at most {tolerance:.0e} is allowed"
        raise NonconformingError(f"{what}: off by {error:.2e} of the norm; {allowed}", error)
    return error


def _bytes(adapter: LowRank) -> list[tuple[str, bytes, bytes]]:
    return [(name, f.B.tobytes(), f.A.tobytes()) for name, f in adapter.modules.items()]


def _sound(what: str, child: LowRank, parents: Sequence[LowRank]) -> None:
    shapes = {name: f.shape for parent in parents for name, f in parent.modules.items()}
    for name, factors in child.modules.items():
        if shapes.get(name) != factors.shape:
            raise NonconformingError(f"{what}: {name} is {factors.shape}; the parents say {shapes.get(name)}")
        if not (np.isfinite(factors.B).all() and np.isfinite(factors.A).all()):
            raise NonconformingError(f"{what}: {name} holds NaN or infinity")
    if not 0 <= child.retained_energy <= 1:
        raise NonconformingError(f"{what}: the retained energy is {child.retained_energy}")


def identity_merge(subject: Subject) -> float | None:
    """One parent breeds itself, and so do copies of it."""
    if subject.identity is None:
        return None
    (parent,) = population(1)
    most = subject.operator.parents_max or 3
    return max(
        _same(f"{count} times the same parent", subject.breed([parent] * count, subject.identity), parent)
        for count in range(max(1, subject.operator.parents_min), most + 1)
    )


def weight_linearity(subject: Subject) -> float | None:
    """child(a v + b w) = a child(v) + b child(w), negative weights included."""
    if subject.weighted is None:
        return None
    parents = population(subject.count)
    v, w = tuple(0.3 + 0.2 * i for i in range(len(parents))), tuple(0.5 - 0.4 * i for i in range(len(parents)))
    mixed = tuple(2 * x - 3 * y for x, y in zip(v, w, strict=True))
    children = [subject.breed(parents, subject.weighted(weights)) for weights in (v, w, mixed)]
    return _same("linear in the weights", children[2], concat(children[:2], [2.0, -3.0]))


def parent_permutation(subject: Subject) -> float | None:
    """The order of the parents does not matter."""
    if not subject.commutes:
        return None
    parents = population(subject.count, ranks=subject.ranks)
    return _same("parents in reverse", subject.breed(parents[::-1]), subject.breed(parents))


def gauge_invariance(subject: Subject) -> float | None:
    """Parents that are the same functions in other factors, B G and G^-1 A, breed the same child."""
    if not subject.claimed("gauge"):
        return None
    parents = population(subject.count, ranks=subject.ranks)
    others = [regauged(parent, seed) for seed, parent in enumerate(parents)]
    return _same("other factors", subject.breed(others), subject.breed(parents))


def scale_equivariance(subject: Subject) -> float | None:
    """Parents 3 times as large breed a child 3 times as large."""
    if not subject.claimed("equivariant"):
        return None
    parents = population(subject.count, ranks=subject.ranks)
    larger = [LowRank.of({n: (3.0 * f.B, f.A) for n, f in parent.modules.items()}) for parent in parents]
    return _same("3 times as large", subject.breed(larger), concat([subject.breed(parents)], [3.0]))


def within_span(subject: Subject) -> float | None:
    """The child's columns and rows are combinations of the parents'."""
    if not subject.claimed("in_span"):
        return None
    parents = population(subject.count, ranks=(2, 2, 2))
    child, off = subject.breed(parents), 0.0
    for name, factors in child.modules.items():
        present = [parent.modules[name] for parent in parents if name in parent.modules]
        left = np.linalg.qr(np.concatenate([f.B for f in present], axis=1)).Q
        right = np.linalg.qr(np.concatenate([f.A for f in present], axis=0).T).Q
        delta = factors.dense()
        off += float(np.linalg.norm(delta - left @ (left.T @ delta @ right) @ right.T)) ** 2
    error = float(np.sqrt(off)) / (total_norm(child) or 1.0)
    if error > TOLERANCE:
        raise NonconformingError(f"{error:.2e} of the child's norm lies outside the parents' span", error)
    return error


def mixed_ranks(subject: Subject) -> float | None:
    """Parents of different ranks are bred; a gauge-free operator makes of a rank spelt out twice as large the same."""
    parents = population(subject.count, ranks=(1, 6, 3))
    child = subject.breed(parents)
    _sound("mixed ranks", child, parents)
    if not subject.claimed("gauge"):
        return None
    wider = [_widened(parent) for parent in parents]
    return _same("factors with columns of zeros", subject.breed(wider), child)


def _widened(parent: LowRank) -> LowRank:
    return LowRank.of(
        {n: (np.hstack([f.B, 0 * f.B]), np.vstack([f.A, np.ones_like(f.A)])) for n, f in parent.modules.items()}
    )


def mixed_targets(subject: Subject) -> float | None:
    """Different targets are bred; a module that a parent lacks is a zero change."""
    parents = population(subject.count, ranks=subject.ranks, same_targets=False)
    child = subject.breed(parents)
    _sound("mixed targets", child, parents)
    if subject.draws_for_zeros:
        return 0.0
    return _same("zero changes spelt out", subject.breed([_with_zeros(parent, parents) for parent in parents]), child)


def _with_zeros(parent: LowRank, parents: Sequence[LowRank]) -> LowRank:
    shapes = {name: f.shape for one in parents for name, f in one.modules.items()}
    rank = parent.max_rank
    zeros = {name: (np.zeros((m, rank)), np.zeros((rank, n))) for name, (m, n) in shapes.items()}
    return LowRank.of({**zeros, **parent.modules})


def save_and_load(subject: Subject) -> float | None:
    """The child that is read back from its file is the child, up to one rounding to float32."""
    child = subject.breed(population(subject.count))
    return _same("through the file", (subject.through_file or written)(child), child)


def dense_oracle(subject: Subject) -> float | None:
    """The child is what the formula says on dense fp64 matrices."""
    if subject.oracle is None:
        return None
    worst = 0.0
    for same_targets in (True, False):
        parents = population(subject.count, ranks=subject.ranks, same_targets=same_targets)
        child = dense(subject.breed(parents))
        for name, wanted in subject.oracle([dense(parent) for parent in parents]).items():
            error = float(np.linalg.norm(child.get(name, np.zeros_like(wanted)) - wanted))
            size = float(np.linalg.norm(wanted))
            if error > TOLERANCE * size + 1e-12:
                raise NonconformingError(f"{name}: off by {error:.2e} of {size:.2e}", error / (size or 1.0))
            worst = max(worst, error / size if size else 0.0)
    return worst


def eckart_young(subject: Subject) -> float | None:
    """At rank k the child is as near to the exact mean as any matrix of rank k can be, and knows what it lost."""
    if subject.projected is None:
        return None
    parents = population(subject.count)
    worst: float = 0.0
    mean = {name: sum(dense(parent)[name] for parent in parents) / len(parents) for name in parents[0].modules}
    for rank in (1, 2, 5):
        child = subject.breed(parents, subject.projected(rank))
        kept, energy = 0.0, 0.0
        for name, exact in mean.items():
            s = np.linalg.svd(exact, compute_uv=False)
            best, found = float(np.sum(s[rank:] ** 2)) ** 0.5, child.modules[name]
            error: float = (float(np.linalg.norm(exact - found.dense())) - best) / float(np.linalg.norm(s))
            if error > TOLERANCE or np.linalg.matrix_rank(found.dense(), tol=1e-9 * s[0]) > rank:
                raise NonconformingError(f"{name} at rank {rank}: {error:.2e} worse than the best", error)
            worst, kept, energy = max(worst, error), kept + float(np.sum(s[:rank] ** 2)), energy + float(s @ s)
        if subject.through_file is None and abs(child.retained_energy - kept / energy) > TOLERANCE:
            raise NonconformingError(f"rank {rank} keeps {kept / energy:.6f}, the child says {child.retained_energy}")
    return worst


def unbiased(subject: Subject) -> float | None:
    """The mean of the children over seeds is the exact weighted sum, as far as the draws' variance allows."""
    if not subject.claimed("unbiased"):
        return None
    parents = population(2)
    weights, options = (0.5, 0.5), None
    if subject.weighted is not None:
        weights = (0.7, -0.4)
        options = subject.weighted(weights)
    children = [dense(subject.breed(parents, options, seed)) for seed in range(SEEDS)]
    off, explained, size = 0.0, 0.0, 0.0
    for name in parents[0].modules:
        stack = np.stack([child[name] for child in children])
        exact = sum(w * dense(parent)[name] for w, parent in zip(weights, parents, strict=True))
        off += float(np.sum((stack.mean(axis=0) - exact) ** 2))
        explained += float(np.sum(stack.var(axis=0, ddof=1))) / SEEDS
        size += float(np.sum(np.square(exact)))
    error = float(np.sqrt(off / size))
    if off > MOST_BIAS * explained:
        expected = (explained / size) ** 0.5
        raise NonconformingError(f"the mean of {SEEDS} is off by {error:.3f}, chance explains {expected:.3f}", error)
    return error


def parents_unchanged(subject: Subject) -> float | None:
    """No parent's factors change while a child is bred."""
    parents = population(subject.count)
    before = [_bytes(parent) for parent in parents]
    subject.breed(parents)
    if [_bytes(parent) for parent in parents] != before:
        raise NonconformingError("a parent was changed")
    return 0.0


def same_seed_same_bytes(subject: Subject) -> float | None:
    """Equal arguments give equal bytes; another seed still gives a sound child."""
    parents = population(subject.count)
    if _bytes(subject.breed(parents, seed=3)) != _bytes(subject.breed(parents, seed=3)):
        raise NonconformingError("the same seed gave other bytes")
    _sound("another seed", subject.breed(parents, seed=4), parents)
    return 0.0


def rank_one(subject: Subject) -> float | None:
    """Parents of rank 1."""
    parents = population(subject.count, ranks=(1,))
    _sound("rank 1", subject.breed(parents), parents)
    return 0.0


def zero_adapter(subject: Subject) -> float | None:
    """Zero parents breed zero, and one zero parent among others does no harm."""
    parents = population(subject.count)
    zeros = [LowRank.of({n: (0 * f.B, f.A) for n, f in parent.modules.items()}) for parent in parents]
    child = subject.breed(zeros)
    _sound("zero parents", child, zeros)
    if total_norm(child) != 0:
        raise NonconformingError(f"zero parents bred a change of norm {total_norm(child)}", total_norm(child))
    some = [zeros[0], *parents[1:]]
    _sound("one zero parent", subject.breed(some), some)
    return 0.0


def duplicate_parents(subject: Subject) -> float | None:
    """The same parent several times is bred like any other."""
    (parent,) = population(1)
    parents = [parent] * subject.count
    _sound("duplicates", subject.breed(parents), parents)
    return 0.0


def one_module(subject: Subject) -> float | None:
    """Parents that change a single module."""
    name = "model.layers.0.up"
    parents = [LowRank.of({name: parent.modules[name]}) for parent in population(subject.count)]
    child = subject.breed(parents)
    _sound("one module", child, parents)
    return 0.0


def edge_options(subject: Subject) -> float | None:
    """Options at the ends of their ranges."""
    parents = population(subject.count)
    for options in subject.edges:
        _sound(str(options), subject.breed(parents, options), parents)
    return 0.0 if subject.edges else None


CASES: Mapping[str, Callable[[Subject], float | None]] = types.MappingProxyType(
    {
        case.__name__: case
        for case in (
            identity_merge,
            weight_linearity,
            parent_permutation,
            gauge_invariance,
            scale_equivariance,
            within_span,
            mixed_ranks,
            mixed_targets,
            save_and_load,
            dense_oracle,
            eckart_young,
            unbiased,
            parents_unchanged,
            same_seed_same_bytes,
            rank_one,
            zero_adapter,
            duplicate_parents,
            one_module,
            edge_options,
        )
    }
)
"""All cases by name. A case whose claim the subject does not make passes."""
