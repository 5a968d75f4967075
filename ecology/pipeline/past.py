"""Every verdict that this installation ever signed, read back from the store for ``policy replay``.

Verified before it is parsed: a claim counts only if a key of this home signed its very bytes. What was verified and
read once is kept in an index, one line an adapter, so that the next replay reads only what is new; the index is
authenticated with this home's secret, and one that is not whole is thrown away and made anew. Verdicts on folders that
nobody signed hold no claims; the log knows of them, and ``unstored`` counts them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from ecology.contracts.evidence import Evidence
from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import Finding, Outcome
from ecology.contracts.ports import Step
from ecology.errors import EcologyError, IntegrityError
from ecology.gate.ladder import RUNG_RULE
from ecology.kernel.canonical import plain
from ecology.kernel.codec import structure
from ecology.kernel.verdicts import NOT_ASKED
from ecology.pipeline.house import House
from ecology.policy.replay import Stored, topics_of
from ecology.report.standing import APPROVAL_RULE
from ecology.signer import dsse
from ecology.signer.keys import LocalSigner, PublicKey, key_id, load_public, signed_by
from ecology.signer.statements import SUMMARY, VERDICT
from ecology.store.files import write_atomic

INDEX = "replay.jsonl"
_MARK = b'"predicateType":"' + SUMMARY.encode() + b'"'
"""As canonical JSON writes it: what lacks it is no verdict of ours and is not looked at further."""
_FORMAT = "replay/v1"


@dataclasses.dataclass(frozen=True)
class Past:
    """What there is to replay on."""

    verdicts: tuple[Stored, ...]
    unstored: int
    """Verdicts that the log knows of and of which no signed evidence is held."""


def past_of(house: House, progress: Step | None = None) -> Past:
    """Every stored verdict of this installation, sorted by adapter.

    Raises:
        IntegrityError: A claim that this home signed is not what this home writes, or the store is damaged.
    """
    anchors = (LocalSigner.open(house.home).public_key, house.signer.public_key)
    keys = {key_id(key): key for key in map(load_public, anchors)}
    kept = _read_index(house, sorted(keys))
    lines: dict[str, tuple[str, str]] = {}
    rows: list[tuple[Digest, Json]] = []
    for digest in house.store.digests():
        stamp = house.store.claims_stamp(digest)
        if (found := kept.get(digest)) is None or found[0] != stamp:
            verdicts = _verdicts(house, digest, keys)
            found = (stamp, json.dumps(verdicts, separators=(",", ":")))
        else:
            verdicts = json.loads(found[1])
        lines[digest] = found
        rows += [(digest, one) for one in verdicts]
        if progress is not None:
            progress.advance(1)
    if lines != kept:
        _write_index(house, sorted(keys), lines)
    names, promoted, judged = _known(house)
    past = tuple(_stored(digest, one, names.get(digest, ""), digest in promoted) for digest, one in rows)
    seen = {digest for digest, _ in rows}
    return Past(past, sum(count for digest, count in judged.items() if digest not in seen))


def _known(house: House) -> tuple[Mapping[str, str], frozenset[str], Mapping[str, int]]:
    """Names by digest, digests that an alias ever named, and how often each was judged."""
    if not (house.home / "registry.sqlite3").exists():
        return {}, frozenset(), {}
    known = house.registry.list()
    moved = {m.subject for alias in house.registry.aliases() for m in house.registry.history(alias)}
    return {k.digest: k.name for k in known}, frozenset(moved), {k.digest: len(k.verdicts) for k in known}


def _verdicts(house: House, digest: Digest, keys: Mapping[str, PublicKey]) -> list[Json]:
    """What the index keeps of one adapter: its verdicts as they were signed, without what no rule reads."""
    found = []
    for line in house.store.claims(digest):
        envelope = dsse.read(line)
        if _MARK not in envelope.payload:
            continue
        signed = (s for s in envelope.signatures if s.keyid in keys)
        if any(signed_by(keys[s.keyid], s.sig, envelope.signed_bytes) for s in signed):
            try:
                if (one := _row(envelope.payload, digest)) is not None:
                    found.append(one)
            except (KeyError, TypeError, ValueError, StopIteration, AttributeError, EcologyError) as error:
                what = f"a stored verdict is not as it was written: {type(error).__name__}: {error}"
                raise IntegrityError(what, where=f"store: {digest}", todo="ecology audit verify") from error
    return found


def _row(payload: bytes, digest: Digest) -> Json:
    value = json.loads(payload)
    body = value["predicate"]
    subject = next(entry for entry in value["subject"] if entry["name"] == "artifact")
    if f"sha256:{subject['digest']['sha256']}" != digest or VERDICT not in body:
        return None
    own = body[VERDICT]
    findings = structure(tuple[Finding, ...], own["findings"])
    rules = [f for f in findings if not (f.rule.startswith(RUNG_RULE) or f.rule == APPROVAL_RULE)]
    return {
        "outcome": Outcome(own["outcome"]).value,
        "scope": str(own["scope"]),
        "at": str(body["timeVerified"]),
        "policy": f"sha256:{body['policy']['digest']['sha256']}",
        "known": [f.rule for f in rules],
        "asked": [f.rule for f in rules if not f.reason.startswith(NOT_ASKED)],
        "refused": [f.rule for f in findings if not f.outcome.admits],
        "waived": [f.rule for f in findings if f.outcome is Outcome.WAIVED],
        "trouble": plain([f for f in findings if f.rule.startswith(RUNG_RULE)]),
        "topics": dict(topics_of(structure(Evidence, own["evidence"]), digest)),
    }


def _stored(digest: Digest, row: Mapping[str, Any], name: str, promoted: bool) -> Stored:
    return Stored(
        subject=digest,
        name=name or digest[7:19],
        outcome=Outcome(row["outcome"]),
        scope=row["scope"],
        decided_at=row["at"],
        policy=row["policy"],
        known=frozenset(row["known"]),
        asked=frozenset(row["asked"]),
        refused_by=tuple(row["refused"]),
        trouble=structure(tuple[Finding, ...], row["trouble"]) if row["trouble"] else (),
        topics=row["topics"],
        waived=tuple(row["waived"]),
        promoted=promoted,
    )


def _read_index(house: House, keys: list[str]) -> dict[str, tuple[str, str]]:
    """Digest to stamp of its claims and line of its verdicts; empty where the index is missing or not ours."""
    try:
        data = (house.home / "notes" / INDEX).read_bytes()
    except OSError:
        return {}
    head, _, body = data.partition(b"\n")
    if not hmac.compare_digest(head, _head(house, keys, body)):
        return {}
    found = {}
    for line in body.decode("utf-8").splitlines():
        digest, stamp, verdicts = line.split(" ", 2)
        found[digest] = (stamp, verdicts)
    return found


def _write_index(house: House, keys: list[str], lines: Mapping[str, tuple[str, str]]) -> None:
    body = "".join(f"{digest} {stamp} {verdicts}\n" for digest, (stamp, verdicts) in lines.items()).encode("utf-8")
    path = house.home / "notes" / INDEX
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _head(house, keys, body) + b"\n" + body)


def _head(house: House, keys: list[str], body: bytes) -> bytes:
    """First line of the index: HMAC-SHA256 under a key that only this home has."""
    secret = hmac.new(house.secret_seed, f"{_FORMAT}\0{' '.join(keys)}".encode(), "sha256").digest()
    return hmac.new(secret, hashlib.sha256(body).digest(), "sha256").hexdigest().encode("ascii")
