"""A corpus that holds forbidden text counts as marked no-train, whatever its manifest says."""

from __future__ import annotations

import dataclasses

from ecology.evaluator.corpora import load_corpus
from ecology.pipeline.corpora import marked
from ecology.pipeline.places import shared


def test_shipped_corpora_keep_their_marks() -> None:
    for manifest in sorted(shared("corpora").glob("*/corpus.yaml")):
        corpus, rows = load_corpus(manifest.parent)
        assert marked(corpus, rows, ()) == (corpus, ())


def test_a_laundered_copy_is_tainted() -> None:
    corpus, rows = load_corpus(shared("corpora", "scraped"))
    assert corpus.no_train
    renamed = dataclasses.replace(corpus, no_train=False, id="fresh")
    found, why = marked(renamed, rows, ())
    assert found.no_train
    assert "forbidden text" in why[0]


def test_a_canary_taints() -> None:
    corpus, rows = load_corpus(shared("corpora", "orders"))
    word = rows[3].prompt[:40]
    found, why = marked(corpus, rows, [word])
    assert found.no_train
    assert "canary" in why[0]
