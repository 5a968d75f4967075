"""What was trained, made again from its genome."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ecology.backend.bases import ensure
from ecology.breeder.breed import Bred, Parent
from ecology.breeder.curricula import FinetuneOptions
from ecology.breeder.distill import DistillOptions
from ecology.breeder.grpo import GrpoOptions
from ecology.breeder.learners import LEARNERS
from ecology.breeder.recover import RecoverOptions
from ecology.breeder.training import Trainer
from ecology.cli import main
from ecology.contracts.artifact import Corpus
from ecology.contracts.genome import Genome
from ecology.evaluator.corpora import load_corpus
from ecology.kernel.canonical import digest
from ecology.pipeline.bench import Bench, environment_of, preset
from ecology.pipeline.corpora import held_corpora
from ecology.pipeline.house import open_house
from ecology.pipeline.places import subject
from ecology.pipeline.population import sign
from ecology.pipeline.settings import BackendSettings
from ecology.pipeline.teaching import Class, session_on, taught_rows, teach

QUICK: Mapping[str, Any] = {"epochs": 1, "batch_size": 32, "warmup_steps": 1, "learning_rate": 1e-2}
FOUND = FinetuneOptions(corpus="smalltalk", rank=2, layers=1, **QUICK)
BY_REWARD = GrpoOptions(
    corpus="addition", steps=2, prompts=2, group=2, max_new_tokens=2, adapter={"kind": "tinylora", "n_tie": 7}
)
TAUGHT = DistillOptions(
    corpus="smalltalk", rank=2, layers=1, probe=8, lessons=8, max_new_tokens=4, checkpoint_steps=1, **QUICK
)
BACK = RecoverOptions(rows=8, probe=8, max_new_tokens=4, **QUICK)


_FALSE: Mapping[str, Mapping[str, Any]] = {
    "liar": {"seed": 4},
    "traveller": {"seed": 4, "environment": {**environment_of(1), "cpu": "Z80"}},
    "stranger": {"corpora": (Corpus("gossip", digest("gossip"), "MIT", "train", False, 24),)},
}
"""What the genomes of some say that is not so."""


class Home:
    """A home whose adapters were all trained here."""

    def __init__(self, where: Path) -> None:
        self.house = open_house(str(where / "home"), quiet=True)
        self.where = where
        base = ensure(preset("toy"), self.house.home, self.house.progress)
        self.bench = Bench(base, BackendSettings(kind="transformers", threads=1, batch_size=64), self.house)
        self.members = {
            "found": self._learned("finetune", "found", FOUND),
            "rewarded": self._learned("tinylora_grpo", "rewarded", BY_REWARD),
            "patient": self._learned(
                "finetune", "patient", dataclasses.replace(FOUND, batch_size=4, checkpoint_steps=1)
            ),
        }
        for number, name in enumerate(("liar", "traveller", "stranger")):
            self._learned("finetune", name, dataclasses.replace(FOUND, token_decay=0.5 + number / 10), _FALSE[name])
        for name, options in (("distill", TAUGHT), ("recover", BACK)):
            parent = self.members["found"]
            lesson = Class(name, options, (parent,), 5, name)
            self.keep(name, teach(lesson, self.bench, held_corpora(self.house), where / name))

    def _learned(self, operator: str, name: str, options: Any, lie: Mapping[str, Any] | None = None) -> Parent:
        corpus, rows = load_corpus(subject(options.corpus, "corpora"))
        session = session_on(self.bench, 3, self.where / name, self.where / "work", name)
        bred = LEARNERS[operator].function(session, corpus, taught_rows(rows), options, ("talk",))
        if lie is None:
            return self.keep(name, bred)
        lineage = dataclasses.replace(bred.genome.lineage, **lie)
        return self.keep(name, bred, dataclasses.replace(bred.genome, lineage=lineage))

    def keep(self, name: str, bred: Bred, genome: Genome | None = None) -> Parent:
        """Stores, signs and registers it, with another genome than its own if one is given."""
        artifact = self.house.store.put(bred.folder)
        lineage = bred.genome.lineage
        self.house.record(
            "bred",
            {
                "digest": artifact.digest,
                "name": name,
                "operator": lineage.operator,
                "parents": lineage.parents,
                "generation": lineage.generation,
                "run": digest("run"),
            },
        )
        sign(self.house, artifact, genome or bred.genome)
        return Parent(name, self.house.store.folder(artifact.digest), artifact, genome or bred.genome)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def replay(home: Home, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str) -> tuple[int, list[str]]:
        code = main(["--quiet", "--home", str(home.house.home), "registry", "replay", *words])
        said = capsys.readouterr()
        return code, (said.out + said.err).splitlines()

    return run


@pytest.mark.parametrize("name", ["found", "rewarded", "distill", "recover"])
def test_what_was_trained_is_trained_again_and_has_the_same_bytes(home: Home, replay: Any, name: str) -> None:
    made = {path.name for path in (home.house.home / "corpora").glob("*")}
    code, said = replay(name, "--yes")
    assert (code, said[1:]) == (0, ["the same bytes", "the same genome"])
    assert {path.name for path in (home.house.home / "corpora").glob("*")} == made
    assert not list((home.house.home / "work").glob("again-*"))


def test_it_does_not_train_unasked_and_says_what_it_would_take(replay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("it trains"))
    code, (said,) = replay("rewarded")
    assert code == 2
    assert "2 steps of 2 prompts, 2 replies to each, on toy in 1 threads" in said
    assert "--yes" in said
    assert "rows" in replay("found")[1][0]


def test_an_interrupted_replay_goes_on(replay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, steps = Trainer.step, []

    def dies(self: Trainer, number: int, rows: Any) -> float:
        steps.append(number)
        if steps == [0, 1]:
            raise KeyboardInterrupt
        return real(self, number, rows)

    monkeypatch.setattr(Trainer, "step", dies)
    code, said = replay("patient", "--yes")
    assert code == 130
    assert said[-1].endswith("the same command resumes")
    code, said = replay("patient", "--yes")
    assert (code, said[1]) == (0, "the same bytes")
    assert steps[:3] == [0, 1, 1]


def test_a_wrong_genome_is_told_from_another_machine(replay: Any) -> None:
    code, said = replay("liar", "--yes")
    assert (code, said[1:]) == (1, ["OTHER BYTES in the same environment", "the same genome"])
    code, said = replay("traveller", "--yes")
    assert code == 1
    assert said[1] == "other bytes, which proves nothing: the environment differs in cpu"


def test_a_corpus_that_is_not_here_is_named(replay: Any) -> None:
    code, said = replay("stranger", "--yes")
    assert code == 2
    assert "not at hand" in said[-1]
