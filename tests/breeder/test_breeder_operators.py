"""Every operator against the published cases, a dense oracle, and what is particular to it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.breeder.breadcrumbs import BreadcrumbsOptions
from ecology.breeder.crossover import CrossoverOptions
from ecology.breeder.dare import DareOptions
from ecology.breeder.della import DellaOptions
from ecology.breeder.iso_c import IsoCOptions
from ecology.breeder.linear import LinearOptions
from ecology.breeder.mutate import MutateOptions
from ecology.breeder.negate import NegateOptions
from ecology.breeder.operators import OPERATORS, find, known, options_of
from ecology.breeder.peft_preset import PeftOptions
from ecology.breeder.prune import PruneOptions
from ecology.breeder.sce import SceOptions
from ecology.breeder.slerp import SlerpOptions
from ecology.breeder.svd import SvdOptions
from ecology.breeder.ties import TiesOptions
from ecology.breeder.tsv import TsvOptions
from ecology.errors import ConfigError
from ecology.lowrank.fingerprint import distance, same_function
from ecology.lowrank.lowrank import LowRank, canonical, concat, frobenius, singular_values, total_norm
from ecology.testing import NonconformingError
from ecology.testing.operators import CASES, Dense, Subject, dense, population


def _names(parents: Sequence[Dense]) -> list[str]:
    return sorted({name for parent in parents for name in parent})


def _filled(parents: Sequence[Dense], name: str) -> list[np.ndarray]:
    like = next(parent[name] for parent in parents if name in parent)
    return [parent.get(name, np.zeros_like(like)) for parent in parents]


def _mean(parents: Sequence[Dense]) -> Dense:
    return {name: sum(_filled(parents, name)) / len(parents) for name in _names(parents)}


def _best(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def _naive_ties(entries: list[np.ndarray], density: float, weights: list[float], options: TiesOptions) -> np.ndarray:
    """Ten lines straight from arXiv:2306.01708, one entry at a time."""
    keep = math.ceil(density * entries[0].size)
    cuts = [sorted(np.abs(e).ravel())[-keep] for e in entries]
    out = np.zeros_like(entries[0])
    for at in itertools.product(*map(range, out.shape)):
        values = [(w, float(e[at])) for w, e, cut in zip(weights, entries, cuts, strict=True) if abs(e[at]) >= cut]
        votes = sum(w * v if options.sign_weighting == "weighted" else v for w, v in values)
        turned = [1 if options.sign_weighting == "unweighted" or w > 0 else -1 for w, _ in values]
        agree = [(w, v) for (w, v), t in zip(values, turned, strict=True) if t * v * votes > 0]
        divisor = {"weights": sum(abs(w) for w, _ in agree), "count": len(agree), "none": 1}[options.normalise]
        out[at] = options.scale * sum(w * v for w, v in agree) / divisor if agree else 0.0
    return out


def _ties_delta(parents: Sequence[Dense], options: TiesOptions) -> Dense:
    weights = list(options.weights or [1.0] * len(parents))
    merged = {n: _naive_ties(_filled(parents, n), options.density, weights, options) for n in _names(parents)}
    return {n: _best(m, options.rank) if options.rank else m for n, m in merged.items()}


def _ties_core(parents: Sequence[Dense], options: TiesOptions) -> Dense:
    result = {}
    for name in _names(parents):
        deltas = _filled(parents, name)
        u, su, _ = np.linalg.svd(np.hstack(deltas), full_matrices=False)
        _, sv, vt = np.linalg.svd(np.vstack(deltas), full_matrices=False)
        u, vt = u[:, su > 1e-10 * su[0]], vt[sv > 1e-10 * sv[0]]
        weights = list(options.weights or [1.0] * len(parents))
        result[name] = u @ _naive_ties([u.T @ d @ vt.T for d in deltas], options.density, weights, options) @ vt
    return result


def _ties(**options: object) -> Subject:
    chosen = TiesOptions(**options)  # type: ignore[arg-type]
    formula = {"core": _ties_core, "knots": _ties_knots, "delta": _ties_delta}[chosen.space]
    return Subject(
        OPERATORS["ties"],
        chosen,
        commutes=chosen.weights is None,
        identity=dataclasses.replace(chosen, density=1.0, weights=None, rank=None)
        if chosen.normalise != "none" and chosen.scale == 1
        else None,
        oracle=lambda parents: formula(parents, chosen),
        edges=(dataclasses.replace(chosen, density=1.0), dataclasses.replace(chosen, density=1e-9)),
    )


def _slerp(parents: Sequence[Dense]) -> Dense:
    result = {}
    for name in _names(parents):
        a, b = _filled(parents, name)
        if not (a.any() and b.any()):
            result[name] = 0.7 * a + 0.3 * b
            continue
        omega = math.acos(float(np.sum(a * b)) / float(np.linalg.norm(a) * np.linalg.norm(b)))
        result[name] = (math.sin(0.7 * omega) * a + math.sin(0.3 * omega) * b) / math.sin(omega)
    return result


def _isotropic(parents: Sequence[Dense]) -> Dense:
    result = {}
    for name in _names(parents):
        u, s, vt = np.linalg.svd(sum(_filled(parents, name)), full_matrices=False)
        keep = s > 1e-10 * s[0]
        result[name] = 3.0 * s[keep].mean() * u[:, keep] @ vt[keep]
    return result


def _nearest_orthogonal(stack: np.ndarray) -> np.ndarray:
    """Polar factor by an independent route: X (X^T X)^(-1/2)."""
    values, vectors = np.linalg.eigh(stack.T @ stack)
    return stack @ (vectors / np.sqrt(values)) @ vectors.T


def _tsv(parents: Sequence[Dense]) -> Dense:
    result = {}
    for name in _names(parents):
        parts = [np.linalg.svd(d, full_matrices=False) for d in _filled(parents, name)]
        ranks = [int(np.sum(s > 1e-10 * s[:1].sum())) for _, s, _ in parts]
        u = _nearest_orthogonal(np.hstack([p[0][:, :k] for p, k in zip(parts, ranks, strict=True)]))
        v = _nearest_orthogonal(np.hstack([p[2][:k].T for p, k in zip(parts, ranks, strict=True)]))
        result[name] = (u * np.concatenate([p[1][:k] for p, k in zip(parts, ranks, strict=True)])) @ v.T
    return result


def _breadcrumbs(parents: Sequence[Dense], density: float, gamma: float) -> Dense:
    result = {}
    for name in _names(parents):
        total = 0.0
        for delta in _filled(parents, name):
            order = np.argsort(-np.abs(delta).ravel(), kind="stable")
            top, end = math.ceil(gamma * delta.size), math.ceil((density + gamma) * delta.size)
            mask = np.zeros(delta.size, bool)
            mask[order[top:end]] = True
            total = total + np.where(mask.reshape(delta.shape), delta, 0.0) / len(parents)
        result[name] = total
    return result


def _sce(parents: Sequence[Dense], density: float) -> Dense:
    result = {}
    for name in _names(parents):
        deltas = np.stack(_filled(parents, name))
        variance = deltas.var(axis=0)
        cut = np.sort(variance.ravel())[-math.ceil(density * variance.size)]
        chosen = np.where(variance >= cut, deltas, 0)
        shares = (chosen**2).sum(axis=(1, 2))[:, None, None] * (np.sign(chosen) == np.sign(chosen.sum(0)))
        shares = shares * (chosen != 0)
        result[name] = np.nan_to_num((shares * chosen).sum(0) / np.where(shares.sum(0) > 0, shares.sum(0), np.nan))
    return result


def _ties_knots(parents: Sequence[Dense], options: TiesOptions) -> Dense:
    result = {}
    for name in _names(parents):
        deltas = _filled(parents, name)
        u, s, vt = np.linalg.svd(np.hstack(deltas), full_matrices=False)
        k, n = int(np.sum(s > 1e-10 * s[0])), deltas[0].shape[1]
        looked = [vt[:k, i * n : (i + 1) * n] * delta.any() for i, delta in enumerate(deltas)]
        merged = _naive_ties(looked, options.density, list(options.weights or [1.0] * len(deltas)), options)
        result[name] = (u[:, :k] * s[:k]) @ merged
    return result


SUBJECTS = {
    "linear": Subject(
        OPERATORS["linear"], LinearOptions(), commutes=True, identity=LinearOptions(),
        weighted=LinearOptions, oracle=_mean,
        edges=(LinearOptions((0.0, 0.0, 0.0)), LinearOptions((1.0, -1.0, 0.0)), LinearOptions(rank=1)),
    ),
    "linear-rank": Subject(
        OPERATORS["linear"], LinearOptions(rank=3), commutes=True, identity=LinearOptions(rank=4),
        oracle=lambda parents: {name: _best(m, 3) for name, m in _mean(parents).items()},
    ),
    "svd": Subject(
        OPERATORS["svd"], SvdOptions(rank=2), commutes=True, identity=SvdOptions(rank=4),
        weighted=lambda weights: SvdOptions(rank=64, weights=weights),
        oracle=lambda parents: {name: _best(m, 2) for name, m in _mean(parents).items()},
        edges=(SvdOptions(rank=1), SvdOptions(rank=4096)),
    ),
    "ties-core": _ties(density=0.3),
    "ties-core-global": Subject(OPERATORS["ties"], TiesOptions(trim_scope="global"), commutes=True),
    "ties-core-unweighted": _ties(density=0.5, sign_weighting="unweighted", normalise="count", weights=(1.0, 0.5, 2.0)),
    "ties-delta": _ties(density=0.3, space="delta", rank=64),
    "ties-delta-rank": _ties(density=0.6, space="delta", rank=3, scale=0.7),
    "ties-delta-negative": _ties(density=0.5, space="delta", rank=64, weights=(1.0, -0.5, 2.0)),
    "ties-delta-sum": _ties(density=0.5, space="delta", rank=64, normalise="none"),
    "ties-knots": _ties(density=0.3, space="knots", rank=64),
    "ties-delta-global": Subject(
        OPERATORS["ties"], TiesOptions(trim_scope="global", space="delta"), commutes=True,
        identity=TiesOptions(density=1.0, trim_scope="global", space="delta"),
    ),
    "slerp": Subject(
        OPERATORS["slerp"], SlerpOptions(t=0.3), identity=SlerpOptions(t=0.3), oracle=_slerp,
        edges=(SlerpOptions(t=0.0), SlerpOptions(t=1.0), SlerpOptions(rank=1)),
    ),
    "slerp-half": Subject(OPERATORS["slerp"], SlerpOptions(), commutes=True, identity=SlerpOptions()),
    "slerp-adapter": Subject(
        OPERATORS["slerp"], SlerpOptions(scope="adapter"), commutes=True, identity=SlerpOptions(scope="adapter")
    ),
    "iso_c": Subject(
        OPERATORS["iso_c"], IsoCOptions(scale=3.0), commutes=True, oracle=_isotropic,
        edges=(IsoCOptions(rank=1), IsoCOptions(scale=100.0)),
    ),
    "tsv": Subject(
        OPERATORS["tsv"], TsvOptions(rank=64), commutes=True, identity=TsvOptions(),
        edges=(TsvOptions(keep=1e-9), TsvOptions(keep=0.5, rank=1)),
    ),
    "tsv-two": Subject(
        dataclasses.replace(OPERATORS["tsv"], parents_max=2), TsvOptions(rank=64), commutes=True, oracle=_tsv
    ),
    "della": Subject(
        OPERATORS["della"], DellaOptions(), identity=DellaOptions(density=1.0, epsilon=0.0),
        edges=(DellaOptions(density=0.6, epsilon=0.8), DellaOptions(density=1e-6, epsilon=0.0)),
    ),
    "della-delta": Subject(OPERATORS["della"], DellaOptions(space="delta")),
    "della-knots": Subject(OPERATORS["della"], DellaOptions(space="knots", density=0.8)),
    "breadcrumbs": Subject(
        OPERATORS["breadcrumbs"], BreadcrumbsOptions(), commutes=True,
        identity=BreadcrumbsOptions(density=1.0, gamma=0.0),
        weighted=lambda weights: BreadcrumbsOptions(weights=weights, rank=64),
        edges=(BreadcrumbsOptions(density=1.0, gamma=0.0), BreadcrumbsOptions(density=1e-9, gamma=0.5)),
    ),
    "breadcrumbs-delta": Subject(
        OPERATORS["breadcrumbs"], BreadcrumbsOptions(density=0.6, gamma=0.1, space="delta", rank=64), commutes=True,
        oracle=lambda parents: _breadcrumbs(parents, 0.6, 0.1),
    ),
    "breadcrumbs-elect": Subject(OPERATORS["breadcrumbs"], BreadcrumbsOptions(elect=True), commutes=True),
    "sce": Subject(
        OPERATORS["sce"], SceOptions(), commutes=True, identity=SceOptions(),
        edges=(SceOptions(density=1.0), SceOptions(density=1e-9)),
    ),
    "sce-delta": Subject(
        OPERATORS["sce"], SceOptions(density=0.4, space="delta", rank=64), commutes=True,
        oracle=lambda parents: _sce(parents, 0.4),
    ),
    "dare-delta": Subject(
        OPERATORS["dare"], DareOptions(variant="delta", rank=64), identity=DareOptions(density=1.0, variant="delta"),
        weighted=lambda weights: DareOptions(weights=weights, variant="delta", rank=64),
        edges=(DareOptions(density=1e-6, variant="delta"),),
    ),
    "dare": Subject(
        OPERATORS["dare"], DareOptions(), identity=DareOptions(density=1.0),
        weighted=lambda weights: DareOptions(weights=weights),
        edges=(DareOptions(density=1.0), DareOptions(density=1e-6), DareOptions(rank=1)),
    ),
    "dare-factors": Subject(
        OPERATORS["dare"], DareOptions(variant="factors"), identity=DareOptions(density=1.0, variant="factors"),
        weighted=lambda weights: DareOptions(weights=weights, variant="factors"),
        edges=(DareOptions(density=1.0, variant="factors"), DareOptions(density=1e-6, variant="factors")),
    ),
    "mutate": Subject(
        OPERATORS["mutate"], MutateOptions(), identity=MutateOptions(spectrum=0, noise=0),
        edges=(MutateOptions(spectrum=1, noise=1), MutateOptions(rank=1)),
    ),
    "crossover-module": Subject(
        OPERATORS["crossover"], CrossoverOptions(), identity=CrossoverOptions(),
        edges=(CrossoverOptions(weights=(1.0, 0.0, 0.0)),),
    ),
    "crossover-layer": Subject(
        OPERATORS["crossover"], CrossoverOptions(unit="layer"), identity=CrossoverOptions(unit="layer")
    ),
    "crossover-interpolate": Subject(
        OPERATORS["crossover"], CrossoverOptions(method="interpolate"),
        identity=CrossoverOptions(method="interpolate", unit="layer"),
        edges=(CrossoverOptions(method="interpolate", weights=(1.0, 0.0, 0.0)),),
    ),
    "crossover-exchange": Subject(
        OPERATORS["crossover"], CrossoverOptions(method="exchange"), identity=CrossoverOptions(method="exchange"),
        edges=(CrossoverOptions(method="exchange", weights=(0.0, 1.0, 0.0), rank=1),),
    ),
    "peft-cat": Subject(
        OPERATORS["peft"], PeftOptions("cat", (0.5, 0.2, -0.3)), identity=None,
        weighted=lambda weights: PeftOptions("cat", weights),
        edges=(PeftOptions("svd", (1.0, 1.0, 1.0), svd_rank=1), PeftOptions("ties_svd", (1.0,) * 3, density=0.0)),
    ),
    "prune-rank": Subject(
        OPERATORS["prune"], PruneOptions(rank=2), identity=PruneOptions(energy=1.0),
        edges=(PruneOptions(rank=1), PruneOptions(rank=4096), PruneOptions(energy=1e-9), PruneOptions(energy=1.0)),
    ),
    "prune-energy": Subject(OPERATORS["prune"], PruneOptions(energy=0.8), identity=PruneOptions(rank=4)),
    "negate": Subject(
        OPERATORS["negate"], NegateOptions(),
        oracle=lambda parents: {name: -m for name, m in parents[0].items()}, edges=(NegateOptions(scale=100),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SUBJECTS)
def test_conforms(name: str, case: str) -> None:
    CASES[case](SUBJECTS[name])


def test_every_operator_is_a_subject() -> None:
    assert {subject.operator.function.__name__ for subject in SUBJECTS.values()} == set(OPERATORS)
    assert {name for name, row in OPERATORS.items() if not {"equivariant", "gauge"} <= row.claims} == {"peft"}


def test_the_cases_catch_factor_averaging() -> None:
    """PEFT's ``linear``, (sum sqrt(w) B)(sum sqrt(w) A), fails where it should."""

    def factor_average(parents: Sequence[LowRank], options: LinearOptions, seed: int) -> LowRank:
        weights = [math.copysign(math.sqrt(abs(w)), w) for w in options.weights or [1 / len(parents)] * len(parents)]
        return LowRank.of(
            {
                name: (
                    sum(w * p.modules[name].B for w, p in zip(weights, parents, strict=True)),
                    sum(w * p.modules[name].A for w, p in zip(weights, parents, strict=True)),
                )
                for name in parents[0].modules
            }
        )

    wrong = dataclasses.replace(
        SUBJECTS["linear"], operator=dataclasses.replace(OPERATORS["linear"], function=factor_average)
    )
    broken = []
    for name in ("identity_merge", "weight_linearity", "parents_unchanged", "same_seed_same_bytes"):
        try:
            CASES[name](wrong)
        except NonconformingError:
            broken.append(name)
    assert broken == ["identity_merge", "weight_linearity"]


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3))
@settings(max_examples=25, deadline=None)
def test_linear_is_the_sum_of_dense_deltas(weights: list[float]) -> None:
    parents = population(3, ranks=(4, 1, 2), same_targets=False)
    child = dense(OPERATORS["linear"].function(parents, LinearOptions(tuple(weights)), 0))
    for name in _names([dense(p) for p in parents]):
        wanted = sum(w * m for w, m in zip(weights, _filled([dense(p) for p in parents], name), strict=True))
        np.testing.assert_allclose(child[name], wanted, atol=1e-12)


def test_projection_reports_the_energy_it_kept() -> None:
    parents = population(2)
    whole = OPERATORS["linear"].function(parents, LinearOptions(), 0)
    part = OPERATORS["svd"].function(parents, SvdOptions(rank=3), 0)
    assert whole.retained_energy == 1.0
    assert part.retained_energy == pytest.approx((total_norm(part) / total_norm(whole)) ** 2)
    assert distance(whole, part) == pytest.approx(math.sqrt(1 - part.retained_energy) * total_norm(whole))


def test_dare_keeps_about_the_density() -> None:
    (parent,) = population(1)
    child = OPERATORS["dare"].function([parent] * 40, DareOptions(density=0.25), 5)
    drawn = sum(f.rank for f in canonical(parent).modules.values()) * 40
    assert sum(f.rank for f in child.modules.values()) / drawn == pytest.approx(0.25, abs=0.05)


def test_ties_core_of_opposites_is_nothing_and_not_noise() -> None:
    (parent,) = population(1)
    opposite = OPERATORS["negate"].function([parent], NegateOptions(), 0)
    child = OPERATORS["ties"].function([parent, opposite], TiesOptions(density=1.0), 0)
    assert total_norm(child) <= 1e-9 * total_norm(parent)


def test_ties_global_trim_starves_the_weaker_module() -> None:
    strong, weak = np.full((4, 1), 10.0), np.full((4, 1), 0.1)
    row = np.ones((1, 4))
    parent = LowRank.of({"a": (strong, row), "b": (weak, row)})
    options = TiesOptions(density=0.5, space="delta", trim_scope="global")
    child = OPERATORS["ties"].function([parent], options, 0)
    assert frobenius(child)["a"] == pytest.approx(frobenius(parent)["a"])
    assert frobenius(child)["b"] == 0
    both = OPERATORS["ties"].function([parent], dataclasses.replace(options, trim_scope="module"), 0)
    assert frobenius(both)["b"] > 0


def test_mutation_is_as_large_as_said() -> None:
    (parent,) = population(1)
    child = OPERATORS["mutate"].function([parent], MutateOptions(spectrum=0, noise=0.2), 3)
    for name, norm in frobenius(parent).items():
        before, after = parent.modules[name], child.modules[name]
        added = after.dense() - before.dense()
        if before.rank < min(before.shape):
            assert after.rank == before.rank + 1
            assert np.linalg.norm(added) == pytest.approx(0.2 * norm)
            assert np.linalg.matrix_rank(added, tol=1e-9) == 1
            assert np.abs(before.B.T @ added).max() < 1e-9  # out of the span on both sides
            assert np.abs(added @ before.A.T).max() < 1e-9
    spectrum = OPERATORS["mutate"].function([parent], MutateOptions(spectrum=0.3, noise=0), 3)
    assert all(spectrum.modules[name].rank == f.rank for name, f in parent.modules.items())
    assert not same_function(spectrum, parent)


def test_mutation_of_a_full_module_stays_in_its_span() -> None:
    full = LowRank.of({"a": (np.eye(3), np.diag([3.0, 2.0, 1.0]))})
    child = OPERATORS["mutate"].function([full], MutateOptions(spectrum=0, noise=0.5), 0)
    assert same_function(child, full)


@pytest.mark.parametrize("unit", ["module", "layer"])
def test_crossover_takes_whole_units(unit: str) -> None:
    parents = population(2)
    seen = set()
    for seed in range(12):
        child = OPERATORS["crossover"].function(parents, CrossoverOptions(unit=unit), seed)  # type: ignore[arg-type]
        origin = {
            name: next(i for i, p in enumerate(parents) if p.modules[name] is factors)
            for name, factors in child.modules.items()
        }
        if unit == "layer":
            assert len({i for name, i in origin.items() if ".0." in name}) == 1
        seen.add(tuple(origin.values()))
    assert len(seen) > 2


def test_crossover_inherits_the_lack_of_a_module() -> None:
    with_, without = population(1)[0], LowRank.of({})
    child = OPERATORS["crossover"].function([with_, without], CrossoverOptions(weights=(0.0, 1.0)), 0)
    assert total_norm(child) == 0


def test_prune_keeps_the_largest_of_all_modules() -> None:
    (parent,) = population(1)
    child = OPERATORS["prune"].function([parent], PruneOptions(rank=2), 0)
    everything = np.sort(np.concatenate(list(singular_values(parent).values())))[::-1]
    kept = np.sort(np.concatenate(list(singular_values(child).values())))[::-1]
    np.testing.assert_allclose(kept, everything[: 2 * len(parent.modules)])


@given(st.floats(0.01, 1.0))
@settings(max_examples=20, deadline=None)
def test_prune_by_energy_keeps_enough_and_no_more(energy: float) -> None:
    (parent,) = population(1)
    child = OPERATORS["prune"].function([parent], PruneOptions(energy=energy), 0)
    assert child.retained_energy >= energy * (1 - 1e-9)
    smallest = min(s[-1] for s in singular_values(child).values() if s.size)
    kept = total_norm(child) ** 2 - smallest**2
    assert kept < energy * total_norm(parent) ** 2


def test_negated_twice_is_itself() -> None:
    (parent,) = population(1)
    twice = concat([OPERATORS["negate"].function([parent], NegateOptions(), 0)], [-1.0])
    assert same_function(twice, parent, 1e-15)


@pytest.mark.parametrize(
    ("name", "options", "where"),
    [
        ("ties", {"density": 0.0}, "ties.density"),
        ("ties", {"density": 1.01}, "ties.density"),
        ("ties", {"density": float("nan")}, "ties.density"),
        ("ties", {"sign_weighting": "both"}, "ties.sign_weighting"),
        ("ties", {"typo": 1}, "ties"),
        ("dare", {"density": 0}, "dare.density"),
        ("svd", {}, "svd"),
        ("svd", {"rank": 0}, "svd.rank"),
        ("svd", {"rank": 1.5}, "svd.rank"),
        ("linear", {"weights": []}, "linear.weights"),
        ("linear", {"weights": [float("inf")]}, "linear.weights"),
        ("linear", {"weights": "ab"}, "linear.weights"),
        ("mutate", {"noise": -0.1}, "mutate.noise"),
        ("crossover", {"weights": [1, -1]}, "crossover.weights"),
        ("crossover", {"weights": [0, 0]}, "crossover.weights"),
        ("prune", {}, "prune"),
        ("prune", {"rank": 1, "energy": 0.5}, "prune"),
        ("negate", {"scale": 0}, "negate.scale"),
        ("tiess", {}, "operator"),
    ],
)
def test_bad_options_are_named(name: str, options: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options_of(name, options)
    assert caught.value.where == where


def test_weights_must_match_the_parents() -> None:
    with pytest.raises(ConfigError, match="2 weights for 3 parents"):
        OPERATORS["linear"].function(population(3), LinearOptions((0.5, 0.5)), 0)


def test_unknown_operators_list_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=", ".join(known())):
        find("tiess")
    assert set(OPERATORS) <= set(known())


def test_plug_ins_join_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        def __init__(self, name: str, value: object) -> None:
            self.name, self.value = name, value

        def load(self) -> object:
            return self.value

    points = [Point("twice", OPERATORS["linear"]), Point("broken", 3)]
    monkeypatch.setattr(
        "ecology.breeder.operators.entry_points", lambda group, name=None: [p for p in points if name in (None, p.name)]
    )
    assert find("twice") is OPERATORS["linear"]
    assert {"twice", "broken"} <= set(known())
    with pytest.raises(ConfigError, match="no Operator"):
        find("broken")
