from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ecology.backend.bases import BaseModel
from ecology.runtime.engine import TransformersEngine
from ecology.runtime.trunk import Reading, Trunk, lowest_layer
from ecology.store.adapters import read_adapter, write_adapter
from ecology.testing.toys import toy_adapter, toy_base

PROMPTS = tuple(f"question {n} of them all" + "?" * (n % 4) for n in range(9))
CHOICES = tuple(("yes", "no", "neither")[: 2 + n % 2] for n in range(9))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return toy_base(tmp_path_factory.mktemp("home"), layers=4)


def adapter(base: BaseModel, folder: Path, first: int, seed: int) -> Path:
    """One that changes layers from ``first`` on."""
    toy_adapter(base, folder, seed=seed)
    factors = read_adapter(folder).modules
    upper = {n: (f.B, f.A) for n, f in factors.items() if int(n.split(".")[2]) >= first}
    write_adapter(folder, upper, "toy", base.identity.base_weights)
    return folder


def answers(engine: TransformersEngine, folder: Path | None) -> tuple[Any, Any]:
    with engine.attach(folder):
        return engine.generate(PROMPTS, 6), engine.loglikelihoods(PROMPTS, CHOICES)


def same(left: tuple[Any, Any], right: tuple[Any, Any]) -> bool:
    pairs = [(a, b) for some, others in zip(left[1], right[1], strict=True) for a, b in zip(some, others, strict=True)]
    return left[0] == right[0] and all(a == pytest.approx(b, abs=1e-4) for a, b in pairs)


def test_answers_are_those_of_an_engine_that_shares_nothing(deep: BaseModel, tmp_path: Path) -> None:
    folders = [
        adapter(deep, tmp_path / "a", 2, seed=1),
        None,
        adapter(deep, tmp_path / "b", 2, seed=2),
        adapter(deep, tmp_path / "c", 3, seed=3),
        adapter(deep, tmp_path / "d", 0, seed=4),
        adapter(deep, tmp_path / "e", 2, seed=5),
        adapter(deep, tmp_path / "f", 3, seed=6),
        None,
    ]
    sharing = TransformersEngine(deep, threads=1, batch_size=4)
    for folder in folders:
        alone = TransformersEngine(deep, threads=1, batch_size=4)
        alone._trunk.serves = lambda _: False  # type: ignore[method-assign]
        assert same(answers(sharing, folder), answers(alone, folder)), folder


def test_a_second_candidate_runs_the_upper_layers_alone(deep: BaseModel, tmp_path: Path) -> None:
    engine = TransformersEngine(deep, threads=1, batch_size=4)
    runs = [0] * 4
    for number, layer in enumerate(engine.model.base_model.layers):
        layer.register_forward_hook(lambda *_, number=number: runs.__setitem__(number, runs[number] + 1))
    with engine.attach(adapter(deep, tmp_path / "a", 2, seed=1)):
        engine.loglikelihoods(PROMPTS, CHOICES)
    first, runs[:] = list(runs), [0] * 4
    with engine.attach(adapter(deep, tmp_path / "b", 2, seed=2)):
        engine.loglikelihoods(PROMPTS, CHOICES)
    assert len(set(first)) == 1
    assert runs[0] == runs[1] == 0, "not even for what all prompts begin with"
    assert 0 < runs[2] == runs[3] == first[3]


def test_the_cut_only_rises(deep: BaseModel) -> None:
    trunk = Trunk(TransformersEngine(deep, threads=1).model)
    assert not trunk.serves(None)
    assert not trunk.serves(0)
    assert trunk.serves(2)
    assert trunk.serves(None)
    assert not trunk.serves(1)
    trunk.keep(["key"], [Reading(torch.zeros(1, 2), (), ())])
    assert trunk.serves(3)
    assert trunk.recall(["key"]) is None
    assert not trunk.serves(2)


def test_what_came_first_stays_when_there_is_no_more_room(deep: BaseModel) -> None:
    trunk = Trunk(TransformersEngine(deep, threads=1).model, room_bytes=20)
    one, two = (Reading(torch.zeros(1, 4), (), ()) for _ in range(2))
    trunk.keep(["one", "two"], [one, two])
    assert trunk.recall(["one"]) == [one]
    assert trunk.recall(["two"]) is None
    assert trunk.recall(["one", "two"]) is None


def test_the_lowest_layer(deep: BaseModel) -> None:
    model = TransformersEngine(deep, threads=1).model
    layers = model.base_model.layers
    assert lowest_layer(model, [layers[3].mlp.up_proj, layers[1].self_attn.q_proj]) == 1
    assert lowest_layer(model, [model.lm_head]) == 4
