"""What has to hold in a suite's file, or in a corpus's grammar, beyond being YAML: every mistake, each with its key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ecology.contracts.identity import Json
from ecology.evaluator import grammar
from ecology.evaluator.cells import cell_of
from ecology.evaluator.fields import shape_mistakes
from ecology.verifier.instruction import unknown_constraints

KINDS = ("extraction", "refusal", "choice", "numeric", "instruction", "pair")
BY_LIKELIHOOD = frozenset({"choice", "pair"})
"""Kinds whose options are scored; of the others the model writes an answer."""
TOP = {
    "id": str, "version": int, "title": str, "licence": str, "kind": str, "capability": str, "splits": dict,
    "cells": dict,
}  # fmt: skip
TOP_OPTIONAL = {
    "expect": str, "wrap": str, "max_new_tokens": int, "schema": dict, "answer": dict, "symbols": dict, "canary": str,
    "calibrated": bool,
}  # fmt: skip
_SPLIT = {"items": int, "cells": list}
_SPLIT_OPTIONAL = {"seed": str, "templates": list}
_CELL = {"category": str}
_CELL_OPTIONAL = {
    "difficulty": str, "weight": int, "templates": list, "symbols": dict, "answer": str, "completion": str,
    "options": list, "constraints": dict,
}  # fmt: skip


def suite_mistakes(data: Mapping[str, Json]) -> list[str]:
    """Return what is wrong between the keys of a suite whose keys are all well-formed."""
    errors = [f"splits.{name}: is missing" for name in ("public", "hidden") if name not in data["splits"]]
    if "seed" in data["splits"].get("hidden", {}):
        errors.append("splits.hidden.seed: a seed that stands in the file is not secret; take it out")
    if data["kind"] not in KINDS:
        errors.append(f"kind: {data['kind']!r} is unknown; known: {', '.join(KINDS)}")
    if data["kind"] == "refusal" and data.get("expect") not in {"refuse", "answer"}:
        errors.append("expect: says `refuse` or `answer` in a suite of kind refusal")
    if data["kind"] == "extraction" and not (data.get("schema") and data.get("answer")):
        errors.append("schema, answer: both are needed in a suite of kind extraction")
    if (data["kind"] in BY_LIKELIHOOD) == (data.get("max_new_tokens", 0) > 0):
        errors.append(
            "max_new_tokens: at least 1 where the model writes, absent where options are scored by likelihood"
        )
    if data["kind"] == "numeric":
        errors += [f"cells.{name}.answer: is missing" for name, cell in data["cells"].items() if not cell.get("answer")]
    if data["kind"] == "instruction":
        errors += [
            f"cells.{name}.constraints: {problem}"
            for name, cell in data["cells"].items()
            for problem in unknown_constraints(cell.get("constraints", {}))
        ]
    if data["kind"] == "pair":
        errors += [
            f"cells.{name}.options: a pair has the stereotyped one as its answer and one other"
            for name, cell in data["cells"].items()
            if len(cell.get("options", ())) != 1
        ]
    if data["kind"] in BY_LIKELIHOOD:
        errors += [
            f"cells.{name}.answer: is one reference to a column, as in {{pair.capital}}, unless options are listed"
            for name, cell in data["cells"].items()
            if not (cell.get("options") and cell.get("answer"))
            and not any(
                column and f"{{{symbol}.{column}}}" == cell.get("answer") for symbol, column in _answer_reference(cell)
            )
        ]
    return errors


def _answer_reference(cell: Mapping[str, Json]) -> tuple[tuple[str, str], ...]:
    return grammar.references(cell.get("answer", ""))


def grammar_mistakes(data: Mapping[str, Json]) -> list[str]:
    """Return what is wrong with splits, cells and symbols, each with its key.

    Quiet about what `shape_mistakes` reports.
    """
    splits, cells = data.get("splits"), data.get("cells")
    if not (isinstance(splits, dict) and isinstance(cells, dict)):
        return []
    errors = [*_symbols_mistakes(data.get("symbols", {}), "symbols")]
    if "{text}" not in str(data.get("wrap", "{text}")):
        errors.append("wrap: has no {text} to put the item in")
    for name, cell in cells.items():
        errors += shape_mistakes(cell, _CELL, _CELL_OPTIONAL, f"cells.{name}.")
        errors += _symbols_mistakes(cell.get("symbols", {}) if isinstance(cell, dict) else {}, f"cells.{name}.symbols")
    for name, plan in splits.items():
        shape = shape_mistakes(plan, _SPLIT, _SPLIT_OPTIONAL, f"splits.{name}.")
        errors += shape
        if not shape:
            errors += [
                f"splits.{name}.cells: {cell!r} is not under cells" for cell in plan["cells"] if cell not in cells
            ]
            errors += [] if plan["cells"] else [f"splits.{name}.cells: names no cell"]
            errors += [] if plan["items"] > 0 else [f"splits.{name}.items: {plan['items']} is not at least 1"]
    if errors:
        return errors
    used = {(split, cell) for split, plan in splits.items() for cell in plan["cells"]}
    for split, name in sorted(used):
        cell = cell_of(data, name, splits[split].get("templates", ()))
        errors += [f"cells.{name} (in {split}): {mistake}" for mistake in grammar.mistakes(cell)]
        if cell.weight < 1:
            errors.append(f"cells.{name}.weight: {cell.weight} is not at least 1")
    idle = sorted(set(cells) - {name for _, name in used})
    return errors + [f"cells.{name}: no split draws from it" for name in idle]


def _symbols_mistakes(symbols: Json, where: str) -> Iterable[str]:
    for name, value in symbols.items() if isinstance(symbols, dict) else ():
        key = f"{where}.{name}"
        if isinstance(value, list):
            if not all(isinstance(text, str) for text in value):
                yield f"{key}: holds something that is not text; put quotes around numbers and yes/no"
        elif not isinstance(value, dict) or set(value) not in ({"range"}, {"formula"}, {"columns", "rows"}):
            kinds = "{range: [low, high]}, {formula: a + b} or {columns: [...], rows: [[...]]}"
            yield f"{key}: is a list of texts, {kinds}"
        elif "formula" in value:
            if not isinstance(value["formula"], str):
                yield f"{key}.formula: is text, such as a + b"
        elif "range" in value:
            if not (isinstance(value["range"], list) and [type(end) for end in value["range"]] == [int, int]):
                yield f"{key}.range: is two whole numbers, both included"
        elif not _is_table(value):
            yield f"{key}: every row has one text or whole number for each of the columns"


def _is_table(value: Mapping[str, Json]) -> bool:
    columns, rows = value["columns"], value["rows"]
    return (
        isinstance(columns, list)
        and isinstance(rows, list)
        and all(isinstance(name, str) for name in columns)
        and all(isinstance(row, list) and len(row) == len(columns) for row in rows)
        and all(type(entry) in {str, int} for row in rows for entry in row)
    )
