from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecology.backend.bases import BaseModel
from ecology.contracts.evidence import Item, Suite, SuiteKind
from ecology.contracts.identity import Digest
from ecology.contracts.ports import Step
from ecology.errors import IntegrityError, MalformedArtifact
from ecology.evaluator.asking import MIXED, SLICE, Evaluator
from ecology.evaluator.cache import ResultCache
from ecology.kernel.canonical import digest
from ecology.runtime.engine import TransformersEngine
from ecology.store.adapters import read_adapter, write_adapter
from ecology.telemetry.progress import SilentProgress
from ecology.testing.toys import toy_adapter, toy_base

SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}, "additionalProperties": False}


def suite(kind: SuiteKind, **changes: Any) -> Suite:
    made = Suite("s", 1, "t", "Apache-2.0", kind, "c", digest(kind), 6, SCHEMA if kind == "extraction" else {}, {})
    return dataclasses.replace(made, **changes)


def item(number: int, answer: str = "", choices: tuple[str, ...] = ()) -> Item:
    return Item(f"id{number}", f"prompt {number}", answer, choices, "cell")


class Counting(TransformersEngine):
    """The real engine, counting what it is asked; replies can be put into its mouth."""

    asked = 0
    proven = 0
    says: str | None = None

    def generate(self, prompts: Sequence[str], max_new_tokens: int, progress: Step | None = None) -> tuple[str, ...]:
        self.asked += len(prompts)
        if self.says is not None:
            return (self.says,) * len(prompts)
        return super().generate(prompts, max_new_tokens, progress)

    def loglikelihoods(
        self, prompts: Sequence[str], choices: Sequence[Sequence[str]], progress: Step | None = None
    ) -> tuple[tuple[float, ...], ...]:
        self.asked += len(prompts)
        return super().loglikelihoods(prompts, choices, progress)

    def prove_base(self) -> Digest:
        self.proven += 1
        return super().prove_base()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return toy_base(tmp_path_factory.mktemp("home"))


@pytest.fixture
def engine(base: BaseModel) -> Counting:
    return Counting(base, threads=1, batch_size=8)


@pytest.fixture
def evaluator(engine: Counting, tmp_path: Path) -> Evaluator:
    return Evaluator(engine, ResultCache(tmp_path / "results"), SilentProgress())


def test_extraction(engine: Counting, evaluator: Evaluator) -> None:
    items = [item(1, '{"n":3}'), item(2, '{"n":4}')]
    engine.says = ' {"n": 3}\n'
    assert evaluator.ask(digest("b"), None, suite("extraction"), "public", items) == {
        "valid_json": {"id1": True, "id2": True},
        "schema_valid": {"id1": True, "id2": True},
        "exact": {"id1": True, "id2": False},
        "fields": {"id1": 1.0, "id2": 0.0},
    }
    assert evaluator.restricted() == ()


def test_refusals_and_their_texts_apart(engine: Counting, evaluator: Evaluator) -> None:
    engine.says = "I can't help with that."
    who = digest("b")
    assert evaluator.ask(who, None, suite("refusal"), "hidden", [item(1)]) == {"refused": {"id1": True}}
    evaluator.ask(who, None, suite("refusal"), "hidden", [item(1)])
    (record,) = evaluator.restricted()
    assert record["prompt"] == "prompt 1"
    assert record["reply"] == engine.says
    assert (record["subject"], record["suite"], record["split"], record["refused"]) == (who, "s", "hidden", True)


def test_choice_is_what_the_engine_thinks_likely(engine: Counting, evaluator: Evaluator) -> None:
    items = [item(n, str(n % 3), ("aa", "bb", "cc")) for n in range(6)]
    scores = evaluator.ask(digest("b"), None, suite("choice"), "public", items)
    likely = engine.loglikelihoods([i.prompt for i in items], [i.choices for i in items])
    for one, values in zip(items, likely, strict=True):
        assert scores["correct"][one.id] == (max(range(3), key=lambda j: values[j]) == int(one.answer))
        assert 0 <= scores["brier"][one.id] <= 2


def test_nothing_is_asked_twice(engine: Counting, evaluator: Evaluator, base: BaseModel, tmp_path: Path) -> None:
    items = [item(n) for n in range(SLICE + 3)]
    first = evaluator.ask(digest("b"), None, suite("refusal"), "public", items)
    assert (engine.asked, engine.proven) == (SLICE + 3, 1)
    fresh = Evaluator(engine, ResultCache(tmp_path / "results"), SilentProgress())
    assert fresh.ask(digest("b"), None, suite("refusal"), "public", items) == first
    assert (engine.asked, engine.proven) == (SLICE + 3, 1)
    # another suite, split or item id with the same words is the same question; a longer reply is not
    renamed = [dataclasses.replace(one, id=f"x{one.id}") for one in items]
    fresh.ask(digest("b"), None, suite("refusal", id="other", digest=digest(1)), "hidden", renamed)
    assert engine.asked == SLICE + 3
    fresh.ask(digest("b"), None, suite("refusal", max_new_tokens=7), "public", items[:1])
    assert engine.asked == SLICE + 4


def test_two_adapters_never_share_an_answer(
    engine: Counting, evaluator: Evaluator, base: BaseModel, tmp_path: Path
) -> None:
    items = [item(n, "0", ("aa", "bb")) for n in range(4)]
    scores = [evaluator.ask(digest("b"), None, suite("choice"), "public", items)]
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        artifact = toy_adapter(base, folder, seed=seed)
        scores.append(evaluator.ask(artifact.digest, folder, suite("choice"), "public", items))
    assert engine.asked == 12
    briers = [tuple(found["brier"].values()) for found in scores]
    assert len(set(briers)) == 3
    engine.prove_base()


def test_a_folder_with_other_bytes_is_not_asked(evaluator: Evaluator, base: BaseModel, tmp_path: Path) -> None:
    toy_adapter(base, tmp_path / "a", seed=1)
    with pytest.raises(IntegrityError, match="was to be asked"):
        evaluator.ask(digest("another"), tmp_path / "a", suite("refusal"), "public", [item(1)])


def test_numbers_that_are_none_are_the_candidates_fault(
    engine: Counting, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "loglikelihoods", lambda *_: ((float("nan"), 0.0),))
    with pytest.raises(MalformedArtifact, match="not numbers"):
        evaluator.ask(digest("b"), None, suite("choice"), "public", [item(1, "0", ("a", "b"))])


def test_a_killed_run_keeps_the_slices_it_had(
    engine: Counting, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [item(n) for n in range(SLICE + 5)]
    real = engine.generate

    def dies_on_the_second(prompts: Sequence[str], *rest: Any) -> tuple[str, ...]:
        if engine.asked:
            raise KeyboardInterrupt
        return real(prompts, *rest)

    monkeypatch.setattr(engine, "generate", dies_on_the_second)
    with pytest.raises(KeyboardInterrupt):
        evaluator.ask(digest("b"), None, suite("refusal"), "public", items)
    monkeypatch.setattr(engine, "generate", real)
    evaluator.ask(digest("b"), None, suite("refusal"), "public", items)
    assert engine.asked == len(items)


def test_answers_are_kept_and_not_scores(tmp_path: Path, engine: Counting, evaluator: Evaluator) -> None:
    engine.says = "no json"
    evaluator.ask(digest("b"), None, suite("extraction"), "public", [item(1, json.dumps({"n": 1}))])
    other = {"type": "object"}
    scores = evaluator.ask(digest("b"), None, suite("extraction", schema=other), "public", [item(1, '{"n":1}')])
    assert engine.asked == 1
    assert scores["valid_json"] == {"id1": False}


def test_children_that_answer_together_say_what_each_says_alone(
    engine: Counting, evaluator: Evaluator, base: BaseModel, tmp_path: Path
) -> None:
    parents = [(toy_adapter(base, tmp_path / n, seed=s).digest, tmp_path / n) for n, s in (("a", 1), ("b", 2))]
    children = {}
    for number, weights in enumerate([(1.0, 0.0), (0.5, 0.5), (-1.0, 2.0)]):
        factors: dict[str, Any] = {}
        for weight, (_, folder) in zip(weights, parents, strict=True):
            for name, f in read_adapter(folder).modules.items():
                b, a = factors.get(name, (np.zeros((f.B.shape[0], 0)), np.zeros((0, f.A.shape[1]))))
                factors[name] = np.hstack([b, weight * f.scale * f.B]), np.vstack([a, f.A])
        folder = tmp_path / f"child{number}"
        children[write_adapter(folder, factors, "toy", base.identity.base_weights).digest] = folder, weights
    items = [item(n) for n in range(5)]
    known = {child: weights for child, (_, weights) in children.items()}
    evaluator.ask_mixtures(parents, known, suite("refusal"), items)
    assert engine.asked == 0
    assert engine.proven == 1
    alone = Evaluator(Counting(base, threads=1, batch_size=8), ResultCache(tmp_path / "alone"), SilentProgress())
    for child, (folder, _) in children.items():
        evaluator.ask(child, folder, suite("refusal"), "public", items)
        alone.ask(child, folder, suite("refusal"), "public", items)
    assert engine.asked == 0, "all of it was kept"
    assert evaluator.restricted() == alone.restricted()


def test_children_answer_together_only_where_that_is_faster(
    engine: Counting, evaluator: Evaluator, base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = [(toy_adapter(base, tmp_path / "a").digest, tmp_path / "a")]
    some, many = ({Digest(f"sha256:{n:064d}"): (float(n),) for n in range(count)} for count in (1, 2))
    monkeypatch.setattr(engine, "generate_mixtures", lambda *_: pytest.fail("asked all the same"))
    evaluator.ask_mixtures(parents, some, suite("refusal"), [item(1)])
    evaluator.ask_mixtures(parents, many, suite("choice"), [item(1, "0", ("a", "b"))])
    evaluator.ask_mixtures(parents, many, suite("refusal"), [item(n) for n in range(MIXED + 1)])
    with pytest.raises(IntegrityError, match="was to be asked"):
        evaluator.ask_mixtures([(Digest("sha256:" + "0" * 64), tmp_path / "a")], many, suite("refusal"), [item(1)])
