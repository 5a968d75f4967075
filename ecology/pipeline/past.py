"""Every verdict that this installation ever signed, for ``policy replay``.

What is verified when: every envelope's signature is verified when its file is read (``rereading``), and a file is read
when it is new or was changed since. What came of it is kept in an index, one line a file; the index names each file's
size, time and number, is authenticated by a secret of this home, and is thrown away and made anew from the envelopes
where it is missing, damaged or not ours. So it can be lost and cannot lie; whoever can forge it holds this home's
secret, and then its signing key too.

Verdicts of which the log knows and of which no evidence is kept are counted as ``unstored``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from ecology.contracts.policy import Finding, Outcome
from ecology.kernel.codec import structure
from ecology.pipeline.house import House
from ecology.pipeline.rereading import reread
from ecology.pipeline.verdicts import FOLDER, Drawer, drawers
from ecology.policy.replay import Stored
from ecology.signer.keys import LocalSigner
from ecology.store import lines
from ecology.store.files import write_atomic

INDEX = "replay.jsonl"
_FORMAT = "replay/v2"


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
    keys = {key.public_key: key for key in (LocalSigner.open(house.home).public_key, house.signer.public_key)}
    owner = " ".join(sorted(keys))
    files = drawers(house)
    stamps = {one.path: lines.stamp(one.path) for one in files}
    kept = _read_index(house, owner)
    known = {one.path: kept[label] for one in files if (label := _label(one, stamps[one.path])) in kept}
    new = [(one.digest, one.path) for one in files if one.path not in known and stamps[one.path] != "-"]
    with house.progress.track("verdicts, verified", len(new), "file") as step:
        for (_, path), rows in reread(new, list(keys.values())):
            known[path] = rows
            step.advance()
    if new or len(known) != len(kept):
        _write_index(
            house, owner, {_label(one, stamps[one.path]): known[one.path] for one in files if one.path in known}
        )
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


def _label(one: Drawer, stamp: str) -> str:
    """What a line of the index begins with."""
    return f"{one.digest} {one.path.parent.name == FOLDER:d} {stamp}"


def _read_index(house: House, owner: str) -> Mapping[str, bytes]:
    """Label to the rows of a file; empty where the index is missing or not ours."""
    try:
        data = (house.home / "notes" / INDEX).read_bytes()
    except OSError:
        return {}
    head, _, body = data.partition(b"\n")
    if not hmac.compare_digest(head, _head(house, owner, body)):
        return {}
    found = {}
    for line in body.splitlines():
        label, _, rows = line.partition(b"\t")
        found[label.decode("ascii")] = rows
    return found


def _write_index(house: House, owner: str, rows: Mapping[str, bytes]) -> None:
    body = b"".join(b"%b\t%b\n" % (label.encode("ascii"), found) for label, found in rows.items())
    path = house.home / "notes" / INDEX
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _head(house, owner, body) + b"\n" + body)


def _head(house: House, owner: str, body: bytes) -> bytes:
    """First line of the index: HMAC-SHA256 under a key that only this home has."""
    secret = hmac.new(house.secret_seed, f"{_FORMAT}\0{owner}".encode(), "sha256").digest()
    return hmac.new(secret, hashlib.sha256(body).digest(), "sha256").hexdigest().encode("ascii")
