"""``ecology run -m``: several jobs, one home, one pick.

    plan every job -> run them through the launcher -> read what they left -> pick once -> page, JSON, signature

Jobs meet in the home alone: parents, bases, answers and facts are made once, by whoever comes first. A job leaves its
report and ``job.json`` in its folder; the sweep reads those and nothing else, so a job that dies, by itself or with
its whole pool of workers, is one without a result. Such jobs are tried once more, alone, and then reported; the others
go on.

A sweep that was cut off is run again by the same command: what was made is in the home, under the digest of what it was
made from, and a pick that was cut off goes on with its own attempt.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from ecology.contracts.identity import Digest, Json
from ecology.contracts.promotion import Promotion
from ecology.contracts.run import RunReport
from ecology.contracts.sweep import SWEEP_SCHEMA, Pick, SweepJob, SweepReport
from ecology.errors import (
    EXIT_BACKEND,
    EXIT_BUG,
    EXIT_INTEGRITY,
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_USAGE,
    BackendError,
)
from ecology.kernel import canonical
from ecology.pipeline.attesting import attest_sweep
from ecology.pipeline.house import House, open_house
from ecology.pipeline.launching import Planned, launch_sweep, plan_sweep, sweep_folder
from ecology.pipeline.main_job import RESULT, JobTask, Voice, explain, publish
from ecology.pipeline.picking import pick
from ecology.pipeline.run import Ran, exit_code
from ecology.report.bundle import REPORT
from ecology.report.json_report import read_report
from ecology.report.sweep import entries_of, sweep_text, write_sweep
from ecology.telemetry.clock import SystemClock
from ecology.telemetry.journal import FileJournal

WORST_FIRST = (EXIT_BUG, EXIT_INTEGRITY, EXIT_BACKEND, EXIT_USAGE, EXIT_REFUSED, EXIT_OK)
TRIES = 2
"""A job whose process dies is tried so often."""
DIED = "its process died before it could say why; the system may have killed it for want of memory"


def sweep(overrides: Sequence[str], *, home: str | None, overlay: Path | None, voice: Voice) -> int:
    """Runs every job, picks once and returns the worst exit code.

    Raises:
        ConfigError: Nothing was run.
    """
    house = open_house(home, quiet=voice.quiet)
    jobs = plan_sweep(overrides, overlay, house.progress)
    folder = sweep_folder(overrides, overlay)
    clock = SystemClock()
    journal = FileJournal(folder, clock, sys.stderr if voice.verbose else None)
    house = open_house(home, quiet=voice.quiet, journal=journal)
    started = clock.now()
    journal.tell("sweep_started", jobs=len(jobs))
    for job in jobs:
        if job.error:
            print(f"ecology: job {job.number} ({job.label}) cannot run: {job.error}", file=sys.stderr)
    _launch_all(overrides, jobs, folder, JobTask(home, voice, in_sweep=True), overlay)
    reports = _reports(jobs, folder)
    told = tuple(_job(job, folder, reports.get(job.number)) for job in jobs)
    name = canonical.digest({"sweep": sorted(report.run for report in reports.values())})
    picked, code = _pick(reports, {job.number: job.config for job in jobs}, name, folder, house, voice)
    codes = [*(job.code for job in told), code]
    report = SweepReport(
        schema=SWEEP_SCHEMA,
        sweep=name,
        started_at=started,
        finished_at=clock.now(),
        swept=_swept(jobs),
        jobs=told,
        pick=picked,
        code=next(worst for worst in WORST_FIRST if worst in codes),
        signer=house.signer.keyid,
        development_key=house.signer.development,
        revoked=house.quarantine(),
    )
    attest_sweep(house, reports, name, report.finished_at, folder)
    write_sweep(report, folder, house.signer.sign)
    journal.tell("sweep_ended", code=report.code, decision=picked.decision.decision)
    print(sweep_text(report))
    for file in ("sweep.html", "sweep.json", *([f"pick/{REPORT}"] if picked.report else [])):
        print(f"  {folder / file}")
    return report.code


def _launch_all(
    overrides: Sequence[str], jobs: Sequence[Planned], folder: Path, task: JobTask, overlay: Path | None
) -> None:
    waiting = [job for job in jobs if not job.error]
    try:
        launch_sweep(overrides, waiting, folder, task, overlay)
    except BackendError as error:
        print(f"ecology: {error}; jobs without a result are tried once more", file=sys.stderr)
    for _ in range(TRIES - 1):
        for job in [job for job in waiting if _result(folder / str(job.number)) is None]:
            try:  # each through a launcher of its own, so that one that dies takes nobody along
                launch_sweep(overrides, [job], folder, task, overlay)
            except BackendError as error:
                print(f"ecology: job {job.number}: {error}", file=sys.stderr)


def _result(folder: Path) -> tuple[int, str] | None:
    try:
        found = json.loads((folder / RESULT).read_bytes())
        return int(found["code"]), str(found["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _reports(jobs: Sequence[Planned], folder: Path) -> dict[int, RunReport]:
    found = {}
    for job in jobs:
        result = _result(folder / str(job.number))
        if result is not None and not result[1]:
            found[job.number] = read_report(folder / str(job.number) / REPORT)
    return found


def _job(job: Planned, folder: Path, report: RunReport | None) -> SweepJob:
    code, error = (EXIT_USAGE, job.error) if job.error else _result(folder / str(job.number)) or (EXIT_BACKEND, DIED)
    path = folder / str(job.number) / REPORT
    return SweepJob(
        number=job.number,
        label=job.label,
        overrides=job.overrides,
        code=code,
        error=error,
        run=report.run if report else "",
        report=canonical.digest_bytes(path.read_bytes()) if report else "",
        seconds=sum(stage.seconds for stage in report.stages) if report else 0.0,
        peak_memory_bytes=max((stage.peak_memory_bytes for stage in report.stages), default=0) if report else 0,
        entries=entries_of(report) if report else (),
    )


def _pick(
    reports: Mapping[int, RunReport],
    configs: Mapping[int, Mapping[str, Json]],
    name: Digest,
    folder: Path,
    house: House,
    voice: Voice,
) -> tuple[Pick, int]:
    nobody = Promotion("none", "", "", "", "no job came to a report")
    if not reports:
        return Pick(nobody, 0, "", None, None, None, ""), EXIT_REFUSED
    try:
        picked = pick(reports, configs, name, house, lambda ran: _publish(ran, folder / "pick", house))
    except Exception as error:  # whatever it is, the jobs are done and their page is owed
        return _failed(error, nobody, voice)
    code = exit_code(picked.ran.report) if picked.ran else EXIT_REFUSED
    made = Pick(
        picked.decision, picked.compared, picked.winner, picked.job, picked.score, picked.fresh_score, picked.report
    )
    return made, code


def _failed(error: Exception, nobody: Promotion, voice: Voice) -> tuple[Pick, int]:
    code, problem = explain(error)
    print(f"ecology: the pick failed: {problem}", file=sys.stderr)
    if voice.debug:
        traceback.print_exc()
    decision = Promotion("none", nobody.alias, nobody.subject, nobody.previous, f"the pick failed: {problem}")
    return Pick(decision, 0, "", None, None, None, ""), code


def _publish(ran: Ran, folder: Path, house: House) -> str:
    folder.mkdir(exist_ok=True)
    return publish(ran, folder, house)


def _swept(jobs: Sequence[Planned]) -> tuple[str, ...]:
    found = dict.fromkeys(text.split("=", 1)[0] for job in jobs for text in job.overrides if text in job.label)
    return tuple(found)
