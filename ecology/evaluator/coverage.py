"""Capability x difficulty: what was looked at, and where looking could show anything.

A mean over cells hides the empty ones. Each cell says one of three things: measured; *not measured* (fewer items than
it takes); *no signal* (measured, and not shown to be better than guessing, so that a loss could not show).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from ecology.contracts.evidence import Item, Suite
from ecology.kernel.statistics import clopper_pearson

MINIMUM = 10
"""Items below which a cell counts as not measured: ten of ten prove no more than 74 %."""


@dataclasses.dataclass(frozen=True, slots=True)
class CellScore:
    """One cell of the matrix."""

    capability: str
    difficulty: str
    k: int
    n: int
    floor: float
    """Rate that guessing reaches, 0 to 1."""

    @property
    def state(self) -> Literal["measured", "not measured", "no signal"]:
        """What may be read from the cell."""
        if self.n < MINIMUM:
            return "not measured"
        above = clopper_pearson(self.k, self.n, 0.95)[0] > self.floor
        return "measured" if above else "no signal"

    def __str__(self) -> str:
        shown = f"{self.k} of {self.n}" if self.state != "not measured" else f"{self.n} items"
        return f"{self.capability}, {self.difficulty}: {self.state} ({shown})"


def matrix(asked: Sequence[tuple[Suite, Sequence[Item], Mapping[str, bool]]]) -> tuple[CellScore, ...]:
    """The cells of several suites, by capability and difficulty.

    Args:
        asked: Suites, their items, and which of them were right by item id; an item without an entry was not asked.

    Returns:
        Sorted by capability, then easy, medium, hard.
    """
    rows: dict[tuple[str, str], list[tuple[bool | None, float]]] = {}
    for suite, items, right in asked:
        for item in items:
            floor = 1 / len(item.choices) if item.choices else 0.0
            cell = rows.setdefault((suite.capability, item.difficulty or "easy"), [])
            cell.append((right.get(item.id), floor))
    order = {"easy": 0, "medium": 1, "hard": 2}
    cells = []
    for (capability, difficulty), values in sorted(rows.items(), key=lambda row: (row[0][0], order.get(row[0][1], 3))):
        seen = [(answer, floor) for answer, floor in values if answer is not None]
        floor = sum(floor for _, floor in seen) / max(1, len(seen))
        cells.append(CellScore(capability, difficulty, sum(bool(a) for a, _ in seen), len(seen), floor))
    return tuple(cells)
