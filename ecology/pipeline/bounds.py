"""Ranges of the configuration's own numbers and names; options of one kind are checked by that kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ecology.pipeline.guard import name_problem

MOST_ITEMS = 1_000_000
NUMBERS: Mapping[str, tuple[int, int]] = {
    "seed": (0, 2**53 - 1),  # canonical JSON holds no larger integer
    "evaluator.public_items": (1, MOST_ITEMS),
    "evaluator.hidden_items": (1, MOST_ITEMS),
    "evaluator.finalists": (1, 1000),
    "evaluator.latency_pairs": (1, 100_000),
    "evaluator.latency_tokens": (1, 4096),
    "evaluator.hidden_queries": (1, MOST_ITEMS),
    "evaluator.fresh_items": (0, MOST_ITEMS),
    "evaluator.race.look": (1, MOST_ITEMS),
    "optimise.steps": (2, 1000),
    "optimise.trials": (1, MOST_ITEMS),
    "optimise.items": (1, MOST_ITEMS),
    "backend.threads": (1, 1024),
    "backend.batch_size": (1, 65536),
}
"""Path -> least and greatest whole number."""


def out_of_bounds(plain: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for every number out of range and every name that cannot be one."""
    for path, (least, greatest) in NUMBERS.items():
        value = _at(plain, path)
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            yield f"{path}: a whole number is needed, found {value!r}"
        elif isinstance(value, int | float) and not least <= value <= greatest:
            yield f"{path}: {value} is not between {least} and {greatest}"
    named = _at(plain, "evaluator.hidden_of")
    for suite, count in named.items() if isinstance(named, Mapping) else ():
        if isinstance(count, int) and not isinstance(count, bool) and not 1 <= count <= MOST_ITEMS:
            yield f"evaluator.hidden_of.{suite}: {count} is not between 1 and {MOST_ITEMS}"
    alpha = _at(plain, "evaluator.race.alpha")
    if isinstance(alpha, int | float) and not 0 < alpha < 1:
        yield f"evaluator.race.alpha: {alpha} is not between 0 and 1"
    for path in ("name", "alias", "base.name"):
        if (value := _at(plain, path)) is not None and (problem := name_problem(path, value)):
            yield problem
    for path in ("population.founders", "breeder"):
        group = _at(plain, path)
        for name in group if isinstance(group, Mapping) else ():
            if problem := name_problem(f"{path}.{name}", name):
                yield problem


def _at(plain: Any, path: str) -> Any:
    for key in path.split("."):
        plain = plain.get(key) if isinstance(plain, Mapping) else None
    return plain
