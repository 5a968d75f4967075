"""Merge, add noise, fine-tune: what recovery gives back, and what it must not touch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from ecology.backend.bases import Toy, ensure
from ecology.breeder.breed import Bred, Parent, breed
from ecology.breeder.curricula import FinetuneOptions
from ecology.breeder.finetune import supervise
from ecology.breeder.recover import RecoverOptions, recover
from ecology.breeder.session import Row, Session
from ecology.breeder.training import Trainer
from ecology.contracts.artifact import Corpus
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError, IncompatibleParents, IntegrityError
from ecology.kernel.canonical import digest
from ecology.runtime.engine import TransformersEngine
from ecology.store.adapters import read_adapter
from ecology.telemetry.progress import SilentProgress

SILENT = SilentProgress()
ROWS: Mapping[str, list[Row]] = {
    "left": [("say a", "aaa", False), ("say b", "bbb", False)],
    "right": [("say c", "ccc", False), ("say d", "ddd", False)],
}
CORPORA = {name: Corpus(name, digest(name), "Apache-2.0", "train", False, 2) for name in ROWS}
AT_HAND: dict[Digest, Sequence[Row]] = {CORPORA[name].digest: rows for name, rows in ROWS.items()}
FOUND = FinetuneOptions(corpus="-", rank=4, layers=0, epochs=15, batch_size=2, learning_rate=2e-2, warmup_steps=2)
BACK = RecoverOptions(
    rows=4, probe=4, max_new_tokens=5, epochs=12, batch_size=4, learning_rate=1e-2, warmup_steps=1, checkpoint_steps=4
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return TransformersEngine(ensure(Toy(name="toy", seed=7), tmp_path_factory.mktemp("home"), SILENT), 1, 8)


@pytest.fixture(scope="module")
def merged(engine: TransformersEngine, tmp_path_factory: pytest.TempPathFactory) -> Parent:
    """A pruned sum of two founders, which has forgotten much of both."""
    home = tmp_path_factory.mktemp("parents")
    parents = []
    for name, corpus in CORPORA.items():
        session = Session(
            engine=engine, seed=1, out=home / name, work=home / "work", environment={}, progress=SILENT, name=name
        )
        bred = supervise(session, corpus, ROWS[name], FOUND, (name,))
        parents.append(Parent(name, bred.folder, bred.artifact, bred.genome))
    child = breed("linear", {"weights": [0.5, 0.5], "rank": 4}, parents, home / "merged", 1, {})
    return Parent("merged", child.folder, child.artifact, child.genome)


Back = Callable[..., Bred]


@pytest.fixture
def back(engine: TransformersEngine, merged: Parent, tmp_path: Path) -> Back:
    count = iter(range(100))

    def run(
        options: RecoverOptions = BACK, parent: Parent = merged, corpora: Mapping[Digest, Sequence[Row]] = AT_HAND
    ) -> Bred:
        session = Session(
            engine=engine,
            seed=5,
            out=tmp_path / f"out{next(count)}",
            work=tmp_path / "work",
            environment={},
            progress=SILENT,
            name="back",
        )
        return recover(session, parent, corpora, options)

    return run


def right(engine: TransformersEngine, folder: Path) -> int:
    rows = [row for part in ROWS.values() for row in part]
    with engine.attach(folder):
        return sum(said == row[1] for said, row in zip(engine.generate([r[0] for r in rows], 5), rows, strict=True))


def test_it_gives_back_what_the_merge_took(back: Back, merged: Parent, engine: TransformersEngine) -> None:
    bred = back()
    assert right(engine, bred.folder) > right(engine, merged.folder)
    lineage = bred.genome.lineage
    assert merged.genome is not None
    assert lineage.operator == "recover"
    assert lineage.parents == (merged.artifact.digest,)
    assert lineage.generation == 2
    assert lineage.corpora == merged.genome.lineage.corpora
    assert bred.genome.capabilities == ("left", "right")
    assert lineage.learned is not None
    assert lineage.learned["corpora"] == ["left", "right"]
    assert set(read_adapter(bred.folder).modules) == set(read_adapter(merged.folder).modules)


def test_it_starts_from_the_parent_and_not_from_the_base(back: Back, merged: Parent) -> None:
    still = back(dataclasses.replace(BACK, learning_rate=1e-12, noise=0.0, epochs=1, hard_share=0.0))
    before, after = read_adapter(merged.folder).modules, read_adapter(still.folder).modules
    for name, factors in before.items():
        np.testing.assert_allclose(after[name].B @ after[name].A, factors.B @ factors.A, atol=1e-5)


def test_noise_is_part_of_the_recipe(back: Back) -> None:
    quick = dataclasses.replace(BACK, epochs=1)
    assert back(quick).artifact == back(quick).artifact
    assert back(quick).artifact != back(dataclasses.replace(quick, noise=0.1)).artifact


def test_a_killed_recovery_goes_on(back: Back, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = back()
    real = Trainer.step

    def dies(self: Trainer, number: int, rows: Sequence[int]) -> float:
        if number == 9:
            raise KeyboardInterrupt
        return real(self, number, rows)

    monkeypatch.setattr(Trainer, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        back()
    steps: list[int] = []

    def counts(self: Trainer, number: int, rows: Sequence[int]) -> float:
        steps.append(number)
        return real(self, number, rows)

    monkeypatch.setattr(Trainer, "step", counts)
    assert back().artifact == whole.artifact
    assert steps[0] == 8


def test_nobody_trains_on_what_must_not_be_trained_on(back: Back, merged: Parent, engine: TransformersEngine) -> None:
    assert merged.genome is not None
    banned = tuple(dataclasses.replace(c, no_train=c.id == "right") for c in merged.genome.lineage.corpora)
    lineage = dataclasses.replace(merged.genome.lineage, corpora=banned)
    marked = dataclasses.replace(merged, genome=dataclasses.replace(merged.genome, lineage=lineage))
    bred = back(dataclasses.replace(BACK, epochs=1), marked)
    assert bred.genome.lineage.learned is not None
    assert bred.genome.lineage.learned["corpora"] == ["left"]
    assert any(corpus.no_train for corpus in bred.genome.lineage.corpora)  # the mark stays


def test_what_cannot_recover(back: Back, merged: Parent, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no corpus of its lineage"):
        back(corpora={})
    with pytest.raises(ConfigError, match="has no room"):
        back(dataclasses.replace(BACK, rank=1))
    with pytest.raises(IncompatibleParents, match="nobody knows what it was trained on"):
        back(parent=dataclasses.replace(merged, genome=None))
    assert merged.genome is not None
    other = dataclasses.replace(merged.genome.identity, base_weights=digest("another"))
    with pytest.raises(IncompatibleParents, match="another base"):
        back(parent=dataclasses.replace(merged, genome=dataclasses.replace(merged.genome, identity=other)))
    wrong = dataclasses.replace(merged.artifact, digest=digest("other bytes"))
    with pytest.raises(IntegrityError):
        back(parent=dataclasses.replace(merged, artifact=wrong))
