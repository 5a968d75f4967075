"""The boundaries of reproduction, one at a time and as laws."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecology.contracts.policy import ReproductionLimits
from ecology.kernel.reproduction import Kin, Population, child_objections, run_objections

FREE = ReproductionLimits()


def kin(name: str, *parents: str, generation: int = 0, children: int = 0, admitted: bool = False) -> Kin:
    return Kin(name, name, generation, parents, children, admitted)


LINE = {k.digest: k for k in (
    kin("a"), kin("b"), kin("c", "a", "b", generation=1, children=1, admitted=True),
    kin("d", "c", generation=2, children=2), kin("e", "d", "a", generation=3),
)}  # fmt: skip
HOME = Population(LINE, frozenset(), {}, 3)


@pytest.mark.parametrize(
    ("limits", "operator", "parents", "word"),
    [
        ({"operators": ("linear",)}, "ties", ("a",), "operator ties"),
        ({"max_parents": 1}, "linear", ("a", "b"), "2 parents"),
        ({"max_generation": 2}, "linear", ("d",), "generation 3"),
        ({"max_population": 5}, "linear", ("a",), "population has 5"),
        ({"max_children": 2}, "linear", ("d",), "d has 2 children"),
        ({"max_unapproved_generations": 2}, "linear", ("d",), "3 generations from"),
        ({"approved_parents_only": True}, "linear", ("d",), "neither admitted nor approved"),
        ({"approved_parents_only": True}, "linear", ("stranger",), "neither admitted nor approved"),
    ],
)
def test_each_limit(limits: dict[str, Any], operator: str, parents: tuple[str, ...], word: str) -> None:
    assert child_objections(FREE, HOME, operator, parents) == ()
    (found,) = child_objections(ReproductionLimits(**limits), HOME, operator, parents)
    assert word in found


def test_quarantine_is_always_asked() -> None:
    home = dataclasses.replace(HOME, quarantined={"d": "harm"})
    assert child_objections(None, home, "linear", ("d", "d")) == ("d is quarantined: harm",)
    assert home.size == 4


def test_an_approval_resets_the_generations_and_admits_a_parent() -> None:
    assert HOME.depth("e") == 3
    home = dataclasses.replace(HOME, approved=frozenset({"d"}))
    assert home.depth("e") == 1
    strict = ReproductionLimits(max_unapproved_generations=1, approved_parents_only=True)
    assert child_objections(strict, home, "linear", ("d",)) == ()
    assert child_objections(strict, home, "linear", ("c",))


def test_a_lineage_that_loops_ends() -> None:
    loop = {"x": kin("x", "y", generation=1), "y": kin("y", "x", generation=1)}
    assert Population(loop, frozenset(), {}, 0).depth("x") >= 1


def test_runs_a_day() -> None:
    assert run_objections(None, HOME) == run_objections(ReproductionLimits(max_runs_per_day=4), HOME) == ()
    assert "3 runs" in run_objections(ReproductionLimits(max_runs_per_day=3), HOME)[0]


NAMES = st.sampled_from(sorted(LINE))


@given(
    st.lists(NAMES, min_size=1, max_size=3),
    st.sets(NAMES),
    st.sets(NAMES),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_stricter_never_allows_more(
    parents: list[str], approved: set[str], banned: set[str], lax: int, strict: int
) -> None:
    keys = ("max_children", "max_generation", "max_population", "max_unapproved_generations", "max_parents")
    low, high = min(lax, strict), max(lax, strict)
    home = Population(LINE, frozenset(approved), dict.fromkeys(banned, "x"), 0)
    for key in keys:
        tight, loose = ReproductionLimits(**{key: low}), ReproductionLimits(**{key: high})  # type: ignore[arg-type]
        assert len(child_objections(tight, home, "linear", parents)) >= len(
            child_objections(loose, home, "linear", parents)
        )
    rule = ReproductionLimits(max_unapproved_generations=low, approved_parents_only=True)
    fewer = dataclasses.replace(home, approved=frozenset())
    more = dataclasses.replace(home, quarantined=dict.fromkeys(LINE, "x"))
    here = child_objections(rule, home, "linear", parents)
    assert len(child_objections(rule, fewer, "linear", parents)) >= len(here)
    assert child_objections(rule, more, "linear", parents)
