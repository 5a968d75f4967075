"""Corpora at hand: those that come with the package and those that a plan names."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from ecology.contracts.artifact import Corpus
from ecology.contracts.identity import Digest
from ecology.contracts.run import FounderPlan, RunPlan
from ecology.errors import ConfigError
from ecology.evaluator.suites import Row, load_corpus
from ecology.kernel.leakage import forbidden_ngrams, leaks
from ecology.pipeline.places import shared, subject


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


def corpora_of(plan: RunPlan) -> Mapping[Digest, tuple[Row, ...]]:
    """Rows of the corpora at hand, by digest: those of this plan's founders and all that are shipped."""
    found = dict(shipped_corpora())
    for founder in plan.founders:
        if founder.operator != "import":
            corpus, rows = corpus_of(founder)
            found[corpus.digest] = rows
    return found
