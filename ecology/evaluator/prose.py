"""Perplexity of a text that has nothing to do with any task: what an adapter does to the language itself.

The text was written for this project and is in no corpus; perplexity is per token of the base's own tokenizer, so it
compares an adapter with its base and never one base with another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ecology.contracts.ports import ModelEngine
from ecology.errors import MalformedArtifact
from ecology.runtime.packing import Question

PROSE = (
    "The ferry left the harbour at six, when the gulls were still asleep on the posts. Two men in yellow coats coiled "
    "the ropes, and a woman with a bicycle leaned on the rail and watched the lights of the town grow small.",
    "Bread needs four things and a fifth that costs nothing. Flour, water, salt and yeast can be bought; the time in "
    "which the dough rises cannot be hurried without paying for it in taste.",
    "My grandfather kept his tools in the order in which he used them. Whoever borrowed a chisel and hung it back on "
    "the wrong nail was told so, kindly, and told again the next week.",
    "A river does not take the shortest way to the sea. It goes round what is hard and through what is soft, and after "
    "some thousands of years the hard places are hills and the soft ones are meadows.",
    "The committee met in a cold room above the library. It agreed on the minutes of the last meeting, disagreed about "
    "the roof, and put the question of the clock off until somebody had found the key.",
    "When the snow melts, the path behind the mill is under water for a week. The children know where the stones are "
    "and cross without looking; visitors stand at the edge and wonder how it is done.",
    "Paper was dear, so she wrote her letters twice: once from left to right, and then, turning the sheet, across her "
    "own lines. Her sister could read them. The historians who found them took a year.",
    "Most gardens are too full. A plant that is given room grows into its own shape, and one soon sees which were "
    "worth keeping; the others can be given to a neighbour who has not learnt this yet.",
    "The night train stopped where there was no station. Nobody got on or off. After some minutes it moved again, and "
    "in the morning the guard said that it had been waiting for a deer to leave the track.",
    "He was a careful driver and a careless cook. His car never had a scratch, and his kitchen had been repainted "
    "twice, once after the affair with the sugar and once for reasons that he did not go into.",
)
"""Ten short pieces of plain prose."""


class Reads(ModelEngine, Protocol):
    """An engine that tells tokens and their likelihood."""

    def encode_raw(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...

    def score_tokens(self, questions: Sequence[Question], progress: Any = None) -> Any:
        """Log-likelihoods of answers behind contexts."""
        ...


def perplexity(engine: Reads, folder: Path | None, texts: Sequence[str] = PROSE) -> float:
    """Perplexity per token; the first token of each text is given.

    Args:
        engine: With no adapter attached.
        folder: The adapter's; None is the bare base.
        texts: Each of at least two tokens.

    Raises:
        MalformedArtifact: The adapter does not fit, or makes likelihoods that are no numbers.
        IntegrityError: The base has changed.
    """
    engine.prove_base()
    tokens = [engine.encode_raw(text) for text in texts]
    questions = [Question((ids[0],), (tuple(ids[1:]),)) for ids in tokens]
    with engine.attach(folder):
        scores = engine.score_tokens(questions)
    total = math.fsum(score.logprob for (score,) in scores)
    if not math.isfinite(total):
        raise MalformedArtifact("log-likelihoods are not numbers with this adapter", where=str(folder))
    return math.exp(min(700.0, -total / sum(len(ids) - 1 for ids in tokens)))
