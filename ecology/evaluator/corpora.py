"""Corpora on disk: rows, and a manifest that says who made them.

A corpus is a folder with `corpus.yaml` (its maker, its licence, whether it may be trained on) and `train.jsonl`, and
where the rows came from a grammar, `grammar.yaml` in the same format as a suite.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ecology.contracts.artifact import Corpus
from ecology.contracts.identity import Json
from ecology.documents.jsonl import read_lines
from ecology.errors import ConfigError
from ecology.evaluator import grammar
from ecology.evaluator.cells import cells_of, completion_of, prompt_of
from ecology.evaluator.fields import read_yaml, refuse, shape_mistakes
from ecology.evaluator.suite_rules import TOP, TOP_OPTIONAL, grammar_mistakes
from ecology.kernel.canonical import digest_bytes

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
    manifest, _ = read_yaml(path, "the manifest")
    refuse(path, shape_mistakes(manifest, _MANIFEST, {}, ""))
    if Path(manifest["data"]).name != manifest["data"]:
        refuse(path, [f"data: {manifest['data']!r} is not a file beside this one"])
    raw = _bytes(folder / manifest["data"])
    found = digest_bytes(raw)
    rows = tuple(_row(data, where) for where, data in read_lines(folder / manifest["data"], raw))
    errors = []
    if found != "sha256:" + manifest["sha256"]:
        errors.append(f"sha256: the data hash to {found[7:]}; if the change is meant, write this value")
    if len(rows) != manifest["rows"]:
        errors.append(f"rows: says {manifest['rows']}, the data have {len(rows)}")
    refuse(path, errors)
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
    data, _ = read_yaml(path, "the grammar")
    refuse(path, [*shape_mistakes(data, TOP, TOP_OPTIONAL, ""), *grammar_mistakes(data)])
    plan = data["splits"]["train"]
    derived = grammar.expand(cells_of(data, "train"), plan["seed"], plan["items"])
    return tuple((prompt_of(data, item), completion_of(data, item)) for item in derived)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _row(data: Json, where: str) -> Row:
    refuse(Path(where), shape_mistakes(data, {"prompt": str, "completion": str}, {"cut": bool}, ""))
    return Row(data["prompt"], data["completion"], data.get("cut", False))
