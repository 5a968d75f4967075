"""Every verdict that this installation ever signed, for ``policy replay``.

What is verified when: every envelope's signature is verified when its file is read (``rereading``), and a file is read
when it is new or was changed since. What came of it is kept (``replay_index``), most often already when the verdict was
given.

Verdicts of which the log knows and of which no evidence is kept are counted as ``unstored``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from ecology.contracts.policy import Finding, Outcome
from ecology.kernel.codec import structure
from ecology.pipeline.house import House
from ecology.pipeline.replay_index import label_of, noted, own_keys, rewrite
from ecology.pipeline.rereading import reread
from ecology.pipeline.verdicts import Drawer, drawers
from ecology.policy.replay import Stored
from ecology.store import lines


@dataclasses.dataclass(frozen=True)
class Past:
    """What there is to replay on."""

    verdicts: tuple[Stored, ...]
    unstored: int
    """Verdicts that the log knows of and of which no signed evidence is held."""


def past_of(house: House) -> Past:
    """Every stored verdict of this installation, sorted by adapter.

    Raises:
        IntegrityError: A claim that this home signed is not what this home writes, or the store is damaged.
    """
    files = drawers(house)
    labels = {one.path: label_of(one.digest, one.path, lines.stamp(one.path)) for one in files}
    kept, tidy = noted(house)
    known = {path: kept[label] for path, label in labels.items() if label in kept}
    new = [(one.digest, one.path) for one in files if one.path not in known and one.path.exists()]
    with house.progress.track("verdicts, verified", len(new), "file") as step:
        for (_, path), rows in reread(new, own_keys(house)):
            known[path] = rows
            step.advance()
    if new or not tidy or len(known) != len(kept):
        rewrite(house, ((labels[path], rows) for path, rows in known.items()))
    names, promoted, judged = _known(house)
    verdicts: list[Stored] = []
    for one in files:
        name = names.get(one.digest, "")
        for row in from_json(known.get(one.path, b"[]")):
            verdicts.append(_stored(one, row, name, one.digest in promoted))
    seen = {one.subject for one in verdicts}
    return Past(tuple(verdicts), sum(count for digest, count in judged.items() if digest not in seen))


def _known(house: House) -> tuple[Mapping[str, str], frozenset[str], Mapping[str, int]]:
    """Names by digest, digests that an alias ever named, and how often each was judged."""
    if not (house.home / "registry.sqlite3").exists():
        return {}, frozenset(), {}
    moved = {m.subject for alias in house.registry.aliases() for m in house.registry.history(alias)}
    return house.registry.names(), frozenset(moved), house.registry.judgements()


def _stored(file: Drawer, row: Mapping[str, Any], name: str, promoted: bool) -> Stored:
    return Stored(
        subject=file.digest,
        name=name or file.digest[7:19],
        outcome=Outcome(row["outcome"]),
        scope=row["scope"],
        decided_at=row["at"],
        policy=row["policy"],
        outcomes=row["outcomes"],
        unasked=frozenset(row["unasked"]),
        trouble=structure(tuple[Finding, ...], row["trouble"]) if row["trouble"] else (),
        topics=row["topics"],
        held=file.held,
        promoted=promoted,
    )
