"""Items with noise in the question: what people type when they are in a hurry.

Two letters inside a word change places in about every third longer word, and a courtesy goes before or behind. Words
that the answer is made of stay as they are, so the right answer stays right. Source of the idea: character and
sentence-level perturbations of PromptBench (arXiv 2306.04528).
"""

from __future__ import annotations

import dataclasses
import re

from ecology.contracts.evidence import Item
from ecology.kernel.canonical import digest

COURTESIES = ("hi there, ", "quick one: ", "hello! ", "", "")
CLOSINGS = (" thanks!!", " pls", " cheers", "", "")


def noisy(item: Item, seed: str) -> Item:
    """The same question, typed in a hurry.

    Args:
        item: Any item whose prompt has an instruction up to the first colon and a text behind it; the former stays.
        seed: Decides the noise together with the item's id: same seed, same noise.

    Returns:
        An item with another id, the same answer and category.
    """
    head, colon, body = item.prompt.partition(": ")
    if not colon:
        head, body = "", item.prompt
    answer = item.answer.lower()
    draw = _Draw(f"{seed}\0{item.id}")
    words = [
        _swap(word, draw) if _may_change(word, answer) and draw.below(3) == 0 else word for word in body.split(" ")
    ]
    text = COURTESIES[draw.below(len(COURTESIES))] + " ".join(words) + CLOSINGS[draw.below(len(CLOSINGS))]
    prompt = f"{head}{colon}{text}"
    fields = {
        "prompt": prompt,
        "answer": item.answer,
        "choices": item.choices,
        "category": item.category,
        "noise": seed,
    }
    return dataclasses.replace(item, id=digest(fields).removeprefix("sha256:")[:16], prompt=prompt)


class _Draw:
    """Small numbers from SHA-256 of a counter: the same on every Python and every machine."""

    def __init__(self, seed: str) -> None:
        self._seed, self._count = seed, 0

    def below(self, bound: int) -> int:
        """0 to ``bound`` - 1; the bias of the modulus is below 2**-200."""
        self._count += 1
        return int(digest([self._seed, self._count]).removeprefix("sha256:"), 16) % bound


def _may_change(word: str, answer: str) -> bool:
    core = re.sub(r"\W", "", word).lower()
    return len(core) >= 5 and core.isalpha() and word == word.lower() and core.rstrip("s") not in answer


def _swap(word: str, draw: _Draw) -> str:
    place = 1 + draw.below(max(1, len(word) - 3))
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
