"""The same question, asked otherwise: what should not change the answer must not change it.

Kinds of noise, each a pure function of an item and a seed, each leaving the right answer right:

- ``typos``: letters change places (``noise.noisy``);
- ``case``: the question in capitals or small letters, what the answer is made of aside;
- ``paraphrase``: a frame of other words around the question;
- ``options``: the options of a choice item in another order;
- ``distractor``: a true sentence that has nothing to do with the question, before or behind it.

Robustness is judged by the worst kind and by the spread, not by the mean, which one bad kind hardly moves: ``worst_of``
counts an item as right only if it is right under every kind. Sources: PromptBench (arXiv 2306.04528) for the kinds;
Mizrahi et al., "State of what art? A call for multi-prompt LLM evaluation", TACL 12, 2024, for worst of k and spread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ecology.contracts.evidence import Item
from ecology.errors import ConfigError
from ecology.evaluator.grammar import Draw
from ecology.evaluator.noise import noisy
from ecology.kernel.canonical import digest

FRAMES = (
    "Please help me with this. {}",
    "I want to know this. {}",
    "{} Thanks in advance.",
    "A request. {}",
)
DISTRACTORS = (
    "The bus was late today.", "My cousin paints fences.", "It has been windy since noon.", "The kettle is hot.",
    "Our neighbors have a new dog.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Robustness:
    """How steady right answers are, over k kinds of noise."""

    worst: int
    """Items right under every kind."""
    n: int
    spread: float
    """Best kind's rate minus the worst one's, 0 to 1."""
    rates: Mapping[str, float]
    """Kind -> rate, 0 to 1."""


def perturbed(item: Item, kind: str, seed: str) -> Item:
    """One item under one kind of noise.

    Args:
        item: Any item.
        kind: A name of ``KINDS``.
        seed: Same seed, same noise.

    Returns:
        An item with another id and the same right answer.

    Raises:
        ConfigError: The kind is unknown.
    """
    if kind not in KINDS:
        raise ConfigError(f"perturbation {kind!r} is unknown", todo=f"known: {', '.join(KINDS)}")
    changed = KINDS[kind](item, seed)
    fields = [changed.prompt, changed.answer, changed.choices, changed.category, kind, seed, item.id]
    return dataclasses.replace(changed, id=digest(fields)[7:23])


def shuffled_options(item: Item, seed: str) -> Item:
    """A choice item with its options rotated by at least one place; other items as they are."""
    k = len(item.choices)
    if k < 2:
        return item
    turn = 1 + Draw(f"{seed}\x00order\x00{item.id}").below(k - 1)
    choices = (*item.choices[turn:], *item.choices[:turn])
    return dataclasses.replace(item, choices=choices, answer=str((int(item.answer) - turn) % k))


def worst_of(right: Mapping[str, Sequence[bool]]) -> Robustness:
    """Worst of k and spread.

    Args:
        right: Kind of noise -> whether each item was right, the same items in the same order under every kind.

    Raises:
        ConfigError: No kinds, no items, or lists of different lengths.
    """
    lengths = {len(values) for values in right.values()}
    if len(lengths) != 1 or not (n := lengths.pop()):
        raise ConfigError("robustness needs the same items, at least one, under every kind of noise")
    rates = {kind: sum(values) / n for kind, values in right.items()}
    worst = sum(all(values[place] for values in right.values()) for place in range(n))
    return Robustness(worst, n, max(rates.values()) - min(rates.values()), rates)


def _body(item: Item, change: Callable[[str], str]) -> Item:
    """Changes the text behind the instruction, which ends at the first colon; all of it where there is none."""
    head, colon, body = item.prompt.partition(": ")
    prompt = f"{head}{colon}{change(body)}" if colon else change(item.prompt)
    return dataclasses.replace(item, prompt=prompt)


def _case(item: Item, seed: str) -> Item:
    upper = Draw(f"{seed}\x00case\x00{item.id}").below(2) == 0
    kept = {word for text in (item.answer, *item.choices) for word in text.lower().replace('"', " ").split()}

    def change(text: str) -> str:
        words = text.split(" ")
        return " ".join(w if w.strip(".,;:?!").lower() in kept else w.upper() if upper else w.lower() for w in words)

    # The answer of an extraction is made of words of the text, whose case has to be kept.
    return item if item.answer.startswith("{") else _body(item, change)


def _paraphrase(item: Item, seed: str) -> Item:
    frame = FRAMES[Draw(f"{seed}\x00frame\x00{item.id}").below(len(FRAMES))]
    return _body(item, frame.format)


def _distractor(item: Item, seed: str) -> Item:
    draw = Draw(f"{seed}\x00distractor\x00{item.id}")
    extra = DISTRACTORS[draw.below(len(DISTRACTORS))]
    before = draw.below(2) == 0
    return _body(item, lambda text: f"{extra} {text}" if before else f"{text} {extra}")


KINDS: Mapping[str, Callable[[Item, str], Item]] = {
    "typos": noisy,
    "case": _case,
    "paraphrase": _paraphrase,
    "options": shuffled_options,
    "distractor": _distractor,
}
"""Kind of noise -> (item, seed) -> item."""
