"""A report's folder: written once, signed as a whole, checked again by anyone without a network.

    report.json          the facts, canonical JSON
    report.html          for a reviewer
    report.md            for a pull request
    junit.xml            for CI
    restricted.jsonl     harmful prompts and what was replied, readable by its owner only; named by digest
    report.intoto.jsonl  one DSSE envelope over the digests of all of these

``verify_report`` checks, in this order: (1) a trusted key signed the envelope, (2) every file has the digest that was
signed, (3) ``report.json`` is a canonical report of the run that the envelope names and was signed by the key it names,
(4) the policy has the digest it claims, every verdict follows from stored evidence and policy, and every claim of
learning from its own evidence, (5) the decision follows from the verdicts and the canary, (6) the checkpoint was signed
by a trusted key, (7) every waiver was signed by one whom the policy names and says what was signed, and the approvals
that lie in the report give the finding that every verdict carries. It does not load a model and does not look at the
log; ``ecology audit`` does. That every step of the canary follows from its own measurements is ``pipeline.reports``' to
add, which knows canaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ecology.audit import notes
from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import APPROVAL_RULE, TrustedKey
from ecology.contracts.run import CandidateReport, RunReport
from ecology.errors import ConfigError, EcologyError, IntegrityError
from ecology.kernel.canonical import canonical, digest_bytes
from ecology.kernel.confirmation import confirmed
from ecology.kernel.verdicts import asked, verdict
from ecology.policy.layers import policy_digest
from ecology.report.claims import claim_problems
from ecology.report.html import render_html
from ecology.report.json_report import parse_report, render_json
from ecology.report.junit import render_junit
from ecology.report.markdown import render_markdown
from ecology.report.standing import approval_finding, approvals_of, waiver_problems
from ecology.report.words import short, visible
from ecology.signer.intoto import subjects
from ecology.signer.statements import report_statement, run_of_report
from ecology.signer.verify import Verified, verify_envelope
from ecology.store.files import write_atomic

REPORT, RESTRICTED, ENVELOPE = "report.json", "restricted.jsonl", "report.intoto.jsonl"
RENDERERS: Mapping[str, Callable[[RunReport], bytes]] = {
    REPORT: render_json,
    "report.html": render_html,
    "report.md": render_markdown,
    "junit.xml": render_junit,
}
FILES = (*RENDERERS, RESTRICTED)
"""What the envelope must vouch for."""


def write_report(
    report: RunReport,
    folder: Path,
    sign: Callable[[Mapping[str, Json]], str],
    restricted: Sequence[Mapping[str, Json]] = (),
) -> Mapping[str, Digest]:
    """Writes every file of a report and the envelope last, so that a folder with an envelope is complete.

    Args:
        report: The facts.
        folder: Exists; files of an earlier report in it are replaced.
        sign: Signs an in-toto statement into a DSSE envelope, as ``Signer.sign`` does.
        restricted: One object a harmful item: prompt, reply and what is known about it.

    Returns:
        File name -> digest, the envelope included.

    Raises:
        ConfigError: The report holds what JSON cannot or does not fit its schema; nothing was written then.
    """
    contents = {name: render(report) for name, render in RENDERERS.items()}
    contents[RESTRICTED] = b"".join(canonical(row) + b"\n" for row in restricted)
    digests = {name: digest_bytes(data) for name, data in contents.items()}
    envelope = (sign(report_statement(digests, report.run)) + "\n").encode("utf-8")
    for name, data in contents.items():
        write_atomic(folder / name, data, mode=0o600 if name == RESTRICTED else 0o644)
    write_atomic(folder / ENVELOPE, envelope)
    return {**digests, ENVELOPE: digest_bytes(envelope)}


def verify_report(folder: Path, keys: Sequence[TrustedKey]) -> tuple[str, ...]:
    """Everything that is wrong with a report's folder, one sentence each; empty when all holds.

    Args:
        folder: Where the report was written.
        keys: Whose signatures count; from a policy or a command line, never from the folder.
    """
    if not keys:
        return ("signature: no trusted key was given, so nobody vouches for anything here",)
    try:
        envelope = (folder / ENVELOPE).read_bytes()
        verified = verify_envelope(envelope.decode("utf-8").removesuffix("\n"), keys)
        signed, run = subjects(verified.statement), run_of_report(verified.statement)
    except (OSError, UnicodeDecodeError, EcologyError) as error:
        return (f"signature: {ENVELOPE}: {error}",)
    problems = list(_files(folder, signed))
    try:
        report = parse_report((folder / REPORT).read_bytes())
    except (OSError, EcologyError) as error:
        return (*problems, f"report: {error}")
    problems += _binding(report, run, verified)
    problems += _verdicts(report)
    problems += claim_problems(report)
    problems += _decision(report)
    problems += _confirmation(report)
    problems += _checkpoint(report, keys)
    problems += _standing(report)
    return tuple(problems)


def _files(folder: Path, signed: Mapping[str, Digest]) -> Iterable[str]:
    for name in FILES:
        if name not in signed:
            yield f"files: {name} is not vouched for"
    for name, wanted in signed.items():
        if name not in FILES:  # a name with a path in it is never opened
            yield f"files: {visible(name)} is no file of a report"
            continue
        try:
            found = digest_bytes((folder / name).read_bytes())
        except OSError as error:
            yield f"files: {name} cannot be read: {error.strerror or error}"
            continue
        if found != wanted:
            yield f"files: {name} has digest {found}, signed was {wanted}"


def _binding(report: RunReport, run: Digest, verified: Verified) -> Iterable[str]:
    if report.run != run:
        yield f"report: it is of run {short(report.run)}, the envelope vouches for run {short(run)}"
    if report.signer != verified.keyid:
        yield f"report: it names key {visible(report.signer)} as its signer, it was signed by {verified.keyid}"


def _verdicts(report: RunReport) -> Iterable[str]:
    policy = report.policy
    if policy_digest(policy) != policy.digest:
        yield f"policy: its digest is {policy_digest(policy)}, the report says {policy.digest}"
    for candidate in report.candidates:
        who = f"verdict on {visible(candidate.name)}"
        try:
            again = _judge_again(report, candidate)
        except EcologyError as error:
            yield f"{who}: cannot be made again: {error}"
            continue
        for label, problem in again:
            yield f"{who}: {label}: {problem}"


def _judge_again(report: RunReport, candidate: CandidateReport) -> Sequence[tuple[str, str]]:
    """Where the stored verdict differs from what evidence and policy give now."""
    stored, known = candidate.verdict, {rule.id for rule in report.policy.rules}
    again = verdict(
        report.policy,
        candidate.evidence,
        candidate.digest,
        stored.scope,
        stored.decided_at,
        rules_asked={finding.rule for finding in stored.findings if asked(finding)},
        extra=[finding for finding in stored.findings if finding.rule not in known],
    )
    problems = []
    if stored.subject != candidate.digest:
        problems.append(("subject", f"it is about {stored.subject}"))
    if again.outcome is not stored.outcome:
        problems.append(("outcome", f"the evidence gives {again.outcome.value}, stored is {stored.outcome.value}"))
    found = {finding.rule: finding for finding in stored.findings}
    problems += [
        (rule.rule, f"the evidence gives {rule.outcome.value} ({rule.reason}), stored is another finding")
        for rule in again.findings
        if found.get(rule.rule) != rule
    ]
    if stored.policy != report.policy.digest:
        problems.append(("policy", f"it was made under {stored.policy}"))
    if not problems and again != stored:
        problems.append(("findings", "a finding is doubled or out of order"))
    if stored.outcome.admits == bool(candidate.rung) or (not candidate.rung and stored.scope != "full"):
        problems.append(
            ("rung", f"{stored.outcome.value} under scope {stored.scope}, yet stopped at {candidate.rung or 'none'}")
        )
    return problems


def _decision(report: RunReport) -> Iterable[str]:
    made, canary = report.decision, report.canary
    if made.decision == "promoted":
        admitted = {candidate.digest for candidate in report.candidates if not candidate.rung}
        if made.subject not in admitted:
            yield f"decision: {short(made.subject)} was promoted and is not among the admitted"
        if canary is None or (canary.decision, canary.candidate, canary.incumbent) != (
            "promote",
            made.subject,
            made.previous,
        ):
            yield "decision: a promotion without a canary that says so"
        elif not canary.observations or any(o.decision != "advance" for o in canary.observations):
            yield "decision: a promotion although a step of the canary did not advance"
    elif made.subject != made.previous:
        yield f"decision: {made.decision}, yet the alias moved"


def _confirmation(report: RunReport) -> Iterable[str]:
    """Whether the best of several proved it again, decided once more from the evidence."""
    found = report.confirmation
    if found is None:
        return
    try:
        again = confirmed(report.policy, found.evidence, found.subject, found.items)
    except EcologyError as error:
        yield f"confirmation: cannot be made again: {error}"
        return
    if again != found.findings:
        yield "confirmation: the evidence gives other findings than those stored"
    admits = bool(again) and all(finding.outcome.admits for finding in again)
    made = report.decision
    if made.decision == "promoted" and (made.subject != found.subject or not admits):
        yield f"confirmation: {short(made.subject)} was promoted and is not confirmed on fresh items"


def _checkpoint(report: RunReport, keys: Sequence[TrustedKey]) -> Iterable[str]:
    try:
        notes.verify(report.checkpoint, keys)
    except (ConfigError, IntegrityError) as error:
        yield f"checkpoint: {error}"


def _standing(report: RunReport) -> Iterable[str]:
    try:
        for problem in waiver_problems(report.policy):
            yield f"policy: {problem}"
        wanted = approval_finding(report.policy, approvals_of(report.policy, report.approvals, report.started_at))
    except EcologyError as error:
        yield f"policy: its standing cannot be checked: {error}"
        return
    for candidate in report.candidates:
        found = [f for f in candidate.verdict.findings if f.rule == APPROVAL_RULE]
        if found != ([wanted] if wanted else []):
            yield f"verdict on {visible(candidate.name)}: it says another thing about the policy's approval"
