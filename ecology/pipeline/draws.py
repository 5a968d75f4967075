"""Which items of a suite play which split: public ones for all to see, hidden and fresh ones from a secret draw."""

from __future__ import annotations

import dataclasses
import functools

from ecology.contracts.evidence import Item, Suite
from ecology.contracts.run import Budget
from ecology.evaluator.suites import has_hidden
from ecology.evaluator.suites import items as expand
from ecology.pipeline.house import House


@dataclasses.dataclass(frozen=True)
class Draws:
    """The items of one run, drawn once."""

    budget: Budget
    house: House
    """Whose secret seed hidden and fresh items follow from."""
    draw: str = "hidden"
    """Which secret draw plays the hidden items; any other than ``hidden`` leaves out what the first draw asks."""

    def items(self, suite: Suite, split: str) -> tuple[Item, ...]:
        """A suite's items of one split; hidden and fresh ones follow from this home's secret seed."""
        if suite.kind == "lm_eval" or (split != "public" and not has_hidden(suite)):
            return ()  # lm-eval counts its own documents; what others published is public
        if (suite.id, split) not in self._drawn:
            self._drawn[suite.id, split] = self._draw(suite, split)
        return self._drawn[suite.id, split]

    @functools.cached_property
    def _drawn(self) -> dict[tuple[str, str], tuple[Item, ...]]:
        return {}

    def _draw(self, suite: Suite, split: str) -> tuple[Item, ...]:
        if split == "public":
            return expand(suite, "public", None, self.budget.public_items)
        if split == "fresh":
            return self._unseen(suite, "fresh", self.budget.fresh_items)
        if self.draw != "hidden":
            return self._unseen(suite, self.draw, self.budget.hidden(suite.id))
        return self._secret(suite, "hidden", self.budget.hidden(suite.id))

    def _secret(self, suite: Suite, draw: str, count: int) -> tuple[Item, ...]:
        return expand(suite, "hidden", self.house.split_seed(suite.digest, draw), count)

    def _unseen(self, suite: Suite, draw: str, count: int) -> tuple[Item, ...]:
        """The first items of a secret draw that are neither public nor in the hidden draw that everybody meets."""
        known = (*self.items(suite, "public"), *self._secret(suite, "hidden", self.budget.hidden(suite.id)))
        seen, wanted = {item.id for item in known}, count
        while True:  # ends: the grammar gives enough that nobody has seen, or says that it cannot
            fresh = tuple(item for item in self._secret(suite, draw, wanted) if item.id not in seen)
            if len(fresh) >= count:
                return fresh[:count]
            wanted += count - len(fresh)
