"""The suites of further capabilities: well-formed, hidden apart from public, and solved by who knows the answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecology.contracts.evidence import Item, Suite
from ecology.errors import ConfigError
from ecology.evaluator.asking import SCORERS
from ecology.evaluator.attacks import ATTACKS, attacked
from ecology.evaluator.calibration import brier, smooth_ece, upper_bound
from ecology.evaluator.contamination import canaries, covered, gap_problem, shuffle_problem, twins
from ecology.evaluator.copying import overlap
from ecology.evaluator.corpora import Row, load_corpus
from ecology.evaluator.coverage import matrix
from ecology.evaluator.grammar import Cell, Formula, Span, expand, mistakes
from ecology.evaluator.library import load_any_suite
from ecology.evaluator.perturb import KINDS, perturbed, shuffled_options, worst_of
from ecology.evaluator.suites import items

ROOT = Path(__file__).parents[2]
NAMES = ("arithmetic", "bias", "contacts", "formats", "intents", "jailbreak", "puzzles", "truths")
BEST = {"numeric": "correct", "extraction": "exact", "choice": "correct", "pair": "stereotyped"}


@pytest.fixture(scope="module")
def suites() -> dict[str, Suite]:
    return {name: load_any_suite(ROOT / "suites" / name) for name in NAMES}


def perfect(item: Item, suite: Suite) -> object:
    """The answer of somebody who knows."""
    if suite.kind in ("choice", "pair"):
        return [0.0 if place == int(item.answer) else -99.0 for place in range(len(item.choices))]
    return item.answer


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_apart_follow_from_the_seed_and_have_distinct_options(name: str, suites: dict[str, Suite]) -> None:
    suite = suites[name]
    public, hidden = items(suite, "public"), items(suite, "hidden", "a secret")
    assert len(public) >= 60
    assert len({item.id for item in hidden}) == len(hidden) == 200
    assert not {item.prompt for item in public} & {item.prompt for item in hidden}
    assert items(suite, "hidden", "a secret", 50) == hidden[:50]
    assert items(suite, "hidden", "another") != hidden
    for item in (*public, *hidden):
        assert len(set(item.choices)) == len(item.choices)
        assert "{" not in item.prompt.partition(": ")[2] or suite.kind == "extraction"
    for corpus in ("orders", "refusals"):
        shared = overlap(load_corpus(ROOT / "corpora" / corpus)[1], (*public, *hidden))
        assert (shared.exact, shared.shingles) == (0, 0)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("formats", "jailbreak")])
def test_who_knows_the_answer_scores_one_and_who_says_nothing_scores_none(name: str, suites: dict[str, Suite]) -> None:
    suite = suites[name]
    for item in items(suite, "hidden", "s", 60):
        found = SCORERS[suite.kind](item, perfect(item, suite), suite)
        assert found[BEST[suite.kind]] is True
        if suite.kind in ("numeric", "extraction"):
            assert SCORERS[suite.kind](item, "", suite)[BEST[suite.kind]] is False
        assert ("confidence" in found) == bool(suite.grammar.get("calibrated"))


def test_arithmetic_is_right(suites: dict[str, Suite]) -> None:
    for item in items(suites["arithmetic"], "public"):
        numbers = [int(word) for word in "".join(c if c.isdigit() else " " for c in item.prompt).split()]
        a, b = numbers
        assert int(item.answer) in {a + b, a * b, abs(a - b)}
    assert [item.answer for item in items(suites["arithmetic"], "hidden", "s", 200) if int(item.answer) < 0] == []


def test_formulas_compute_and_run_no_code() -> None:
    assert Formula("a + b * (c - 1)").value({"a": 1, "b": 2, "c": 4}) == 7
    for text in ("__import__('os')", "a ** 9", "a / b", "a +", "a[0]", "'x' * a"):
        with pytest.raises(ConfigError):
            Formula(text).value({"a": 1, "b": 2})
    cell = Cell("c", ("{a}?",), {"a": Span(1, 9), "twice": Formula("a + a")}, answer="{twice}")
    assert all(d.bindings["twice"] == 2 * int(d.prompt[:-1]) for d in expand((cell,), "s", 9))
    assert list(mistakes(Cell("c", ("{a}",), {"a": ("x",), "twice": Formula("a + a")})))


def test_a_disguise_keeps_the_request_and_is_an_item_of_its_own(suites: dict[str, Suite]) -> None:
    import base64

    harmful = items(load_any_suite(ROOT / "suites" / "harmful"), "public")[0]
    found = {kind: attacked(harmful, kind, "s") for kind in ATTACKS}
    assert len({one.id for one in found.values()} | {harmful.id}) == len(ATTACKS) + 1
    assert harmful.prompt in found["story"].prompt
    assert base64.b64decode(found["base64"].prompt.rsplit(" ", 1)[1]).decode() == harmful.prompt
    assert found["spaced"].prompt.replace(" ", "") == harmful.prompt.replace(" ", "")
    assert attacked(harmful, "leet", "s") == found["leet"]
    kinds = {item.category.rpartition(", ")[2] for item in items(suites["jailbreak"], "hidden", "s")}
    assert kinds == set(ATTACKS)
    with pytest.raises(ConfigError):
        attacked(harmful, "telepathy", "s")


@pytest.mark.parametrize("kind", KINDS)
def test_noise_changes_the_question_and_not_the_answer(kind: str, suites: dict[str, Suite]) -> None:
    changed = 0
    for item in items(suites["intents"], "public"):
        other = perturbed(item, kind, "s")
        assert other == perturbed(item, kind, "s")
        assert other.id != item.id
        assert other.choices[int(other.answer)] == item.choices[int(item.answer)]
        assert sorted(other.choices) == sorted(item.choices)
        changed += (other.prompt, other.choices) != (item.prompt, item.choices)
    assert changed > 40
    for item in items(suites["contacts"], "public")[:20]:
        other = perturbed(item, kind, "s")
        said = json.loads(item.answer)
        assert other.answer == item.answer
        assert all(str(value) in other.prompt for value in said.values())


def test_worst_of_k_is_harder_than_every_kind() -> None:
    found = worst_of({"a": [True, True, False, True], "b": [True, False, True, True]})
    assert (found.worst, found.n, found.spread) == (2, 4, 0.0)
    with pytest.raises(ConfigError):
        worst_of({"a": [True], "b": []})
    with pytest.raises(ConfigError):
        worst_of({})


def test_options_always_move() -> None:
    item = Item("x", "q", "0", ("a", "b", "c"), "", "easy")
    assert all(shuffled_options(item, str(seed)).choices != item.choices for seed in range(20))


def test_smooth_calibration_error_knows_the_calibrated_from_the_sure() -> None:
    import numpy as np

    rng = np.random.Generator(np.random.PCG64(11))
    sure = rng.uniform(0.25, 1, 400)
    calibrated, wrong = rng.random(400) < sure, rng.random(400) < sure**3
    assert smooth_ece(sure, calibrated) < 0.07
    assert smooth_ece(sure, wrong) > 0.15
    assert upper_bound(sure[:100], calibrated[:100]) > smooth_ece(sure[:100], calibrated[:100])
    assert smooth_ece([1.0] * 50, [False] * 50) == pytest.approx(1, abs=0.01)
    assert smooth_ece([1.0] * 50, [True] * 50) < 0.01
    # A constant confidence of 0.7 that is right half of the time is 0.2 off, with bins or without.
    assert smooth_ece([0.7] * 100, [True, False] * 50) == pytest.approx(0.2, abs=0.01)
    assert brier([0.5, 1.0], [True, True]) == pytest.approx(0.125)
    for call in (lambda: smooth_ece([], []), lambda: smooth_ece([1.2], [True]), lambda: brier([0.5], [])):
        with pytest.raises(ConfigError):
            call()


def test_cells_say_what_may_be_read_from_them(suites: dict[str, Suite]) -> None:
    asked = items(suites["puzzles"], "hidden", "s", 80)
    easy = [item.id for item in asked if item.difficulty == "easy"]
    half = {item.id: place % 2 == 0 for place, item in enumerate(asked) if item.difficulty != "hard"}
    cells = {
        cell.difficulty: cell for cell in matrix([(suites["puzzles"], asked, {**half, **dict.fromkeys(easy, True)})])
    }
    assert cells["easy"].state == "measured"
    assert cells["hard"].state == "not measured"
    assert cells["hard"].n == 0
    guessed = {name: place % 2 == 0 for place, name in enumerate(easy)}
    (cell,) = (cell for cell in matrix([(suites["puzzles"], asked, guessed)]) if cell.difficulty == "easy")
    assert cell.state == "no signal"
    assert "no signal" in str(cell)


def test_signs_of_contamination(suites: dict[str, Suite]) -> None:
    assert "public items right" in gap_problem("s", [True] * 64, [True] * 20 + [False] * 44)
    assert gap_problem("s", [True] * 40 + [False] * 24, [True] * 36 + [False] * 28) == ""
    assert "changed places" in shuffle_problem("s", [True] * 64, [True] * 24 + [False] * 40)
    assert shuffle_problem("s", [True] * 40 + [False] * 24, [True] * 38 + [False] * 26) == ""
    public = items(suites["intents"], "public")
    other = twins(suites["intents"], "secret", 64)
    assert len(other) == 64
    assert not {item.prompt for item in other} & {item.prompt for item in public}
    assert {item.category for item in other} <= {item.category for item in public}
    learnt = [Row(item.prompt, "x") for item in public[:16]]
    assert covered(public, learnt) >= 0.25
    assert covered(other, [Row("nothing of the kind", "at all")]) == 0
    mark = str(suites["intents"].grammar["canary"])
    from ecology.contracts.identity import Digest

    corpora = {Digest("sha256:" + "a" * 64): (Row("x", f"so {mark} it is"),), Digest("sha256:" + "b" * 64): learnt}
    assert canaries(corpora, suites.values()) == (f"corpus {'a' * 12} holds the canary of suite intents",)


def test_canaries_are_unique_and_in_no_corpus(suites: dict[str, Suite]) -> None:
    marks = [suite.grammar["canary"] for name, suite in suites.items() if name != "jailbreak"]
    assert len(set(marks)) == len(NAMES) - 1
    text = "".join(path.read_text("utf-8") for path in (ROOT / "corpora").glob("*/*"))
    assert not [mark for mark in marks if mark in text]
