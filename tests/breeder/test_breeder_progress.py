"""Breeding tells how far it is, whatever the operator does with its parents."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecology.breeder.breed import Parent, breed
from ecology.breeder.operators import OPERATORS
from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.lowrank.core import ParentSet, Ticks
from ecology.store.adapters import write_adapter
from ecology.testing.operators import population

SHA = Digest("sha256:" + "c" * 64)
IDENTITY = CompatibilityIdentity("toy", SHA, SHA, SHA, SHA)
COUNT = {"slerp": 2, "mutate": 1, "prune": 1, "negate": 1}
OPTIONS: dict[str, dict[str, object]] = {
    "peft": {"combination_type": "svd", "weights": [0.5, 0.3, 0.2]},
    "prune": {"rank": 1},
    "svd": {"rank": 2},
}
CUT = {"dare": {"rank": 2}, "mutate": {"rank": 2}, "crossover": {"rank": 2}}
"""The same with a projection at the end."""


class Bar:
    """A progress bar that remembers."""

    def __init__(self) -> None:
        self.total, self.steps, self.whats = 0, list[int](), list[tuple[str, int, str]]()

    @contextlib.contextmanager
    def track(self, what: str, total: int, unit: str = "it") -> Iterator[Bar]:
        self.whats.append((what, total, unit))
        self.steps, self.total = [], total
        yield self

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.steps.append(amount)


CASES = [*((name, OPTIONS.get(name, {})) for name in sorted(OPERATORS)), *CUT.items()]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_bar_moves_in_small_steps_and_ends(name: str, options: dict[str, object], tmp_path: Path) -> None:
    adapters = population(COUNT.get(name, 3), 7)
    parents = []
    for i, adapter in enumerate(adapters):
        folder = tmp_path / f"p{i}"
        artifact = write_adapter(folder, {n: (f.B, f.A) for n, f in adapter.modules.items()}, "toy", SHA)
        parents.append(Parent(folder.name, folder, artifact, None, IDENTITY))
    bar = Bar()
    told = breed(name, options, parents, tmp_path / "child", 1, {}, progress=bar)
    assert [(what, unit) for what, _, unit in bar.whats] == [("reading parents", "parent"), ("breeding", "module")]
    assert sum(bar.steps) == bar.total
    assert max(bar.steps[:-1]) <= len(parents)
    assert bar.steps[-1] <= bar.total // 2, "more than half of the way at once"
    assert told.artifact == breed(name, options, parents, tmp_path / "silent", 1, {}).artifact


def test_a_module_is_told_once_and_only_when_it_is_looked_at() -> None:
    looked: list[int] = []
    (adapter,) = population(1, 1)
    watched = ParentSet([adapter], ticks=Ticks(lambda: looked.append(1), lambda: None))[0]
    first, *rest = watched.modules.values()
    assert (first.rank, first.shape) == (first.B.shape[1], (first.B.shape[0], first.A.shape[1]))
    assert first.raw()[2] == 1.0
    assert (len(looked), bool(rest)) == (1, True)
