"""Corpora at hand: those that come with the package, those that a plan names, and those that were made in this home."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from ecology.contracts.artifact import Corpus
from ecology.contracts.identity import Digest
from ecology.contracts.run import FounderPlan, RunPlan
from ecology.errors import ConfigError
from ecology.evaluator.corpora import Row, load_corpus
from ecology.kernel.leakage import forbidden_ngrams, leaks
from ecology.pipeline.house import House
from ecology.pipeline.places import made_folder, shared, subject
from ecology.store.files import write_atomic


def shipped_corpora() -> Mapping[Digest, tuple[Row, ...]]:
    """Rows of every corpus that comes with the package, by digest."""
    found = {}
    for manifest in sorted(shared("corpora").glob("*/corpus.yaml")):
        corpus, rows = load_corpus(manifest.parent)
        found[corpus.digest] = rows
    return found


def corpus_of(founder: FounderPlan) -> tuple[Corpus, tuple[Row, ...]]:
    """Manifest and rows of a trained founder's corpus.

    Raises:
        ConfigError: The corpus is missing, malformed, or not the one that was planned.
    """
    name = str(founder.options["corpus"])
    corpus, rows = load_corpus(subject(name, "corpora"))
    if corpus.digest != founder.options["corpus_digest"]:
        raise ConfigError("it changed after the run was planned", where=f"corpus {name}", todo="start the run again")
    return corpus, rows


def marked(corpus: Corpus, rows: Sequence[Row], canaries: Sequence[str]) -> tuple[Corpus, tuple[str, ...]]:
    """The corpus as a lineage has to record it, and why, if its own manifest is too kind.

    Forbidden are the texts of every shipped corpus that is marked no-train, and the policy's canaries. A corpus that
    holds some of it is marked no-train too, whatever its manifest says, and the mark is inherited.
    """
    if corpus.no_train:
        return corpus, ()
    found = leaks((f"{row.prompt}\n{row.completion}" for row in rows), forbidden(), canaries)
    return (dataclasses.replace(corpus, no_train=True) if found else corpus), found


@functools.cache
def forbidden() -> frozenset[tuple[str, ...]]:
    """Word n-grams of the shipped corpora that are marked no-train."""
    texts = []
    for manifest in sorted(shared("corpora").glob("*/corpus.yaml")):
        corpus, rows = load_corpus(manifest.parent)
        if corpus.no_train:
            texts += [f"{row.prompt}\n{row.completion}" for row in rows]
    return forbidden_ngrams(texts)


def keep_corpus(house: House, corpus: Corpus, data: bytes) -> Path:
    """Keeps a corpus that was made here, in the format of any other: manifest and rows.

    Args:
        house: The home.
        corpus: As the lineage records it.
        data: Its rows, one JSON object a line.
    """
    folder = made_folder(house.home) / corpus.digest.removeprefix("sha256:")
    manifest = {
        "id": corpus.id,
        "version": 1,
        "title": "Made in this home",
        "licence": corpus.licence,
        "split": corpus.split,
        "no_train": corpus.no_train,
        "data": "train.jsonl",
        "sha256": corpus.digest.removeprefix("sha256:"),
        "rows": corpus.rows,
        "made": "Answers of teachers to the prompts of another corpus, chosen by a verifier.",
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "train.jsonl", data)
    write_atomic(folder / "corpus.yaml", yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True).encode())
    return folder


def held_corpora(house: House) -> Mapping[Digest, tuple[Row, ...]]:
    """Rows of every corpus that comes with the package or was made in this home, by digest.

    Raises:
        ConfigError: One is not what its manifest says.
    """
    found = dict(shipped_corpora())
    for manifest in sorted(made_folder(house.home).glob("*/corpus.yaml")):
        corpus, rows = load_corpus(manifest.parent)
        found[corpus.digest] = rows
    return found


def corpora_of(plan: RunPlan, house: House) -> Mapping[Digest, tuple[Row, ...]]:
    """Rows of the corpora at hand, by digest: those of this plan's founders, all that are shipped or were made here."""
    found = dict(held_corpora(house))
    for founder in plan.founders:
        if founder.operator != "import":
            corpus, rows = corpus_of(founder)
            found[corpus.digest] = rows
    return found
