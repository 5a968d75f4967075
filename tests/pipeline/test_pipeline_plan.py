"""A plan names everything that decides the outcome; every shipped configuration makes one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecology.errors import ConfigError
from ecology.pipeline.compose import compose
from ecology.pipeline.plan import make_plan


@pytest.mark.parametrize("overrides", [[], ["experiment=toy"], ["breeder=[svd,ties]", "canary=strict"]])
def test_shipped_configurations_make_plans(overrides: list[str]) -> None:
    plan = make_plan(*compose(overrides))
    assert plan.founders
    assert plan.children
    assert make_plan(*compose(overrides)).digest == plan.digest


def test_what_decides_the_outcome_changes_the_digest() -> None:
    first = make_plan(*compose(["experiment=toy"])).digest
    further = ("+evaluator.hidden_of.general=17", "+gate.tighten.SAFE-002.threshold=0.4")
    for override in ("seed=2", "breeder=[ties]", "evaluator.hidden_items=17", *further):
        assert make_plan(*compose(["experiment=toy", override])).digest != first


def test_a_stock_task_is_named_by_the_configuration_and_planned_with_its_data(tmp_path: Path) -> None:
    row = {"body": "Dan had 3 coins. He lost 1", "question": "How many are left?", "answer": 2.0, "type": "Subtraction"}
    (tmp_path / "dev.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    asked = ["experiment=toy", f"+evaluator.tasks.svamp={{folder: {tmp_path}, documents: 1}}"]
    plan = make_plan(*compose(asked))
    assert list(plan.suites)[-1] == "svamp"
    (tmp_path / "dev.jsonl").write_text(json.dumps({**row, "answer": 3.0}) + "\n", "utf-8")
    assert make_plan(*compose(asked)).digest != plan.digest
    with pytest.raises(ConfigError, match=r"evaluator.tasks.gsm8k.*no file holds the split"):
        make_plan(*compose(["experiment=toy", f"+evaluator.tasks.gsm8k={{folder: {tmp_path}/nowhere}}"]))
    with pytest.raises(ConfigError, match=r"is no commit"):
        make_plan(*compose(["experiment=toy", "+evaluator.tasks.gsm8k={revision: main}"]))


def test_children_follow_their_parents_and_have_seeds_of_their_own() -> None:
    plan = make_plan(*compose(["experiment=toy"]))
    names = [founder.name for founder in plan.founders] + [child.name for child in plan.children]
    for child in plan.children:
        assert all(names.index(parent) < names.index(child.name) for parent in child.parents)
    assert len({child.seed for child in plan.children}) == len(plan.children)
    fewer = make_plan(*compose(["experiment=toy", "breeder=[ties]"]))
    assert fewer.children[0].seed == next(c.seed for c in plan.children if c.name == "ties")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["breeder.ties.kind=tise"], "ties"),
        (["+breeder.ties.options.densty=0.5"], "densty"),
        (["breeder.ties.options.density=7"], "density"),
        (["breeder.mutate.parents=[linear-9]"], "linear-9"),
        (["+evaluator.hidden_of.genral=500"], "did you mean 'general'"),
        (["+evaluator.hidden_of.general=0"], "not between 1 and"),
        (["breeder.mutate.parents=[mutate]"], "ancestors"),
        (["breeder.mutate.parents=[talker,chatter]"], "1"),
        (["population.founders.talker.kind=finetuned"], "finetune"),
        (["population.founders.talker.options.corpus=nothing"], "smalltalk"),
        (["gate.policy=strict"], "release"),
        (["evaluator.suites=[nothing]"], "orders"),
    ],
)
def test_mistakes_are_named(overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_plan(*compose(["experiment=toy", *overrides]))


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(*compose(["experiment=toy", "breeder.ties.options.density=7", "breeder.mutate.parents=[linear-9]"]))
    assert "density" in str(caught.value)
    assert "linear-9" in str(caught.value)
