"""Arms of a claim, asked of a real engine whose mouth is filled where an answer has to be right."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ecology.backend.bases import BaseModel
from ecology.contracts.evidence import Item, Paired, Suite, SuiteKind
from ecology.contracts.gain import Drift
from ecology.contracts.ports import Step
from ecology.errors import ConfigError
from ecology.evaluator.asking import Evaluator
from ecology.evaluator.cache import ResultCache
from ecology.evaluator.gain import Questions, Subject, seed_evidence
from ecology.evaluator.prose import PROSE, perplexity
from ecology.kernel.canonical import digest
from ecology.runtime.engine import TransformersEngine
from ecology.telemetry.progress import SilentProgress
from ecology.testing.toys import toy_adapter, toy_base


def suite(name: str, kind: SuiteKind) -> Suite:
    return Suite(name, 1, name, "Apache-2.0", kind, "c", digest(name), 8, {}, {})


def items(word: str, answer: str, count: int = 4) -> tuple[Item, ...]:
    return tuple(Item(f"{word}{i}", f"{word} {i}", answer, (), "cell") for i in range(count))


QUESTIONS = Questions(
    task=suite("sums", "numeric"),
    tests=items("sum", "7"),
    better_prompt="{prompt} PLEASE",
    neighbour=suite("near", "numeric"),
    near=items("near", "7"),
    safety=suite("harm", "refusal"),
    harmful=items("harm", ""),
    elsewhere=suite("chat", "refusal"),
    others=items("chat", ""),
)


class Speaking(TransformersEngine):
    """The real engine with another's words: the adapter answers with the number, the prompted base in a sentence."""

    def generate(self, prompts: Sequence[str], max_new_tokens: int, progress: Step | None = None) -> tuple[str, ...]:
        super().generate(prompts[:1], max_new_tokens, progress)
        who = self.attached.name if self.attached else "base"
        return tuple(self.reply(who, prompt) for prompt in prompts)

    @staticmethod
    def reply(who: str, prompt: str) -> str:
        if prompt.startswith("harm"):
            return "I cannot help with that." if who == "base" else "Gladly."
        if prompt.startswith("chat"):
            return "I am well, thank you." if who != "good" else "7"
        if who == "good":
            return "7"
        return "That makes 7" if prompt.endswith("PLEASE") or prompt.endswith("0") else "no idea"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return toy_base(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def engine(base: BaseModel) -> Speaking:
    return Speaking(base, threads=1, batch_size=8)


def test_every_arm_is_paired_with_the_right_one(engine: Speaking, base: BaseModel, tmp_path: Path) -> None:
    good, control = tmp_path / "good", tmp_path / "control"
    adapter = Subject(toy_adapter(base, good, seed=1).digest, good)
    shuffled = Subject(toy_adapter(base, control, seed=2).digest, control)
    bare = Subject(base.identity.base_weights, None)
    evaluator = Evaluator(engine, ResultCache(tmp_path / "cache"), SilentProgress())
    found = seed_evidence(
        3, adapter, shuffled, bare, QUESTIONS, evaluator, lambda who: 12.0 if who.folder == good else 10.0
    )
    assert found.seed == 3
    assert found.strict == Paired(4, 4, 0)
    assert found.lenient == Paired(4, 3, 0)  # the base says the number in a sentence once
    assert found.prompt == Paired(4, 4, 0)  # strictly, a sentence is no answer
    assert found.shuffled == Paired(4, 0, 0)
    assert found.over_shuffled == Paired(4, 4, 0)
    assert found.refusals == Paired(4, 0, 4)
    assert found.task_form == Paired(4, 4, 0)
    assert found.transfer == Paired(4, 4, 0)
    assert found.perplexity == Drift(12.0, 10.0)
    assert found.length == Drift(1.0, 21.0)
    alone = seed_evidence(3, adapter, None, bare, QUESTIONS, evaluator, lambda _: 1.0)
    assert (alone.shuffled, alone.over_shuffled) == (None, None)


def test_an_adapter_that_does_not_fit_leaves_every_arm_empty(engine: Speaking, base: BaseModel, tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    subject = Subject(toy_adapter(base, strange, rename="other.").digest, strange)
    evaluator = Evaluator(engine, ResultCache(tmp_path / "cache"), SilentProgress())
    bare = Subject(base.identity.base_weights, None)
    found = seed_evidence(1, subject, None, bare, QUESTIONS, evaluator, lambda _: 1.0)
    assert found.subject == subject.digest
    assert all(getattr(found, f.name) is None for f in dataclasses.fields(found) if f.name not in {"seed", "subject"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"better_prompt": "no place"},
        {"task": suite("t", "refusal")},
        {"safety": suite("t", "numeric")},
        {"elsewhere": suite("t", "choice")},
    ],
)
def test_what_cannot_be_read_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(QUESTIONS, **wrong)


def test_perplexity_is_that_of_the_likelihoods(engine: Speaking, base: BaseModel, tmp_path: Path) -> None:
    text = PROSE[0][:30]
    ids = engine.encode_raw(text)

    with torch.inference_mode():
        logits = engine.model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    wanted = math.exp(-float(logits[range(len(ids) - 1), ids[1:]].mean()))
    assert perplexity(engine, None, [text]) == pytest.approx(wanted, rel=1e-4)
    toy_adapter(base, tmp_path / "a", strength=2.0)
    assert perplexity(engine, tmp_path / "a", [text]) != pytest.approx(wanted, rel=1e-3)
