"""The algebra against dense NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.errors import ConfigError
from ecology.lowrank.basis import basis
from ecology.lowrank.core import ModuleCore, ParentSet, Ticks, joint, lift, share
from ecology.lowrank.entries import Space, cuts, entries
from ecology.lowrank.fingerprint import distance, fingerprint, same_fingerprint, same_function
from ecology.lowrank.lowrank import (
    LowRank,
    Stored,
    canonical,
    concat,
    frobenius,
    module_names,
    project,
    singular_values,
    spectral,
    total_norm,
)
from ecology.testing.operators import population, regauged


@st.composite
def adapters(draw: st.DrawFn) -> LowRank:
    generator = np.random.Generator(np.random.PCG64(draw(st.integers(0, 2**32))))
    modules = {}
    for name in draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True)):
        m, n = {"a": (7, 5), "b": (4, 9), "c": (6, 6)}[name]
        r = draw(st.integers(0, 10))
        scale = 10.0 ** draw(st.integers(-6, 6))
        modules[name] = (generator.standard_normal((m, r)) * scale, generator.standard_normal((r, n)))
    return LowRank.of(modules)


@given(adapters())
@settings(max_examples=60, deadline=None)
def test_norms_and_singular_values_are_those_of_the_dense_delta(adapter: LowRank) -> None:
    values, norms, largest = singular_values(adapter), frobenius(adapter), spectral(adapter)
    for name, factors in adapter.modules.items():
        dense = factors.dense()
        expected = np.linalg.svd(dense, compute_uv=False)
        np.testing.assert_allclose(values[name], expected[: values[name].size], rtol=1e-9)
        assert values[name].size == np.linalg.matrix_rank(dense)
        np.testing.assert_allclose(norms[name], np.linalg.norm(dense), rtol=1e-12)
        np.testing.assert_allclose(largest[name], expected[0], rtol=1e-12)


@given(adapters())
@settings(max_examples=60, deadline=None)
def test_canonical_is_the_same_function_and_stays(adapter: LowRank) -> None:
    once = canonical(adapter)
    assert same_function(once, adapter, 1e-12)
    twice = canonical(once)
    for name, factors in once.modules.items():
        np.testing.assert_allclose(
            twice.modules[name].B, factors.B, rtol=1e-8, atol=1e-9 * max(1, np.abs(factors.B).max(initial=0))
        )
        gram_b, gram_a = factors.B.T @ factors.B, factors.A @ factors.A.T
        np.testing.assert_allclose(gram_b, gram_a, atol=1e-9 * max(1.0, np.abs(gram_b).max(initial=0)))  # balanced
        if factors.rank:
            peaks = factors.B[np.abs(factors.B).argmax(0), range(factors.rank)]
            assert (peaks > 0).all()


def test_canonical_does_not_see_the_gauge() -> None:
    (adapter,) = population(1)
    one, other = canonical(adapter), canonical(regauged(adapter))
    for name, factors in one.modules.items():
        np.testing.assert_allclose(other.modules[name].B, factors.B, atol=1e-12)
        np.testing.assert_allclose(other.modules[name].A, factors.A, atol=1e-12)


@given(adapters(), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_projection_is_eckart_young(adapter: LowRank, rank: int) -> None:
    projected = project(adapter, rank)
    for name, factors in adapter.modules.items():
        s = np.linalg.svd(factors.dense(), compute_uv=False)
        error = np.linalg.norm(projected.modules[name].dense() - factors.dense()) ** 2
        np.testing.assert_allclose(error, np.sum(s[rank:] ** 2), rtol=1e-6, atol=1e-18 * np.sum(s**2))
        np.testing.assert_allclose(
            projected.lost.get(name, 0.0), np.sum(s[rank:] ** 2), rtol=1e-9, atol=1e-20 * np.sum(s**2)
        )
        assert projected.modules[name].rank <= rank
    total = total_norm(adapter) ** 2
    if total > 0:
        np.testing.assert_allclose(projected.retained_energy, total_norm(projected) ** 2 / total, rtol=1e-9)


def test_nothing_is_lost_where_nothing_is_cut() -> None:
    (adapter,) = population(1)
    assert project(adapter, 64).retained_energy == pytest.approx(1.0, abs=1e-15)
    assert LowRank.of({}).retained_energy == 1.0
    assert project(LowRank.of({"a": (np.zeros((3, 2)), np.zeros((2, 3)))}), 1).retained_energy == 1.0


def test_concat_is_exact_and_skips_what_adds_nothing() -> None:
    parents = population(3, ranks=(4, 2, 3), same_targets=False)
    child = concat(parents, [0.5, -2.0, 0.0])
    for name, factors in child.modules.items():
        terms = [(w, p.modules[name]) for w, p in zip([0.5, -2.0, 0.0], parents, strict=True) if name in p.modules]
        assert factors.rank == sum(f.rank for w, f in terms if w)
        np.testing.assert_allclose(factors.dense(), sum(w * f.dense() for w, f in terms), atol=1e-14)


def _basis(module: ModuleCore) -> tuple[np.ndarray, np.ndarray]:
    return module.left.at(np.eye(module.R_B.shape[0])), module.right.at(np.eye(module.R_A.shape[0]))


@pytest.mark.parametrize("transform", [lambda core: core, joint])
@pytest.mark.parametrize("ranks", [(4, 2, 9), (2, 1, 1)])
def test_shared_cores_hold_the_parents_exactly(
    transform: Callable[[ModuleCore], ModuleCore], ranks: tuple[int, ...]
) -> None:
    parents = population(3, ranks=ranks, same_targets=False)
    for name, core in {name: transform(core) for name, core in share(parents).items()}.items():
        left, right = _basis(core)
        np.testing.assert_allclose(left.T @ left, np.eye(left.shape[1]), atol=1e-12)
        np.testing.assert_allclose(right.T @ right, np.eye(right.shape[1]), atol=1e-12)
        total = np.zeros(core.shape)
        for parent, M, w in zip(parents, core.cores, (1.0, 2.0, 3.0), strict=True):
            wanted = parent.modules[name].dense() if name in parent.modules else np.zeros(core.shape)
            np.testing.assert_allclose(left @ M @ right.T, wanted, atol=1e-12)
            total += w * wanted
        np.testing.assert_allclose(core.lift(core.weighted([1.0, 2.0, 3.0])).factors().dense(), total, atol=1e-11)


def test_joint_basis_depends_on_the_functions_alone() -> None:
    parents = population(3, ranks=(4, 2, 3))
    others = [regauged(parent, seed) for seed, parent in enumerate(parents)]
    for name, core in share(parents).items():
        one, two, three = joint(core), joint(share(others)[name]), joint(share(parents[::-1])[name])
        assert one.cores.shape == two.cores.shape == three.cores.shape
        np.testing.assert_allclose(np.abs(one.cores), np.abs(two.cores), atol=1e-9)
        np.testing.assert_allclose(np.abs(one.cores), np.abs(three.cores[::-1]), atol=1e-9)


def test_joint_drops_what_nobody_uses() -> None:
    (parent,) = population(1)
    core = joint(share([parent, parent])["model.layers.0.q"])
    assert core.cores.shape == (2, 4, 4)


@given(adapters(), adapters(), st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_fingerprint_is_linear_and_a_distance(a: LowRank, b: LowRank, w: float) -> None:
    combined = fingerprint(concat([a, b], [1.0, w]))
    scale = np.linalg.norm(fingerprint(a)) + 3 * np.linalg.norm(fingerprint(b))
    np.testing.assert_allclose(combined, fingerprint(a) + w * fingerprint(b), atol=1e-9 * max(scale, 1e-300))


def test_fingerprint_estimates_the_distance() -> None:
    a, b = population(2)
    ratio = np.sqrt(np.mean((fingerprint(a) - fingerprint(b)) ** 2)) / distance(a, b)
    assert 0.6 < ratio < 1.6
    assert same_fingerprint(fingerprint(a), fingerprint(regauged(a)), 1e-12)
    assert not same_fingerprint(fingerprint(a), fingerprint(b))
    assert same_fingerprint(
        fingerprint(a), fingerprint(LowRank.of({**a.modules, "z": (np.zeros((3, 1)), np.ones((1, 3)))}))
    )


PINNED = [-6.529194573079662, -4.947432255718432, -1.1065703269808511]


def test_fingerprint_is_pinned() -> None:
    """Stored fingerprints stay comparable: probes must not change."""
    adapter = LowRank.of({"a": (np.array([[1.0], [2.0]]), np.array([[3.0, -1.0]]))})
    np.testing.assert_allclose(fingerprint(adapter)[:3], PINNED, rtol=1e-12)


def test_same_function_has_a_tolerance() -> None:
    a, b = population(2)
    near = concat([a, b], [1.0, 1e-5 * total_norm(a) / total_norm(b)])
    assert same_function(a, near, 2e-5)
    assert not same_function(a, near, 1e-6)
    assert same_function(a, regauged(a), 1e-12)
    assert not same_function(a, LowRank.of({}))
    assert same_function(LowRank.of({}), LowRank.of({"a": (np.zeros((2, 1)), np.ones((1, 2)))}))


def test_values_cannot_be_changed() -> None:
    source = np.ones((3, 1))
    adapter = LowRank.of({"a": (source, np.ones((1, 3)))})
    source[0] = 7
    assert adapter.modules["a"].B[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        adapter.modules["a"].B[0, 0] = 2
    with pytest.raises(TypeError):
        adapter.modules["b"] = adapter.modules["a"]  # type: ignore[index]


@pytest.mark.parametrize(
    "pair",
    [(np.ones((3, 2)), np.ones((1, 3))), (np.ones(3), np.ones((1, 3))), (np.full((3, 1), np.nan), np.ones((1, 3)))],
)
def test_impossible_factors_are_refused(pair: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ConfigError) as caught:
        LowRank.of({"module": pair})
    assert caught.value.where == "module"


def test_two_shapes_of_one_module_are_refused() -> None:
    a = LowRank.of({"x": (np.ones((3, 1)), np.ones((1, 3)))})
    b = LowRank.of({"x": (np.ones((4, 1)), np.ones((1, 3)))})
    with pytest.raises(ConfigError, match=r"\(3, 3\), another \(4, 3\)"):
        module_names([a, b])


def test_a_parent_set_breeds_what_a_list_does_and_is_walked_once() -> None:
    parents = population(3, ranks=(4, 2, 3), same_targets=False)
    ticks: list[str] = []
    kept = ParentSet(parents, ticks=Ticks(lambda: ticks.append("looked"), lambda: ticks.append("made")))
    cores = {name: module.weighted([0.5, -1.0, 2.0]) for name, module in share(kept).items()}
    assert share(kept) is share(kept)
    child = lift(share(kept), cores, 3)
    other = project(concat(parents, [0.5, -1.0, 2.0]), 3)
    assert same_function(child, other, 1e-12)
    assert child.retained == pytest.approx(other.retained)
    assert ticks == ["looked"] * sum(len(parent.modules) for parent in parents) + ["made"] * len(cores)
    assert len(kept) == 3
    assert same_function(kept[1], parents[1], 1e-12)
    assert ParentSet(parents)[1] is parents[1]


@given(st.integers(-12, 0), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_both_routes_to_a_basis_keep_ill_conditioned_stacks(exponent: int, seed: int) -> None:
    """Columns that nearly depend, columns of very different size, and a repeated column."""
    generator = np.random.Generator(np.random.PCG64(seed))
    X = generator.standard_normal((40, 6)) * 10.0 ** generator.integers(-20, 20, 6)
    X[:, 1] = X[:, 0] + 10.0**exponent * np.linalg.norm(X[:, 0]) * generator.standard_normal(40)
    found, R = basis(lambda: X)
    Q = found.at(np.eye(R.shape[0]))
    np.testing.assert_allclose(Q.T @ Q, np.eye(Q.shape[1]), atol=1e-9)
    np.testing.assert_allclose((Q @ R) / np.linalg.norm(X, axis=0), X / np.linalg.norm(X, axis=0), atol=1e-9)


def test_stored_factors_are_widened_at_each_look() -> None:
    B, A = np.ones((3, 2), np.float32), np.full((2, 4), 0.1, np.float16)
    stored = Stored(B, A, 0.5)
    assert (stored.rank, stored.shape) == (2, (3, 4))
    np.testing.assert_array_equal(stored.dense(), 0.5 * B.astype(np.float64) @ A.astype(np.float64))
    assert stored.raw()[0] is B


@pytest.mark.parametrize("scope", ["module", "global"])
@pytest.mark.parametrize("space", ["core", "knots", "delta"])
def test_cuts_are_exact_and_do_not_see_the_blocks(
    space: Space, scope: Literal["module", "global"], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = entries(population(3, ranks=(4, 2, 3), same_targets=False), space)
    monkeypatch.setattr("ecology.lowrank.entries.BLOCK_BYTES", 8 * 3 * 12 * 2)
    for density in (1e-9, 0.2, 0.77, 1.0):
        found = cuts(looked, 3, density, scope)
        every = {name: these.rows(0, these.shape[0]) for name, these in looked.items()}
        for name, stack in every.items():
            for i in range(3):
                own = stack[i].ravel() if scope == "module" else np.concatenate([s[i].ravel() for s in every.values()])
                keep = max(1, int(np.ceil(density * own.size - 1e-9)))
                assert found[name][i] == np.sort(np.abs(own))[::-1][keep - 1]
