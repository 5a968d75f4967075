"""``ecology report``: a report built again from its facts, or checked without trusting any of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ecology.contracts.identity import Digest
from ecology.contracts.policy import TrustedKey
from ecology.contracts.run import RunReport
from ecology.errors import ConfigError, EcologyError
from ecology.kernel.canonical import digest_bytes
from ecology.pipeline.house import House
from ecology.pipeline.redeciding import decision_problems
from ecology.report.bundle import ENVELOPE, FILES, RENDERERS, REPORT, verify_report
from ecology.report.json_report import read_report
from ecology.report.standing import approvals_of, standing_line
from ecology.report.sweep import SWEEP, verify_sweep
from ecology.signer.intoto import subjects
from ecology.signer.keys import read_trusted
from ecology.signer.verify import unverified_statement
from ecology.store.files import write_atomic


def build(folder: Path, out: Path | None = None) -> list[Path]:
    """Writes HTML, Markdown and JUnit again from ``report.json``; the same facts and program give the same bytes.

    Beside a signature nothing is written but what was signed, so a file that was lost or spoilt comes back. What
    another version of this program makes of the same facts belongs into another folder: here it would not verify.

    Args:
        folder: The run's output folder.
        out: Where to write; None is the folder itself.

    Raises:
        ConfigError: There is no report, or files would be written that are not those that were signed.
        IntegrityError: It is not a report.
    """
    report = read_report(_report(folder))
    target = folder if out is None else out
    rendered = {name: render(report) for name, render in RENDERERS.items() if name != REPORT}
    signed = _signed(target)
    other = [name for name, data in rendered.items() if signed and signed.get(name) != digest_bytes(data)]
    if other:
        raise ConfigError(
            f"{', '.join(other)} would not be as signed, and the report would no longer verify",
            where=str(target),
            todo="another version of this program wrote them, or report.json was changed; --out DIR writes elsewhere",
        )
    target.mkdir(parents=True, exist_ok=True)
    for name, data in rendered.items():
        write_atomic(target / name, data)
    return [target / name for name in rendered]


def _signed(folder: Path) -> Mapping[str, Digest]:
    """What the envelope in a folder says that it vouches for, whoever signed it; empty where there is none."""
    path = folder / ENVELOPE
    try:
        return subjects(unverified_statement(path.read_text("utf-8").removesuffix("\n")))
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, EcologyError) as error:
        todo = "restore it, or write elsewhere: --out DIR"
        raise ConfigError(f"it is not known what was signed here: {error}", where=str(path), todo=todo) from error


def verify(folder: Path, key: Path | None, house: House) -> tuple[list[str], tuple[str, ...]]:
    """Every digest, signature and verdict of a report, checked offline.

    Args:
        folder: The run's output folder.
        key: PEM public key to trust; None is this home's own.
        house: Where the home's key is.

    Returns:
        What was checked, and problems.

    Raises:
        ConfigError: There is no report, or the key cannot be read.
    """
    anchor = read_trusted(key) if key else house.signer.public_key
    if (folder / SWEEP).exists():
        return _verify_sweep(folder, anchor)
    return _verify_run(folder, anchor)


def _verify_run(folder: Path, anchor: TrustedKey) -> tuple[list[str], tuple[str, ...]]:
    report = read_report(_report(folder))
    problems = (*verify_report(folder, (anchor,)), *decision_problems(report))
    rules = sum(len(candidate.verdict.findings) for candidate in report.candidates)
    lines = [
        f"run       {report.run}",
        f"signed by {anchor.name}{' (development key)' if report.development_key else ''}",
        f"files     {len(FILES)} digests checked against the signed statement",
        f"verdicts  {len(report.candidates)} recomputed from stored evidence, {rules} findings",
        f"policy    {report.policy.id} v{report.policy.version}, {_standing(report)}",
        f"canary    {_steps(report)}",
        f"decision  {report.decision.decision}: {report.decision.reason}",
    ]
    if not problems:
        lines.append("everything holds")
    return lines, problems


def _standing(report: RunReport) -> str:
    try:
        return standing_line(report.policy, approvals_of(report.policy, report.approvals, report.started_at))
    except EcologyError as error:
        return f"its standing cannot be checked: {error}"


def _steps(report: RunReport) -> str:
    if report.canary is None:
        return "there was none"
    return f"{len(report.canary.observations)} steps decided again from their own measurements"


def _verify_sweep(folder: Path, anchor: TrustedKey) -> tuple[list[str], tuple[str, ...]]:
    """The sweep's own files, then every job's report and the pick's: that they hold, and are the ones it names."""
    sweep, problems = verify_sweep(folder, (anchor,))
    if sweep is None:
        return [], problems
    lines = [f"sweep     {sweep.sweep}", f"jobs      {len(sweep.jobs)}, pick: {sweep.pick.decision.decision}"]
    named = {**{str(job.number): job.report for job in sweep.jobs}, "pick": sweep.pick.report}
    for name, digest in named.items():
        if not digest:
            continue
        found = digest_bytes(_report(folder / name).read_bytes())
        own = () if found == digest else (f"its report has digest {found}, the sweep names {digest}",)
        _, inside = _verify_run(folder / name, anchor)
        problems += tuple(f"{name}: {problem}" for problem in (*own, *inside))
        lines.append(f"{name:<9} {'does not hold' if own or inside else 'holds'}")
    if not problems:
        lines.append("everything holds")
    return lines, problems


def _report(folder: Path) -> Path:
    path = folder / REPORT
    if not path.exists():
        raise ConfigError("there is no report here", where=str(path), todo="give the output folder of a run")
    return path
