"""A signed list of adapters that must not be used, for homes that do not share a registry.

    predicateType  https://tiny-ecology.dev/revocations/v1
    subject        every revoked digest
    predicate      {issuedAt, entries: [{digest, reason, revokedAt}]}

A list only adds: reading an older one, or one that was cut, revokes less and takes nothing back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ecology.contracts.identity import Digest, Json
from ecology.contracts.promotion import Revocation
from ecology.errors import ConfigError
from ecology.kernel.canonical import is_digest
from ecology.signer.intoto import Object, Statement, only, predicate, statement, structured, subject_entry, subjects
from ecology.signer.refusal import ClaimRefused

REVOCATIONS = "https://tiny-ecology.dev/revocations/v1"


def revocation_statement(revoked: Sequence[Revocation], issued_at: str) -> Statement:
    """The statement that a home signs.

    Raises:
        ConfigError: Nothing is revoked.
    """
    if not revoked:
        raise ConfigError("nothing is revoked here, and a statement about nothing is none")
    ordered = sorted(revoked, key=lambda one: one.subject)
    entries: Json = [{"digest": r.subject, "reason": r.reason, "revokedAt": r.revoked_at} for r in ordered]
    named = [subject_entry(one.subject, one.subject) for one in ordered]
    return statement(named, REVOCATIONS, {"issuedAt": issued_at, "entries": entries})


def revocations_from_statement(found: Object) -> tuple[Revocation, ...]:
    """What a verified list says.

    Raises:
        ClaimRefused: ``predicate`` or ``statement``.
    """
    body = only(predicate(found, REVOCATIONS), ("issuedAt", "entries"), "predicate")
    entries = body["entries"]
    if not isinstance(entries, list):
        raise ClaimRefused("predicate", "no list", where="entries")
    read = []
    for i, entry in enumerate(entries):
        where = f"entries[{i}]"
        if not isinstance(entry, Mapping):
            raise ClaimRefused("predicate", "not an object", where=where)
        only(entry, ("digest", "reason", "revokedAt"), where)
        digest, reason, at = (structured(str, entry[key]) for key in ("digest", "reason", "revokedAt"))
        if not is_digest(digest):
            raise ClaimRefused("predicate", "not a digest", where=f"{where}.digest")
        read.append(Revocation(Digest(digest), reason, at))
    if {one.subject for one in read} != set(subjects(found).values()):
        raise ClaimRefused("statement", "the subjects are not the digests of the entries", where="subject")
    return tuple(read)
