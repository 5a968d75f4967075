from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM

from ecology.breeder import training
from ecology.breeder.breed import Bred
from ecology.breeder.checkpoints import CHECKPOINT_FILE
from ecology.breeder.curricula import FinetuneOptions
from ecology.breeder.finetune import order, supervise
from ecology.breeder.session import Session
from ecology.breeder.training import Trainer, share, tokenise
from ecology.contracts.artifact import Corpus
from ecology.errors import BackendError, ConfigError
from ecology.kernel.canonical import digest, plain
from ecology.kernel.codec import structure
from ecology.runtime.engine import TransformersEngine
from ecology.store.adapters import describe
from ecology.telemetry.progress import SilentProgress
from ecology.testing.toys import toy_adapter, toy_base

CORPUS = Corpus("parrot", digest("parrot"), "Apache-2.0", "train", False, 16)
ROWS = [(f"say {n}", "abc" * (1 + n % 3), n % 5 == 4) for n in range(16)]
OPTIONS = FinetuneOptions(
    corpus="parrot", layers=1, epochs=3, batch_size=4, learning_rate=2e-2, warmup_steps=2, checkpoint_steps=3
)

Train = Callable[..., Bred]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    base = toy_base(tmp_path_factory.mktemp("home"), layers=3)
    return TransformersEngine(base, threads=1, batch_size=8)


@pytest.fixture
def train(engine: TransformersEngine, tmp_path: Path) -> Train:
    count = iter(range(100))

    def run(options: FinetuneOptions = OPTIONS, seed: int = 3, rows: Sequence[tuple[str, str, bool]] = ROWS) -> Bred:
        session = Session(
            engine=engine,
            seed=seed,
            out=tmp_path / f"out{next(count)}",
            work=tmp_path / "work",
            environment={"threads": "1"},
            progress=SilentProgress(),
            name="parrot",
        )
        return supervise(session, CORPUS, rows, options, ("parroting",))

    return run


def test_it_learns_and_says_where_it_comes_from(engine: TransformersEngine, train: Train, tmp_path: Path) -> None:
    before = engine.generate(["say 100"], 6)
    bred = train()
    assert describe(bred.folder) == bred.artifact
    assert engine.generate(["say 100"], 6) == before != ("abcabc",)
    with engine.attach(bred.folder):
        assert engine.generate(["say 100"], 6)[0].startswith("abc")
    assert engine.liveness(bred.folder, ["say 1"]) == ()
    genome = bred.genome
    assert genome.identity == engine.identity
    assert (genome.lineage.operator, genome.lineage.parents, genome.lineage.generation) == ("finetune", (), 0)
    assert genome.lineage.corpora == (CORPUS,)
    assert genome.capabilities == ("parroting",)
    assert genome.resource_profile.modules == 5
    assert structure(FinetuneOptions, json.loads(json.dumps(plain(genome.lineage.parameters)))) == OPTIONS
    assert not (tmp_path / "work").exists()


def test_equal_seeds_give_equal_bytes_and_others_do_not(train: Train) -> None:
    assert train().artifact == train().artifact != train(seed=4).artifact


@pytest.mark.parametrize("options", [OPTIONS, dataclasses.replace(OPTIONS, epochs=1, checkpoint_steps=1)])
def test_a_killed_run_goes_on_and_ends_at_the_same_bytes(
    train: Train, monkeypatch: pytest.MonkeyPatch, options: FinetuneOptions
) -> None:
    whole = train(options)
    real, steps = Trainer.step, []

    def dies(self: Trainer, number: int, rows: Sequence[int]) -> float:
        if number == 3:
            raise KeyboardInterrupt
        return real(self, number, rows)

    def counts(self: Trainer, number: int, rows: Sequence[int]) -> float:
        steps.append(number)
        return real(self, number, rows)

    monkeypatch.setattr(Trainer, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(options)
    monkeypatch.setattr(Trainer, "step", counts)
    assert train(options).artifact == whole.artifact
    assert steps[0] == 3


@pytest.mark.parametrize("damage", ["note", "state", "recipe"])
def test_a_checkpoint_that_is_damaged_or_of_another_recipe_is_not_used(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    whole = train()
    real, steps = Trainer.step, []

    def step(self: Trainer, number: int, rows: Sequence[int]) -> float:
        steps.append(number)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return real(self, number, rows)

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train(seed=9 if damage == "recipe" else 3)
    (state,) = (tmp_path / "work").glob("step-*.safetensors")
    if damage == "note":
        (tmp_path / "work" / CHECKPOINT_FILE).write_text("{", encoding="utf-8")
    if damage == "state":
        state.write_bytes(state.read_bytes()[:-1] + b"?")
    assert train().artifact == whole.artifact
    assert steps[5] == 0


def test_layers_that_are_kept_give_the_same_adapter_within_rounding(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecology.store.adapters import read_adapter

    short = dataclasses.replace(OPTIONS, epochs=2, learning_rate=1e-3)
    kept = read_adapter(train(short).folder).modules
    monkeypatch.setattr(training, "MAX_KEPT_BYTES", 0)
    again = read_adapter(train(short).folder).modules
    monkeypatch.setattr(training, "CUTTABLE", frozenset())
    monkeypatch.setattr(training, "can_be_cut", lambda _: False)
    whole = read_adapter(train(short).folder).modules
    for name, factors in kept.items():
        for other in (again, whole):
            assert np.allclose(factors.B @ factors.A, other[name].B @ other[name].A, atol=1e-4)


def test_losses_by_token_and_by_row(engine: TransformersEngine) -> None:
    def first_loss(**change: Any) -> float:
        options = dataclasses.replace(OPTIONS, epochs=1, **change)
        examples = tokenise(engine, ROWS[:3], options, "parrot")
        with Trainer(engine, examples, options, 3, 1, SilentProgress(), "parrot") as trainer:
            return trainer.step(0, [0, 1, 2])

    rows = tokenise(engine, ROWS[:3], OPTIONS, "parrot")
    totals = []
    for row in rows:  # B is zero before the first step, so the base gives the loss
        ids = torch.tensor([row.prompt + row.completion])
        with torch.inference_mode():
            table = engine.model(input_ids=ids).logits[0].log_softmax(-1)
        places = range(len(row.prompt) - 1, len(row) - 1)
        totals.append([-float(table[p, t]) for p, t in zip(places, row.completion, strict=True)])
    assert first_loss() == pytest.approx(np.mean([x for row in totals for x in row]), abs=1e-4)
    assert first_loss(loss_over="rows") == pytest.approx(np.mean([np.mean(row) for row in totals]), abs=1e-4)
    short = first_loss(completion_tokens=2)
    assert short == pytest.approx(np.mean([x for row in totals for x in row[:2]]), abs=1e-4)


def test_a_completion_is_taught_to_end_unless_it_is_cut(engine: TransformersEngine) -> None:
    end = engine.tokenizer.eos_token_id
    whole, cut = tokenise(engine, [("p", "abc", False), ("p", "abc", True)], OPTIONS, "parrot")
    assert whole.completion == (*cut.completion, end)
    (short,) = tokenise(engine, [("p", "abc", False)], dataclasses.replace(OPTIONS, completion_tokens=3), "parrot")
    assert short.completion == cut.completion


def test_peft_loads_what_was_written(engine: TransformersEngine, train: Train) -> None:
    bred = train()
    fresh = AutoModelForCausalLM.from_pretrained(engine.base.folder, dtype=torch.float32)
    model: Any = PeftModel.from_pretrained(fresh, str(bred.folder)).eval()
    ids = torch.tensor(engine.encode_prompts(["say 5"]))
    with torch.inference_mode():
        theirs = model(input_ids=ids).logits[0, -1].log_softmax(-1)
    with engine.attach(bred.folder), torch.inference_mode():
        ours = engine.model(input_ids=ids).logits[0, -1].log_softmax(-1)
    assert torch.allclose(theirs, ours, atol=1e-4)


def test_the_base_is_left_as_it_was_also_by_a_failure(
    engine: TransformersEngine, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, keys = [n for n, _ in engine.model.named_modules()], set(engine.model.__dict__)
    monkeypatch.setattr(Trainer, "step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train()
    assert [n for n, _ in engine.model.named_modules()] == names
    assert set(engine.model.__dict__) == keys
    assert not any(p.requires_grad for p in engine.model.parameters())
    engine.prove_base()


def test_what_cannot_be_trained(engine: TransformersEngine, train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        train(rows=[])
    with pytest.raises(ConfigError, match=r"row 2: .*tokens"):
        train(rows=[ROWS[0], ("x" * 300, "y", False)])
    with pytest.raises(ConfigError, match="row 1: the completion is empty"):
        train(rows=[("x", "", False)])
    with pytest.raises(ConfigError, match=r"no module 'nonsense'; choose among .*q_proj"):
        train(dataclasses.replace(OPTIONS, targets=("q_proj", "nonsense")))
    toy_adapter(engine.base, tmp_path / "on")
    with engine.attach(tmp_path / "on"), pytest.raises(BackendError, match="is attached"):
        train()


@pytest.mark.parametrize(
    "change",
    [{"rank": 0}, {"alpha": 0.0}, {"epochs": 0}, {"learning_rate": 0.0}, {"targets": ()}, {"final_share": 1.5}],
)
def test_options_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="finetune"):
        dataclasses.replace(OPTIONS, **change)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    batch_size=st.integers(1, 7),
    window=st.integers(1, 4),
    epochs=st.integers(1, 3),
)
def test_every_row_is_seen_once_an_epoch(lengths: list[int], batch_size: int, window: int, epochs: int) -> None:
    options = dataclasses.replace(OPTIONS, batch_size=batch_size, bucket_batches=window, epochs=epochs)
    steps = order(lengths, options, seed=1)
    assert steps == order(lengths, options, seed=1)
    seen = [row for step in steps for row in step]
    assert len(seen) == epochs * len(lengths)
    for epoch in range(epochs):
        assert sorted(seen[epoch * len(lengths) : (epoch + 1) * len(lengths)]) == list(range(len(lengths)))
    assert all(1 <= len(step) <= batch_size for step in steps)


def test_the_schedule_rises_and_falls() -> None:
    shares = [share(step, 20, dataclasses.replace(OPTIONS, warmup_steps=4)) for step in range(20)]
    assert shares[:4] == [0.25, 0.5, 0.75, 1.0]
    assert shares[4] == 1.0
    assert shares[4:] == sorted(shares[4:], reverse=True)
    assert 0.1 <= shares[-1] < 0.12
    assert share(19, 20, dataclasses.replace(OPTIONS, schedule="constant")) == 1.0
    assert share(0, 20, dataclasses.replace(OPTIONS, warmup_steps=0)) == 1.0
