"""Teaching across families: what crosses is text, and what it rests on stays in the lineage."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ecology.backend.bases import Taught, Toy, ensure
from ecology.breeder import distill_on_policy
from ecology.breeder.breed import Bred, Parent, breed
from ecology.breeder.checkpoints import CHECKPOINT_FILE
from ecology.breeder.curricula import FinetuneOptions
from ecology.breeder.distill import DistillOptions, Teacher, distill, prepare
from ecology.breeder.finetune import supervise
from ecology.breeder.session import Session
from ecology.breeder.training import Trainer
from ecology.contracts.artifact import Corpus
from ecology.errors import ConfigError, IncompatibleParents
from ecology.kernel.canonical import digest, digest_bytes
from ecology.runtime.engine import TransformersEngine
from ecology.store.adapters import describe
from ecology.telemetry.progress import SilentProgress

SILENT = SilentProgress()
ROWS = [("say a", "aaa", False), ("say b", "bbb", False), ("say c", "ccc", False), ("say d", "ddd", False)]
PROMPTS = Corpus("letters", digest("letters"), "Apache-2.0", "train", False, 4)
NEAR = Corpus("near", digest("near"), "Apache-2.0", "train", False, 4)
FAR = Corpus("far", digest("far"), "MIT", "train", True, 4)
FOUND = FinetuneOptions(corpus="-", rank=8, layers=0, epochs=20, batch_size=4, learning_rate=2e-2, warmup_steps=2)
TEACH = DistillOptions(
    corpus="letters",
    ensemble="best",
    rank=8,
    layers=0,
    epochs=15,
    batch_size=4,
    learning_rate=2e-2,
    warmup_steps=2,
    max_new_tokens=5,
    checkpoint_steps=4,
)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TransformersEngine]:
    home = tmp_path_factory.mktemp("home")
    specs = {
        "toy": Toy(name="toy", seed=7),
        "wide": Toy(name="wide", seed=8, hidden=48),
        "far": Taught(name="far", steps=30),
    }
    return {
        name: TransformersEngine(ensure(spec, home, SILENT), threads=1, batch_size=8) for name, spec in specs.items()
    }


def founder(engine: TransformersEngine, corpus: Corpus, rows: Sequence[Any], folder: Path, name: str) -> Teacher:
    work = folder.parent / "work"
    session = Session(engine=engine, seed=1, out=folder, work=work, environment={}, progress=SILENT, name=name)
    bred = supervise(session, corpus, rows, FOUND, (name,))
    return Teacher(Parent(name, folder, bred.artifact, bred.genome), engine)


@pytest.fixture(scope="module")
def teachers(engines: dict[str, TransformersEngine], tmp_path_factory: pytest.TempPathFactory) -> tuple[Teacher, ...]:
    home = tmp_path_factory.mktemp("teachers")
    near = founder(engines["toy"], NEAR, ROWS[:3], home / "near", "near")
    far = founder(engines["far"], FAR, ROWS[2:], home / "far", "far")
    return near, far


Teach = Callable[..., tuple[Bred, bytes]]


@pytest.fixture
def teach(engines: dict[str, TransformersEngine], teachers: tuple[Teacher, ...], tmp_path: Path) -> Teach:
    count = iter(range(100))

    def run(options: DistillOptions = TEACH, by: Sequence[Teacher] = teachers, rows: Any = ROWS) -> tuple[Bred, bytes]:
        session = Session(
            engine=engines["toy"],
            seed=5,
            out=tmp_path / f"out{next(count)}",
            work=tmp_path / "work",
            environment={"threads": "1"},
            progress=SILENT,
            name="child",
        )
        return distill(session, by, PROMPTS, rows, options)

    return run


def test_a_child_of_two_families_knows_what_both_knew(
    teach: Teach, teachers: tuple[Teacher, ...], engines: dict[str, TransformersEngine]
) -> None:
    bred, data = teach()
    lineage, genome = bred.genome.lineage, bred.genome
    near, far = (teacher.parent for teacher in teachers)
    assert genome.identity == engines["toy"].identity != engines["far"].identity
    assert lineage.operator == "distill"
    assert lineage.parents == (near.artifact.digest, far.artifact.digest)
    assert lineage.generation == 1
    assert genome.capabilities == ("far", "near")
    said = {corpus.id: corpus for corpus in lineage.corpora}
    assert set(said) == {"near", "far", "letters", "distilled-letters"}
    made = said["distilled-letters"]
    assert made.digest == digest_bytes(data)
    assert made.no_train  # one of its teachers learned from a corpus that must not be trained on
    assert made.licence == "Apache-2.0 AND MIT"
    assert [json.loads(line)["prompt"] for line in data.splitlines()] == [prompt for prompt, *_ in ROWS]
    assert lineage.learned is not None
    right = lineage.learned["teachers_right"]
    assert right["near"] >= 0.5
    assert right["far"] >= 0.25
    with engines["toy"].attach(bred.folder):
        replies = engines["toy"].generate([row[0] for row in ROWS], 5)
    assert sum(reply == row[1] for reply, row in zip(replies, ROWS, strict=True)) >= 3
    assert describe(bred.folder) == bred.artifact


def test_the_same_lesson_gives_the_same_bytes_and_a_killed_one_goes_on(
    teach: Teach, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = dataclasses.replace(TEACH, epochs=6, checkpoint_steps=2)
    whole, _ = teach(short)
    real = Trainer.step
    steps: list[int] = []

    def dies(self: Trainer, number: int, rows: Sequence[int]) -> float:
        if number == 3:
            raise KeyboardInterrupt
        return real(self, number, rows)

    def counts(self: Trainer, number: int, rows: Sequence[int]) -> float:
        steps.append(number)
        return real(self, number, rows)

    monkeypatch.setattr(Trainer, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        teach(short)
    monkeypatch.setattr(Trainer, "step", counts)
    again, _ = teach(short)
    assert again.artifact == whole.artifact
    assert again.genome == whole.genome
    assert steps == [2, 3, 4, 5]  # what was done since the last checkpoint is all that was lost


def test_hard_examples_come_first_and_what_nobody_knows_is_the_corpus_own(teachers: tuple[Teacher, ...]) -> None:
    rows = [*ROWS, *((f"what is {n}?", "nobody knows", False) for n in range(4))]
    few = dataclasses.replace(TEACH, lessons=4, hard_share=1.0)
    lessons = prepare(teachers, rows, few, 3, SILENT)
    assert {row[1] for row in lessons.rows} == {"nobody knows"}  # all teachers wrong: the hardest
    assert (lessons.hard, lessons.own) == (4, 4)
    dropped = prepare(teachers, rows, dataclasses.replace(few, unverified="drop"), 3, SILENT)
    assert dropped.rows == ()
    lot = prepare(teachers, rows, dataclasses.replace(few, hard_share=0.0, lessons=8), 3, SILENT)
    assert len(lot.rows) == 8


def test_who_may_not_teach(teach: Teach, teachers: tuple[Teacher, ...], engines: dict[str, TransformersEngine]) -> None:
    near, far = teachers
    with pytest.raises(ConfigError, match="nobody teaches"):
        teach(by=[])
    with pytest.raises(IncompatibleParents, match="without a genome"):
        teach(by=[Teacher(dataclasses.replace(near.parent, genome=None), near.engine)])
    with pytest.raises(IncompatibleParents, match="another base than the one it is to answer on"):
        teach(by=[Teacher(far.parent, engines["toy"])])
    with pytest.raises(ConfigError, match="no row is left"):
        teach(dataclasses.replace(TEACH, unverified="drop"), rows=[("what is 1?", "nobody knows", False)])
    with pytest.raises(ConfigError, match="there are no prompts"):
        teach(rows=[])


def test_weights_of_two_families_are_refused_and_the_way_out_is_named(
    teachers: tuple[Teacher, ...], tmp_path: Path
) -> None:
    with pytest.raises(IncompatibleParents) as caught:
        breed("linear", {}, [teacher.parent for teacher in teachers], tmp_path / "out", 1, {})
    assert "ecology breed distill" in caught.value.todo


ON_POLICY = dataclasses.replace(
    TEACH, method="on_policy", epochs=3, batch_size=2, rank=2, checkpoint_steps=2, beta=0.5, learning_rate=1e-2
)


@pytest.fixture(scope="module")
def wide(engines: dict[str, TransformersEngine], tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """Another base with the student's vocabulary."""
    return founder(engines["wide"], NEAR, ROWS, tmp_path_factory.mktemp("wide") / "wide", "wide")


@pytest.mark.slow
def test_on_policy_moves_the_student_towards_the_teacher(
    teach: Teach, wide: Teacher, engines: dict[str, TransformersEngine]
) -> None:
    before = engines["toy"].prove_base()
    more = dataclasses.replace(
        ON_POLICY, beta=0.0, epochs=20, batch_size=4, rank=8, learning_rate=2e-2, checkpoint_steps=100
    )
    bred, _ = teach(more, by=[wide])
    learned = bred.genome.lineage.learned
    assert learned is not None
    assert learned["loss_last"] < 0.8 * learned["loss_first"]
    assert bred.genome.lineage.parents == (wide.parent.artifact.digest,)
    assert engines["toy"].prove_base() == before
    assert engines["toy"].liveness(bred.folder, ["say a"]) == ()


def test_on_policy_goes_on_where_it_was_killed_and_ends_at_the_same_bytes(
    teach: Teach, wide: Teacher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, _ = teach(ON_POLICY, by=[wide])
    real = distill_on_policy._Book.save
    saved: list[int] = []

    def dies(self: Any, optimiser: Any) -> None:
        real(self, optimiser)
        if self.done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(distill_on_policy._Book, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        teach(ON_POLICY, by=[wide])
    note = json.loads((tmp_path / "work" / CHECKPOINT_FILE).read_bytes())
    assert len(note["history"]) == 2

    def counts(self: Any, optimiser: Any) -> None:
        saved.append(self.done)
        real(self, optimiser)

    monkeypatch.setattr(distill_on_policy._Book, "save", counts)
    again, _ = teach(ON_POLICY, by=[wide])
    assert again.artifact == whole.artifact
    assert saved == [4, 6]
    assert not (tmp_path / "work").exists()


def test_on_policy_needs_one_vocabulary(teach: Teach, teachers: tuple[Teacher, ...]) -> None:
    with pytest.raises(IncompatibleParents, match="not the student's"):
        teach(ON_POLICY, by=teachers[1:])


def test_the_loss_is_the_generalised_divergence(wide: Teacher, engines: dict[str, TransformersEngine]) -> None:
    """TRL's kernel against the definition, on the toy's own logits."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    weight = torch.randn(7, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    for beta in (0.0, 0.5, 1.0):
        found, _, count = _chunked_divergence_loss(student, teacher, weight, weight, mask, beta)
        p, q = (teacher @ weight.T).log_softmax(-1), (student @ weight.T).log_softmax(-1)
        if beta in (0.0, 1.0):
            one, other = (p, q) if beta == 0.0 else (q, p)
            each = (one.exp() * (one - other)).sum(-1)
        else:
            middle = (beta * p.exp() + (1 - beta) * q.exp()).log()
            each = beta * (p.exp() * (p - middle)).sum(-1) + (1 - beta) * (q.exp() * (q - middle)).sum(-1)
        assert count == 3
        assert float(found) == pytest.approx(float((each * mask).sum() / 3), rel=1e-4)
