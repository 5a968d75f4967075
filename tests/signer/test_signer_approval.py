"""Approvals: who counts, how often, until when."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ecology.contracts.identity import Digest
from ecology.contracts.policy import TrustedKey
from ecology.errors import ConfigError, PolicyError
from ecology.kernel.canonical import canonical
from ecology.signer import dsse
from ecology.signer.approval import APPROVAL, Approvals, approval_statement, verify_approvals
from ecology.signer.keys import LocalSigner, key_id

PEOPLE = {n: LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32), n, False) for i, n in enumerate("ABCD")}
TRUSTED = [PEOPLE[name].public_key for name in "ABC"]
WHAT = Digest("sha256:" + "1" * 64)
OTHER = Digest("sha256:" + "2" * 64)
NOW = "2026-11-22T12:00:00Z"


def word(
    who: str, *, subject: Digest = WHAT, kind: str = "policy", at: str = "2026-11-22T10:00:00Z", **more: Any
) -> str:
    return PEOPLE[who].sign(approval_statement(subject, kind, approved_at=at, reason="looked at it", **more))


def count(lines: list[str], threshold: int = 2, **more: Any) -> Approvals:
    given_ = {"approvers": TRUSTED, "threshold": threshold, "now": NOW, **more}
    return verify_approvals(lines, WHAT, "policy", **given_)


def test_two_of_three_approve() -> None:
    found = count([word("A", role="safety"), word("B", context={"diff_from": OTHER})])
    assert found.met
    assert [one.approver for one in found.approved] == ["A", "B"]
    assert found.approved[0].role == "safety"
    assert found.approved[1].context == {"diff_from": OTHER}
    assert "2 of the 2" in found.sentence


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (word("A", at="2026-11-22T11:00:00Z"), ""),  # the same person again
        (word("D"), "untrusted"),
        (word("B", subject=OTHER), "replayed"),
        (word("B", kind="waiver"), "replayed"),
        (word("B", at="2026-11-22T12:00:01Z"), "expired"),
        (word("B", expires=NOW), "expired"),
        (
            PEOPLE["B"].sign({**approval_statement(WHAT, "policy", approved_at=NOW, reason="x"), "predicateType": "x"}),
            "predicate",
        ),
        ("{}", "envelope"),
    ],
)
def test_what_does_not_count(second: str, reason: str) -> None:
    found = count([word("A"), second])
    assert not found.met
    assert len(found.approved) == 1
    assert (reason in found.refused[0]) if reason else not found.refused


def test_an_objection_of_one_entitled_blocks_until_it_is_withdrawn() -> None:
    lines = [word("A"), word("B"), word("C", decision="reject")]
    assert not count(lines).met
    assert "rejected by C" in count(lines).sentence
    assert count([*lines, word("C", at="2026-11-22T11:00:00Z")]).met
    assert not count([*lines, word("C")]).met, "of two words of one instant the rejection holds"
    assert count([word("A"), word("B"), word("D", decision="reject")]).met, "a stranger's objection is noise"


def test_one_person_with_two_keys_and_two_names_with_one_key_count_once() -> None:
    second = TrustedKey("A", PEOPLE["B"].public_key.public_key)
    assert not count([word("A"), word("B")], approvers=[TRUSTED[0], second]).met
    alias = TrustedKey("Z", PEOPLE["A"].public_key.public_key)
    assert not count([word("A"), word("A", at=NOW)], approvers=[TRUSTED[0], alias]).met


def test_the_context_that_is_demanded_must_be_there() -> None:
    lines = [word("A", context={"policy": OTHER}), word("B")]
    found = count(lines, context={"policy": OTHER})
    assert [one.approver for one in found.approved] == ["A"]
    assert "replayed" in found.refused[0]


def test_an_ecdsa_approver_counts() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    statement = approval_statement(WHAT, "policy", approved_at="2026-11-22T10:00:00Z", reason="ok")
    payload = canonical(statement)
    from cryptography.hazmat.primitives.hashes import SHA256

    signature = key.sign(dsse.pae(dsse.PAYLOAD_TYPE, payload), ec.ECDSA(SHA256()))
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    line = dsse.seal(payload, [dsse.Signature(key_id(key.public_key()), signature)])
    approvers = [TrustedKey("E", pem.decode())]
    assert count([line], 1, approvers=approvers).met
    broken = dsse.seal(payload, [dsse.Signature("", signature[:-1] + bytes([signature[-1] ^ 1]))])
    assert not count([broken], 1, approvers=approvers).met


@given(
    st.permutations(
        [word("A"), word("B"), word("C", decision="reject"), word("C", at="2026-11-22T11:00:00Z"), word("D")]
    )
)
def test_order_does_not_matter(lines: list[str]) -> None:
    assert count(lines).approved == count(sorted(lines)).approved
    assert count(lines).met


def test_strangers_and_repetitions_never_add_up() -> None:
    noise = [word("A"), word("D"), word("A", kind="waiver"), word("B", subject=OTHER), "junk"]
    for length in range(len(noise) + 1):
        for chosen in itertools.combinations(noise, length):
            assert not count(list(chosen)).met


def test_every_broken_byte_of_an_envelope_is_refused() -> None:
    line = word("B")
    payload = json.loads(line)["payload"]
    for i in range(0, len(payload), 7):
        swapped = "A" if payload[i] != "A" else "B"
        assert not count([word("A"), line.replace(payload, payload[:i] + swapped + payload[i + 1 :])]).met


def test_statements_that_cannot_be_meant() -> None:
    assert approval_statement(WHAT, "policy", approved_at=NOW, reason="x")["predicateType"] == APPROVAL
    for bad in ({"reason": " "}, {"approved_at": "yesterday"}, {"expires": "2026-01-01"}, {"context": {"a": "b"}}):
        with pytest.raises((ConfigError, PolicyError)):
            approval_statement(WHAT, "policy", **{"approved_at": NOW, "reason": "x", **bad})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="asks nobody"):
        count([], 0)
