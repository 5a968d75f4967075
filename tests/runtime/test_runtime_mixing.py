from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecology.backend.bases import BaseModel
from ecology.errors import BackendError, ConfigError
from ecology.runtime.engine import TransformersEngine
from ecology.store.adapters import read_adapter, write_adapter
from ecology.testing.toys import toy_adapter, toy_base

PROMPTS = ("one", "a longer second prompt", "3", "four words in here", "five?")
WEIGHTS = ((1.0, 0.0), (0.5, 0.5), (0.0, 0.0), (1.5, -0.5), (0.3, 0.9))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return toy_base(tmp_path_factory.mktemp("home"), layers=4)


def upper(base: BaseModel, folder: Path, seed: int, first: int, rank: int) -> Path:
    toy_adapter(base, folder, seed=seed, rank=rank, strength=2.0)
    factors = read_adapter(folder).modules
    kept = {n: (f.scale * f.B, f.A) for n, f in factors.items() if int(n.split(".")[2]) >= first}
    write_adapter(folder, kept, "toy", base.identity.base_weights)
    return folder


def child(base: BaseModel, parents: list[Path], weights: tuple[float, ...], folder: Path) -> Path:
    """The linear child as an adapter of its own, its factors the parents' side by side."""
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for parent, weight in zip(parents, weights, strict=True):
        for name, f in read_adapter(parent).modules.items():
            parts.setdefault(name, []).append((weight * f.scale * f.B, f.A))
    whole = {
        n: (np.concatenate([b for b, _ in some], 1), np.concatenate([a for _, a in some])) for n, some in parts.items()
    }
    write_adapter(folder, whole, "toy", base.identity.base_weights)
    return folder


@pytest.mark.parametrize(("first", "threads", "batch"), [(0, 1, 64), (2, 1, 64), (2, 2, 3)])
def test_each_child_says_what_it_says_alone(
    deep: BaseModel, tmp_path: Path, first: int, threads: int, batch: int
) -> None:
    # of different ranks, and one of them changes a layer more than the other
    parents = [upper(deep, tmp_path / "a", 1, first, 2), upper(deep, tmp_path / "b", 2, max(first - 1, 0), 3)]
    engine = TransformersEngine(deep, threads=threads, batch_size=batch)
    together = engine.generate_mixtures(parents, WEIGHTS, PROMPTS, 8)
    assert len({replies for replies in together}) > 2, "the children differ"
    for number, weights in enumerate(WEIGHTS):
        with engine.attach(child(deep, parents, weights, tmp_path / f"child{number}")):
            assert engine.generate(PROMPTS, 8) == together[number]
    assert engine.prove_base() == engine.identity.base_weights
    with engine.attach(None):
        assert engine.generate(PROMPTS, 8) == together[2], "weights of zero are the base"


def test_lower_layers_read_each_prompt_once_for_all_children(deep: BaseModel, tmp_path: Path) -> None:
    engine = TransformersEngine(deep, threads=1)
    rows = []
    handle = engine.model.base_model.layers[0].register_forward_pre_hook(lambda _, x: rows.append(x[0].shape[:2]))
    parent = upper(deep, tmp_path / "a", 1, 2, 2)
    engine.generate_mixtures([parent], [(0.1,), (0.2,), (0.3,)], PROMPTS, 1)
    handle.remove()
    assert [shape[0] for shape in rows] == [len(PROMPTS)]


def test_what_cannot_be_mixed(deep: BaseModel, tmp_path: Path) -> None:
    engine = TransformersEngine(deep, threads=1)
    parent = upper(deep, tmp_path / "a", 1, 2, 2)
    with pytest.raises(ConfigError, match="1 weights"):
        engine.generate_mixtures([parent], [(1.0, 2.0)], PROMPTS, 2)
    with pytest.raises(ConfigError, match="at least one parent"):
        engine.generate_mixtures([], [()], PROMPTS, 2)
    with engine.attach(parent), pytest.raises(BackendError, match="already attached"):
        engine.generate_mixtures([parent], [(1.0,)], PROMPTS, 2)
    assert engine.generate_mixtures([parent], [(1.0,)], (), 2) == ((),)
