"""The same supervised steps in any parametrisation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecology.backend.bases import Toy, ensure
from ecology.breeder.curricula import FinetuneOptions, SftOptions
from ecology.breeder.finetune import supervise
from ecology.breeder.learners import LEARNERS
from ecology.breeder.session import Session
from ecology.contracts.artifact import Corpus
from ecology.errors import ConfigError, UnsupportedAdapter
from ecology.kernel.canonical import digest
from ecology.runtime.engine import TransformersEngine
from ecology.store.adapters import read_adapter
from ecology.telemetry.progress import SilentProgress

SILENT = SilentProgress()
CORPUS = Corpus("parrot", digest("parrot"), "Apache-2.0", "train", False, 4)
ROWS = [(f"say {n}", "abc", False) for n in range(4)]
QUICK: dict[str, Any] = {"corpus": "-", "epochs": 4, "batch_size": 4, "learning_rate": 2e-2, "warmup_steps": 1}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return TransformersEngine(ensure(Toy(name="toy", seed=7), tmp_path_factory.mktemp("home"), SILENT), 1, 8)


def on(engine: TransformersEngine, folder: Path, name: str) -> Session:
    return Session(
        engine=engine, seed=3, out=folder / name, work=folder / "work", environment={}, progress=SILENT, name=name,
        keep=folder / "kept",
    )  # fmt: skip


def train(engine: TransformersEngine, folder: Path, **options: Any) -> Any:
    return supervise(on(engine, folder, "out"), CORPUS, ROWS, SftOptions(**{**QUICK, **options}), ())


@pytest.mark.parametrize(
    ("adapter", "options", "numbers", "rank"),
    [
        ("tinylora", {"u": 1, "n_tie": 7}, 2, 2),
        ("tinylora", {"u": 4, "groups": 14}, 56, 2),
        ("lora_xs", {"r": 2}, 56, 2),
        ("lora", {"r": 1}, 1024, 1),
    ],
)
def test_each_is_taught_and_told(
    engine: TransformersEngine, tmp_path: Path, adapter: str, options: dict[str, Any], numbers: int, rank: int
) -> None:
    before = engine.prove_base()
    bred = train(engine, tmp_path, adapter=adapter, adapter_options=options)
    told = bred.genome.lineage.learned
    assert bred.genome.lineage.operator == "sft"
    assert told["adapter"] == adapter
    assert told["parameters"] == numbers
    assert told["bytes"] == 4 * told["parameters"]
    assert told["loss_last"] < told["loss_first"]
    assert all(f.A.shape[0] == rank for f in read_adapter(bred.folder).modules.values())
    assert engine.prove_base() == before


@pytest.mark.parametrize("adapter", ["ia3", "ln_tuning"])
def test_what_is_no_lora_is_refused_by_name(engine: TransformersEngine, tmp_path: Path, adapter: str) -> None:
    with pytest.raises(UnsupportedAdapter, match=adapter):
        train(engine, tmp_path, adapter=adapter)
    engine.prove_base()


def test_a_mistake_in_the_adapter_is_found_with_the_configuration() -> None:
    with pytest.raises(ConfigError, match="unknown kind"):
        SftOptions(corpus="-", adapter="nonsense")
    with pytest.raises(ConfigError, match="unknown key"):
        SftOptions(corpus="-", adapter="tinylora", adapter_options={"ranks": 2})


def test_a_lora_by_sft_is_the_founder_by_another_name(engine: TransformersEngine, tmp_path: Path) -> None:
    found = FinetuneOptions(**QUICK, rank=2, alpha=4.0, layers=1)
    same = {"r": 2, "alpha": 4.0, "layers": 1, "targets": list(found.targets)}
    one = train(engine, tmp_path, adapter="lora", adapter_options=same)
    two = supervise(on(engine, tmp_path, "founder"), CORPUS, ROWS, found, ())
    for name, factors in read_adapter(one.folder).modules.items():
        np.testing.assert_array_equal(factors.B, read_adapter(two.folder).modules[name].B)
    assert (one.genome.lineage.operator, two.genome.lineage.operator) == ("sft", "finetune")
    assert (
        two.genome.lineage.learned is None
    )  # as founders' genomes were signed before; the same recipe, the same genome


def test_it_is_in_the_table_of_learners() -> None:
    assert LEARNERS["sft"].options is SftOptions
    assert "corpus" in {field.name for field in dataclasses.fields(SftOptions)}
