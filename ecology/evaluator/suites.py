"""Suites and corpora on disk: read, checked, expanded, compared.

A suite is `suites/<id>/suite.yaml`, a grammar with a public split (its seed stands in the file) and a hidden one (its
seed is secret and comes from the caller). A corpus is a folder with `corpus.yaml` (who made it, under which licence,
whether it may be trained on) and `train.jsonl`, and where the rows came from a grammar, `grammar.yaml` in the same
format as a suite.

Every mistake in a file is reported at once, each with its file and key. What was read is immutable and knows its
digest, so that a score can say what it was measured on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ecology.contracts.artifact import Corpus
from ecology.contracts.evidence import Item, Suite
from ecology.contracts.identity import Json
from ecology.documents.jsonl import read_lines
from ecology.documents.source import read_source
from ecology.errors import ConfigError
from ecology.evaluator import grammar
from ecology.evaluator.attacks import ATTACKS, attacked
from ecology.kernel.canonical import canonical, digest, digest_bytes
from ecology.verifier.instruction import unknown_constraints

KINDS = ("extraction", "refusal", "choice", "numeric", "instruction", "pair")
BY_LIKELIHOOD = frozenset({"choice", "pair"})
"""Kinds whose options are scored; of the others the model writes an answer."""
OPTIONS = 4
SHINGLE = 8  # words; a run this long is copied text, as in published contamination checks

_TOP = {
    "id": str, "version": int, "title": str, "licence": str, "kind": str, "capability": str, "splits": dict,
    "cells": dict,
}  # fmt: skip
_TOP_OPTIONAL = {
    "expect": str, "wrap": str, "max_new_tokens": int, "schema": dict, "answer": dict, "symbols": dict, "canary": str,
    "calibrated": bool,
}  # fmt: skip
_ATTACKED = {
    "id": str, "version": int, "title": str, "licence": str, "capability": str, "of": str, "attacks": list,
    "splits": dict,
}  # fmt: skip
_SPLIT = {"items": int, "cells": list}
_SPLIT_OPTIONAL = {"seed": str, "templates": list}
_CELL = {"category": str}
_CELL_OPTIONAL = {
    "difficulty": str, "weight": int, "templates": list, "symbols": dict, "answer": str, "completion": str,
    "options": list, "constraints": dict,
}  # fmt: skip
_MANIFEST = {
    "id": str, "version": int, "title": str, "licence": str, "split": str, "no_train": bool, "data": str, "sha256": str,
    "rows": int, "made": str,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One training example."""

    prompt: str
    completion: str
    cut: bool = False
    """Whether the completion stops in mid-answer, so that no end-of-turn token belongs behind it."""


@dataclass(frozen=True)
class Overlap:
    """How much of a corpus is also in a suite."""

    exact: float
    """Share of the prompts (0 to 1) that are an item, letter case, spaces and punctuation aside."""
    shingles: float
    """Share of the prompts (0 to 1) that have eight words in a row in common with an item."""
    examples: tuple[str, ...]
    """Digests of the shared prompts, sorted; the texts may be harmful and stay out of reports."""


def load_suite(path: Path) -> Suite:
    """Read one suite.

    Args:
        path: A `suite.yaml`, or the folder that holds one.

    Raises:
        ConfigError: If the file cannot be read or does not describe a suite; all mistakes are listed.
    """
    path = path / "suite.yaml" if path.is_dir() else path
    data, raw = _yaml(path, "the suite")
    if isinstance(data, dict) and "attacks" in data:
        return _attacked(path, data, raw)
    errors = [*_shape(data, _TOP, _TOP_OPTIONAL, ""), *(_grammar_mistakes(data) if isinstance(data, dict) else ())]
    if not errors:
        errors += _suite_mistakes(data)
    _refuse(path, errors)
    return Suite(
        id=data["id"],
        version=data["version"],
        title=data["title"],
        licence=data["licence"],
        kind=data["kind"],
        capability=data["capability"],
        digest=digest_bytes(raw),
        max_new_tokens=data.get("max_new_tokens", 0),
        schema=data.get("schema", {}),
        grammar={
            key: value
            for key, value in data.items()
            if key in {"expect", "wrap", "answer", "splits", "symbols", "cells", "canary", "calibrated"}
        },
    )


def _attacked(path: Path, data: Mapping[str, Json], raw: bytes) -> Suite:
    """A suite that asks the items of another one in disguise."""
    errors = _shape(data, _ATTACKED, {}, "")
    errors += [f"attacks: {kind!r} is unknown; known: {', '.join(ATTACKS)}" for kind in data["attacks"]
               if kind not in ATTACKS] if not errors else []  # fmt: skip
    _refuse(path, errors)
    of = load_suite(path.parent.parent / data["of"])
    splits = {name: {**plan, "items": data["splits"].get(name, plan["items"])} for name, plan in
              of.grammar["splits"].items()}  # fmt: skip
    return Suite(
        id=data["id"],
        version=data["version"],
        title=data["title"],
        licence=data["licence"],
        kind=of.kind,
        capability=data["capability"],
        digest=digest([digest_bytes(raw), of.digest]),
        max_new_tokens=of.max_new_tokens,
        schema={},
        grammar={"of": of, "attacks": list(data["attacks"]), "splits": splits, "expect": of.grammar.get("expect")},
    )


def items(suite: Suite, split: str, seed: str | None = None, n: int | None = None) -> tuple[Item, ...]:
    """Expand one split of a suite.

    Args:
        suite: What `load_suite` returned.
        split: Name of a split of its grammar, `public` or `hidden`.
        seed: The secret seed; None takes the one in the file.
        n: How many items; None takes the number in the file. With one seed, fewer items are a prefix of more.

    Raises:
        ConfigError: If the split is unknown, has no seed, or cannot give so many distinct items.
    """
    where = f"suite {suite.id}: splits.{split}"
    if "records" in suite.grammar and split == "public":
        return tuple(suite.grammar["records"][:n])
    if split not in suite.grammar.get("splits", {}):
        known = ", ".join(suite.grammar.get("splits", ("public",)))
        raise ConfigError("there is no such split", where=where, todo=f"known: {known}")
    plan = suite.grammar["splits"][split]
    seed = plan.get("seed") if seed is None else seed
    if seed is None:
        raise ConfigError("this split has no seed of its own", where=where, todo="give the secret seed")
    wanted = plan["items"] if n is None else n
    if kinds := suite.grammar.get("attacks"):
        plain = items(suite.grammar["of"], split, seed, wanted)
        return tuple(attacked(item, kinds[place % len(kinds)], seed) for place, item in enumerate(plain))
    derived = grammar.expand(_cells(suite.grammar, split), seed, wanted)
    return tuple(_item(suite, derivation, seed) for derivation in derived)


def has_hidden(suite: Suite) -> bool:
    """Whether a suite has items that nobody can have seen; what others published has none."""
    return "hidden" in suite.grammar.get("splits", {})


def load_corpus(folder: Path) -> tuple[Corpus, tuple[Row, ...]]:
    """Read one training corpus and check its data against its manifest.

    Args:
        folder: Holds `corpus.yaml` and the data file that it names.

    Returns:
        What a lineage records of it, and its rows.

    Raises:
        ConfigError: If the manifest is wrong, or the data are not the bytes or the number of rows that it states.
    """
    path = folder / "corpus.yaml"
    manifest, _ = _yaml(path, "the manifest")
    _refuse(path, _shape(manifest, _MANIFEST, {}, ""))
    if Path(manifest["data"]).name != manifest["data"]:
        _refuse(path, [f"data: {manifest['data']!r} is not a file beside this one"])
    raw = _bytes(folder / manifest["data"])
    found = digest_bytes(raw)
    rows = tuple(_row(data, where) for where, data in read_lines(folder / manifest["data"], raw))
    errors = []
    if found != "sha256:" + manifest["sha256"]:
        errors.append(f"sha256: the data hash to {found[7:]}; if the change is meant, write this value")
    if len(rows) != manifest["rows"]:
        errors.append(f"rows: says {manifest['rows']}, the data have {len(rows)}")
    _refuse(path, errors)
    corpus = Corpus(
        id=manifest["id"],
        digest=found,
        licence=manifest["licence"],
        split=manifest["split"],
        no_train=manifest["no_train"],
        rows=len(rows),
    )
    return corpus, rows


def grammar_rows(folder: Path) -> tuple[tuple[str, str | None], ...]:
    """Expand a corpus' `grammar.yaml` into (prompt, completion); the completion is None where a model has to give it.

    Args:
        folder: A corpus that was made from a grammar.

    Raises:
        ConfigError: If the grammar is wrong.
    """
    path = folder / "grammar.yaml"
    data, _ = _yaml(path, "the grammar")
    _refuse(path, [*_shape(data, _TOP, _TOP_OPTIONAL, ""), *_grammar_mistakes(data)])
    plan = data["splits"]["train"]
    derived = grammar.expand(_cells(data, "train"), plan["seed"], plan["items"])
    return tuple((_prompt(data, item), _completion(data, item)) for item in derived)


def overlap(rows: Iterable[Row], tested: Iterable[Item], wrap: str = "") -> Overlap:
    """Compare what was trained on with what is asked.

    Args:
        rows: The training rows.
        tested: Items of any suites and splits.
        wrap: Text that all prompts of a suite share and that is no evidence of copying, such as `Return JSON: {text}`.

    Returns:
        Shares of the training prompts; 0 and 0 for an empty corpus.
    """
    frame = words(wrap.replace("{text}", " "))
    asked = [unframed(frame, words(item.prompt)) for item in tested]
    whole = {tuple(words) for words in asked}
    pieces = {piece for words in asked for piece in _shingles(words)}
    trained = [unframed(frame, words(row.prompt)) for row in rows]
    same = [tuple(words) in whole for words in trained]
    near = [bool(pieces.intersection(_shingles(words))) for words in trained]
    shared = sorted({digest(" ".join(words)) for words, hit in zip(trained, same, strict=True) if hit})
    return Overlap(sum(same) / max(1, len(trained)), sum(near) / max(1, len(trained)), tuple(shared))


def _item(suite: Suite, derivation: grammar.Derivation, seed: str) -> Item:
    answer, choices = "", tuple[str, ...]()
    if suite.kind in BY_LIKELIHOOD:
        choices, place = grammar.options(derivation, seed, OPTIONS)
        answer = str(place)
    elif suite.kind == "numeric":
        answer = str(grammar.fill(derivation.cell.answer, derivation.bindings))
    elif suite.kind == "instruction":
        told = derivation.cell.constraints.items()
        filled = {key: grammar.fill(text, derivation.bindings) if isinstance(text, str) else text for key, text in told}
        answer = canonical(filled).decode()
    elif suite.kind == "extraction":
        answer = canonical(_answer(suite.grammar, derivation)).decode()
    prompt = _prompt(suite.grammar, derivation)
    category = derivation.cell.category
    name = digest([prompt, answer, choices, category])[7:23]
    family = f"{derivation.cell.id}: {derivation.template}"
    return Item(name, prompt, answer, choices, category, derivation.cell.difficulty, family)


def _prompt(data: Mapping[str, Json], item: grammar.Derivation) -> str:
    return str(data.get("wrap", "{text}")).replace("{text}", item.prompt)


def _answer(data: Mapping[str, Json], item: grammar.Derivation) -> dict[str, grammar.Value]:
    return {key: grammar.fill(text, item.bindings) for key, text in data.get("answer", {}).items()}


def _completion(data: Mapping[str, Json], item: grammar.Derivation) -> str | None:
    """Return what the model is to say: fixed text, or the answer as compact JSON, keys in the order of the file."""
    if item.cell.completion or not data.get("answer"):
        return item.cell.completion or None
    return json.dumps(_answer(data, item), ensure_ascii=False, separators=(",", ":"))


def _cells(data: Mapping[str, Json], split: str) -> tuple[grammar.Cell, ...]:
    plan = data["splits"][split]
    return tuple(_cell(data, name, plan.get("templates", ())) for name in plan["cells"])


def _cell(data: Mapping[str, Json], name: str, templates: Sequence[str]) -> grammar.Cell:
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


def _suite_mistakes(data: Mapping[str, Json]) -> list[str]:
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


def _grammar_mistakes(data: Mapping[str, Json]) -> list[str]:
    """Return what is wrong with splits, cells and symbols, each with its key; quiet about what `_shape` reports."""
    splits, cells = data.get("splits"), data.get("cells")
    if not (isinstance(splits, dict) and isinstance(cells, dict)):
        return []
    errors = [*_symbols_mistakes(data.get("symbols", {}), "symbols")]
    if "{text}" not in str(data.get("wrap", "{text}")):
        errors.append("wrap: has no {text} to put the item in")
    for name, cell in cells.items():
        errors += _shape(cell, _CELL, _CELL_OPTIONAL, f"cells.{name}.")
        errors += _symbols_mistakes(cell.get("symbols", {}) if isinstance(cell, dict) else {}, f"cells.{name}.symbols")
    for name, plan in splits.items():
        shape = _shape(plan, _SPLIT, _SPLIT_OPTIONAL, f"splits.{name}.")
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
        cell = _cell(data, name, splits[split].get("templates", ()))
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


def _shape(data: Json, required: Mapping[str, type], optional: Mapping[str, type], where: str) -> list[str]:
    """Return missing, unknown and mistyped keys of one mapping."""
    if not isinstance(data, dict):
        return [f"{where.rstrip('.') or 'file'}: is not a mapping of keys to values"]
    known = {**required, **optional}
    errors = [f"{where}{key}: is missing" for key in required if key not in data]
    errors += [f"{where}{key}: is unknown; known: {', '.join(known)}" for key in data if key not in known]
    return errors + [
        f"{where}{key}: is {type(data[key]).__name__}, not {kind.__name__}"
        for key, kind in known.items()
        if key in data and type(data[key]) is not kind
    ]


def _refuse(path: Path, errors: Sequence[str]) -> None:
    if errors:
        raise ConfigError("\n  ".join(("", *errors)) if len(errors) > 1 else errors[0], where=str(path))


def _yaml(path: Path, what: str) -> tuple[Json, bytes]:
    source = read_source(path, ConfigError, str(path))
    return source.plain(what), source.raw


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _row(data: Json, where: str) -> Row:
    _refuse(Path(where), _shape(data, {"prompt": str, "completion": str}, {"cut": bool}, ""))
    return Row(data["prompt"], data["completion"], data.get("cut", False))


def words(text: str) -> list[str]:
    """Words of a text, letter case and punctuation aside."""
    return re.findall(r"\w+", text.casefold())


def frame_of(suite: Suite) -> list[str]:
    """Words that all prompts of a suite begin with, which are no evidence of copying."""
    return words(str(suite.grammar.get("wrap", "")).partition("{text}")[0])


def unframed(frame: Sequence[str], words: list[str]) -> list[str]:
    """The words behind the frame, where they begin with it."""
    return words[len(frame) :] if frame and words[: len(frame)] == list(frame) else words


def _shingles(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + SHINGLE]) for start in range(len(words) - SHINGLE + 1)}
