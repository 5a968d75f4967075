"""Every verdict that this installation ever signed, read back from the store for ``policy replay``.

Verified before it is parsed: a claim counts only if a key of this home signed its very bytes. It was checked in full
when
it was written, so what is verified is read here by the short way, value by value, and anything that is not as we write
it is an ``IntegrityError`` rather than a guess. Verdicts on folders that nobody signed hold no claims; the log knows of
them and ``unstored`` counts them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ecology.contracts.evidence import Count, Measurement, Paired, Proportion, Samples, Statistic
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Finding, Outcome
from ecology.contracts.ports import Step
from ecology.errors import EcologyError, IntegrityError
from ecology.gate.ladder import RUNG_RULE
from ecology.kernel.codec import structure
from ecology.kernel.verdicts import NOT_ASKED
from ecology.pipeline.house import House
from ecology.policy.replay import Stored
from ecology.report.standing import APPROVAL_RULE
from ecology.signer import dsse
from ecology.signer.keys import LocalSigner, key_id, load_public, signed_by
from ecology.signer.statements import SUMMARY, VERDICT

_MARK = b'"predicateType":"' + SUMMARY.encode() + b'"'
"""As canonical JSON writes it: what lacks it is no verdict of ours and is not looked at further."""


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
    keys = {
        key_id(load_public(k)): load_public(k)
        for k in (LocalSigner.open(house.home).public_key, house.signer.public_key)
    }
    names, promoted, judged = _known(house)
    found: list[Stored] = []
    digests = house.store.digests()
    for digest in digests:
        held = []
        for line in house.store.claims(digest):
            envelope = dsse.read(line)
            if _MARK not in envelope.payload:
                continue
            if not any(
                s.keyid in keys and signed_by(keys[s.keyid], s.sig, envelope.signed_bytes) for s in envelope.signatures
            ):
                continue
            one = _stored(envelope.payload, digest, names.get(digest, ""), digest in promoted)
            if one is not None:
                held.append(one)
        found += held
        if progress is not None:
            progress.advance(1)
    seen = {one.subject for one in found}
    return Past(tuple(found), sum(count for digest, count in judged.items() if digest not in seen))


def _known(house: House) -> tuple[Mapping[str, str], frozenset[str], Mapping[str, int]]:
    """Names by digest, digests that an alias ever named, and how often each was judged."""
    if not (house.home / "registry.sqlite3").exists():
        return {}, frozenset(), {}
    known = house.registry.list()
    moved = {m.subject for alias in house.registry.aliases() for m in house.registry.history(alias)}
    return {k.digest: k.name for k in known}, frozenset(moved), {k.digest: len(k.verdicts) for k in known}


def _stored(payload: bytes, digest: Digest, name: str, promoted: bool) -> Stored | None:
    try:
        value = json.loads(payload)
        body = value["predicate"]
        subject = next(entry for entry in value["subject"] if entry["name"] == "artifact")
        if f"sha256:{subject['digest']['sha256']}" != digest or VERDICT not in body:
            return None
        own = body[VERDICT]
        findings: Sequence[Mapping[str, Any]] = own["findings"]
        rules = [f for f in findings if not _is_extra(f["rule"])]
        trouble = [f for f in findings if f["rule"].startswith(RUNG_RULE)]
        return Stored(
            subject=digest,
            name=name or digest[7:19],
            outcome=Outcome(own["outcome"]),
            scope=own["scope"],
            decided_at=body["timeVerified"],
            policy=Digest(f"sha256:{body['policy']['digest']['sha256']}"),
            known=frozenset(f["rule"] for f in rules),
            asked=frozenset(f["rule"] for f in rules if not f["reason"].startswith(NOT_ASKED)),
            refused_by=tuple(f["rule"] for f in findings if f["outcome"] in ("deny", "inconclusive")),
            trouble=structure(tuple[Finding, ...], trouble) if trouble else (),
            evidence=tuple(_measurements(own["evidence"])),
            waived=tuple(f["rule"] for f in findings if f["outcome"] == "waived"),
            promoted=promoted,
        )
    except (KeyError, TypeError, ValueError, StopIteration, AttributeError, EcologyError) as error:
        what = f"a stored verdict is not as it was written: {type(error).__name__}: {error}"
        raise IntegrityError(what, where=f"store: {digest}", todo="ecology audit verify") from error


def _is_extra(rule: str) -> bool:
    return rule.startswith(RUNG_RULE) or rule == APPROVAL_RULE


def _measurements(rows: Sequence[Mapping[str, Any]]) -> Iterator[Measurement]:
    for row in rows:
        statistic = _statistic(row["statistic"])
        if statistic is None:  # not of the common form: the long way says what is wrong
            yield structure(Measurement, row)
            continue
        rest = {key: value for key, value in row.items() if key != "statistic"}
        if not all(type(value) is str for value in rest.values()):
            raise ValueError("a measurement holds something that is not text")
        yield Measurement(statistic=statistic, **rest)


def _statistic(row: Mapping[str, Any]) -> Statistic | None:
    kind = row["kind"]
    if kind == "proportion" and type(row["k"]) is int and type(row["n"]) is int:
        return Proportion(row["k"], row["n"])
    if kind == "count" and type(row["count"]) is int and all(type(d) is str for d in row["details"]):
        return Count(row["count"], tuple(row["details"]))
    if kind == "paired" and all(type(row[key]) is int for key in ("n", "n10", "n01")):
        return Paired(row["n"], row["n10"], row["n01"])
    if kind == "samples" and all(type(v) is float or type(v) is int for v in row["values"]):
        return Samples(tuple(map(float, row["values"])), str(row["unit"]))
    return None
