"""Runs composed jobs: one in this process, or those of a sweep through Hydra's launcher.

Why not ``hydra.main``: it turns every failure into exit 1, which is our word for "refused". Why not Hydra's sweeper: it
composes all jobs before the first and dies with the first that does not; here such a job is reported and the others
run. Launchers are Hydra's own: ``basic`` runs one job after another in this process, ``joblib`` several at once in
processes of their own.

A job that is composed again, in a worker, must come out as it did when the sweep was planned.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict, read_write

from ecology.contracts.identity import Digest, Json
from ecology.contracts.ports import Progress
from ecology.errors import BackendError, ConfigError
from ecology.kernel import canonical
from ecology.pipeline.compose import (
    check,
    check_overrides,
    composed,
    opened,
    parsed_overrides,
    refuse_code,
    single,
    user_part,
)
from ecology.pipeline.plan import mistakes
from ecology.pipeline.settings import Settings


@dataclasses.dataclass(frozen=True)
class Job:
    """One composed job."""

    settings: Settings
    config: Mapping[str, Json]
    """Resolved plain data, as recorded and digested."""
    folder: Path
    """Hydra's output folder of this job."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """One job of a sweep before it runs."""

    number: int
    overrides: tuple[str, ...]
    label: str
    """The swept values alone: ``breeder=ties seed=2``."""
    config: Mapping[str, Json]
    error: str
    """Why it cannot run; empty when it can."""


Task = Callable[[Job], int]
"""Runs one job and returns its exit code. Does not raise. Can be pickled, because joblib sends it to a process."""


def launch(overrides: Sequence[str], task: Task, overlay: Path | None = None) -> int:
    """Composes the configuration and runs it.

    Args:
        overrides: Hydra overrides, as on the command line.
        task: What to run.
        overlay: A folder with the user's own groups, searched before the shipped ones.

    Returns:
        The task's exit code.

    Raises:
        ConfigError: Nothing was run: the configuration does not compose, does not fit or names code.
    """
    with opened(overlay) as engine:
        single(overrides)
        config = composed(engine, overrides, overlay)
        plain = user_part(config)
        _refuse(plain)
        if "hydra.run.dir" not in check_overrides(overrides, overlay):
            with read_write(config), open_dict(config):
                config.hydra.run.dir = str(fresh_folder(Path(config.hydra.run.dir)))
        context = HydraContext(config_loader=engine.config_loader, callbacks=Callbacks())
        ran = run_job(_Checked(task, (), {"": canonical.digest(plain)}), config, "hydra.run.dir", None, context, False)
        return int(ran.return_value)


def plan_sweep(overrides: Sequence[str], overlay: Path | None, progress: Progress) -> tuple[Planned, ...]:
    """Every job of a sweep, composed and checked, in the order of their numbers.

    Raises:
        ConfigError: No job can run; the mistakes of all are listed.
    """
    jobs = []
    with opened(overlay):
        check_overrides(overrides, overlay)
        parsed = parsed_overrides(overrides)
        (every,) = BasicSweeper.split_arguments(parsed, None)
        swept = {one.get_key_element() for one in parsed if one.is_sweep_override()}
    with progress.track("composing jobs", len(every), "job") as step:
        for number, mine in enumerate(every):
            label = " ".join(text for text in mine if text.split("=", 1)[0] in swept) or "the only one"
            try:
                with opened(overlay) as engine:
                    plain = user_part(composed(engine, mine, overlay))
                _refuse(plain)
                jobs.append(Planned(number, tuple(mine), label, plain, ""))
            except ConfigError as error:
                jobs.append(Planned(number, tuple(mine), label, {}, str(error)))
            step.advance()
    if all(job.error for job in jobs):
        errors = dict.fromkeys(job.error for job in jobs)
        raise ConfigError("\n  ".join(errors), where=f"all {len(jobs)} jobs of the sweep", todo="nothing was run")
    return tuple(jobs)


def launch_sweep(
    overrides: Sequence[str], jobs: Sequence[Planned], folder: Path, task: Task, overlay: Path | None
) -> None:
    """Runs jobs through the launcher that the configuration names; each leaves its result in its own folder.

    Args:
        overrides: As on the command line, swept keys included.
        jobs: Which to run.
        folder: Of the sweep; job ``n`` gets the folder ``n`` in it.
        task: What to run.
        overlay: A folder with the user's own groups.

    Raises:
        BackendError: A worker process died; jobs that had no result by then were not run.
    """
    parsed = parsed_overrides(overrides)
    fixed = [text for text, one in zip(overrides, parsed, strict=True) if not one.is_sweep_override()]
    with opened(overlay) as engine:
        said = check_overrides(overrides, overlay)
        config = composed(engine, fixed, overlay, RunMode.MULTIRUN)
        with read_write(config), open_dict(config):
            config.hydra.sweep.dir = str(folder.resolve())
        wanted = {str(job.number): canonical.digest(job.config) for job in jobs}
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(config_loader=engine.config_loader, callbacks=Callbacks()),
            task_function=_Checked(task, said, wanted),
            config=config,
        )
        place = str(folder.resolve()).replace("\\", "\\\\").replace("'", "\\'")
        ours = [
            [*_for_job(job.overrides), f"hydra.sweep.dir='{place}'", f"hydra.sweep.subdir='{job.number}'"]
            for job in jobs
        ]
        try:
            launcher.launch(ours, initial_job_idx=0)
        except Exception as error:
            if "Worker" not in type(error).__name__ and "Broken" not in type(error).__name__:  # loky's two errors
                raise
            raise BackendError(f"a process of the sweep died: {type(error).__name__}") from error


def fresh_folder(path: Path) -> Path:
    """Makes this folder, or one with a number behind its name where somebody else has it already.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            mine = path if number == 1 else path.with_name(f"{path.name}-{number}")
            try:
                mine.mkdir()
            except FileExistsError:
                continue
            return mine
    except OSError as error:
        raise ConfigError(
            f"the output folder cannot be made: {error.strerror}",
            where=str(path),
            todo="run from a folder that can be written, or give hydra.run.dir=DIR",
        ) from error
    raise ConfigError("a thousand runs have this output folder", where=str(path), todo="give hydra.run.dir=DIR")


def sweep_folder(overrides: Sequence[str], overlay: Path | None) -> Path:
    """The folder of a sweep, made.

    Raises:
        ConfigError: It cannot be made.
    """
    parsed = parsed_overrides(overrides)
    fixed = [text for text, one in zip(overrides, parsed, strict=True) if not one.is_sweep_override()]
    with opened(overlay) as engine:
        config = composed(engine, fixed, overlay, RunMode.MULTIRUN)
        HydraConfig.instance().set_config(config)
        path = Path(str(config.hydra.sweep.dir))
    if "hydra.sweep.dir" in check_overrides(overrides, overlay):
        path.mkdir(parents=True, exist_ok=True)
        return path
    return fresh_folder(path)


def _refuse(plain: Mapping[str, Json]) -> None:
    if problems := mistakes(plain):
        raise ConfigError("\n  ".join(problems), where="configuration", todo="see conf/ for what each group holds")


@dataclasses.dataclass(frozen=True)
class _Checked:
    """Hydra's task function: the job's own configuration, looked at again, then the task."""

    task: Task
    said: tuple[str, ...]
    wanted: Mapping[str, Digest]
    """Folder name -> digest of the configuration as it was planned; the only one has the empty name."""

    def __call__(self, config: DictConfig) -> int:
        folder = Path(HydraConfig.get().runtime.output_dir)
        whole: Any = HydraConfig.instance().cfg
        refuse_code(whole, (*self.said, "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"))
        plain = user_part(config)
        if canonical.digest(plain) != self.wanted.get("" if "" in self.wanted else folder.name):
            raise ConfigError("the configuration changed after it was planned", where=str(folder), todo="run it again")
        return self.task(Job(check(plain), plain, folder))


def _for_job(overrides: Sequence[str]) -> list[str]:
    """Without Hydra's own keys: the sweep as a whole has them."""
    return [text for text in overrides if not re.match(r"\+*hydra[/.]", text)]
