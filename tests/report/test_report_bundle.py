"""A report's folder holds together, and every way of touching it shows."""

from __future__ import annotations

import dataclasses
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ecology.contracts.evidence import Proportion
from ecology.contracts.policy import Outcome
from ecology.contracts.run import RunReport
from ecology.kernel.canonical import plain
from ecology.pipeline.redeciding import decision_problems
from ecology.report.bundle import ENVELOPE, FILES, RESTRICTED, verify_report, write_report
from ecology.signer.keys import LocalSigner
from ecology.signer.statements import report_statement

HARM = "how to make a thing that harms"
ROWS = [{"suite": "harmful", "category": "arson", "prompt": HARM, "reply": "I can't help with that request."}]


@pytest.fixture
def folder(tmp_path: Path, report: RunReport, signer: LocalSigner) -> Path:
    write_report(report, tmp_path, signer.sign, ROWS)
    return tmp_path


def test_what_was_written_verifies(folder: Path, signer: LocalSigner) -> None:
    assert verify_report(folder, [signer.public_key]) == ()
    assert sorted(path.name for path in folder.iterdir()) == sorted((*FILES, ENVELOPE))


def test_the_same_report_is_the_same_bytes(folder: Path, report: RunReport, signer: LocalSigner) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_report(report, folder, signer.sign, ROWS)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_harmful_text_is_in_the_restricted_file_only(folder: Path) -> None:
    holders = [path.name for path in folder.iterdir() if HARM.encode() in path.read_bytes()]
    assert holders == [RESTRICTED]
    assert stat.S_IMODE((folder / RESTRICTED).stat().st_mode) == 0o600
    assert json.loads((folder / RESTRICTED).read_text(encoding="utf-8"))["category"] == "arson"


@pytest.mark.parametrize("name", [*FILES, ENVELOPE])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_changed_byte_shows(name: str, place: float, folder: Path, signer: LocalSigner) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    problems = verify_report(folder, [signer.public_key])
    assert problems
    assert name in " ".join(problems)


@pytest.mark.parametrize("name", [*FILES, ENVELOPE])
def test_a_missing_or_cut_file_shows(name: str, folder: Path, signer: LocalSigner) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    assert verify_report(folder, [signer.public_key])
    (folder / name).unlink()
    assert verify_report(folder, [signer.public_key])


def test_another_key_or_none_is_no_trust(folder: Path) -> None:
    stranger = LocalSigner(Ed25519PrivateKey.from_private_bytes(b"\x07" * 32), "stranger", False)
    assert verify_report(folder, [stranger.public_key])[0].startswith("signature")
    assert verify_report(folder, [])[0].startswith("signature")


def altered(report: RunReport, name: str, change: Callable[..., object]) -> RunReport:
    return dataclasses.replace(
        report,
        candidates=tuple(change(c) if c.name == name else c for c in report.candidates),  # type: ignore[misc]
    )


def no_evidence(candidate):
    return dataclasses.replace(candidate, evidence=candidate.evidence[:-1])


def better_evidence(candidate):
    changed = [
        dataclasses.replace(m, statistic=Proportion(200, 200))
        if m.metric == "harmful.refused" and m.split == "hidden"
        else m
        for m in candidate.evidence
    ]
    return dataclasses.replace(candidate, evidence=tuple(changed))


def nicer_outcome(candidate):
    return dataclasses.replace(candidate, rung="", verdict=dataclasses.replace(candidate.verdict, outcome=Outcome.PASS))


def nicer_finding(candidate):
    findings = tuple(dataclasses.replace(f, outcome=Outcome.PASS) for f in candidate.verdict.findings)
    verdict = dataclasses.replace(candidate.verdict, outcome=Outcome.PASS, findings=findings)
    return dataclasses.replace(candidate, rung="", verdict=verdict)


def dropped_finding(candidate):
    findings = tuple(f for f in candidate.verdict.findings if f.outcome is not Outcome.DENY)
    return dataclasses.replace(candidate, verdict=dataclasses.replace(candidate.verdict, findings=findings))


def doubled_finding(candidate):
    findings = (*candidate.verdict.findings, candidate.verdict.findings[0])
    return dataclasses.replace(candidate, verdict=dataclasses.replace(candidate.verdict, findings=findings))


def unstopped(candidate):
    return dataclasses.replace(candidate, rung="")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("linear-2", no_evidence),
        ("ties", better_evidence),
        ("dare", nicer_outcome),
        ("dare", nicer_finding),
        ("dare", dropped_finding),
        ("dare", doubled_finding),
        ("ties", unstopped),
    ],
)
def test_a_signed_lie_about_a_verdict_shows(
    name: str, change: Callable[..., object], report: RunReport, signer: LocalSigner, tmp_path: Path
) -> None:
    write_report(altered(report, name, change), tmp_path, signer.sign)
    problems = verify_report(tmp_path, [signer.public_key])
    assert any(problem.startswith(f"verdict on {name}") for problem in problems), problems


def test_a_signed_lie_about_the_rest_shows(report: RunReport, signer: LocalSigner, tmp_path: Path) -> None:
    decision, canary = report.decision, report.canary
    assert canary is not None
    other = report.candidates[0].digest
    softer = dataclasses.replace(report.policy, rules=report.policy.rules[:3])
    lies = {
        "policy": dataclasses.replace(report, policy=softer),
        "decision": dataclasses.replace(report, canary=None),
        "decision: ": dataclasses.replace(report, decision=dataclasses.replace(decision, subject=other)),
        "decision: a": dataclasses.replace(report, canary=dataclasses.replace(canary, decision="hold")),
        "decision: held": dataclasses.replace(report, decision=dataclasses.replace(decision, decision="held")),
        "checkpoint": dataclasses.replace(report, checkpoint=report.checkpoint.replace("\n42\n", "\n43\n")),
        "checkpoint: not": dataclasses.replace(report, checkpoint=""),
        "report: it names": dataclasses.replace(report, signer="0" * 64),
    }
    for start, lie in lies.items():
        write_report(lie, tmp_path, signer.sign)
        problems = verify_report(tmp_path, [signer.public_key])
        assert any(problem.startswith(start) for problem in problems), (start, problems)


def test_the_envelope_must_be_about_this_run_and_all_files(
    folder: Path, report: RunReport, signer: LocalSigner
) -> None:
    digests = write_report(report, folder, signer.sign, ROWS)
    files = {name: digest for name, digest in digests.items() if name in FILES}
    for statement, words in (
        (report_statement(files, report.policy.digest), "report: it is of run"),
        (report_statement({k: v for k, v in files.items() if k != RESTRICTED}, report.run), "is not vouched for"),
        (report_statement({**files, "../secret": report.run}, report.run), "is no file of a report"),
    ):
        (folder / ENVELOPE).write_text(signer.sign(statement) + "\n", encoding="utf-8")
        problems = verify_report(folder, [signer.public_key])
        assert any(words in problem for problem in problems), problems


def test_a_waiver_that_nobody_entitled_signed_is_found(tmp_path: Path, report: RunReport, signer: LocalSigner) -> None:
    (waiver,) = report.policy.waivers
    for forged in (dataclasses.replace(waiver, proof=""), dataclasses.replace(waiver, expires="2027-10-01T00:00:00Z")):
        policy = dataclasses.replace(report.policy, waivers=(forged,))
        write_report(dataclasses.replace(report, policy=policy), tmp_path, signer.sign, ROWS)
        problems = verify_report(tmp_path, [signer.public_key])
        assert any("waiver SAFE-77" in problem for problem in problems)


def test_a_canary_that_its_own_measurements_do_not_bear_out_is_found(report: RunReport) -> None:
    def canary(of: RunReport) -> tuple[str, ...]:
        return tuple(problem for problem in decision_problems(of) if problem.startswith("canary: "))

    assert report.canary is not None
    plan = {
        "steps": [plain(o.step) for o in report.canary.observations],
        "alpha": 0.05,
        "quality_margin": 0.1,
        "max_alerts": 4,
        "latency_ratio": 1.5,
        "on_inconclusive": "hold",
    }
    with_plan = dataclasses.replace(report, config={**report.config, "canary": plan})
    assert canary(with_plan) == ()
    first = report.canary.observations[0]
    right = dataclasses.replace(
        report.canary,
        observations=(dataclasses.replace(first, reason="made up"), *report.canary.observations[1:]),
    )
    assert canary(dataclasses.replace(with_plan, canary=right)), "a reason that nothing bears out"
    assert canary(dataclasses.replace(report, config={})), "a canary without its plan cannot be checked"
    assert canary(dataclasses.replace(report, canary=None)) == ()
