"""A sweep: its jobs side by side, and the one pick among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ecology.contracts.identity import OPTIONAL, Digest, Json
from ecology.contracts.promotion import Promotion, Revocation


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One candidate of one job, as far as a comparison needs it; the job's report has the rest."""

    name: str
    digest: Digest
    operator: str
    """Empty for a folder from outside."""
    parameters: Mapping[str, Json]
    parents: tuple[str, ...]
    """Names, in the operator's order."""
    outcome: str
    rung: str
    """Where it was stopped; empty for the admitted."""
    stopped_by: tuple[str, ...]
    """Ids of the rules that refused it or could not be proven."""
    score: float | None
    figures: Mapping[str, tuple[float | None, ...]]
    """Figure -> point, lower and upper 90 % bound; a bound is None where the samples are too few for one."""


@dataclasses.dataclass(frozen=True, slots=True)
class SweepJob:
    """One job."""

    number: int
    label: str
    """The swept values: ``breeder=ties seed=2``."""
    overrides: tuple[str, ...]
    code: int
    """Exit code as if it had been run alone, except that nothing is promoted in a job."""
    error: str
    """What went wrong; empty where a report was written."""
    run: str
    """Digest of the plan; empty where there is no report."""
    report: str
    """Digest of its ``report.json``; empty where there is none."""
    seconds: float
    peak_memory_bytes: int
    entries: tuple[Entry, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Pick:
    """What the sweep made of the admitted of all jobs."""

    decision: Promotion
    compared: int
    """Distinct adapters that were admitted by any job and could be ranked."""
    winner: str
    """Name of the best of them; empty where nobody was picked."""
    job: int | None
    """Job that bred it."""
    score: float | None
    """As its job measured it: the best of ``compared``, hence flattering."""
    fresh_score: float | None
    """On items that no job has seen; None where it did not pass there."""
    report: str
    """Digest of ``pick/report.json``; empty where nobody was picked."""


@dataclasses.dataclass(frozen=True, slots=True)
class SweepReport:
    """The whole sweep, as ``sweep.json`` holds it."""

    schema: str
    sweep: Digest
    """Of the plans of its jobs."""
    started_at: str
    finished_at: str
    swept: tuple[str, ...]
    """Keys that vary."""
    jobs: tuple[SweepJob, ...]
    pick: Pick
    code: int
    """The worst of jobs and pick, in the order 70, 3, 4, 2, 1, 0."""
    signer: str
    development_key: bool
    revoked: tuple[Revocation, ...] = dataclasses.field(default=(), metadata=OPTIONAL)
    """What is quarantined in this home."""


SWEEP_SCHEMA = "https://tiny-ecology.dev/schemas/sweep/v1"
