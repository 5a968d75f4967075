"""The published cases fail what they are there to catch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ecology.breeder.linear import LinearOptions
from ecology.breeder.operators import OPERATORS, Operator
from ecology.lowrank.lowrank import Factors, LowRank, concat
from ecology.store.artifacts import LocalStore
from ecology.testing import NonconformingError, stores
from ecology.testing import operators as cases

LINEAR = cases.Subject(
    OPERATORS["linear"],
    LinearOptions(),
    commutes=True,
    identity=LinearOptions(),
    weighted=LinearOptions,
    oracle=lambda parents: {
        name: sum(p.get(name, np.zeros_like(like)) for p in parents) / len(parents)
        for parent in parents
        for name, like in parent.items()
    },
)


def _with(function: Callable[[Sequence[LowRank], LinearOptions, int], LowRank]) -> cases.Subject:
    return dataclasses.replace(LINEAR, operator=dataclasses.replace(LINEAR.operator, function=function))


def _right(parents: Sequence[LowRank], options: LinearOptions) -> LowRank:
    return OPERATORS["linear"].function(parents, options, 0)


def _of_factors(parents: Sequence[LowRank], options: LinearOptions, seed: int) -> LowRank:
    """Keeps the largest entries of B: sees the gauge."""
    child = concat(parents, [1.0] * len(parents))
    return LowRank.of(
        {n: (np.where(np.abs(f.B) > np.median(np.abs(f.B)), f.B, 0), f.A) for n, f in child.modules.items()}
    )


def _ordered(parents: Sequence[LowRank], options: LinearOptions, seed: int) -> LowRank:
    return concat(parents, [1.0 / (1 + i) for i in range(len(parents))])


def _noisy(parents: Sequence[LowRank], options: LinearOptions, seed: int) -> LowRank:
    generator = np.random.default_rng()
    return concat(parents, generator.random(len(parents)).tolist())


def _vandal(parents: Sequence[LowRank], options: LinearOptions, seed: int) -> LowRank:
    for factors in parents[0].modules.values():
        factors.B.flags.writeable = True
        factors.B[:] = 0
    return parents[0]


def _nan(parents: Sequence[LowRank], options: LinearOptions, seed: int) -> LowRank:
    bad = {name: Factors(f.B / 0.0 * 0, f.A) for name, f in parents[0].modules.items()}
    return LowRank(bad, {})


def _bias(parents: Sequence[LowRank], options: LinearOptions, seed: int) -> LowRank:
    child = _right(parents, options)
    return LowRank.of(
        {
            n: (np.hstack([f.B, np.ones((f.shape[0], 1))]), np.vstack([f.A, np.ones((1, f.shape[1]))]))
            for n, f in child.modules.items()
        }
    )


def _present_mean(parents: Sequence[LowRank], options: LinearOptions, seed: int) -> LowRank:
    """Averages over the parents that have the module."""
    child = concat(parents, [1.0] * len(parents))
    counts = {name: sum(name in p.modules for p in parents) for name in child.modules}
    return LowRank.of({n: (f.B / counts[n], f.A) for n, f in child.modules.items()})


@pytest.mark.parametrize(
    ("case", "function"),
    [
        ("gauge_invariance", _of_factors),
        ("parent_permutation", _ordered),
        ("same_seed_same_bytes", _noisy),
        ("parents_unchanged", _vandal),
        ("rank_one", _nan),
        ("zero_adapter", _bias),
        ("identity_merge", _ordered),
        ("weight_linearity", _bias),
        ("dense_oracle", _present_mean),
        ("mixed_targets", _present_mean),
    ],
)
def test_case_catches(case: str, function: Callable[..., LowRank]) -> None:
    with np.errstate(all="ignore"), pytest.raises(NonconformingError):
        cases.CASES[case](_with(function))


def test_case_catches_a_child_of_another_shape() -> None:
    def grown(parents: Sequence[LowRank], options: LinearOptions, seed: int) -> LowRank:
        return LowRank.of({**parents[0].modules, "new": (np.ones((2, 1)), np.ones((1, 2)))})

    with pytest.raises(NonconformingError, match="new is"):
        cases.CASES["duplicate_parents"](_with(grown))


def test_claims_that_are_not_made_are_not_tested() -> None:
    silent = cases.Subject(Operator(_ordered, LinearOptions, 1, None, "test"), LinearOptions())
    for case in ("identity_merge", "parent_permutation", "weight_linearity", "dense_oracle", "edge_options"):
        cases.CASES[case](silent)


def test_store_cases_catch_a_forgetful_store(tmp_path: Path) -> None:
    class Forgetful(LocalStore):
        def folder(self, digest):  # type: ignore[no-untyped-def]
            return self._path(digest)

        def claims(self, digest):  # type: ignore[no-untyped-def]
            return ()

    for case in ("damage_is_found", "unknown_digest", "claims_append"):
        with pytest.raises(NonconformingError):
            stores.CASES[case](lambda case=case: Forgetful(tmp_path / case), tmp_path / f"{case}-scratch")  # type: ignore[misc]
