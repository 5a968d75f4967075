"""``ecology run``: the main job once, from overrides to exit code; ``ecology.pipeline.sweep`` runs several.

A job never raises: what went wrong is said in one line on stderr, told to the journal, and becomes an exit code.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from ecology.contracts.run import RunReport
from ecology.errors import EXIT_BUG, EXIT_OK, EXIT_REFUSED, EcologyError, from_system
from ecology.kernel import canonical
from ecology.pipeline.attempt import end
from ecology.pipeline.attesting import attest_run
from ecology.pipeline.house import ATTEMPT, House, open_house
from ecology.pipeline.launching import Job, launch
from ecology.pipeline.run import Ran, exit_code, run
from ecology.report.bundle import write_report
from ecology.report.texts import summary_table
from ecology.store.files import write_atomic
from ecology.telemetry.clock import SystemClock
from ecology.telemetry.journal import FileJournal

RESULT = "job.json"
"""How a job of a sweep ended: exit code and error, written last."""


@dataclasses.dataclass(frozen=True)
class Voice:
    """How much is said on stderr."""

    quiet: bool = False
    """No progress."""
    verbose: bool = False
    """The journal as well."""
    debug: bool = False
    """Tracebacks."""


def main_job(overrides: Sequence[str], *, home: str | None, overlay: Path | None, voice: Voice) -> int:
    """Runs the job and returns its exit code.

    Raises:
        ConfigError: Nothing was run.
    """
    return launch(overrides, JobTask(home, voice), overlay)


@dataclasses.dataclass(frozen=True)
class JobTask:
    """What is done with a composed job. Can be pickled: a launcher may run it in another process."""

    home: str | None
    voice: Voice
    in_sweep: bool = False
    """Such a job ends when everybody is judged, says one line and leaves its result in a file."""

    def __call__(self, job: Job) -> int:
        """Runs the job; returns its exit code."""
        clock = SystemClock()
        journal = FileJournal(job.folder, clock, sys.stderr if self.voice.verbose else None)
        code, problem = EXIT_BUG, ""
        try:
            journal.tell("job_started", config=canonical.digest(job.config))
            house = open_house(self.home, quiet=self.voice.quiet, key=_key(job), journal=journal)
            if job.settings.optimise is not None:
                return _search(job, house)
            report = self._one(job, house)
            code = _admitted(report) if self.in_sweep else exit_code(report)
        except BrokenPipeError:
            raise
        except Exception as error:
            code, problem = explain(error)
            print(f"ecology: {problem}", file=sys.stderr)
            if self.voice.debug:
                traceback.print_exc()
        _last_words(journal, job.folder, code, problem, as_file=self.in_sweep)
        return code

    def _one(self, job: Job, house: House) -> RunReport:
        ran = run(
            job.settings,
            job.config,
            house,
            lambda ran: publish(ran, job.folder, house),
            promotes=not self.in_sweep,
        )
        if self.in_sweep:
            passed = [candidate.name for candidate in ran.report.candidates if not candidate.rung]
            print(f"job {job.folder.name}: admitted {', '.join(passed) or 'nobody'}  {job.folder / 'report.html'}")
        else:
            print(summary_table(ran.report))
            print()
            for name in ("report.html", "report.md", "report.json", "junit.xml", "run.log"):
                print(f"  {job.folder / name}")
            print(f"\n  verify it: ecology report verify {job.folder}")
        sys.stdout.flush()
        return ran.report


def _search(job: Job, house: House) -> int:
    """A search over weights instead of the main job: files, best points on stdout."""
    from ecology.pipeline.optimise import optimise, summary  # noqa: PLC0415

    found = optimise(job.settings, job.config, house, job.folder)
    print("\n".join(summary(found)))
    print()
    for path in sorted(job.folder.glob("weights.*")):
        print(f"  {path}")
    return EXIT_OK


def publish(ran: Ran, folder: Path, house: House) -> str:
    """The report on disk and in the log; after it the attempt is over. Returns the digest of ``report.json``."""
    digests = write_report(ran.report, folder, house.signer.sign, ran.restricted)
    told = {"run": ran.report.run, "digest": digests["report.json"], "folder": folder.name, ATTEMPT: ran.attempt.id}
    attest_run(house, ran.report, folder)
    house.record("report_written", told)
    end(house, ran.attempt)
    return digests["report.json"]


def explain(error: Exception) -> tuple[int, str]:
    """Exit code and one line for whatever was raised."""
    known = error if isinstance(error, EcologyError) else from_system(error)
    if known is not None:
        return known.exit_code, str(known)
    return EXIT_BUG, f"a bug of ours: {type(error).__name__}: {error}; --debug shows where"


def _last_words(journal: FileJournal, folder: Path, code: int, problem: str, *, as_file: bool) -> None:
    try:
        journal.tell("job_ended", code=code, error=problem)
        if as_file:
            write_atomic(folder / RESULT, json.dumps({"code": code, "error": problem}).encode())
    except OSError as error:  # a full disk: the code says it, and the sweep takes a missing file for a death
        print(f"ecology: {explain(error)[1]}", file=sys.stderr)


def _admitted(report: RunReport) -> int:
    return EXIT_OK if any(not candidate.rung for candidate in report.candidates) else EXIT_REFUSED


def _key(job: Job) -> Path | None:
    return Path(job.settings.signer.key).expanduser() if job.settings.signer.key else None
