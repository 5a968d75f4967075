"""A sweep's folder: ``sweep.json`` (the facts), ``sweep.html`` (for people), ``sweep.intoto.jsonl`` (the signature).

The page answers three questions: what did each operator and each swept value buy, which gate stopped whom, and what
became of the best. Nothing on it is new: every figure is from a job's own report, which the JSON names by digest.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jinja2

from ecology.contracts.identity import Json
from ecology.contracts.policy import TrustedKey
from ecology.contracts.run import NOT_A_FINALIST, RunReport
from ecology.contracts.sweep import Entry, SweepJob, SweepReport
from ecology.errors import EcologyError
from ecology.kernel import canonical
from ecology.kernel.codec import structure
from ecology.kernel.verdicts import asked
from ecology.report.figures import COLUMNS, cells_of
from ecology.report.texts import quarantine
from ecology.report.words import duration, fixed, quantity, short, size, visible
from ecology.signer.intoto import subjects
from ecology.signer.statements import report_statement, run_of_report
from ecology.signer.verify import verify_envelope
from ecology.store.files import write_atomic

SWEEP, PAGE, ENVELOPE = "sweep.json", "sweep.html", "sweep.intoto.jsonl"
FOLDER = Path(__file__).parent / "templates"


def entries_of(report: RunReport) -> tuple[Entry, ...]:
    """The candidates of one job, shortened."""
    names = {candidate.digest: candidate.name for candidate in report.candidates}
    found = []
    for candidate in report.candidates:
        lineage = candidate.genome.lineage if candidate.genome else None
        cells = cells_of(candidate.evidence, (), report.policy)
        found.append(
            Entry(
                name=candidate.name,
                digest=candidate.digest,
                operator=lineage.operator if lineage else "",
                parameters=lineage.parameters if lineage else {},
                parents=tuple(names.get(parent, short(parent)) for parent in lineage.parents) if lineage else (),
                outcome=candidate.verdict.outcome.value,
                rung=candidate.rung,
                stopped_by=tuple(
                    finding.rule
                    for finding in candidate.verdict.findings
                    if candidate.rung and asked(finding) and finding.outcome.value in {"deny", "inconclusive"}
                ),
                score=candidate.fitness.score if candidate.fitness else None,
                figures={c.column.key: (c.point, c.lower, c.upper) for c in cells if c is not None},
            )
        )
    return tuple(found)


def write_sweep(report: SweepReport, folder: Path, sign: Callable[[Mapping[str, Json]], str]) -> None:
    """Writes the three files, the envelope last."""
    contents = {SWEEP: canonical.canonical(report), PAGE: render(report)}
    digests = {name: canonical.digest_bytes(data) for name, data in contents.items()}
    envelope = sign(report_statement(digests, report.sweep)) + "\n"
    for name, data in contents.items():
        write_atomic(folder / name, data)
    write_atomic(folder / ENVELOPE, envelope.encode())


def sweep_text(report: SweepReport) -> str:
    """The sweep for a terminal: one line a job, then the pick."""
    rows = [("job", "swept", "exit", "bred", "admitted", "best fitness", "time")]
    rows += [
        (
            str(job.number),
            job.label,
            str(job.code),
            str(sum(bool(entry.parents) for entry in job.entries)),
            ", ".join(entry.name for entry in job.entries if not entry.rung) or ("-" if not job.error else "failed"),
            max((fixed(entry.score) for entry in job.entries if entry.score is not None), default="-"),
            duration(job.seconds),
        )
        for job in report.jobs
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"job {job.number} failed: {job.error}" for job in report.jobs if job.error]
    return "\n".join((*lines, "", pick_sentence(report), ""))


def pick_sentence(report: SweepReport) -> str:
    """What the sweep came to."""
    pick = report.pick
    if not pick.winner:
        return f"Nobody was picked: {pick.decision.reason}."
    scores = [f"fitness {fixed(pick.score)} in its job"] if pick.score is not None else []
    scores += [f"{fixed(pick.fresh_score)} on fresh items"] if pick.fresh_score is not None else []
    alias = f" {pick.decision.alias}" if pick.decision.alias else ""
    return (
        f"Picked {pick.winner} of job {pick.job}, the best of {pick.compared} admitted ({', '.join(scores)}); "
        f"{pick.decision.decision.replace('_', ' ')}{alias}: {pick.decision.reason}."
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Bought:
    """What the children of one operator, or of one swept value, came to."""

    name: str
    bred: int
    admitted: int
    finalists: int
    best: str
    figures: tuple[str, ...]
    """Best point of each column among those measured."""
    stopped: str


def bought_by_operator(report: SweepReport) -> tuple[Bought, ...]:
    """One line an operator, over all jobs; an adapter that several jobs bred counts once."""
    every = {entry.digest: entry for job in report.jobs for entry in job.entries if entry.operator}
    operators = dict.fromkeys(entry.operator for entry in every.values())
    return tuple(_bought(name, [e for e in every.values() if e.operator == name]) for name in operators)


def bought_by_value(report: SweepReport) -> tuple[Bought, ...]:
    """One line a swept value, children of its jobs only."""
    values = dict.fromkeys(part for job in report.jobs for part in job.label.split(" "))
    return tuple(
        _bought(
            value,
            [e for job in report.jobs if value in job.label.split(" ") for e in job.entries if e.parents],
        )
        for value in values
    )


def killed(report: SweepReport) -> tuple[tuple[str, str, int, str], ...]:
    """Rule, rung, number and names of those it stopped, the deadliest first."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for job in report.jobs:
        for entry in job.entries:
            for rule in entry.stopped_by if entry.rung != NOT_A_FINALIST else ():
                found.setdefault((rule, entry.rung), {})[entry.digest] = f"{entry.name} (job {job.number})"
    rows = [(rule, rung, len(who), ", ".join(who.values())) for (rule, rung), who in found.items()]
    return tuple(sorted(rows, key=lambda row: (-row[2], row[0])))


def _bought(name: str, entries: Sequence[Entry]) -> Bought:
    scores = [entry.score for entry in entries if entry.score is not None]
    figures = []
    for column in COLUMNS:
        every = [entry.figures[column.key][0] for entry in entries if column.key in entry.figures]
        points = [point for point in every if point is not None]
        lower_is_better = column.key in {"over", "latency"}
        best = (min(points) if lower_is_better else max(points)) if points else None
        figures.append("-" if best is None else quantity(best, column.unit))
    rungs = Counter(entry.rung for entry in entries if entry.rung)
    return Bought(
        name=name,
        bred=len(entries),
        admitted=sum(not entry.rung for entry in entries),
        finalists=sum(entry.rung in {"", "hidden", "resources"} for entry in entries),
        best=fixed(max(scores)) if scores else "-",
        figures=tuple(figures),
        stopped=", ".join(f"{count} {rung}" for rung, count in rungs.most_common()) or "-",
    )


def render(report: SweepReport) -> bytes:
    """The page, UTF-8. The same report gives the same bytes."""
    style = (FOLDER / "report.css").read_text(encoding="utf-8")
    hashed = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    page = {
        "style": style,
        "style_hash": f"sha256-{hashed}",
        "report": report,
        "sentence": pick_sentence(report),
        "columns": COLUMNS,
        "operators": bought_by_operator(report),
        "swept": bought_by_value(report),
        "killed": killed(report),
        "jobs": [_row(job) for job in report.jobs],
        "revoked": quarantine(report),
    }
    return _template().render(page=page).encode("utf-8")


def _row(job: SweepJob) -> dict[str, object]:
    return {
        "job": job,
        "seconds": duration(job.seconds),
        "peak": size(job.peak_memory_bytes) if job.peak_memory_bytes else "-",
        "admitted": ", ".join(entry.name for entry in job.entries if not entry.rung) or "nobody",
        "best": max((fixed(entry.score) for entry in job.entries if entry.score is not None), default="-"),
    }


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["visible"] = visible
    return environment.get_template("sweep.html.j2")


def verify_sweep(folder: Path, keys: Sequence[TrustedKey]) -> tuple[SweepReport | None, tuple[str, ...]]:
    """The sweep, if a trusted key signed it, and what is wrong with its own files, one sentence each.

    Args:
        folder: Where the sweep was written.
        keys: Whose signatures count.
    """
    try:
        envelope = (folder / ENVELOPE).read_bytes().decode("utf-8").removesuffix("\n")
        verified = verify_envelope(envelope, keys)
        signed, name = subjects(verified.statement), run_of_report(verified.statement)
        data = {file: (folder / file).read_bytes() for file in (SWEEP, PAGE)}
        report = structure(SweepReport, json.loads(data[SWEEP]), SWEEP)
    except (OSError, ValueError, EcologyError) as error:
        return None, (f"signature: {ENVELOPE}: {error}",)
    problems = []
    for file, content in data.items():
        if signed.get(file) != (found := canonical.digest_bytes(content)):
            problems.append(f"files: {file} has digest {found}, signed was {signed.get(file, 'nothing')}")
    if report.sweep != name:
        problems.append(f"sweep: it is {short(report.sweep)}, the envelope vouches for {short(name)}")
    if not problems and render(report) != data[PAGE]:
        problems.append(f"files: {PAGE} is not what {SWEEP} gives")
    return report, tuple(problems)
