from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ecology.backend.bases import BaseModel
from ecology.runtime.beginnings import KEPT, Beginnings
from ecology.runtime.engine import TransformersEngine
from ecology.runtime.prefix import NONE, Prefix
from ecology.runtime.trunk import Trunk
from ecology.testing.toys import toy_adapter, toy_base

LONG = [3 + n % 200 for n in range(301)]
PAIR = [[*LONG, 7], [*LONG, 8, 9]]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return TransformersEngine(toy_base(tmp_path_factory.mktemp("home"), layers=4), threads=1)


def close(one: Prefix, other: Prefix) -> bool:
    assert one.tokens == other.tokens
    assert len(one.states) == len(other.states)
    pairs = [pair for a, b in zip(one.states, other.states, strict=True) for pair in zip(a, b, strict=True)]
    return all(torch.allclose(left, right, atol=1e-5) for left, right in pairs)


@torch.inference_mode()
def plain(engine: TransformersEngine) -> Prefix:
    cache = engine.model(input_ids=torch.tensor([LONG]), use_cache=True).past_key_values
    return Prefix(tuple(LONG), tuple((layer.keys, layer.values) for layer in cache.layers))


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
@torch.inference_mode()
def test_stretches_in_a_pipeline_are_the_whole(deep: TransformersEngine, workers: int) -> None:
    found = Beginnings(deep.model, workers=workers).of(PAIR)
    assert close(found, plain(deep))


@torch.inference_mode()
def test_shared_layers_are_read_once_for_all_adapters(deep: TransformersEngine) -> None:
    trunk = Trunk(deep.model)
    assert trunk.serves(3)
    runs = []
    handle = deep.model.base_model.layers[0].register_forward_hook(lambda *_: runs.append(1))
    for _ in range(2):
        assert close(Beginnings(deep.model, trunk, workers=2).of(PAIR), plain(deep))
    handle.remove()
    assert len(runs) == 2 + 2, "two stretches of the first, and the two plain ones"


@torch.inference_mode()
def test_what_was_computed_is_kept_until_there_are_too_many(deep: TransformersEngine) -> None:
    beginnings = Beginnings(deep.model)
    first = beginnings.of(PAIR)
    assert beginnings.of(PAIR) is first
    for n in range(KEPT):
        beginnings.of([[n + 3, *LONG, 7], [n + 3, *LONG, 8]])
    assert beginnings.of(PAIR) is not first
    assert beginnings.of([[5, 6], [5, 7]]) is NONE
    assert beginnings.of([LONG]) is NONE


@torch.inference_mode()
def test_a_stretch_that_fails_ends_the_others(deep: TransformersEngine) -> None:
    class Broken(Exception):
        pass

    def fail(_module: Any, inputs: Any, _output: Any) -> None:
        raise Broken

    handle = deep.model.base_model.layers[2].mlp.register_forward_hook(fail)
    with pytest.raises(Broken):
        Beginnings(deep.model, workers=2).of(PAIR)
    handle.remove()


def test_an_adapter_never_sees_the_beginning_of_another(tmp_path: Path, base: BaseModel) -> None:
    prompts = [" ".join(["the same words"] * 8) + end for end in (" a", " b", " c")]
    one, two = toy_adapter(base, tmp_path / "one", seed=1), toy_adapter(base, tmp_path / "two", seed=2)
    del one, two
    engine = TransformersEngine(base, threads=2)
    choices = [("x", "y")] * 3
    for _ in range(2):
        for name in ("one", "two"):
            fresh = TransformersEngine(base, threads=1)
            with engine.attach(tmp_path / name):
                found = engine.loglikelihoods(prompts, choices)
                again = engine.loglikelihoods(prompts, choices)
            with fresh.attach(tmp_path / name):
                wanted = fresh.loglikelihoods(prompts, choices)
            for some in (found, again):
                assert [v for row in some for v in row] == pytest.approx([v for row in wanted for v in row], abs=1e-4)
