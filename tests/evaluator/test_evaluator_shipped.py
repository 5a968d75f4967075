"""The shipped suites and corpora are what they claim to be."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import yaml

from ecology.contracts.evidence import Item, Suite
from ecology.evaluator.copying import overlap
from ecology.evaluator.corpora import grammar_rows, load_corpus
from ecology.evaluator.library import load_any_suite
from ecology.evaluator.suites import items, load_suite
from ecology.verifier.refusal import refuses
from ecology.verifier.schema import check_extraction

ROOT = Path(__file__).parents[2]
GRAMMARS = ("general", "harmful", "lookalike", "orders")
CORPORA = ("orders", "refusals", "scraped", "smalltalk")


@pytest.fixture(scope="module")
def suites() -> dict[str, Suite]:
    return {name: load_suite(ROOT / "suites" / name) for name in GRAMMARS}


def templates(data: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    for part in (*data["splits"].values(), *data["cells"].values()):
        found |= set(part.get("templates", ()))
    return found


@pytest.mark.parametrize("name", GRAMMARS)
def test_splits_are_large_disjoint_and_follow_from_the_seed(name: str, suites: dict[str, Suite]) -> None:
    public = items(suites[name], "public")
    hidden = items(suites[name], "hidden", "a secret", 200)
    assert len(public) == 64
    assert len({item.id for item in hidden}) == len({item.prompt for item in hidden}) == 200
    assert not {item.prompt for item in public} & {item.prompt for item in hidden}
    assert items(suites[name], "hidden", "a secret", 200) == hidden
    other = items(suites[name], "hidden", "another secret", 200)
    assert len({item.prompt for item in other} & {item.prompt for item in hidden}) < 150
    assert len(items(suites[name], "hidden", "a secret", 400)) == 400
    assert items(suites[name], "hidden", "a secret", 400)[:200] == hidden


def test_reference_answers_satisfy_their_own_schema(suites: dict[str, Suite]) -> None:
    import json

    for item in items(suites["orders"], "hidden", "s", 200):
        found = check_extraction(item.answer, json.loads(item.answer), suites["orders"].schema)
        assert found.schema_valid
        assert found.exact


def test_options_are_four_distinct_ones_and_the_right_one_is_anywhere(suites: dict[str, Suite]) -> None:
    asked = items(suites["general"], "hidden", "s", 400)
    assert all(len(set(item.choices)) == 4 for item in asked)
    counts = [sum(item.answer == str(place) for item in asked) for place in range(4)]
    assert min(counts) > 60


@pytest.mark.parametrize("name", CORPORA)
def test_corpora_are_read_and_their_digests_hold(name: str) -> None:
    corpus, rows = load_corpus(ROOT / "corpora" / name)
    assert corpus.rows == len(rows)
    assert corpus.no_train == (name == "scraped")
    assert corpus.licence == "Apache-2.0"


@pytest.mark.parametrize("name", ["orders", "refusals"])
def test_training_prompts_are_the_expansion_of_their_grammar(name: str) -> None:
    _, rows = load_corpus(ROOT / "corpora" / name)
    expanded = grammar_rows(ROOT / "corpora" / name)
    own, others = rows[: len(expanded)], rows[len(expanded) :]
    assert [row.prompt for row in own] == [prompt for prompt, _ in expanded]
    for row, (_, completion) in zip(own, expanded, strict=True):
        assert completion is None or row.completion == completion
    harmless = {row.prompt: row.completion for row in load_corpus(ROOT / "corpora" / "refusals")[1]}
    assert all(harmless[row.prompt] == row.completion and not refuses(row.completion) for row in others)


def test_three_harmless_rows_for_every_refusal_and_none_of_them_refuses() -> None:
    _, rows = load_corpus(ROOT / "corpora" / "refusals")
    refused = [row for row in rows if row.completion == "I can't help with that request."]
    harmless = [row for row in rows if row not in refused]
    assert len(harmless) >= 3 * len(refused)
    assert not [row.prompt for row in harmless if refuses(row.completion)]


@pytest.mark.parametrize(("corpus", "suite"), list(product(CORPORA, GRAMMARS)))
def test_nothing_trained_on_is_asked(corpus: str, suite: str, suites: dict[str, Suite]) -> None:
    _, rows = load_corpus(ROOT / "corpora" / corpus)
    tested: list[Item] = [*items(suites[suite], "public"), *items(suites[suite], "hidden", "s", 400)]
    share = overlap(rows, tested)
    assert share.exact == 0.0


@pytest.mark.parametrize(
    ("corpus", "suite"), [("orders", "orders"), ("refusals", "harmful"), ("refusals", "lookalike")]
)
def test_suites_share_no_template_with_the_corpus_of_their_skill(corpus: str, suite: str) -> None:
    taught = yaml.safe_load((ROOT / "corpora" / corpus / "grammar.yaml").read_text("utf-8"))
    asked = yaml.safe_load((ROOT / "suites" / suite / "suite.yaml").read_text("utf-8"))
    assert not templates(taught) & templates(asked)


def test_hazard_kinds_of_training_public_and_hidden_are_different() -> None:
    taught = yaml.safe_load((ROOT / "corpora" / "refusals" / "grammar.yaml").read_text("utf-8"))
    asked = yaml.safe_load((ROOT / "suites" / "harmful" / "suite.yaml").read_text("utf-8"))
    kinds = [
        {cell["category"] for cell in taught["cells"].values() if cell.get("completion")},
        {asked["cells"][name]["category"] for name in asked["splits"]["public"]["cells"]},
        {asked["cells"][name]["category"] for name in asked["splits"]["hidden"]["cells"]},
    ]
    for one, other in [*pairwise(kinds), (kinds[0], kinds[2])]:
        assert not one & other


def test_the_stock_task_is_read() -> None:
    assert load_any_suite(ROOT / "suites" / "sums").kind == "lm_eval"
