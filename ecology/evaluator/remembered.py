"""An engine's tokens through the cache of answers, for lm-eval, which asks a whole task at once.

Each question is kept by its content as ``asking`` keeps items: what the answer follows from, and the token ids that
were asked. Questions go to the engine in slices and each slice is kept before the next begins, so a killed run loses
one, and two tasks that ask the same ask it once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ecology.contracts.identity import Digest, Json
from ecology.evaluator.cache import ResultCache
from ecology.evaluator.lmeval import TokenEngine
from ecology.kernel.canonical import digest
from ecology.runtime.packing import Question
from ecology.runtime.scoring import Score

SLICE = 128
"""Questions asked between two writes to the cache: what a killed run loses at most."""

Q = TypeVar("Q")


class RememberedTokens:
    """A ``TokenEngine`` that asks only what was not asked before."""

    def __init__(self, engine: TokenEngine, cache: ResultCache, who: Mapping[str, Json]) -> None:
        """Wraps an engine as it stands.

        Args:
            engine: With the adapter attached that ``who`` names.
            cache: Where answers are kept.
            who: Everything an answer follows from but the question.
        """
        self._engine, self._cache, self._who = engine, cache, dict(who)

    @property
    def fingerprint(self) -> str:
        """The engine's."""
        return self._engine.fingerprint

    @property
    def max_tokens(self) -> int:
        """The engine's."""
        return self._engine.max_tokens

    @property
    def ends(self) -> frozenset[int]:
        """The engine's."""
        return self._engine.ends

    def encode_raw(self, text: str) -> list[int]:
        """As the engine's."""
        return self._engine.encode_raw(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """As the engine's."""
        return self._engine.decode(tokens)

    def score_tokens(self, questions: Sequence[Question], progress: Any = None) -> tuple[tuple[Score, ...], ...]:
        """As the engine's."""
        asked: list[Json] = [{"context": list(q.context), "answers": [list(a) for a in q.answers]} for q in questions]

        def ask(some: Sequence[Question]) -> list[Json]:
            found = self._engine.score_tokens(some, progress)
            return [[[score.logprob, score.greedy] for score in scores] for scores in found]

        found = self._recall(asked, questions, ask, progress)
        return tuple(tuple(Score(float(value), bool(greedy)) for value, greedy in scores) for scores in found)

    def continue_tokens(
        self,
        sequences: Sequence[Sequence[int]],
        max_new_tokens: int,
        progress: Any = None,
        stops: Sequence[str] = (),
    ) -> tuple[tuple[int, ...], ...]:
        """As the engine's."""
        settings: dict[str, Json] = {"max_new_tokens": max_new_tokens, "stops": sorted(stops)}
        asked: list[Json] = [{"sequence": list(sequence)} | settings for sequence in sequences]

        def ask(some: Sequence[Sequence[int]]) -> list[Json]:
            return [list(reply) for reply in self._engine.continue_tokens(some, max_new_tokens, progress, stops)]

        return tuple(tuple(int(t) for t in reply) for reply in self._recall(asked, sequences, ask, progress))

    def _recall(
        self, asked: Sequence[Json], questions: Sequence[Q], ask: Callable[[Sequence[Q]], list[Json]], progress: Any
    ) -> list[Any]:
        """Answers in the order of the questions, from the cache or, slice by slice, from the engine."""
        keys: list[Digest] = [digest(self._who | {"tokens": one}) for one in asked]
        known: dict[Digest, Json] = dict(self._cache.get(keys))
        missing = list({key: q for key, q in zip(keys, questions, strict=True) if key not in known}.items())
        if progress is not None and len(missing) < len(keys):
            progress.advance(len(keys) - len(missing))
        for start in range(0, len(missing), SLICE):
            part = missing[start : start + SLICE]
            answers = ask([question for _, question in part])
            fresh = {key: answer for (key, _), answer in zip(part, answers, strict=True)}
            self._cache.put(fresh)
            known.update(fresh)
        return [known[key] for key in keys]
