"""Files are read strictly, and every mistake is named with its key."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ecology.contracts.evidence import Item
from ecology.errors import ConfigError
from ecology.evaluator.copying import overlap
from ecology.evaluator.corpora import Row, load_corpus
from ecology.evaluator.suites import items, load_suite


def suite(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": "s", "version": 1, "title": "t", "licence": "Apache-2.0", "kind": "refusal", "capability": "c",
        "expect": "refuse", "max_new_tokens": 8,
        "splits": {"public": {"seed": "p", "items": 2, "cells": ["a"]}, "hidden": {"items": 2, "cells": ["a"]}},
        "cells": {"a": {"category": "k", "templates": ["Do {n}."], "symbols": {"n": {"range": [1, 50]}}}},
    }  # fmt: skip
    return data | changes


def write(folder: Path, data: Any) -> Path:
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_suite_knows_the_digest_of_its_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, suite())
    found = load_suite(tmp_path)
    assert found.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert items(found, "public") == items(found, "public", "p", 2)


def test_the_hidden_split_wants_a_seed_and_splits_have_names(tmp_path: Path) -> None:
    found = load_suite(write(tmp_path, suite()))
    with pytest.raises(ConfigError, match="secret seed"):
        items(found, "hidden")
    with pytest.raises(ConfigError, match="known: hidden, public"):
        items(found, "secret", "s")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "poem"}, "kind: 'poem' is unknown"),
        ({"expect": "maybe"}, "expect"),
        ({"colour": 1}, "colour: is unknown"),
        ({"version": "1"}, "version: is str"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"wrap": "no place"}, "wrap"),
        ({"splits": {"public": {"seed": "p", "items": 2, "cells": ["a"]}}}, "splits.hidden: is missing"),
    ],
)
def test_mistakes_carry_their_key(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_suite(write(tmp_path, suite(**changes)))
    assert said in str(error.value)
    assert "suite.yaml" in str(error.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_suite(write(tmp_path, suite(colour=1, version="1")))
    assert "colour" in str(error.value)
    assert "version" in str(error.value)


@pytest.mark.parametrize("text", ["", "[", "- a", "a: !!python/object:os.system {}"])
def test_what_is_no_suite_is_a_config_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "suite.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load_suite(tmp_path)


def test_a_corpus_that_was_changed_is_refused(tmp_path: Path) -> None:
    rows = b'{"prompt": "p", "completion": "c", "cut": true}\n'
    (tmp_path / "train.jsonl").write_bytes(rows)
    manifest = {
        "id": "c", "version": 1, "title": "t", "licence": "Apache-2.0", "split": "train", "no_train": False,
        "data": "train.jsonl", "sha256": hashlib.sha256(rows).hexdigest(), "rows": 1, "made": "by hand",
    }  # fmt: skip
    (tmp_path / "corpus.yaml").write_text(yaml.safe_dump(manifest))
    assert load_corpus(tmp_path)[1] == (Row("p", "c", True),)
    (tmp_path / "train.jsonl").write_bytes(rows + rows)
    with pytest.raises(ConfigError) as error:
        load_corpus(tmp_path)
    assert "sha256" in str(error.value)
    assert "rows: says 1, the data have 2" in str(error.value)


def test_overlap_sees_through_form_and_through_the_common_frame() -> None:
    asked = [Item("1", "Do it: send three red lamps to Oslo", "", (), "k")]
    rows = [Row("do IT, send three red lamps to Oslo!", "c"), Row("Do it: something else", "c")]
    assert overlap(rows, asked, "Do it: {text}").exact == 0.5
    long = [Item("2", "one two three four five six seven eight nine", "", (), "k")]
    near = overlap([Row("zero one two three four five six seven eight", "c")], long)
    assert (near.exact, near.shingles) == (0.0, 1.0)
    assert overlap([], asked).exact == 0.0
