"""The second family: another tokenizer, other shapes, and it has learned something."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecology.backend.bases import BaseModel, Taught, Toy, ensure
from ecology.backend.taught import EXCHANGES
from ecology.runtime.engine import TransformersEngine
from ecology.telemetry.progress import SilentProgress


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return ensure(Taught(name="taught"), tmp_path_factory.mktemp("home"), SilentProgress())


def test_it_says_back_what_it_read(base: BaseModel) -> None:
    engine = TransformersEngine(base, threads=1, batch_size=16)
    prompts, replies = zip(*EXCHANGES, strict=True)
    said = engine.generate(list(prompts), 16)
    assert sum(a == b for a, b in zip(said, replies, strict=True)) > 0.8 * len(replies)


def test_nothing_of_it_fits_the_toy(base: BaseModel, tmp_path: Path) -> None:
    toy = ensure(Toy(name="toy"), tmp_path, SilentProgress())
    assert set(base.identity.differences(toy.identity)) == {
        "base_weights",
        "architecture",
        "tokenizer",
        "tensor_schema",
    }
    shared = base.tensor_schema.keys() & toy.tensor_schema.keys()
    assert all(base.tensor_schema[name] != toy.tensor_schema[name] for name in shared)


def test_it_is_the_same_again(tmp_path: Path) -> None:
    one, two = (ensure(Taught(name="taught", steps=3), tmp_path / name, SilentProgress()) for name in ("a", "b"))
    assert one.identity == two.identity
    other = ensure(Taught(name="taught", steps=3, seed=1), tmp_path / "c", SilentProgress())
    assert other.identity.base_weights != one.identity.base_weights
    assert other.identity.tokenizer == one.identity.tokenizer
