"""The Pareto archive: the best that any run has found, by objectives that mean the same.

Entries are comparable when their objectives were computed the same way, which the key says: the digest of the spec
without its weights. Merging keeps, for every key, those that no other dominates.

Laws: ``merge(a, ()) == a`` for an archive ``a``; the order of merging does not matter; merging twice changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from ecology.contracts.identity import Digest
from ecology.contracts.promotion import Fitness
from ecology.kernel.canonical import digest, plain
from ecology.kernel.pareto import front
from ecology.promotion.fitness import FitnessSpec, objectives


@dataclasses.dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One candidate that nobody dominated when it was last looked at."""

    subject: Digest
    key: Digest
    """Entries with another key are not comparable with this one."""
    objectives: Mapping[str, float]
    """Larger is better; before weights."""
    run: Digest
    """Where it was measured."""


def archive_key(spec: FitnessSpec) -> Digest:
    """Digest of how the counted objectives are computed, weights left out, names sorted by RFC 8785."""
    terms = {name: plain(term) for name, term in spec.terms.items() if term.weight > 0}
    return digest({name: {k: v for k, v in term.items() if k != "weight"} for name, term in terms.items()})


def entries(ranked: Iterable[Fitness], spec: FitnessSpec, run: Digest) -> tuple[ArchiveEntry, ...]:
    """Archive entries of the ranked; the unranked have no place in an archive."""
    key = archive_key(spec)
    return tuple(ArchiveEntry(f.subject, key, objectives(f.terms), run) for f in ranked if f.score is not None)


def merge(archive: Iterable[ArchiveEntry], new: Iterable[ArchiveEntry]) -> tuple[ArchiveEntry, ...]:
    """Joins two sets of entries and drops the dominated.

    Args:
        archive: What is held.
        new: What a run brought. The same subject under the same key replaces the entry held, since it was measured
            later.

    Returns:
        The front of every key, sorted by key and subject.
    """
    held = {(entry.key, entry.subject): entry for entry in (*archive, *new)}
    kept: list[ArchiveEntry] = []
    for key in sorted({entry.key for entry in held.values()}):
        group = [held[place] for place in sorted(held) if place[0] == key]
        names = sorted(group[0].objectives)
        kept += (group[i] for i in sorted(front([tuple(entry.objectives[n] for n in names) for entry in group])))
    return tuple(kept)
