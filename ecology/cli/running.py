"""``ecology run``: the main job."""

from __future__ import annotations

import argparse
from pathlib import Path

from ecology.cli.grammar import Command


def run_command(command: Command) -> None:
    """Adds ``run``."""
    run = command("run", "breed, sign, judge, rank, try, promote and report: the main job", _run)
    run.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="Hydra overrides, such as breeder=[linear,ties] seed=2"
    )
    run.add_argument("-m", "--multirun", action="store_true", help="sweep over values with commas")
    run.add_argument("--config-dir", metavar="DIR", type=Path, help="your own configuration groups, searched first")
    run.add_argument("--dry-run", action="store_true", help="say who would be trained and bred, and at what cost")


def _run(options: argparse.Namespace) -> int:
    from ecology.pipeline.main_job import Voice, main_job  # noqa: PLC0415

    if options.dry_run:
        from ecology.pipeline.forecast import dry_run, dry_sweep  # noqa: PLC0415

        if options.multirun:
            return dry_sweep(options.overrides, options.config_dir, quiet=options.quiet)
        return dry_run(options.overrides, options.config_dir)
    voice = Voice(options.quiet, options.verbose, options.debug)
    if options.multirun:
        from ecology.pipeline.sweep import sweep  # noqa: PLC0415

        return sweep(options.overrides, home=options.home, overlay=options.config_dir, voice=voice)
    return main_job(options.overrides, home=options.home, overlay=options.config_dir, voice=voice)
