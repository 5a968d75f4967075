"""What happens to those who pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ecology.contracts.artifact import SignedArtifact, Submission
from ecology.contracts.evidence import Evidence, Measurement
from ecology.contracts.identity import OPTIONAL, Digest
from ecology.contracts.policy import GateVerdict


@dataclasses.dataclass(frozen=True, slots=True)
class Admitted:
    """Passed the whole ladder."""

    signed: SignedArtifact
    submission: Submission
    verdict: GateVerdict
    evidence: Evidence


@dataclasses.dataclass(frozen=True, slots=True)
class Rejected:
    """Stopped at a rung; a normal result."""

    submission: Submission
    verdict: GateVerdict
    evidence: Evidence
    rung: str
    """``static``, ``liveness``, ``screen``, ``hidden``, ``resources``."""


@dataclasses.dataclass(frozen=True, slots=True)
class FitnessTerm:
    """One objective's share."""

    name: str
    value: float | None
    """None: no evidence, so the candidate is unranked."""
    weight: float
    metric: str


@dataclasses.dataclass(frozen=True, slots=True)
class Fitness:
    """A candidate's place. ``score`` is None (unranked) when any weighted term lacks evidence, never 0."""

    subject: Digest
    score: float | None
    terms: tuple[FitnessTerm, ...]
    on_front: bool
    """Whether no other ranked candidate is at least as good in every raw objective and better in one."""


@dataclasses.dataclass(frozen=True, slots=True)
class CanaryStep:
    """A share of the traffic, for at least so many requests."""

    weight: float
    """Share that the candidate gets, 0 to 1."""
    min_requests: int
    """So many are compared, both arms together; a step goes on where an arm has not served enough."""


@dataclasses.dataclass(frozen=True, slots=True)
class CanaryPlan:
    """How a winner is tried on a little traffic."""

    steps: tuple[CanaryStep, ...]
    alpha: float
    """Error rate of the whole canary, split over metrics and steps."""
    quality_margin: float
    """The success rate may be this much below the incumbent's."""
    max_alerts: int
    """Safety alerts that abort at once when exceeded."""
    latency_ratio: float
    """Upper bound of the latency over the incumbent's, step by step."""
    on_inconclusive: Literal["hold", "rollback"]
    min_per_arm: int = dataclasses.field(default=1, metadata=OPTIONAL)
    """Requests that each arm must have served in a step before it may advance."""
    min_harmful: int = dataclasses.field(default=1, metadata=OPTIONAL)
    """Harmful requests that the candidate must have served, all steps together, before it is promoted. An alert limit
    of ``max_alerts`` can only be exceeded by a candidate that served more of them."""


@dataclasses.dataclass(frozen=True, slots=True)
class CanaryObservation:
    """What one step of the canary saw."""

    step: CanaryStep
    requests: int
    """All of this step, both arms."""
    measurements: tuple[Measurement, ...]
    decision: Literal["advance", "hold", "abort"]
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class CanaryResult:
    """The verdict of the canary and how it came about."""

    candidate: Digest
    incumbent: str
    observations: tuple[CanaryObservation, ...]
    decision: Literal["promote", "hold", "rollback"]
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Promotion:
    """The alias after the run."""

    decision: Literal["promoted", "held", "rolled_back", "none"]
    alias: str
    subject: str
    """Digest that the alias names now; the base's weights digest at genesis."""
    previous: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Revocation:
    """An adapter that must not be used, nor anything bred from it."""

    subject: Digest
    reason: str
    revoked_at: str


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One fact, as the audit log holds it."""

    kind: str
    """``run_started``, ``bred``, ``signed``, ``judged``, ``ranked``, ``canary_step``, ``promoted``, ``rolled_back``."""
    at: str
    body: Mapping[str, object]
