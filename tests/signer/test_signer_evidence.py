"""Test results, evidence and sweeps: written, signed, read back, and refused where they are not what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ecology.contracts.artifact import Artifact, FileRecord
from ecology.contracts.evidence import Count, Measurement, Proportion
from ecology.contracts.policy import Finding, GateVerdict, Outcome
from ecology.errors import ConfigError
from ecology.kernel.canonical import digest_bytes
from ecology.policy.reader import load_policy
from ecology.signer.evidence import (
    EVIDENCE,
    TEST_RESULT,
    Line,
    evidence_from_statement,
    evidence_statement,
    result_statement,
    sweep_from_statement,
    sweep_statement,
)
from ecology.signer.keys import LocalSigner
from ecology.signer.refusal import ClaimRefused
from ecology.signer.verify import verify_claims, verify_envelope

POLICY = load_policy(Path(__file__).parents[2] / "policies" / "toy.yaml")
FILE = FileRecord("adapter_model.safetensors", 3, digest_bytes(b"abc"))
ARTIFACT = Artifact(digest_bytes(b"folder"), (FILE,))
SIGNER = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(32)), "k", False)
NOW = "2026-11-22T12:00:00Z"
MEASURED = (
    Measurement("static.files", ARTIFACT.digest, Count(1, ("x.py: not allowed",))),
    Measurement("orders.exact", ARTIFACT.digest, Proportion(190, 200), split="hidden", source="x"),
)
LINES = [Line(f"c{i}", digest_bytes(str(i).encode()), Outcome.WARN if i else Outcome.DENY, "") for i in range(500)]


def finding(rule: str, outcome: Outcome) -> Finding:
    return Finding(rule, "t", "static.files", "none", "deny", outcome, "== 0", 0.0, None, None, 1, "r")


def verdict(outcome: Outcome, *outcomes: Outcome, **new: Any) -> GateVerdict:
    findings = tuple(finding(f"R{i}", one) for i, one in enumerate(outcomes))
    return dataclasses.replace(GateVerdict(ARTIFACT.digest, POLICY.digest, "full", outcome, findings, NOW), **new)


@pytest.mark.parametrize(
    ("one", "result"),
    [
        (verdict(Outcome.PASS, Outcome.PASS), "PASSED"),
        (verdict(Outcome.WARN, Outcome.PASS, Outcome.WARN), "WARNED"),
        (verdict(Outcome.WAIVED, Outcome.WAIVED), "WARNED"),
        (verdict(Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.INCONCLUSIVE), "FAILED"),
        (verdict(Outcome.DENY, Outcome.DENY), "FAILED"),
        (verdict(Outcome.PASS, Outcome.PASS, scope="static"), "FAILED"),
    ],
)
def test_results(one: GateVerdict, result: str) -> None:
    statement = result_statement(ARTIFACT, one, POLICY)
    assert statement["predicateType"] == TEST_RESULT
    body = statement["predicate"]
    assert body["result"] == result
    names = body["passedTests"] + body["warnedTests"] + body["failedTests"]
    assert sorted(names) == [f.rule for f in one.findings]


def test_a_result_is_about_its_own_verdict() -> None:
    for wrong in ({"subject": digest_bytes(b"x")}, {"policy": digest_bytes(b"x")}):
        with pytest.raises(ConfigError):
            result_statement(ARTIFACT, verdict(Outcome.PASS, **wrong), POLICY)


def test_evidence_comes_back() -> None:
    line = SIGNER.sign(evidence_statement(ARTIFACT, MEASURED, NOW))
    (claim,) = verify_claims([line], ARTIFACT.digest, [SIGNER.public_key], ()).verified
    assert claim.predicate_type == EVIDENCE
    assert evidence_from_statement(claim.statement) == MEASURED
    broken = {**claim.statement, "predicate": {"measuredAt": NOW, "measurements": [{"metric": 3}]}}
    with pytest.raises(ClaimRefused):
        evidence_from_statement(broken)


def test_a_sweep_is_one_statement() -> None:
    line = SIGNER.sign(sweep_statement(digest_bytes(b"run"), POLICY.digest, LINES, NOW))
    found = verify_envelope(line, [SIGNER.public_key])
    assert sweep_from_statement(found.statement) == (digest_bytes(b"run"), tuple(LINES))
    assert len(line) < 200_000
    for wrong in ([], [LINES[0], LINES[0]]):
        with pytest.raises(ConfigError):
            sweep_statement(digest_bytes(b"run"), POLICY.digest, wrong, NOW)
    fewer = {**found.statement, "subject": found.statement["subject"][1:]}
    with pytest.raises(ClaimRefused, match="candidates"):
        sweep_from_statement(fewer)
