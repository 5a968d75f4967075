"""A run: what is asked, and what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ecology.contracts.evidence import Measurement, Split
from ecology.contracts.gain import GainClaim
from ecology.contracts.genome import Genome
from ecology.contracts.identity import OPTIONAL, CompatibilityIdentity, Digest, Json
from ecology.contracts.policy import Finding, GateVerdict, Policy
from ecology.contracts.promotion import CanaryResult, Fitness, Promotion, Revocation


@dataclasses.dataclass(frozen=True, slots=True)
class FounderPlan:
    """A member of the first generation: trained here, or brought from outside."""

    name: str
    operator: str
    """A learning operator for one that is trained here, ``import`` for a folder from outside."""
    options: Mapping[str, Json]
    capabilities: tuple[str, ...]
    breeds: bool
    """Whether it may be a parent; an outsider is only judged."""
    base: str = dataclasses.field(default="", metadata=OPTIONAL)
    """Preset of another base than the run's, on which it is trained to teach; empty for the run's own."""


@dataclasses.dataclass(frozen=True, slots=True)
class ChildPlan:
    """One child to be bred."""

    name: str
    operator: str
    options: Mapping[str, Json]
    parents: tuple[str, ...]
    """Names of founders or of earlier children."""
    seed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent on measuring."""

    public_items: int
    hidden_items: int
    """Of a suite that ``hidden_of`` does not name."""
    finalists: int
    """At most so many candidates see the hidden items."""
    latency_pairs: int
    latency_tokens: int
    """Length of every timed reply."""
    batch_size: int
    threads: int
    race_alpha: float = 0.0
    """Greatest probability that racing drops a candidate that meets every demand; 0 races nobody."""
    race_look: int = 16
    """Items before the first look."""
    require_signal: bool = True
    """Whether a set at floor cannot pass."""
    hidden_queries: int = 1000
    """Adapters that may be asked the hidden items of a suite before their seed has to be renewed."""
    fresh_items: int = 0
    """Items a suite, seen by nobody before, that confirm the best of several; 0 confirms nobody."""
    perturbations: tuple[str, ...] = ()
    """Kinds of noise in which items are asked again (``evaluator.perturb``)."""
    thorough: bool = False
    """Whether finalists are also asked twins of the public items and reshuffled options, and their cells and
    calibration are looked at."""
    hidden_of: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Suites of which another number of hidden items is asked, where a rule would not see enough otherwise."""

    def hidden(self, suite: str) -> int:
        """Hidden items that are asked of a suite."""
        return self.hidden_of.get(suite, self.hidden_items)


@dataclasses.dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything that decides the outcome. A run is named by the digest of its plan and resumes by it."""

    name: str
    seed: int
    config: Mapping[str, Json]
    """The resolved configuration, plain data, as recorded and digested."""
    founders: tuple[FounderPlan, ...]
    children: tuple[ChildPlan, ...]
    budget: Budget
    policy: Policy
    suites: Mapping[str, Digest]
    traffic: Digest
    """Of the recorded requests that the canary replays."""
    digest: Digest


NOT_A_FINALIST = "not a finalist"
"""The rung of one whom the screen did not refute, and others were likelier to pass: hidden items were not asked."""


@dataclasses.dataclass(frozen=True, slots=True)
class CandidateReport:
    """One candidate, from birth to decision."""

    name: str
    digest: Digest
    genome: Genome | None
    """None for a folder from outside that brought no birth certificate."""
    verdict: GateVerdict
    evidence: tuple[Measurement, ...]
    rung: str
    """Where it was stopped: a rung's name or ``NOT_A_FINALIST``; empty for the admitted."""
    fitness: Fitness | None
    reference: tuple[Measurement, ...]
    """Measured after the verdict, for the comparison table only; no rule has seen it."""


@dataclasses.dataclass(frozen=True, slots=True)
class RaceReport:
    """What racing did to one candidate on one split."""

    subject: Digest
    split: Split
    dropped_by: str
    """Rule whose demand it had no hope to meet; empty where it came through."""
    asked: int
    planned: int
    """Items that would have been asked without a race."""
    seconds_saved: float
    """Items not asked, at what the same suites' items cost in this run."""
    alpha: float
    """Greatest probability of dropping a candidate that meets every demand of the split."""


@dataclasses.dataclass(frozen=True, slots=True)
class Confirmation:
    """The best of several was asked again, on items that chose nobody."""

    subject: Digest
    among: int
    """Admitted candidates that it was the best of."""
    items: int
    """Fresh items of each suite."""
    evidence: tuple[Measurement, ...]
    findings: tuple[Finding, ...]
    """Of every demand on hidden items, on the fresh ones; it is confirmed if all of them admit."""


@dataclasses.dataclass(frozen=True, slots=True)
class StageTime:
    """How long a stage took."""

    stage: str
    seconds: float
    peak_memory_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class RunReport:
    """The whole story of one run, as ``report.json`` holds it."""

    schema: str
    run: Digest
    name: str
    started_at: str
    finished_at: str
    decision: Promotion
    identity: CompatibilityIdentity
    base: str
    """Name of the base, for people."""
    base_evidence: tuple[Measurement, ...]
    policy: Policy
    development_key: bool
    signer: str
    """Key id of what signed this report."""
    candidates: tuple[CandidateReport, ...]
    canary: CanaryResult | None
    stages: tuple[StageTime, ...]
    environment: Mapping[str, str]
    suites: Mapping[str, Digest]
    seed_commitment: Digest
    """Digest of the secret seed of the hidden items."""
    config: Mapping[str, Json]
    checkpoint: str
    """Signed checkpoint of the audit log when the report was written: an old report is a witness."""
    approvals: tuple[str, ...] = dataclasses.field(default=(), metadata=OPTIONAL)
    """Envelopes of those who approved the policy or objected, as they lay beside it; counted again by whoever
    verifies."""
    revoked: tuple[Revocation, ...] = dataclasses.field(default=(), metadata=OPTIONAL)
    """Everything that was quarantined in this home when the report was written, descendants included."""
    races: tuple[RaceReport, ...] = dataclasses.field(default=(), metadata=OPTIONAL)
    """Who was dropped early, and what that saved; empty where nobody raced."""
    confirmation: Confirmation | None = dataclasses.field(default=None, metadata=OPTIONAL)
    """None where nobody was chosen among several, or the configuration has no fresh items."""
    claims: tuple[GainClaim, ...] = dataclasses.field(default=(), metadata=OPTIONAL)
    """What recipes are claimed to have taught, and whether that is real."""


REPORT_SCHEMA = "https://tiny-ecology.dev/schemas/report/v1"
