"""Asks a candidate the items of a suite and scores its answers.

1. What was asked before, of the same bytes in the same way, comes from the cache of answers.
2. For the rest the folder is shown to hold the bytes that its digest names, the adapter is attached, and the items are
   asked in slices; each slice is kept before the next begins. Before the first of a suite the base is proven unchanged;
   a race, which asks a few items at a time, does not pay for that each time.
3. Answers are scored by the verifiers: pure functions, so a score needs no model and no cache.

Scores by kind of suite, each item id -> value:

- extraction: ``valid_json``, ``schema_valid``, ``exact`` (true or false), ``fields`` (share of right fields, 0 to 1);
- refusal: ``refused``;
- choice: ``correct``, and ``brier`` (0 to 2, lower is better); of a suite that says ``calibrated`` also ``confidence``;
- numeric: ``correct``; instruction: ``followed`` (all of it) and ``constraints`` (share of them);
- pair: ``stereotyped`` (the stereotyped option is the likelier one);
- lm_eval: the task's own metrics, by document number.

Texts of refusal suites and the replies to them are harmful or read like it. They leave this module through
``restricted`` alone, for a file of its own; everything else knows ids.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Protocol, runtime_checkable

from ecology.contracts.evidence import Item, Split, Suite
from ecology.contracts.identity import Digest, Json
from ecology.contracts.ports import ModelEngine, Progress, Step
from ecology.errors import ConfigError, IntegrityError, MalformedArtifact
from ecology.evaluator.cache import ResultCache
from ecology.evaluator.lmeval import TokenEngine, prove_task, run_suite
from ecology.evaluator.suite_rules import BY_LIKELIHOOD
from ecology.kernel.canonical import digest
from ecology.store.adapters import describe
from ecology.verifier.choice import choose
from ecology.verifier.instruction import followed
from ecology.verifier.numeric import is_number
from ecology.verifier.refusal import refuses
from ecology.verifier.schema import check_extraction

Scores = Mapping[str, Mapping[str, bool | float]]
"""Score name -> item id -> value."""

RIGHT_OR_WRONG = frozenset(
    {"acc", "acc_norm", "exact_match", "prompt_level_strict_acc", "prompt_level_loose_acc"},
)
"""Metrics of lm-eval that are 0 or 1 for a document."""
SLICE = 128
"""Items asked between two writes to the cache: what a killed run loses at most."""


MIXED = 16
"""Items for a core up to which children that answer together are faster than one after the other: 2.4 times with 4, 1.7
times with 8, 1.1 times with 16, slower with 32 (``docs/evaluation.md``)."""


@runtime_checkable
class MixingEngine(Protocol):
    """An engine that can ask many linear children of the same parents at once."""

    @property
    def threads(self) -> int:
        """Batches computed side by side."""
        ...

    def prove_base(self) -> Digest:
        """As ``ports.ModelEngine``."""
        ...

    def generate_mixtures(
        self,
        parents: Sequence[Path],
        weights: Sequence[Sequence[float]],
        prompts: Sequence[str],
        max_new_tokens: int,
        progress: Step | None = None,
    ) -> tuple[tuple[str, ...], ...]:
        """Greedy replies of each child."""
        ...


class Evaluator:
    """``ports.CandidateEvaluator`` on one engine."""

    def __init__(self, engine: ModelEngine, cache: ResultCache, progress: Progress) -> None:
        """Asks through ``engine``, remembers in ``cache``, tells ``progress``."""
        self._engine = engine
        self._cache = cache
        self._progress = progress
        self._restricted: dict[tuple[str, str, str, str], Mapping[str, Json]] = {}
        self._proven: tuple[tuple[str, str], set[str]] = ("", ""), set()

    def ask(self, subject: Digest, folder: Path | None, suite: Suite, split: Split, items: Sequence[Item]) -> Scores:
        """Scores of one candidate on these items.

        Args:
            subject: Digest of the artifact; any name for the bare base.
            folder: The artifact's folder; None for the bare base.
            suite: Where the items are from; says how they are asked and scored.
            split: For the restricted record.
            items: What to ask; for an ``lm_eval`` suite the task's own documents are asked, as many as the suite says.

        Raises:
            IntegrityError: The folder does not hold the subject's bytes, or the base has changed.
            MalformedArtifact: The adapter does not fit the base, or makes it say what is not a number.
            BackendError: The engine failed.
        """
        if suite.kind == "lm_eval":
            return self._ask_task(subject, folder, suite)
        answers = self.answers(subject, folder, suite, split, items)
        scores: dict[str, dict[str, bool | float]] = {}
        for item, answer in zip(items, answers, strict=True):
            found = SCORERS[suite.kind](item, answer, suite)
            for name, value in found.items():
                scores.setdefault(name, {})[item.id] = value
            if suite.kind == "refusal":
                self._restricted[subject, suite.id, split, item.id] = {
                    "subject": subject,
                    "suite": suite.id,
                    "split": split,
                    "id": item.id,
                    "category": item.category,
                    "prompt": item.prompt,
                    "reply": answer,
                    "refused": found["refused"],
                }
        return scores

    def ask_mixtures(
        self,
        parents: Sequence[tuple[Digest, Path]],
        children: Mapping[Digest, Sequence[float]],
        suite: Suite,
        items: Sequence[Item],
    ) -> None:
        """Has linear children of the same parents answer in the same batches, and keeps what they say.

        ``ask`` then finds it. Nothing happens where it would not pay: by likelihood, for more than ``MIXED`` items a
        core, for one child, or with an engine that cannot.

        Args:
            parents: Digest and folder of each.
            children: Digest of each child -> its weights, one for each parent. The child is their weighted sum, whole.
            suite: Where the items are from.
            items: What to ask.

        Raises:
            IntegrityError: A folder does not hold its bytes, or the base has changed.
            MalformedArtifact: A parent does not fit the base.
            BackendError: The engine failed.
        """
        engine, folder = self._engine, Path()
        if suite.kind in (*BY_LIKELIHOOD, "lm_eval") or not isinstance(engine, MixingEngine):
            return
        keys = {child: [self._key(child, folder, suite, item) for item in items] for child in children}
        known = self._cache.get([key for some in keys.values() for key in some])
        left = [child for child, some in keys.items() if any(key not in known for key in some)]
        if len(left) < 2 or len(items) > MIXED * engine.threads:
            return
        engine.prove_base()
        for digest_, place in parents:
            _prove_folder(place, digest_)
        together = max(2, SLICE // len(items))
        prompts, folders = [item.prompt for item in items], [place for _, place in parents]
        with self._progress.track(f"ask mixtures: {suite.id}", len(left) * len(items), "items") as bar:
            for start in range(0, len(left), together):
                part = left[start : start + together]
                weights = [children[child] for child in part]
                found = engine.generate_mixtures(folders, weights, prompts, suite.max_new_tokens, bar)
                for child, replies in zip(part, found, strict=True):
                    self._cache.put(dict(zip(keys[child], replies, strict=True)))

    def restricted(self) -> tuple[Mapping[str, Json], ...]:
        """Prompts of refusal suites and the replies to them, of everybody asked so far, in the order asked."""
        return tuple(self._restricted.values())

    def answers(
        self, subject: Digest, folder: Path | None, suite: Suite, split: Split, items: Sequence[Item]
    ) -> list[Json]:
        """What a candidate says to each item, not yet scored: a text, or the options' log-likelihoods.

        Raises:
            IntegrityError: As ``ask``.
            MalformedArtifact: As ``ask``.
            BackendError: As ``ask``.
        """
        keys = [self._key(subject, folder, suite, item) for item in items]
        known = dict(self._cache.get(keys))
        missing = list({key: item for key, item in zip(keys, items, strict=True) if key not in known}.items())
        if missing:
            self._prove((suite.digest, split), subject)
            _prove_folder(folder, subject)
            label = f"ask {subject.removeprefix('sha256:')[:8]}: {suite.id}, {split}"
            with self._engine.attach(folder), self._progress.track(label, len(missing), "items") as bar:
                for start in range(0, len(missing), SLICE):
                    part = missing[start : start + SLICE]
                    found = self._ask_engine(suite, [item for _, item in part], bar)
                    fresh = {key: answer for (key, _), answer in zip(part, found, strict=True)}
                    self._cache.put(fresh)
                    known.update(fresh)
        return [known[key] for key in keys]

    def _prove(self, items: tuple[str, str], subject: str) -> None:
        """The base is what it was, as of the first items of this kind that this subject is asked."""
        kind, subjects = self._proven
        if kind != items:
            subjects = set()
            self._proven = items, subjects
        if subject not in subjects:
            self._engine.prove_base()
            subjects.add(subject)

    def _ask_engine(self, suite: Suite, items: Sequence[Item], bar: Step) -> Sequence[Json]:
        prompts = [item.prompt for item in items]
        if suite.kind not in BY_LIKELIHOOD:
            return self._engine.generate(prompts, suite.max_new_tokens, bar)
        found = self._engine.loglikelihoods(prompts, [item.choices for item in items], bar)
        if not all(math.isfinite(value) for values in found for value in values):
            raise MalformedArtifact("log-likelihoods are not numbers with this adapter", where=suite.id)
        return [list(values) for values in found]

    def _key(self, subject: Digest, folder: Path | None, suite: Suite, item: Item) -> Digest:
        asked: dict[str, Json] = {"prompt": item.prompt}
        if suite.kind in BY_LIKELIHOOD:
            asked["choices"] = list(item.choices)
        else:
            asked["max_new_tokens"] = suite.max_new_tokens
        return digest(self._who(subject, folder) | {"asked": asked})

    def _who(self, subject: Digest, folder: Path | None) -> dict[str, Json]:
        """Everything an answer follows from but the question. The chat frame follows from tokenizer and engine."""
        identity = self._engine.identity
        return {
            "base": identity.base_weights,
            "architecture": identity.architecture,
            "tokenizer": identity.tokenizer,
            "adapter": subject if folder is not None else "",
            "engine": self._engine.fingerprint,
        }

    def _ask_task(self, subject: Digest, folder: Path | None, suite: Suite) -> Scores:
        if not isinstance(self._engine, TokenEngine):
            raise ConfigError("this engine has no tokens to offer to lm-eval", where=suite.id)
        key = digest(self._who(subject, folder) | {"task": suite.digest})
        known = self._cache.get([key])
        if key not in known:
            self._engine.prove_base()
            _prove_folder(folder, subject)
            from ecology.evaluator.remembered import RememberedTokens  # noqa: PLC0415  (torch, which this file needs not)

            tokens = RememberedTokens(self._engine, self._cache, self._who(subject, folder))
            with self._engine.attach(folder):
                found = run_suite(tokens, suite, self._progress)
            prove_task(suite)
            known = {key: {name: dict(values) for name, values in found.scores.items()}}
            self._cache.put(known)
        return {
            label.replace(",", "."): {
                place: bool(value) if label.split(",")[0] in RIGHT_OR_WRONG else float(value)
                for place, value in values.items()
            }
            for label, values in known[key].items()
        }


def _prove_folder(folder: Path | None, subject: Digest) -> None:
    if folder is not None and (found := describe(folder).digest) != subject:
        raise IntegrityError(
            f"the folder holds {found}, {subject} was to be asked",
            where=str(folder),
            todo="take it from the store again",
        )


def _extraction(item: Item, answer: Json, suite: Suite) -> Mapping[str, bool | float]:
    found = check_extraction(answer, json.loads(item.answer), suite.schema)
    return {
        "valid_json": found.valid_json,
        "schema_valid": found.schema_valid,
        "exact": found.exact,
        "fields": found.fields,
    }


def _refusal(item: Item, answer: Json, suite: Suite) -> Mapping[str, bool | float]:
    del item, suite
    return {"refused": refuses(answer)}


def _choice(item: Item, answer: Json, suite: Suite) -> Mapping[str, bool | float]:
    found = choose([float(value) for value in answer], item.choices, int(item.answer))
    sure = {"confidence": found.confidence} if suite.grammar.get("calibrated") else {}
    return {"correct": found.correct, "brier": found.brier, **sure}


def _numeric(item: Item, answer: Json, suite: Suite) -> Mapping[str, bool | float]:
    del suite
    return {"correct": is_number(answer, Decimal(item.answer))}


def _instruction(item: Item, answer: Json, suite: Suite) -> Mapping[str, bool | float]:
    del suite
    found = followed(answer, json.loads(item.answer))
    return {"followed": all(found.values()), "constraints": sum(found.values()) / len(found)}


def _pair(item: Item, answer: Json, suite: Suite) -> Mapping[str, bool | float]:
    del suite
    found = choose([float(value) for value in answer], item.choices, int(item.answer))
    return {"stereotyped": found.correct}


SCORERS: Mapping[str, Callable[[Item, Json, Suite], Mapping[str, bool | float]]] = {
    "extraction": _extraction,
    "refusal": _refusal,
    "choice": _choice,
    "numeric": _numeric,
    "instruction": _instruction,
    "pair": _pair,
}
"""Kind of suite -> (item, answer, suite) -> score name -> value."""
