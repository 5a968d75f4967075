"""Whether what was trained on is what is asked: words, runs of words, and how much of a corpus a suite shares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ecology.contracts.evidence import Item, Suite
from ecology.evaluator.corpora import Row
from ecology.kernel.canonical import digest

SHINGLE = 8
"""Words; a run this long is copied text, as in published contamination checks."""


@dataclass(frozen=True)
class Overlap:
    """How much of a corpus is also in a suite."""

    exact: float
    """Share of the prompts (0 to 1) that are an item, letter case, spaces and punctuation aside."""
    shingles: float
    """Share of the prompts (0 to 1) that have eight words in a row in common with an item."""
    examples: tuple[str, ...]
    """Digests of the shared prompts, sorted; the texts may be harmful and stay out of reports."""


def overlap(rows: Iterable[Row], tested: Iterable[Item], wrap: str = "") -> Overlap:
    """Compare what was trained on with what is asked.

    Args:
        rows: The training rows.
        tested: Items of any suites and splits.
        wrap: Text that all prompts of a suite share and that is no evidence of copying, such as `Return JSON: {text}`.

    Returns:
        Shares of the training prompts; 0 and 0 for an empty corpus.
    """
    frame = words(wrap.replace("{text}", " "))
    asked = [unframed(frame, words(item.prompt)) for item in tested]
    whole = {tuple(words) for words in asked}
    pieces = {piece for words in asked for piece in _shingles(words)}
    trained = [unframed(frame, words(row.prompt)) for row in rows]
    same = [tuple(words) in whole for words in trained]
    near = [bool(pieces.intersection(_shingles(words))) for words in trained]
    shared = sorted({digest(" ".join(words)) for words, hit in zip(trained, same, strict=True) if hit})
    return Overlap(sum(same) / max(1, len(trained)), sum(near) / max(1, len(trained)), tuple(shared))


def words(text: str) -> list[str]:
    """Words of a text, letter case and punctuation aside."""
    return re.findall(r"\w+", text.casefold())


def frame_of(suite: Suite) -> list[str]:
    """Words that all prompts of a suite begin with, which are no evidence of copying."""
    return words(str(suite.grammar.get("wrap", "")).partition("{text}")[0])


def unframed(frame: Sequence[str], words: list[str]) -> list[str]:
    """The words behind the frame, where they begin with it."""
    return words[len(frame) :] if frame and words[: len(frame)] == list(frame) else words


def _shingles(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + SHINGLE]) for start in range(len(words) - SHINGLE + 1)}
