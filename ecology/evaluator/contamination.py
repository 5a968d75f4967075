"""Was it trained on what it is judged on? Four signs, from the cheapest to the dearest.

- *Overlap*: n-grams that a corpus shares with the items (``suites.overlap`` looks from the corpus, ``covered`` from the
  items). Needs the corpus.
- *Canaries*: each suite carries a string that occurs nowhere else; a corpus that holds it was made from the suite.
- *Gap*: public items against twins, drawn from the same cells with the secret seed and never published. What somebody
  has learnt by heart is right on the public ones only. Template and difficulty are the same, so the gap is not a shift
  of distribution (the idea of GSM1k, arXiv 2405.00332).
- *Shuffle*: the options change places and the score falls: places were learnt and not answers.

The last two ask the model and find contamination whatever the lineage claims. A sign is a violation when its bound is
above ``TOLERATED``, not when the point is: chance is no guilt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ecology.contracts.evidence import Item, Paired, Suite
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError
from ecology.evaluator.copying import SHINGLE, frame_of, unframed, words
from ecology.evaluator.corpora import Row
from ecology.evaluator.suites import items
from ecology.kernel.differences import independent
from ecology.kernel.statistics import tango

TOLERATED = 0.10
"""A fall that is proven to be larger is a violation."""
CONFIDENCE = 0.99
"""One-sided, of each sign: many suites are looked at, and an accusation should be rare."""


def twins(suite: Suite, seed: str, n: int) -> tuple[Item, ...]:
    """Items of the public cells with a secret seed, those left out that are public.

    Args:
        suite: With a public split.
        seed: Secret.
        n: How many at most; fewer where the cells have no more to give.
    """
    public = {item.prompt for item in items(suite, "public")}
    found: tuple[Item, ...] = ()
    wanted = n
    while wanted:
        try:
            found = items(suite, "public", seed, wanted + len(public))
            break
        except ConfigError:  # the public cells have no more to give
            wanted //= 2
    return tuple(item for item in found if item.prompt not in public)[:n]


def gap(public: Sequence[bool], hidden: Sequence[bool]) -> tuple[float, float, float]:
    """Public rate minus twins' rate, with one-sided bounds at ``CONFIDENCE``.

    Raises:
        ConfigError: One of the two is empty.
    """
    k, n, other, m = sum(public), len(public), sum(hidden), len(hidden)
    low, high = independent(k, n, other, m, CONFIDENCE)
    return k / n - other / m, low, high


def gap_problem(suite: str, public: Sequence[bool], hidden: Sequence[bool]) -> str:
    """What is wrong with a suite's gap; empty where nothing is proven."""
    value, low, _ = gap(public, hidden)
    if low <= TOLERATED:
        return ""
    return (
        f"{suite}: {sum(public)} of {len(public)} public items right, {sum(hidden)} of {len(hidden)} twins: "
        f"{value:+.2f}, at least {low:+.2f}"
    )


def shuffle_problem(suite: str, plain: Sequence[bool], shuffled: Sequence[bool]) -> str:
    """What is wrong with a suite whose options changed places; empty where nothing is proven.

    Args:
        suite: For the message.
        plain: Right or wrong, item by item.
        shuffled: The same items in the same order, with their options in another order.

    Raises:
        ConfigError: No items.
    """
    won = sum(a and not b for a, b in zip(plain, shuffled, strict=True))
    lost = sum(b and not a for a, b in zip(plain, shuffled, strict=True))
    seen = Paired(len(plain), won, lost)
    low, _ = tango(seen.n10, seen.n01, seen.n, CONFIDENCE)
    if low <= TOLERATED:
        return ""
    return f"{suite}: {won - lost} of {len(plain)} right answers were lost when the options changed places"


def canaries(corpora: Mapping[Digest, Sequence[Row]], suites: Iterable[Suite]) -> tuple[str, ...]:
    """Corpora that hold the canary of a suite, one sentence each."""
    marks = {str(suite.grammar["canary"]): suite.id for suite in suites if suite.grammar.get("canary")}
    return tuple(
        f"corpus {digest[7:19]} holds the canary of suite {name}"
        for digest, rows in corpora.items()
        for mark, name in marks.items()
        if any(mark in row.prompt or mark in row.completion for row in rows)
    )


def covered(tested: Sequence[Item], rows: Iterable[Row]) -> float:
    """Share of the items of which at least half of all runs of eight words stand in the corpus; 0 to 1.

    Items shorter than that count as a whole. Source: the n-gram criterion of GPT-3's contamination analysis (arXiv
    2005.14165, appendix C), with 8 words for short items.
    """
    known = _runs(rows)
    return sum(_stands(item, known) for item in tested) / max(1, len(tested))


def covered_problems(
    tested: Sequence[tuple[Suite, Sequence[Item]]], corpora: Mapping[Digest, Sequence[Row]]
) -> tuple[str, ...]:
    """Suites of which a corpus holds items, one sentence each.

    Args:
        tested: Suites, and their items, public and hidden; what all prompts of a suite begin with does not count.
        corpora: Rows by digest.
    """
    problems = []
    for corpus, rows in corpora.items():
        known = _runs(rows)
        for suite, asked in tested:
            frame = frame_of(suite)
            count = sum(_stands(item, known, frame) for item in asked)
            if count:
                problems.append(f"corpus {corpus[7:19]} holds {count} of {len(asked)} items of suite {suite.id}")
    return tuple(problems)


def _runs(rows: Iterable[Row]) -> frozenset[tuple[str, ...]]:
    """Every run of eight words in a corpus, and every shorter prompt or completion as a whole."""
    found: set[tuple[str, ...]] = set()
    for row in rows:
        for text in (words(row.prompt), words(row.completion), words(f"{row.prompt} {row.completion}")):
            found.update(tuple(text[i : i + SHINGLE]) for i in range(len(text) - SHINGLE + 1))
            if 0 < len(text) < SHINGLE:
                found.add(tuple(text))
    return frozenset(found)


def _stands(item: Item, known: frozenset[tuple[str, ...]], frame: Sequence[str] = ()) -> bool:
    said = unframed(frame, words(item.prompt))
    size = min(SHINGLE, len(said))
    runs = [tuple(said[i : i + size]) for i in range(len(said) - size + 1)] if said else []
    return bool(runs) and 2 * sum(run in known for run in runs) >= len(runs)
