"""Does a text hold what must not be trained on? Word n-grams and canary strings against forbidden sets.

A corpus can be renamed, shuffled, cut and mixed; its sentences stay. Two texts that share ``n`` words in a row share a
source, for an n that chance does not reach: 13, as in the contamination studies of language models. A canary is a
string that its owner put into a data set for this purpose; it is looked for as it stands, letters' case aside.

What is found taints: the corpus counts as marked no-train, the mark goes into the genome of whatever is trained on it,
and from there to every descendant. What is not found proves little: a paraphrase shares no n-gram.

Words are runs of letters and digits after Unicode NFKC and case folding. Sources: Brown et al. 2020, appendix C
(13-grams); Carlini et al. 2019 (canaries); BIG-bench's training canary.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

WORDS = 13
"""Length of an n-gram, in words."""
LEAST = 5
"""Words of the shortest text that is compared as a whole."""
_WORD = re.compile(r"\w+")


def ngrams(text: str, n: int = WORDS) -> Iterator[tuple[str, ...]]:
    """Every run of ``n`` words; of a shorter text the whole, if it has ``LEAST`` words: short rows are copied whole."""
    words = _WORD.findall(_folded(text))
    if LEAST <= len(words) < n:
        yield tuple(words)
    yield from (tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def forbidden_ngrams(texts: Iterable[str], n: int = WORDS) -> frozenset[tuple[str, ...]]:
    """The n-grams of a forbidden set."""
    return frozenset(gram for text in texts for gram in ngrams(text, n))


def leaks(
    texts: Iterable[str],
    forbidden: frozenset[tuple[str, ...]],
    canaries: Iterable[str] = (),
    n: int = WORDS,
) -> tuple[str, ...]:
    """Why these texts must not be trained on, one sentence for each of the first few; empty when nothing was found.

    Args:
        texts: Of the corpus, prompt and completion of a row as one text.
        forbidden: As ``forbidden_ngrams`` made them, with the same ``n``.
        canaries: Strings that mark data that must not be trained on; empty ones are ignored.
        n: Words of an n-gram.
    """
    marks = [(canary, _folded(canary)) for canary in canaries if canary.strip()]
    found = []
    for row, text in enumerate(texts):
        folded = _folded(text)
        found += [f"row {row} holds the canary {canary!r:.60}" for canary, mark in marks if mark in folded]
        hit = next((gram for gram in ngrams(text, n) if gram in forbidden), None)
        if hit is not None:
            found.append(f"row {row} shares {len(hit)} words with a forbidden text: {' '.join(hit)!r:.120}")
        if len(found) >= 5:
            break
    return tuple(found)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
