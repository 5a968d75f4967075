"""The cells of a grammar as a file writes them, and what a derivation of one says: prompt, answer, completion."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ecology.contracts.identity import Json
from ecology.evaluator import grammar


def cells_of(data: Mapping[str, Json], split: str) -> tuple[grammar.Cell, ...]:
    """Those that a split draws from, in the order of the file."""
    plan = data["splits"][split]
    return tuple(cell_of(data, name, plan.get("templates", ())) for name in plan["cells"])


def cell_of(data: Mapping[str, Json], name: str, templates: Sequence[str]) -> grammar.Cell:
    """One cell.

    Args:
        data: The file.
        name: A key under `cells`.
        templates: Of the split, for a cell that has none of its own.
    """
    cell = data["cells"][name]
    symbols = {**data.get("symbols", {}), **cell.get("symbols", {})}
    return grammar.Cell(
        id=name,
        templates=tuple(cell.get("templates", templates)),
        symbols={key: _symbol(value) for key, value in symbols.items()},
        category=cell["category"],
        difficulty=cell.get("difficulty", "easy"),
        weight=cell.get("weight", 1),
        answer=cell.get("answer", ""),
        completion=cell.get("completion", ""),
        options=tuple(str(text) for text in cell.get("options", ())),
        constraints=cell.get("constraints", {}),
    )


def _symbol(value: Json) -> grammar.Symbol:
    if isinstance(value, dict) and "range" in value:
        return grammar.Span(*value["range"])
    if isinstance(value, dict) and "formula" in value:
        return grammar.Formula(str(value["formula"]))
    if isinstance(value, dict):
        return grammar.Table(tuple(value["columns"]), tuple(tuple(row) for row in value["rows"]))
    return tuple(str(text) for text in value)


def prompt_of(data: Mapping[str, Json], item: grammar.Derivation) -> str:
    """What is asked: the derived text inside the file's `wrap`."""
    return str(data.get("wrap", "{text}")).replace("{text}", item.prompt)


def answer_of(data: Mapping[str, Json], item: grammar.Derivation) -> dict[str, grammar.Value]:
    """The fields of the right answer, filled in."""
    return {key: grammar.fill(text, item.bindings) for key, text in data.get("answer", {}).items()}


def completion_of(data: Mapping[str, Json], item: grammar.Derivation) -> str | None:
    """Return what the model is to say: fixed text, or the answer as compact JSON, keys in the order of the file."""
    if item.cell.completion or not data.get("answer"):
        return item.cell.completion or None
    return json.dumps(answer_of(data, item), ensure_ascii=False, separators=(",", ":"))
