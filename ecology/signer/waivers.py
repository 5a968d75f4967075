"""A waiver as a signed statement, and back.

    predicateType  https://tiny-ecology.dev/waiver/v1
    subject        artifact: the digest of the adapter whose violation is accepted
    predicate      {rule, reason, approver, ticket, issued, expires}

Who signs is who answers for it: the name of the key in the policy and the ``approver`` of the waiver must be one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ecology.contracts.policy import TrustedKey, Waiver
from ecology.signer.intoto import (
    SUBJECT,
    Object,
    Statement,
    only,
    predicate,
    statement,
    structured,
    subject,
    subject_entry,
)
from ecology.signer.refusal import ClaimRefused
from ecology.signer.verify import nothing_but_refusals, verify_envelope

WAIVER = "https://tiny-ecology.dev/waiver/v1"
_FIELDS = ("rule", "reason", "approver", "ticket", "issued", "expires")


def waiver_statement(waiver: Waiver) -> Statement:
    """The statement that the approver signs.

    Raises:
        ConfigError: The subject is no digest.
    """
    body = {name: getattr(waiver, name) for name in _FIELDS}
    return statement([subject_entry(SUBJECT, waiver.subject)], WAIVER, body)


def waiver_from_statement(found: Object) -> Waiver:
    """The waiver that a statement describes.

    Raises:
        ClaimRefused: ``predicate`` or ``statement``.
    """
    body = only(predicate(found, WAIVER), _FIELDS, "predicate")
    texts = {name: structured(str, body[name]) for name in _FIELDS}
    return Waiver(subject=subject(found), **texts)


def verify_waiver(line: str, approvers: Sequence[TrustedKey]) -> Waiver:
    """A signed waiver, with the envelope as its proof.

    Args:
        line: One DSSE envelope.
        approvers: Who may waive, from the policy.

    Raises:
        ClaimRefused: Not signed by one of them, not a waiver, or in another's name.
        PolicyError: A key is not a public key that can be used.
    """
    found = verify_envelope(line, approvers)
    with nothing_but_refusals():
        waiver = waiver_from_statement(found.statement)
        if waiver.approver != found.signer:
            raise ClaimRefused("predicate", f"in the name of {waiver.approver!r:.40}, signed by {found.signer!r:.40}")
    return dataclasses.replace(waiver, proof=line)
