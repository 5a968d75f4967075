from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecology.breeder import rewards
from ecology.breeder.breed import Bred, Parent, breed
from ecology.breeder.checkpoints import CHECKPOINT_FILE
from ecology.breeder.grpo import GrpoOptions, Told, order, tinylora_grpo, verdict
from ecology.breeder.grpo_steps import Steps
from ecology.breeder.rewards import REWARDS, Reward
from ecology.breeder.session import Session
from ecology.contracts.artifact import Corpus
from ecology.errors import BackendError, ConfigError, LearningRefused
from ecology.kernel.canonical import digest, plain
from ecology.kernel.codec import structure
from ecology.runtime.engine import TransformersEngine
from ecology.store.adapters import describe, read_adapter
from ecology.telemetry.progress import SilentProgress
from ecology.testing.toys import toy_base

CORPUS = Corpus("vowels", digest("vowels"), "Apache-2.0", "train", False, 12)
ROWS = [(f"say {n}", "abcdefghijklmnopqrstuvwxyz", False) for n in range(12)]
LETTERS = Reward(lambda reply, row: sum(c in row["completion"] for c in reply) >= 1)
TABLE = {**REWARDS, "letters": LETTERS}
with pytest.MonkeyPatch.context() as patch:
    patch.setattr(rewards, "REWARDS", TABLE)
    OPTIONS = GrpoOptions(
        corpus="vowels",
        adapter={"kind": "tinylora", "u": 2, "groups": 7, "layers": 2},
        reward="letters",
        steps=5,
        prompts=3,
        group=4,
        max_new_tokens=3,
        stop="",
        learning_rate=0.1,
        checkpoint_steps=2,
    )

Train = Callable[..., Bred]


@pytest.fixture(autouse=True)
def _letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "REWARDS", TABLE)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return TransformersEngine(toy_base(tmp_path_factory.mktemp("home"), layers=3), threads=1, batch_size=8)


@pytest.fixture
def train(engine: TransformersEngine, tmp_path: Path) -> Train:
    count = iter(range(100))

    def run(options: GrpoOptions = OPTIONS, seed: int = 3, rows: Any = ROWS) -> Bred:
        session = Session(
            engine=engine,
            seed=seed,
            out=tmp_path / f"out{next(count)}",
            work=tmp_path / "work",
            environment={"threads": "1"},
            progress=SilentProgress(),
            name="letters",
            keep=tmp_path / "keep",
        )
        return tinylora_grpo(session, CORPUS, rows, options, ("letters",))

    return run


def test_what_is_stored_is_a_rank_two_lora_and_the_numbers_lie_beside_it(
    engine: TransformersEngine, train: Train, tmp_path: Path
) -> None:
    bred = train()
    assert describe(bred.folder) == bred.artifact
    modules = read_adapter(bred.folder).modules
    assert len(modules) == 14
    assert all(factors.B.shape[1] == 2 for factors in modules.values())
    learned = bred.genome.lineage.learned
    assert learned is not None
    assert (learned["trained"], learned["trained_bytes"], learned["steps"]) == (14, 56, 5)
    (beside,) = (tmp_path / "keep" / "learned").iterdir()
    assert learned["file_bytes"] == (beside / "v.safetensors").stat().st_size > 56
    assert len(json.loads((beside / "history.json").read_bytes())) == 5
    peft = read_adapter(beside / "peft")
    assert peft.tiny is not None
    assert sum(v.size for v in peft.tiny.vectors.values()) == 14
    for name, factors in peft.modules.items():
        assert np.allclose(factors.B @ factors.A, modules[name].B @ modules[name].A, atol=1e-7)
    assert engine.liveness(bred.folder, ["say 1"]) == ()
    assert structure(GrpoOptions, json.loads(json.dumps(plain(bred.genome.lineage.parameters)))) == OPTIONS
    assert bred.genome.lineage.corpora == (CORPUS,)
    assert not (tmp_path / "work").exists()


def test_what_was_learned_breeds(train: Train, tmp_path: Path) -> None:
    one, two = train(), train(seed=4)
    parents = [Parent(n, b.folder, b.artifact, b.genome) for n, b in (("one", one), ("two", two))]
    child = breed("linear", {"weights": [0.5, 0.5]}, parents, tmp_path / "child", 1, {})
    assert child.genome.lineage.generation == 1
    assert child.genome.lineage.corpora == (CORPUS,)
    assert child.genome.lineage.learned is None
    a, b, c = (read_adapter(x.folder).modules for x in (one, two, child))
    for name, factors in c.items():
        wanted = 0.5 * a[name].B @ a[name].A + 0.5 * b[name].B @ b[name].A
        assert np.allclose(factors.scale * factors.B @ factors.A, wanted, atol=1e-6)


def test_equal_seeds_give_equal_bytes_and_others_do_not(train: Train) -> None:
    assert train().artifact == train().artifact != train(seed=4).artifact


def test_two_processes_with_other_hash_seeds_give_equal_bytes(train: Train, tmp_path: Path) -> None:
    script = Path(__file__).with_name("grpo_process.py")
    found = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path / seed)],
            env={**_environment(), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout.strip())
    assert len(found) == 1


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.parametrize("interval", [1, 2])
def test_a_killed_run_goes_on_and_ends_at_the_same_bytes(
    train: Train, monkeypatch: pytest.MonkeyPatch, interval: int
) -> None:
    options = dataclasses.replace(OPTIONS, checkpoint_steps=interval)
    whole = train(options)
    real, seen = Steps.step, []

    def dies(self: Steps, number: int) -> Told:
        if number == 3:
            raise KeyboardInterrupt
        return real(self, number)

    def counts(self: Steps, number: int) -> Told:
        seen.append(number)
        return real(self, number)

    monkeypatch.setattr(Steps, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(options)
    monkeypatch.setattr(Steps, "step", counts)
    again = train(options)
    assert again.artifact == whole.artifact
    assert again.genome == whole.genome
    assert seen[0] == 3 // interval * interval


@pytest.mark.parametrize("damage", ["note", "history", "state", "recipe"])
def test_a_checkpoint_that_is_damaged_or_of_another_recipe_is_not_used(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    whole = train()
    real, seen = Steps.step, []

    def step(self: Steps, number: int) -> Told:
        seen.append(number)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(self, number)

    monkeypatch.setattr(Steps, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train(seed=9 if damage == "recipe" else 3)
    note, (state,) = tmp_path / "work" / CHECKPOINT_FILE, (tmp_path / "work").glob("step-*.safetensors")
    if damage == "note":
        note.write_text("{", encoding="utf-8")
    if damage == "history":
        told = json.loads(note.read_bytes())
        told["history"][0]["reward"] = 1.0
        note.write_text(json.dumps(told), encoding="utf-8")
    if damage == "state":
        state.write_bytes(state.read_bytes()[:-1] + b"?")
    assert train().artifact == whole.artifact
    assert seen[4] == 0


def test_a_shuffled_control_is_another_recipe_and_tells_the_true_reward(train: Train) -> None:
    control = train(dataclasses.replace(OPTIONS, control="shuffled"))
    true = train()
    assert control.artifact != true.artifact
    assert control.genome.lineage.parameters["control"] == "shuffled"
    # the first step draws the same replies, so what they really earned is the same
    assert control.genome.lineage.learned is not None


def test_every_row_comes_once_before_any_comes_again() -> None:
    steps = order(10, dataclasses.replace(OPTIONS, steps=10, prompts=3), seed=5)
    flat = [row for step in steps for row in step]
    assert len(steps) == 10
    assert sorted(flat[:10]) == sorted(flat[10:20]) == list(range(10))
    assert flat[:10] != flat[10:20]


FINE = Told(0.5, 0.2, 3.0, 0.0, 0.1, 0.3, None)


@pytest.mark.parametrize(
    ("reason", "history"),
    [
        ("uniform", [dataclasses.replace(FINE, uniform=1.0, reward=0.0, gradient=0.0)] * 3),
        ("zero_gradient", [dataclasses.replace(FINE, gradient=0.0)]),
        ("clipped", [dataclasses.replace(FINE, clipped=0.9)] * 3),
        ("divergence", [dataclasses.replace(FINE, divergence=2.0)]),
        ("not_finite", [dataclasses.replace(FINE, loss=float("nan"))]),
        ("not_finite", [dataclasses.replace(FINE, gradient=float("inf"))]),
    ],
)
def test_it_refuses_to_go_on(reason: str, history: list[Told]) -> None:
    options = dataclasses.replace(OPTIONS, patience=3, max_clipped=0.5)
    with pytest.raises(LearningRefused) as refused:
        verdict(history, options, "x")
    assert refused.value.reason == reason
    assert refused.value.exit_code == 1
    if len(history) > 1:  # two of three are not enough
        assert verdict(history[:2], options, "x") == ""


def test_a_solved_task_ends_training_and_is_no_refusal() -> None:
    options = dataclasses.replace(OPTIONS, patience=2)
    solved = dataclasses.replace(FINE, uniform=1.0, reward=1.0, gradient=0.0)
    assert verdict([solved, solved], options, "x") == "solved"
    assert verdict([FINE, solved], options, "x") == ""


def test_a_task_that_nobody_solves_is_refused(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "REWARDS", {**REWARDS, "letters": Reward(lambda reply, row: False)})
    with pytest.raises(LearningRefused, match="no group had two different rewards"):
        train(dataclasses.replace(OPTIONS, patience=2))


def test_a_missing_answer_is_an_error_and_no_zero_reward(train: Train) -> None:
    with pytest.raises(ConfigError, match="reads the column 'completion'"):
        train(rows=[*ROWS, ("say 13", "", False)])
    with pytest.raises(ConfigError, match="nothing to train on"):
        train(rows=[])


def test_what_is_no_lora_is_refused_before_training(train: Train) -> None:
    with pytest.raises(ConfigError, match="cannot be stored as a LoRA"):
        train(dataclasses.replace(OPTIONS, adapter={"kind": "ia3"}))


def test_an_attached_adapter_is_refused(engine: TransformersEngine, train: Train) -> None:
    folder = train().folder
    with engine.attach(folder), pytest.raises(BackendError, match="attached"):
        train(seed=8)


@pytest.mark.parametrize(
    "change",
    [
        {"group": 1},
        {"steps": 0},
        {"temperature": 0.0},
        {"reward": "kindness"},
        {"adapter": {"kind": "prompt"}},
        {"adapter": {"kind": "tinylora", "rank": 2}},
        {"adapter": {"kind": "tinylora", "u": 0}},
        {"vllm": True},
        {"max_clipped": 2.0},
        {"betas": (0.9, 1.5)},
    ],
)
def test_options_out_of_range_are_named(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(OPTIONS, **change)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_how_many_work_changes_rounding_alone(engine: TransformersEngine, workers: int) -> None:
    told = _two_steps(engine, workers)
    alone = _two_steps(engine, 1)
    assert told == pytest.approx(alone, rel=1e-4, abs=1e-6)


def _two_steps(engine: TransformersEngine, workers: int) -> list[float]:
    from ecology.breeder.grpo_steps import steps_on
    from ecology.breeder.parametrisation import adapt

    columns = [{"prompt": row[0], "completion": row[1]} for row in ROWS]
    options = dataclasses.replace(OPTIONS, beta=0.1)
    with adapt(engine.model, "tinylora", {"groups": 7}, base_weights=engine.identity.base_weights) as adapted:
        steps = steps_on(engine, adapted, columns, options, 3)
        steps._workers = workers
        with steps:
            told = [steps.step(0), steps.step(1)]
        numbers = torch.cat([p.detach().flatten() for p in adapted.trained.values()]).tolist()
        return [x for t in told for x in (t.reward, t.loss, t.gradient, t.divergence or 0.0)] + numbers


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    yield
    torch.set_num_threads(1)
