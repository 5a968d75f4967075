"""What is taught: rows chosen and made, by rules that need no model.

- ``ensemble``: of several teachers' replies to one prompt, the one that is taught.
- ``hardest``: which prompts are taught most, by what the population gets wrong.
- ``mixture``: rows of several corpora in equal parts.
- ``made_corpus``: rows that were made here, as a corpus with a digest, licence and taint.

Everything follows from its arguments and the seed.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from ecology.breeder.session import Row
from ecology.contracts.artifact import Corpus
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError
from ecology.kernel.canonical import canonical, digest_bytes

Choice = Literal["verified_majority", "best", "first"]
Agrees = Callable[[str, str], bool]
"""(reply, reference) -> whether the reply is right."""


def ensemble(
    replies: Sequence[str], reference: str, choice: Choice, agrees: Agrees, gist: Callable[[str], str]
) -> str | None:
    """The reply that is taught; None where none is.

    Args:
        replies: One a teacher, in the order of the teachers.
        reference: What the corpus has.
        choice: ``verified_majority``: what most teachers say, if it is right, of equals the earliest teacher's.
            ``best``: the first right reply, shortest first where several are right. ``first``: what the first teacher
            says, right or wrong.
        agrees: The verifier.
        gist: What two replies are compared by in a vote.
    """
    said = [reply.strip() for reply in replies]
    if choice == "first":
        return said[0] or None
    right = [reply for reply in said if reply and agrees(reply, reference)]
    if choice == "best":
        return min(right, key=lambda reply: (len(reply), said.index(reply)), default=None)
    votes = collections.Counter(gist(reply) for reply in said if reply)
    if not votes:
        return None
    most = max(votes.values())
    leader = next(reply for reply in said if reply and votes[gist(reply)] == most)
    return leader if agrees(leader, reference) else None


def hardest(wrong: Mapping[int, float], count: int, share: float, seed: int) -> tuple[int, ...]:
    """Which prompts are taught: some because they are hard, the others by lot.

    Args:
        wrong: Prompt -> share of the population that answers it wrongly, 0 to 1.
        count: How many prompts.
        share: Of them taken from those that somebody answers wrongly, the hardest first; 0 to 1.
        seed: Of the lot, and of the order among equally hard ones.

    Returns:
        Sorted; fewer than ``count`` where there are fewer.
    """
    random = np.random.Generator(np.random.PCG64([seed, 0x1E55]))
    order = [sorted(wrong)[int(i)] for i in random.permutation(len(wrong))]
    hard = sorted((i for i in order if wrong[i] > 0), key=lambda i: -wrong[i])[: round(share * count)]
    rest = [i for i in order if i not in set(hard)][: max(0, count - len(hard))]
    return tuple(sorted([*hard, *rest]))


def mixture(parts: Sequence[Sequence[Row]], count: int, seed: int) -> tuple[tuple[int, int], ...]:
    """Rows of several corpora in equal parts: (corpus, row), each at most once.

    What a small corpus cannot give, the others do.

    Args:
        parts: Rows of each corpus.
        count: How many rows.
        seed: Of the lot.
    """
    random = np.random.Generator(np.random.PCG64([seed, 0x317]))
    waiting = [[int(i) for i in random.permutation(len(part))] for part in parts]
    chosen: list[tuple[int, int]] = []
    while len(chosen) < count and any(waiting):
        for place, left in enumerate(waiting):
            if left and len(chosen) < count:
                chosen.append((place, left.pop()))
    return tuple(sorted(chosen))


def made_corpus(name: str, rows: Sequence[Row], sources: Sequence[Corpus]) -> tuple[Corpus, bytes]:
    """Rows that were made here, as a lineage records them, and their file.

    Who was taught by a model that had learned from a corpus has learned from it too: the mark ``no_train`` is
    inherited, and the licences of all sources are joined.

    Args:
        name: For people.
        rows: What is taught.
        sources: Every corpus that had a part in them: that of the prompts and those of the teachers' lineages.

    Raises:
        ConfigError: No rows.
    """
    if not rows:
        raise ConfigError("no row is left to teach", where=name, todo="ask more prompts, or choose `ensemble: first`")
    lines = [canonical({"prompt": p, "completion": c, **({"cut": True} if cut else {})}) for p, c, cut in rows]
    data = b"".join(line + b"\n" for line in lines)
    licences = sorted({source.licence for source in sources})
    corpus = Corpus(
        id=name,
        digest=Digest(digest_bytes(data)),
        licence=licences[0] if len(licences) == 1 else " AND ".join(licences),
        split="train",
        no_train=any(source.no_train for source in sources),
        rows=len(rows),
    )
    return corpus, data
