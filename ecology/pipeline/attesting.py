"""What a run says of its candidates under its signature: one statement over all, and the whole story of the promoted.

The run's statement lies beside the report; test result and evidence of the promoted one join its claims. Signed again
by an identity (``ecology sign --keyless``) they stand for somebody outside this home.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ecology.contracts.identity import Digest
from ecology.contracts.run import RunReport
from ecology.pipeline.house import House
from ecology.signer.evidence import Line, evidence_statement, result_statement, sweep_statement
from ecology.store.adapters import describe
from ecology.store.files import write_atomic

RUN_FILE = "run.intoto.jsonl"
SWEEP_FILE = "candidates.intoto.jsonl"
"""Of a sweep; what signs its page is ``sweep.intoto.jsonl``."""


def attest_run(house: House, report: RunReport, out: Path) -> None:
    """Signs what a finished run found.

    Args:
        house: Keys, store.
        report: The finished report.
        out: The run's folder.

    Raises:
        IntegrityError: The store does not hold the promoted adapter as it was judged.
    """
    lines = [Line(one.name, one.digest, one.verdict.outcome, one.rung) for one in report.candidates]
    if not lines:
        return
    statement = sweep_statement(report.run, report.policy.digest, lines, report.finished_at)
    write_atomic(out / RUN_FILE, (house.signer.sign(statement) + "\n").encode())
    if report.decision.decision != "promoted":
        return
    for one in report.candidates:
        if one.digest == report.decision.subject and one.genome is not None:
            artifact = describe(house.store.folder(one.digest))
            envelopes = [
                house.signer.sign(result_statement(artifact, one.verdict, report.policy)),
                house.signer.sign(evidence_statement(artifact, one.evidence, report.finished_at)),
            ]
            house.store.add_claims(one.digest, envelopes)
            return


def attest_sweep(house: House, reports: Mapping[int, RunReport], sweep: Digest, at: str, out: Path) -> None:
    """Signs one statement over the candidates of all jobs, each named ``JOB/NAME``.

    Jobs may have been judged under several policies, if these were swept too; then there is one statement a policy.

    Args:
        house: Keys.
        reports: Job to its finished report.
        sweep: Digest of the plans of all jobs.
        at: RFC 3339 instant, UTC.
        out: The sweep's folder.
    """
    lines: dict[Digest, list[Line]] = {}
    for job, report in sorted(reports.items()):
        lines.setdefault(report.policy.digest, []).extend(
            Line(f"{job}/{one.name}", one.digest, one.verdict.outcome, one.rung) for one in report.candidates
        )
    signed = [house.signer.sign(sweep_statement(sweep, policy, found, at)) for policy, found in lines.items() if found]
    if signed:
        write_atomic(out / SWEEP_FILE, "".join(f"{line}\n" for line in signed).encode())
