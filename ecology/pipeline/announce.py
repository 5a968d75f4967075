"""What the gate says of its verdicts, on stdout and in files: each format is one look at the same verdicts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ecology.contracts.identity import Json
from ecology.contracts.policy import Outcome, Policy
from ecology.kernel import canonical
from ecology.kernel.verdicts import asked, headline
from ecology.pipeline.desk import Form, Gated
from ecology.pipeline.governing import Governed
from ecology.pipeline.house import House
from ecology.report.gated import Judged
from ecology.report.sight import rule_sights
from ecology.report.standing import standing_line
from ecology.report.words import visible
from ecology.signer.statements import verdict_statement
from ecology.store.files import write_atomic

SUMMARY = "GITHUB_STEP_SUMMARY"
"""Environment variable with the file that GitHub shows as the summary of a step."""
FILES: Mapping[str, Form] = {"gate.json": "json", "junit.xml": "junit", "sarif.json": "sarif"}
"""What ``--out`` writes besides the verdicts one by one."""
MARKS = {
    Outcome.PASS: "pass",
    Outcome.WAIVED: "waived",
    Outcome.WARN: "WARN",
    Outcome.INCONCLUSIVE: "INCONCLUSIVE",
    Outcome.DENY: "DENY",
}


def announced(gated: Sequence[Gated], governed: Governed, form: Form) -> str:
    """The verdicts in one format; for GitHub also appends the summary of the step where the runner wants it."""
    policy = governed.policy
    judged = [Judged(one.name, _shown_path(one.folder), one.verdict) for one in gated]
    if form == "json":
        return json.dumps([_plain(one, policy) for one in gated], indent=2)
    if form == "junit":
        from ecology.report.junit import junit  # noqa: PLC0415

        return junit([(one.name, one.verdict) for one in gated], policy.id, policy).decode()
    if form == "sarif":
        from ecology.report.sarif import sarif  # noqa: PLC0415

        return sarif(judged, policy).decode().rstrip()
    standing = standing_line(policy, governed.approvals)
    seen = rule_sights(policy, [one.verdict for one in gated])
    if form == "github":
        from ecology.report.github import step_summary, workflow_commands  # noqa: PLC0415

        if target := os.environ.get(SUMMARY):
            with Path(target).open("a", encoding="utf-8") as file:  # GitHub says to append
                file.write(step_summary(judged, policy, standing, seen))
        return workflow_commands(judged)
    if not gated:
        return "nothing changed: there is no adapter to judge"
    told = ["what the rules could see:\n  " + "\n  ".join(seen)] if seen else []
    last = f"policy {policy.id} {policy.digest}\n  {standing}"
    return "\n\n".join([*(_text(one, policy) for one in gated), *told, last])


def write_out(gated: Sequence[Gated], governed: Governed, out: Path, house: House) -> None:
    """Everything that a build keeps: all verdicts in the formats of machines, and one signed SLSA VSA an adapter.

    Nothing vouches for a folder that could not be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, form in FILES.items():
        write_atomic(out / name, f"{announced(gated, governed, form)}\n".encode())
    for one in gated:
        if one.member is None:
            continue
        name = one.verdict.subject.removeprefix("sha256:")[:16]
        write_atomic(out / f"{name}.verdict.json", canonical.canonical(one.verdict))
        artifact = one.member.submission.artifact
        statement = verdict_statement(artifact, one.verdict, governed.policy, one.evidence)
        write_atomic(out / f"{name}.intoto.jsonl", (house.signer.sign(statement) + "\n").encode())


def _plain(one: Gated, policy: Policy) -> Json:
    return {
        "name": _utf8(one.name),
        "path": _utf8(_shown_path(one.folder)),
        "kept": one.kept,
        "verdict": canonical.plain(one.verdict),
        "evidence": canonical.plain(one.evidence),
        "sees": list(rule_sights(policy, [one.verdict])),
    }


def _utf8(name: str) -> str:
    r"""A name as it is; what is not UTF-8 in it, which JSON cannot hold, as ``\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _text(gated: Gated, policy: Policy) -> str:
    judged = gated.verdict
    word = "passed" if judged.outcome.admits else "REFUSED"
    scope = " (static scope: admits to nothing)" if judged.scope == "static" else ""
    kept = " (unchanged: nothing was measured again)" if gated.kept else ""
    lines = [f"{visible(gated.name)}: {word} under {policy.id} v{policy.version}{scope}{kept}"]
    lines += [f"  {judged.subject}"] if gated.member else []
    for finding in judged.findings:
        if not asked(finding):
            continue
        lines.append(f"  {MARKS[finding.outcome]:<13} {finding.rule:<10} {finding.title}: {visible(finding.reason)}")
        lines += [f"                {visible(detail)}" for detail in finding.details]
        if finding.controls and not finding.outcome.admits:
            lines.append(f"                see {', '.join(finding.controls)}")
    left_out = [finding.rule for finding in judged.findings if not asked(finding)]
    if left_out:
        lines.append(f"  not asked: {', '.join(left_out)}")
    top = headline(judged)
    if top is not None and not judged.outcome.admits:
        lines.append(f"  because: {top.rule} {top.title}")
    return "\n".join(lines)


def _shown_path(folder: Path) -> str:
    """Relative to the working directory where it lies below, in POSIX form."""
    try:
        return Path(os.path.realpath(folder)).relative_to(os.path.realpath(Path.cwd())).as_posix()
    except ValueError:
        return folder.as_posix()
