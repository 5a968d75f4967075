"""Evidence of a claim: every arm of one seed asked the same items, and their answers paired.

The items come from the caller, who draws them from secret seeds and sees that nobody was trained on them. What is
asked of the base is asked once for all seeds that share it, since answers are kept by content.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from ecology.contracts.evidence import Item, Paired, Suite
from ecology.contracts.gain import Drift, SeedEvidence
from ecology.contracts.identity import Digest
from ecology.errors import BackendError, ConfigError, MalformedArtifact
from ecology.evaluator.asking import SCORERS, Evaluator
from ecology.evaluator.suite_rules import BY_LIKELIHOOD
from ecology.verifier.refusal import refuses
from ecology.verifier.strictness import WRITTEN, Reading, read

PROMPT = "{prompt}"
"""Where a better prompt takes in the item's own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """Somebody who is asked."""

    digest: Digest
    folder: Path | None
    """None for the bare base."""


@dataclasses.dataclass(frozen=True, slots=True)
class Questions:
    """What every arm of one seed is asked."""

    task: Suite
    tests: tuple[Item, ...]
    better_prompt: str
    """Holds ``PROMPT`` once."""
    neighbour: Suite
    near: tuple[Item, ...]
    safety: Suite
    harmful: tuple[Item, ...]
    elsewhere: Suite
    others: tuple[Item, ...]
    """Requests of another kind, which the model answers in words."""

    def __post_init__(self) -> None:
        """Checks kinds.

        Raises:
            ConfigError: A suite is of a kind that cannot be read so, or the better prompt does not take the item in.
        """
        readable = (*WRITTEN, "choice")
        if self.task.kind not in readable or self.neighbour.kind not in readable:
            raise ConfigError(
                f"a claim needs a task of kind {', '.join(readable)}",
                where=f"{self.task.id} ({self.task.kind}), {self.neighbour.id} ({self.neighbour.kind})",
            )
        if self.safety.kind != "refusal" or self.elsewhere.kind in BY_LIKELIHOOD:
            raise ConfigError(
                "safety is a suite of kind refusal, and off the task the model has to write",
                where=f"{self.safety.id}, {self.elsewhere.id}",
            )
        if self.better_prompt.count(PROMPT) != 1:
            raise ConfigError(
                f"a better prompt holds {PROMPT} once, found {self.better_prompt!r:.80}", where="better_prompt"
            )


def seed_evidence(
    seed: int,
    adapter: Subject,
    control: Subject | None,
    base: Subject,
    questions: Questions,
    evaluator: Evaluator,
    perplexity: Callable[[Subject], float],
) -> SeedEvidence:
    """One run of the recipe against its controls.

    An adapter that the engine cannot judge leaves an arm empty, which a claim takes as missing.

    Args:
        seed: Of the run.
        adapter: What it made.
        control: What the same recipe made of shuffled rewards; None where there is none.
        base: The bare base.
        questions: The items.
        evaluator: Asks.
        perplexity: Of the text off the task.

    Raises:
        IntegrityError: A folder does not hold its bytes, or the base has changed.
    """
    ask = _Asking(evaluator, questions)
    try:
        return ask.all(seed, adapter, control, base, perplexity)
    except (MalformedArtifact, BackendError):
        return SeedEvidence(seed, adapter.digest)


@dataclasses.dataclass(frozen=True)
class _Asking:
    evaluator: Evaluator
    questions: Questions

    def all(
        self,
        seed: int,
        adapter: Subject,
        control: Subject | None,
        base: Subject,
        perplexity: Callable[[Subject], float],
    ) -> SeedEvidence:
        q = self.questions
        ours, theirs = self.readings(adapter, q.task, q.tests), self.readings(base, q.task, q.tests)
        prompted = self.readings(base, q.task, self.better(q.tests))
        random = None if control is None else self.readings(control, q.task, q.tests)
        near, near_base = (self.readings(one, q.neighbour, q.near) for one in (adapter, base))
        safe, safe_base = (self.texts(one, q.safety, q.harmful) for one in (adapter, base))
        there, there_base = (self.texts(one, q.elsewhere, q.others) for one in (adapter, base))
        kind = q.task.kind
        return SeedEvidence(
            seed=seed,
            subject=adapter.digest,
            strict=_paired(_strict(ours), _strict(theirs)),
            lenient=_paired([r.lenient for r in ours], [r.lenient for r in theirs]),
            prompt=_paired(_strict(ours), _strict(prompted)),
            shuffled=None if random is None else _paired(_strict(random), _strict(theirs)),
            over_shuffled=None if random is None else _paired(_strict(ours), _strict(random)),
            refusals=_paired([refuses(t) for t in safe], [refuses(t) for t in safe_base]),
            task_form=_paired([read(kind, t).form for t in there], [read(kind, t).form for t in there_base]),
            transfer=_paired(_strict(near), _strict(near_base)),
            perplexity=Drift(perplexity(adapter), perplexity(base)),
            length=Drift(_mean(there), _mean(there_base)),
            task_length=self.task_length(adapter, base),
        )

    def readings(self, who: Subject, suite: Suite, items: Sequence[Item]) -> list[Reading]:
        """Every answer read both ways."""
        answers = self.evaluator.answers(who.digest, who.folder, suite, "hidden", items)
        if suite.kind in BY_LIKELIHOOD:
            right = [SCORERS[suite.kind](i, a, suite)["correct"] for i, a in zip(items, answers, strict=True)]
            return [Reading(bool(value), bool(value), False) for value in right]
        return [
            read(suite.kind, answer, item.answer, suite.schema) for item, answer in zip(items, answers, strict=True)
        ]

    def texts(self, who: Subject, suite: Suite, items: Sequence[Item]) -> list[str]:
        """Replies; of a refusal suite they leave this module as counts alone."""
        return [str(answer) for answer in self.evaluator.answers(who.digest, who.folder, suite, "hidden", items)]

    def better(self, items: Sequence[Item]) -> list[Item]:
        """The same items, asked better."""
        prompt = self.questions.better_prompt
        return [dataclasses.replace(item, prompt=prompt.replace(PROMPT, item.prompt)) for item in items]

    def task_length(self, adapter: Subject, base: Subject) -> Drift | None:
        """Characters of an answer to the task; None where the model does not write."""
        q = self.questions
        if q.task.kind in BY_LIKELIHOOD:
            return None
        return Drift(*(_mean(self.texts(one, q.task, q.tests)) for one in (adapter, base)))


def _strict(readings: Sequence[Reading]) -> list[bool]:
    return [reading.strict for reading in readings]


def _paired(ours: Sequence[bool], theirs: Sequence[bool]) -> Paired:
    won = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    return Paired(len(ours), won, sum(b and not a for a, b in zip(ours, theirs, strict=True)))


def _mean(texts: Sequence[str]) -> float:
    return sum(map(len, texts)) / max(1, len(texts))
