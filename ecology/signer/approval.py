"""Who agreed to what: approvals of a digest, k of n.

One predicate for every decision that people make about bytes: a policy, a waiver, a promotion, another generation. The
statement's only subject is what is approved, by digest; the predicate says what *kind* of thing that is, so that an
approval of a waiver is never taken for an approval of a policy that happens to have its digest. Each approver signs an
envelope of their own; counting is the reader's business, so no approver has to wait for another.

    predicateType  https://tiny-ecology.dev/approval/v1
    predicate      {kind, decision: approve | reject, role, reason, approvedAt, expires, context: {name: digest}}

How it is counted (``verify_approvals``):

1. An envelope counts only under a key or an identity that the caller names, and each approver counts once, whatever
   number of envelopes, keys or key ids: the approver is the *name* in the policy.
2. Of several words of one approver the last one holds (``approvedAt``); of two at the same instant the rejection.
3. An approval that has expired, that is of the future, or whose context is not the one demanded does not count.
4. A standing rejection of anyone who is entitled to approve blocks, however many approved.

So adding an envelope of a stranger, repeating one or removing one never turns "no" into "yes", except the removal of a
rejection: whoever stores envelopes can lose them, so keep them in the log.

Sources: in-toto Attestation v1; TUF specification section 4.2.1 (threshold of distinct keys).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from ecology.contracts.identity import Digest
from ecology.contracts.policy import TrustedKey
from ecology.errors import ConfigError
from ecology.kernel.canonical import is_digest
from ecology.kernel.verdicts import instant
from ecology.signer.intoto import Object, Statement, only, predicate, statement, structured, subject_entry, subjects
from ecology.signer.refusal import ClaimRefused
from ecology.signer.verify import nothing_but_refusals, verify_envelope

APPROVAL = "https://tiny-ecology.dev/approval/v1"
MAX_ENVELOPES = 256
"""Envelopes that are read for one decision; what stands behind them is refused unread."""

Decision = Literal["approve", "reject"]
_FIELDS = ("kind", "decision", "role", "reason", "approvedAt", "expires", "context")


@dataclasses.dataclass(frozen=True, slots=True)
class Approval:
    """One approver's last word on one digest."""

    subject: Digest
    kind: str
    """``policy``, ``waiver``, ``promotion``, ``generation``: what the digest is of."""
    decision: Decision
    approver: str
    """Name of the trusted key or identity, from the caller's list and not from the envelope."""
    keyid: str
    role: str
    reason: str
    at: str
    expires: str
    """ISO 8601 instant from which on it has no effect; empty: never."""
    context: Mapping[str, Digest]
    """What the approver looked at: ``diff_from``, ``impact_report``, ``policy``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Approvals:
    """What the envelopes amount to."""

    threshold: int
    approved: tuple[Approval, ...]
    """Counted, one an approver, sorted by name."""
    rejected: tuple[Approval, ...]
    """Standing rejections, sorted by name."""
    refused: tuple[str, ...]
    """``envelope N: reason: sentence`` for each that does not count."""

    @property
    def met(self) -> bool:
        """Whether enough approved and nobody entitled objects."""
        return len(self.approved) >= self.threshold and not self.rejected

    @property
    def sentence(self) -> str:
        """For people: the state in one line."""
        if self.rejected:
            names = ", ".join(one.approver for one in self.rejected)
            return f"rejected by {names}: {self.rejected[0].reason}"
        names = ", ".join(one.approver for one in self.approved) or "nobody"
        return f"{len(self.approved)} of the {self.threshold} approvals that are needed: {names}"


def approval_statement(
    subject: Digest,
    kind: str,
    *,
    approved_at: str,
    reason: str,
    decision: Decision = "approve",
    role: str = "",
    expires: str = "",
    context: Mapping[str, Digest] | None = None,
) -> Statement:
    """The statement that one approver signs (``Signer.sign``).

    Args:
        subject: Digest of what is decided on.
        kind: What it is; a reader who asks about another kind refuses it.
        approved_at: RFC 3339 instant, UTC.
        reason: Why; must not be empty, also of an approval.
        decision: Whether to approve or to reject.
        role: In which capacity ("safety reviewer").
        expires: ISO 8601 instant with time zone; empty for never.
        context: Digests of what the approver looked at.

    Raises:
        ConfigError: Something is empty, no digest or no instant.
    """
    for name, text in (("kind", kind), ("reason", reason)):
        if not text.strip():
            raise ConfigError("must not be empty", where=f"approval: {name}", todo="say what is approved, and why")
    for name, moment in (("approved_at", approved_at), ("expires", expires)):
        if moment or name == "approved_at":
            instant(moment)
    for name, digest in (context or {}).items():
        if not is_digest(digest):
            raise ConfigError(f"not a digest: {digest!r:.80}", where=f"approval: context.{name}")
    body: Statement = {
        "kind": kind,
        "decision": decision,
        "role": role,
        "reason": reason,
        "approvedAt": approved_at,
        "expires": expires,
        "context": dict(context or {}),
    }
    return statement([subject_entry(kind, subject)], APPROVAL, body)


def verify_approvals(
    envelopes: Sequence[str],
    subject: Digest,
    kind: str,
    *,
    approvers: Sequence[TrustedKey],
    threshold: int,
    now: str,
    context: Mapping[str, Digest] | None = None,
) -> Approvals:
    """Counts approvals of one digest.

    Args:
        envelopes: DSSE envelopes, one a line, in any order; nothing in them raises.
        subject: What has to be approved, computed by the caller.
        kind: What it is.
        approvers: Who is entitled; two entries of one name are one approver with two keys, and two names with one key
            are one approver too.
        threshold: How many distinct approvers are needed, 1 or more.
        now: Instant at which it is asked; approvals of the future do not count.
        context: Digests that an approval must carry under these names; others may stand beside them.

    Raises:
        ConfigError: The threshold is below 1 or ``now`` is no instant.
        PolicyError: A key is not a public key that can be used.
    """
    if threshold < 1:
        raise ConfigError(f"a threshold of {threshold} asks nobody", where="threshold", todo="ask for 1 or more")
    asked = instant(now)
    last: dict[str, Approval] = {}
    refused: list[str] = []
    if len(envelopes) > MAX_ENVELOPES:
        refused.append(f"envelope {MAX_ENVELOPES + 1}: size: at most {MAX_ENVELOPES} are read")
    for number, line in enumerate(envelopes[:MAX_ENVELOPES], start=1):
        try:
            with nothing_but_refusals():
                one = _read(line, subject, kind, approvers)
                _must_have(one, context or {})
                if instant(one.at) > asked:
                    raise ClaimRefused("expired", f"it is of {one.at}, which is after {now}")
        except ClaimRefused as refusal:
            refused.append(f"envelope {number}: {refusal.reason}: {refusal}")
            continue
        before = last.get(one.keyid)
        if before is None or _rank(before) <= _rank(one):
            last[one.keyid] = one
    standing = {one.approver: one for one in sorted(last.values(), key=_rank)}
    in_force = []
    for one in standing.values():
        if one.expires and instant(one.expires) <= asked:
            refused.append(f"{one.approver}: expired: the word of {one.at} held until {one.expires}")
        else:
            in_force.append(one)
    in_force.sort(key=lambda one: one.approver)
    return Approvals(
        threshold,
        tuple(one for one in in_force if one.decision == "approve"),
        tuple(one for one in in_force if one.decision == "reject"),
        tuple(refused),
    )


def approval_from_statement(found: Object, approver: str, keyid: str) -> Approval:
    """The approval that a verified statement describes.

    Raises:
        ClaimRefused: ``predicate`` or ``statement``.
    """
    body = only(predicate(found, APPROVAL), _FIELDS, "predicate")
    entries = subjects(found)
    if len(entries) != 1:
        raise ClaimRefused("statement", f"an approval of {len(entries)} subjects; one is approved at a time")
    texts = {name: structured(str, body[name]) for name in ("kind", "role", "reason", "approvedAt", "expires")}
    decision: Decision = structured(Decision, body["decision"])
    context = structured(dict[str, str], body["context"])
    if not all(is_digest(value) for value in context.values()):
        raise ClaimRefused("predicate", "not a digest", where="context")
    for name in ("approvedAt", "expires"):
        if texts[name] or name == "approvedAt":
            instant(texts[name])
    (name, digest), *_ = entries.items()
    if name != texts["kind"]:
        raise ClaimRefused("predicate", f"kind {texts['kind']!r:.40} of a subject named {name!r:.40}", where="kind")
    return Approval(
        subject=digest,
        kind=texts["kind"],
        decision=decision,
        approver=approver,
        keyid=keyid,
        role=texts["role"],
        reason=texts["reason"],
        at=texts["approvedAt"],
        expires=texts["expires"],
        context={name: Digest(value) for name, value in context.items()},
    )


def _read(line: str, subject: Digest, kind: str, approvers: Sequence[TrustedKey]) -> Approval:
    found = verify_envelope(line, approvers)
    one = approval_from_statement(found.statement, found.signer, found.keyid)
    if (one.subject, one.kind) != (subject, kind):
        raise ClaimRefused("replayed", f"an approval of {one.kind} {one.subject}, asked about {kind} {subject}")
    return one


def _must_have(one: Approval, context: Mapping[str, Digest]) -> None:
    for name, digest in context.items():
        if one.context.get(name) != digest:
            raise ClaimRefused("replayed", f"it was given looking at {name} {one.context.get(name)}, not {digest}")


def _rank(one: Approval) -> tuple[object, bool]:
    return instant(one.at), one.decision == "reject"
