"""What was measured and how it came out, for readers who know in-toto and not us; and a whole sweep in one statement.

    test result   https://in-toto.io/attestation/test-result/v0.1    rules by name: passed, warned, failed
    evidence      https://tiny-ecology.dev/evidence/v1               every measurement, as sufficient statistics
    sweep         https://tiny-ecology.dev/sweep/v1                  all candidates of a run, one subject each

The published predicate has no place for a metric, an n or an interval; ours has, under a URI with a version, so that it
can give way to a published one. INCONCLUSIVE admits nothing and is among the failed; a waived rule is among the warned.

A keyless signature costs a log entry and a tenth of a second, so a sweep is one statement with all its candidates as
subjects; the promoted one gets its own test result and evidence besides.

Source: in-toto attestation, predicates/test-result.md v0.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ecology.contracts.artifact import Artifact
from ecology.contracts.evidence import Evidence
from ecology.contracts.identity import Digest
from ecology.contracts.policy import GateVerdict, Outcome, Policy
from ecology.errors import ConfigError
from ecology.kernel.canonical import is_digest, plain
from ecology.signer.intoto import (
    Object,
    Statement,
    artifact_subjects,
    digest_set,
    object_at,
    only,
    predicate,
    statement,
    structured,
    subject_entry,
    subjects,
)
from ecology.signer.refusal import ClaimRefused

TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
EVIDENCE = "https://tiny-ecology.dev/evidence/v1"
SWEEP = "https://tiny-ecology.dev/sweep/v1"
_SITE = "https://tiny-ecology.dev/policy/"


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One candidate of a sweep."""

    name: str
    digest: Digest
    outcome: Outcome
    rung: str
    """Where it was stopped; empty for one that was admitted."""


def result_statement(artifact: Artifact, verdict: GateVerdict, policy: Policy) -> Statement:
    """A verdict as a test result.

    Raises:
        ConfigError: The verdict is about another artifact or under another policy.
    """
    if verdict.subject != artifact.digest or verdict.policy != policy.digest:
        raise ConfigError("the verdict is not about this artifact under this policy", where=verdict.subject)
    names: dict[str, list[str]] = {"passed": [], "warned": [], "failed": []}
    for finding in verdict.findings:
        key = "passed" if finding.outcome is Outcome.PASS else "warned" if finding.outcome.admits else "failed"
        names[key].append(finding.rule)
    admitted = verdict.outcome.admits and verdict.scope == "full"
    result = "FAILED" if not admitted else "WARNED" if names["warned"] else "PASSED"
    body: Statement = {
        "result": result,
        "configuration": [{"uri": f"{_SITE}{policy.digest}#{verdict.scope}", "digest": digest_set(policy.digest)}],
        "passedTests": names["passed"],
        "warnedTests": names["warned"],
        "failedTests": names["failed"],
    }
    return statement(artifact_subjects(artifact), TEST_RESULT, body)


def evidence_statement(artifact: Artifact, evidence: Evidence, measured_at: str) -> Statement:
    """Every measurement of an artifact."""
    body: Statement = {"measuredAt": measured_at, "measurements": plain(evidence)}
    return statement(artifact_subjects(artifact), EVIDENCE, body)


def evidence_from_statement(found: Object) -> Evidence:
    """The measurements of a verified statement.

    Raises:
        ClaimRefused: ``predicate``.
    """
    body = only(predicate(found, EVIDENCE), ("measuredAt", "measurements"), "predicate")
    read: Evidence = structured(Evidence, body["measurements"])
    return read


def sweep_statement(run: Digest, policy: Digest, lines: Sequence[Line], decided_at: str) -> Statement:
    """All candidates of a run, each a subject.

    Args:
        run: Digest of the plan, or of the sweep's.
        policy: Under which they were judged.
        lines: One a candidate; the jobs of a sweep may have bred the same bytes.
        decided_at: RFC 3339 instant, UTC.

    Raises:
        ConfigError: There is no candidate, or two of one name.
    """
    if not lines or len({line.name for line in lines}) != len(lines):
        raise ConfigError("a sweep needs candidates, each under a name of its own")
    body: Statement = {
        "run": run,
        "policy": digest_set(policy),
        "decidedAt": decided_at,
        "outcomes": {line.name: {"outcome": line.outcome.value, "rung": line.rung} for line in lines},
    }
    return statement([subject_entry(line.name, line.digest) for line in lines], SWEEP, body)


def sweep_from_statement(found: Object) -> tuple[Digest, tuple[Line, ...]]:
    """The run and its candidates, from a verified statement.

    Raises:
        ClaimRefused: ``predicate`` or ``statement``.
    """
    body = only(predicate(found, SWEEP), ("run", "policy", "decidedAt", "outcomes"), "predicate")
    named, outcomes = subjects(found), object_at(body, "outcomes", "predicate")
    if set(named) != set(outcomes) or not is_digest(body["run"]):
        raise ClaimRefused("predicate", "the subjects are not the candidates that have outcomes", where="outcomes")
    return Digest(str(body["run"])), tuple(_line(name, digest, outcomes[name]) for name, digest in named.items())


def _line(name: str, digest: Digest, found: object) -> Line:
    if not isinstance(found, Mapping):
        raise ClaimRefused("predicate", "expected an object", where=f"outcomes.{name:.80}")
    only(found, ("outcome", "rung"), f"outcomes.{name:.80}")
    return Line(name, digest, structured(Outcome, found["outcome"]), structured(str, found["rung"]))
