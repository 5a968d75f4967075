"""What every breeding operator must do, as cases that anyone can run.

An operator is a function of the parents' dW, so the cases change factors, ranks, targets and order without changing
dW, and ask for the same child. What only some operators promise (order does not matter, linear in the weights, equal
to a dense formula) is a claim of the ``Subject`` and is tested when it is made.

    @pytest.mark.parametrize("case", CASES)
    def test_mine(case):
        CASES[case](Subject(my_operator, MyOptions(), commutes=True))
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ecology.breeder.operators import Operator
from ecology.lowrank.fingerprint import distance, same_function
from ecology.lowrank.lowrank import LowRank, concat, total_norm
from ecology.testing import NonconformingError

Dense = Mapping[str, npt.NDArray[np.float64]]
"""Module name -> dW."""

TOLERANCE = 1e-6
"""Largest relative error in the Frobenius norm."""


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
    """Options at the ends of their ranges."""

    def breed(self, parents: Sequence[LowRank], options: Any = None, seed: int = 7) -> LowRank:
        """Runs the operator."""
        return self.operator.function(parents, self.options if options is None else options, seed)

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


def _same(what: str, found: LowRank, wanted: LowRank) -> None:
    if not same_function(found, wanted, TOLERANCE):
        error = distance(found, wanted) / max(total_norm(wanted), total_norm(found))
        raise NonconformingError(f"{what}: off by {error:.2e} of the norm; at most {TOLERANCE:.0e} is allowed")


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


def identity_merge(subject: Subject) -> None:
    """One parent breeds itself; so do copies of it, and so does the same function in other factors."""
    if subject.identity is None:
        return
    (parent,) = population(1)
    most = subject.operator.parents_max or 3
    for count in range(max(1, subject.operator.parents_min), most + 1):
        _same(f"{count} times the same parent", subject.breed([parent] * count, subject.identity), parent)


def weight_linearity(subject: Subject) -> None:
    """child(a v + b w) = a child(v) + b child(w), negative weights included."""
    if subject.weighted is None:
        return
    parents = population(subject.count)
    v, w = tuple(0.3 + 0.2 * i for i in range(len(parents))), tuple(0.5 - 0.4 * i for i in range(len(parents)))
    mixed = tuple(2 * x - 3 * y for x, y in zip(v, w, strict=True))
    children = [subject.breed(parents, subject.weighted(weights)) for weights in (v, w, mixed)]
    _same("linear in the weights", children[2], concat(children[:2], [2.0, -3.0]))


def parent_permutation(subject: Subject) -> None:
    """The order of the parents does not matter."""
    if not subject.commutes:
        return
    parents = population(subject.count, ranks=(4, 2, 3), same_targets=False)
    _same("parents in reverse", subject.breed(parents[::-1]), subject.breed(parents))


def gauge_invariance(subject: Subject) -> None:
    """Parents that are the same functions in other factors breed the same child."""
    parents = population(subject.count, ranks=(4, 2, 3))
    others = [regauged(parent, seed) for seed, parent in enumerate(parents)]
    _same("other factors", subject.breed(others), subject.breed(parents))


def mixed_parents(subject: Subject) -> None:
    """Different ranks and targets are bred; a module that a parent lacks is a zero change."""
    parents = population(subject.count, ranks=(1, 6, 3), same_targets=False)
    child = subject.breed(parents)
    _sound("mixed ranks and targets", child, parents)
    explicit = [_with_zeros(parent, parents) for parent in parents]
    _same("zero changes spelt out", subject.breed(explicit), child)


def _with_zeros(parent: LowRank, parents: Sequence[LowRank]) -> LowRank:
    shapes = {name: f.shape for one in parents for name, f in one.modules.items()}
    zeros = {name: (np.zeros((m, 1)), np.zeros((1, n))) for name, (m, n) in shapes.items()}
    return LowRank.of({**zeros, **parent.modules})


def dense_oracle(subject: Subject) -> None:
    """The child is what the formula says on dense fp64 matrices."""
    if subject.oracle is None:
        return
    for same_targets in (True, False):
        parents = population(subject.count, ranks=(4, 2, 3), same_targets=same_targets)
        child = dense(subject.breed(parents))
        for name, wanted in subject.oracle([dense(parent) for parent in parents]).items():
            error = float(np.linalg.norm(child.get(name, np.zeros_like(wanted)) - wanted))
            if error > TOLERANCE * np.linalg.norm(wanted) + 1e-12:
                raise NonconformingError(f"{name}: off by {error:.2e} of {np.linalg.norm(wanted):.2e}")


def parents_unchanged(subject: Subject) -> None:
    """No parent's factors change while a child is bred."""
    parents = population(subject.count)
    before = [_bytes(parent) for parent in parents]
    subject.breed(parents)
    if [_bytes(parent) for parent in parents] != before:
        raise NonconformingError("a parent was changed")


def same_seed_same_bytes(subject: Subject) -> None:
    """Equal arguments give equal bytes; another seed still gives a sound child."""
    parents = population(subject.count)
    if _bytes(subject.breed(parents, seed=3)) != _bytes(subject.breed(parents, seed=3)):
        raise NonconformingError("the same seed gave other bytes")
    _sound("another seed", subject.breed(parents, seed=4), parents)


def rank_one(subject: Subject) -> None:
    """Parents of rank 1."""
    parents = population(subject.count, ranks=(1,))
    _sound("rank 1", subject.breed(parents), parents)


def zero_adapter(subject: Subject) -> None:
    """Zero parents breed zero, and one zero parent among others does no harm."""
    parents = population(subject.count)
    zeros = [LowRank.of({n: (0 * f.B, f.A) for n, f in parent.modules.items()}) for parent in parents]
    child = subject.breed(zeros)
    _sound("zero parents", child, zeros)
    if total_norm(child) != 0:
        raise NonconformingError(f"zero parents bred a change of norm {total_norm(child)}")
    some = [zeros[0], *parents[1:]]
    _sound("one zero parent", subject.breed(some), some)


def duplicate_parents(subject: Subject) -> None:
    """The same parent several times is bred like any other, within its span."""
    (parent,) = population(1)
    parents = [parent] * subject.count
    _sound("duplicates", subject.breed(parents), parents)


def edge_options(subject: Subject) -> None:
    """Options at the ends of their ranges."""
    parents = population(subject.count)
    for options in subject.edges:
        _sound(str(options), subject.breed(parents, options), parents)


CASES: Mapping[str, Callable[[Subject], None]] = types.MappingProxyType(
    {
        case.__name__: case
        for case in (
            identity_merge,
            weight_linearity,
            parent_permutation,
            gauge_invariance,
            mixed_parents,
            dense_oracle,
            parents_unchanged,
            same_seed_same_bytes,
            rank_one,
            zero_adapter,
            duplicate_parents,
            edge_options,
        )
    }
)
"""All cases by name. A case whose claim the subject does not make passes."""
