from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from ecology.breeder.cost import MACHINES, SHAPES, cost
from ecology.breeder.grpo import GrpoOptions
from ecology.cli import main
from ecology.errors import ConfigError
from ecology.evaluator.corpora import load_corpus
from ecology.evaluator.suites import items, load_suite
from ecology.pipeline.compose import compose
from ecology.pipeline.forecast import dry_run, told
from ecology.pipeline.places import shared
from ecology.pipeline.plan import make_plan

OPTIONS = GrpoOptions(corpus="c", steps=10, prompts=2, group=4, max_new_tokens=100)
H100 = MACHINES["one H100"]


def test_the_formulas_by_hand() -> None:
    shape = dataclasses.replace(SHAPES["smollm2-135m"], parameters=1e9, layers=10, hidden=100, kept=50, vocabulary=1000)
    machine = dataclasses.replace(H100, flops=1e12, bandwidth=1e10, memory=1e12, price=2.0)
    found = cost(OPTIONS, shape, machine, prompt=20)
    assert found.memory == 2e9 + 10 * 50 * 2 * 8 * 120 + 4 * 1000 * 100 + 2 * 2 * 10 * 100 * 120
    assert found.seconds == pytest.approx(10 * (6 * 1e9 * (2 * 20 + 8 * 100) / 4e11 + 100 * 2e9 / 1e10))
    assert found.dollars == pytest.approx(found.seconds / 3600 * 2)
    slow = cost(dataclasses.replace(OPTIONS, trainer="trl"), shape, machine, prompt=20)
    assert slow.seconds == pytest.approx(10 * (8 * 1e9 * 8 * 120 / 4e11 + 100 * 2e9 / 1e10))
    copied = cost(dataclasses.replace(OPTIONS, trainer="trl", vllm=True), shape, machine, prompt=20)
    assert copied.memory - slow.memory == 2e9
    assert not cost(OPTIONS, shape, dataclasses.replace(machine, memory=1e9)).fits


@pytest.mark.parametrize("grow", ["steps", "prompts", "group", "max_new_tokens"])
def test_more_of_anything_costs_more(grow: str) -> None:
    more = dataclasses.replace(OPTIONS, **{grow: 2 * getattr(OPTIONS, grow)})
    for shape in SHAPES.values():
        assert cost(more, shape, H100).seconds > cost(OPTIONS, shape, H100).seconds


@pytest.mark.parametrize("name", ["tinylora_gsm8k_qwen2.5_7b", "tina_1.5b"])
def test_the_papers_settings_compose_and_say_what_they_take(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run([f"experiment={name}"], None) == 2  # the corpus has to be brought here first
    said = capsys.readouterr().out
    assert "US dollars" in said
    assert "not yet: gsm8k" in said
    assert said.count("not yet") == 1
    if "7b" in name:
        assert "13 numbers, 52 bytes, for 196 modules" in said
    settings, plain = compose([f"experiment={name}"])
    assert settings.name == name
    with pytest.raises(ConfigError, match="gsm8k"):
        make_plan(settings, plain)


def test_with_their_corpus_they_are_planned(tmp_path: Path) -> None:
    module = _example()
    rows = [{"question": "How many?", "answer": "First two.\n#### 1,002"}, {"question": "And?", "answer": "#### 7"}]
    assert module.write(rows, tmp_path / "gsm8k") == 2
    corpus, read = load_corpus(tmp_path / "gsm8k")
    assert [row.completion for row in read] == ["1002", "7"]
    where = f"population.founders.taught.options.corpus={tmp_path / 'gsm8k'}"
    plan = make_plan(*compose(["experiment=tinylora_gsm8k_qwen2.5_7b", where]))
    (founder,) = plan.founders
    assert founder.options["corpus_digest"] == corpus.digest
    assert (founder.options["trainer"], founder.options["vllm"], founder.options["steps"]) == ("trl", True, 1401)


def _example() -> Any:
    spec = importlib.util.spec_from_file_location("gsm8k_corpus", shared("examples") / "gsm8k_corpus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_quickstart_is_planned_with_its_control(capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run(["experiment=tinylora_quickstart"], None) == 0
    assert capsys.readouterr().out.count("14 numbers, 56 bytes, for 70 modules") == 2
    plan = make_plan(*compose(["experiment=tinylora_quickstart"]))
    taught, shuffled = plan.founders
    assert taught.breeds
    assert not shuffled.breeds
    differ = {k for k in taught.options if taught.options[k] != shuffled.options[k]}
    assert differ == {"control"}
    tied = make_plan(
        *compose(["experiment=tinylora_quickstart", "adapter@population.founders.taught.options.adapter=tied"])
    )
    assert tied.founders[0].options["adapter"] == {"kind": "tinylora", "u": 13, "n_tie": 0}


def test_what_is_not_known_is_not_guessed() -> None:
    assert "nothing is known of the size" in told(OPTIONS, "toy")[-1]
    long = dataclasses.replace(OPTIONS, max_new_tokens=10**6, trainer="trl")
    assert "does not fit" in told(long, "qwen2.5-7b-instruct")[-1]


def test_no_test_sum_is_a_training_sum_turned_round() -> None:
    suite = load_suite(shared("suites") / "addition")
    _, rows = load_corpus(shared("corpora") / "addition")

    def pair(text: str) -> frozenset[str]:
        return frozenset(text.split("?", maxsplit=1)[0].removeprefix("What is ").split("+"))

    asked = {split: items(suite, split, seed="s") for split in ("public", "hidden")}
    tested = {pair(item.prompt) for split in asked.values() for item in split}
    assert tested.isdisjoint({pair(row.prompt) for row in rows})
    assert {i.prompt for i in asked["public"]}.isdisjoint({i.prompt for i in asked["hidden"]})
    for item in (*asked["public"], *asked["hidden"]):
        assert sum(map(int, item.prompt.partition("?")[0].removeprefix("What is ").split("+"))) == int(item.answer)
    for row in rows:
        assert sum(map(int, row.prompt.partition("?")[0].removeprefix("What is ").split("+"))) == int(row.completion)


def test_a_sweep_is_planned_job_by_job(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "-m", "experiment=toy", "breeder=linear,ties", "seed=1,2", "--dry-run", "--quiet"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "job 0 (breeder=linear seed=1), job 1 (breeder=linear seed=2):" in lines
    assert "job 2 (breeder=ties seed=1), job 3 (breeder=ties seed=2):" in lines
    assert sum(line.startswith("  child ties: ties") for line in lines) == 1
    assert sum(line.startswith("  founder ") for line in lines) > 2
    assert lines[-1].startswith("4 jobs, of which none cannot run")


def test_a_job_of_a_sweep_that_cannot_run_is_named_and_the_others_planned(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "-m", "experiment=toy", "seed=1,-1", "--dry-run", "--quiet"]
    assert main(words) == 2
    said = capsys.readouterr().out
    assert "job 0 (seed=1):\n  founder" in said
    assert "job 1 (seed=-1):\n  cannot run: " in said
    assert "2 jobs, of which 1 cannot run" in said
