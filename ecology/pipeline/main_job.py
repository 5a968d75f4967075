"""``ecology run``: the main job, once or swept, from overrides to exit code.

Jobs of a sweep share one home, so parents, bases and results are made once. The sweep exits with its worst job.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from ecology.contracts.run import RunReport
from ecology.errors import EXIT_BACKEND, EXIT_BUG, EXIT_INTEGRITY, EXIT_OK, EXIT_REFUSED, EXIT_USAGE, EcologyError
from ecology.pipeline import compose
from ecology.pipeline.attempt import end
from ecology.pipeline.house import ATTEMPT, House, open_house
from ecology.pipeline.run import exit_code, run
from ecology.report.bundle import write_report
from ecology.report.texts import summary_table

WORST_FIRST = (EXIT_BUG, EXIT_INTEGRITY, EXIT_BACKEND, EXIT_USAGE, EXIT_REFUSED, EXIT_OK)


def main_job(
    overrides: Sequence[str],
    *,
    home: str | None,
    multirun: bool,
    overlay: Path | None,
    quiet: bool,
    debug: bool = False,
) -> int:
    """Runs the job or jobs and returns the worst exit code.

    Raises:
        ConfigError: Nothing was run.
    """

    def task(job: compose.Job) -> int:
        try:
            house = open_house(home, quiet=quiet, key=_key(job))
            report = one(job, house)
        except EcologyError as error:
            print(f"ecology: {error}", file=sys.stderr)
            if debug:
                traceback.print_exc()
            return error.exit_code
        except Exception as error:
            print(f"ecology: a bug of ours: {type(error).__name__}: {error}; --debug shows where", file=sys.stderr)
            if debug:
                traceback.print_exc()
            return EXIT_BUG
        return exit_code(report)

    codes = compose.launch(overrides, task, multirun=multirun, overlay=overlay)
    return next(code for code in WORST_FIRST if code in codes) if codes else EXIT_OK


def one(job: compose.Job, house: House) -> RunReport:
    """One composed job: run, report on disk, summary on stdout."""
    ran = run(job.settings, job.config, house)
    digests = write_report(ran.report, job.folder, house.signer.sign, ran.restricted)
    told = {"run": ran.report.run, "digest": digests["report.json"], "folder": job.folder.name, ATTEMPT: ran.attempt.id}
    house.record("report_written", told)
    end(house, ran.attempt)
    print(summary_table(ran.report))
    print()
    for name in ("report.html", "report.md", "report.json", "junit.xml"):
        print(f"  {job.folder / name}")
    print(f"\n  verify it: ecology report verify {job.folder}")
    return ran.report


def _key(job: compose.Job) -> Path | None:
    return Path(job.settings.signer.key).expanduser() if job.settings.signer.key else None
