"""The conformance table: committed in step with the suite, and made by the suite."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ecology.breeder.linear import LinearOptions
from ecology.breeder.operators import OPERATORS, find, known
from ecology.breeder.peft_preset import COMBINATIONS
from ecology.errors import ConfigError
from ecology.lowrank.lowrank import LowRank
from ecology.testing import NonconformingError
from ecology.testing.operators import CASES, Subject, population
from ecology.testing.operators.__main__ import main
from ecology.testing.operators.flags import CONTENDERS, FLAGS, ours
from ecology.testing.operators.subjects import EDGES, REQUIRED, WITHOUT_LOSS, installed_subjects
from ecology.testing.operators.table import Cell, grid, judge, markdown, page, structure, summary

COMMITTED = Path(__file__).parents[2] / "docs" / "conformance.md"
REGENERATE = "regenerate it: python -m ecology.testing.operators --against peft --out docs/conformance.md"


def _empty(rows: object, columns: object) -> dict[str, dict[str, Cell]]:
    return {str(row): {str(column): Cell("", conforms=True) for column in columns} for row in rows}  # type: ignore[attr-defined]


def test_the_committed_table_is_of_todays_suite() -> None:
    fresh = page(
        _empty(CASES, installed_subjects()), _empty(CASES, COMBINATIONS), _empty(FLAGS, CONTENDERS), ["versions"]
    )
    assert structure(COMMITTED.read_text()) == structure(fresh), REGENERATE


def test_the_committed_table_shows_no_failure_of_ours() -> None:
    mine = COMMITTED.read_text().split("## PEFT")[0].split("## Ours")[1]
    assert "**" not in mine
    flags = [line.split("|")[2] for line in COMMITTED.read_text().split("## Identity")[1].splitlines() if "|" in line]
    assert len(flags) == len(FLAGS) + 2
    assert not any("**" in cell for cell in flags)


def test_the_committed_table_shows_where_peft_fails() -> None:
    theirs = COMMITTED.read_text().split("## PEFT")[1]
    for row in ("gauge_invariance", "weight_linearity", "dense_oracle", "unbiased", "use_rslora", "use_dora"):
        (line,) = [line for line in theirs.splitlines() if line.startswith(f"| {row} |")]
        assert "**" in line, row


@pytest.mark.parametrize("name", [name for name in known() if name != "peft"])
def test_every_installed_operator_conforms_as_it_comes(name: str) -> None:
    subject = installed_subjects()[name]
    for case in CASES:
        cell = judge(case, subject)
        assert cell.conforms, (case, cell)


def test_every_claim_is_asked() -> None:
    """A row's claim that the suite cannot put is a promise that nobody checks."""
    for name, subject in installed_subjects().items():
        if "identity" in subject.operator.claims:
            assert subject.identity is not None, name
        if "linear" in subject.operator.claims:
            assert subject.weighted is not None, name
    assert {*REQUIRED, *WITHOUT_LOSS, *EDGES} <= set(OPERATORS)


def test_cells_tell_failures_apart() -> None:
    row = find("linear")
    parents = population(3)

    def broken(error: Exception) -> Subject:
        def function(_parents: object, _options: object, _seed: int) -> LowRank:
            raise error

        return Subject(dataclasses.replace(row, function=function), LinearOptions())

    class Diverged(ValueError):
        pass

    assert judge("rank_one", broken(ConfigError("no"))) == Cell("refused", conforms=False)
    assert judge("rank_one", broken(ValueError("no"))) == Cell("refused", conforms=False)
    assert judge("rank_one", broken(Diverged("no"))) == Cell("raises Diverged", conforms=False)
    assert judge("rank_one", broken(RuntimeError("no"))) == Cell("raises RuntimeError", conforms=False)
    assert judge("rank_one", broken(NonconformingError("no"))) == Cell("wrong", conforms=False)
    assert judge("rank_one", broken(NonconformingError("no", 0.25))) == Cell("0.25", conforms=False)
    assert str(judge("rank_one", broken(RuntimeError("no")))) == "**raises RuntimeError**"
    assert judge("weight_linearity", Subject(row, LinearOptions())) == Cell("-", conforms=True)
    ones = Subject(dataclasses.replace(row, function=lambda *_: parents[0]), LinearOptions(), identity=LinearOptions())
    assert not judge(
        "dense_oracle",
        dataclasses.replace(
            ones, oracle=lambda _: {"model.layers.0.q": 0 * parents[0].modules["model.layers.0.q"].dense() + 1}
        ),
    ).conforms


def test_the_summary_shows_the_worst_of_those_that_conform_and_all_that_do_not() -> None:
    mine = _empty(CASES, ["a", "b", "c"])
    theirs = _empty(CASES, ["x", "y", "z"])
    mine["rank_one"] = {"a": Cell("ok", conforms=True), "b": Cell("-", conforms=True)}
    mine["unbiased"] = {"a": Cell("-", conforms=True)}
    mine["dense_oracle"] = {
        name: Cell(text, conforms=True) for name, text in zip("ab", ("9e-16", "2e-15"), strict=True)
    }
    theirs["dense_oracle"] = {
        "x": Cell("0.5", conforms=False), "y": Cell("3e-16", conforms=True), "z": Cell("wrong", conforms=False)
    }  # fmt: skip
    found = summary(mine, theirs)
    assert [found[case]["ours (2 operators)"].text for case in ("rank_one", "dense_oracle")] == ["ok", "2e-15"]
    assert found["unbiased"]["ours (1 operators)"].text == "-"
    assert found["dense_oracle"]["PEFT"] == Cell("x 0.5, z wrong; 1 of 3 conform", conforms=False)


def test_the_page_says_what_each_case_asks() -> None:
    text = page(grid({"linear": installed_subjects()["linear"]}, lambda: None), None, None, ["numpy x"])
    for name, case in CASES.items():
        assert case.__doc__
        assert f"- `{name}`: {case.__doc__.splitlines()[0]}" in text
        assert f"| {name} |" in text
    assert "peft" not in text.lower()
    assert markdown("T", {"a": {"b": Cell("1", conforms=False)}}, "x").splitlines()[2:] == [
        "| x | b |",
        "|---|---|",
        "| a | **1** |",
    ]


@pytest.mark.parametrize("flag", FLAGS)
def test_ours_comes_back_or_is_refused_under_every_flag(flag: str) -> None:
    pytest.importorskip("peft")
    outcome = ours(FLAGS[flag])
    assert outcome <= 1e-5 if isinstance(outcome, float) else outcome.startswith("refused: ")


@pytest.mark.slow
def test_the_command_makes_the_committed_table(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    assert main(["--against", "peft", "--out", str(tmp_path / "page.md")]) == 0
    made, committed = (tmp_path / "page.md").read_text(), COMMITTED.read_text()
    assert structure(made) == structure(committed), REGENERATE
    bold = [[cell.startswith(" **") for cell in line.split("|")] for line in made.splitlines() if line.startswith("|")]
    kept = [[c.startswith(" **") for c in line.split("|")] for line in committed.splitlines() if line.startswith("|")]
    assert bold == kept, REGENERATE
