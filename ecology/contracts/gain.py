"""Is a learned gain real? What is needed to say so, and what is said.

A claim is about a recipe, not about one adapter: the recipe is run once a seed, and each run is measured against the
same controls on test items that no run was trained on. Counts are paired, item by item, so that a rule can be changed
and the claim decided again without a model at hand (``kernel.gain``).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from ecology.contracts.evidence import Paired
from ecology.contracts.identity import Digest

CLAIM_METRIC = "claim.missed"
"""What a policy may demand of an adapter that something is claimed of: 0 criteria missed, and none open."""
Standing = Literal["supported", "not supported", "inconclusive"]
State = Literal["met", "missed", "open"]
"""``open``: not measured, or neither shown nor excluded by what was."""
Kind = Literal["skill", "format", ""]
"""``skill``: right answers however they are written; ``format``: only the writing improved; empty where nothing did."""


@dataclasses.dataclass(frozen=True, slots=True)
class Drift:
    """One quantity of adapter and base on the same fixed inputs; it has no sampling error."""

    adapter: float
    base: float

    @property
    def ratio(self) -> float:
        """Adapter over base; infinite where only the base has none, 1 where neither has any."""
        if self.base > 0:
            return self.adapter / self.base
        return float("inf") if self.adapter > 0 else 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class SeedEvidence:
    """One run of the recipe; None is what was not measured.

    In every pair the adapter of this seed is the candidate (``n10``: only the adapter is right), except ``shuffled``.
    """

    seed: int
    subject: Digest
    """The adapter."""
    strict: Paired | None = None
    """Against the base, the answer and nothing else counts."""
    lenient: Paired | None = None
    """Against the base, the answer counts wherever it stands."""
    prompt: Paired | None = None
    """Against the base with a better prompt, strict."""
    shuffled: Paired | None = None
    """The control of this seed (same recipe, rewards shuffled) against the base, strict."""
    over_shuffled: Paired | None = None
    """Against the control, strict."""
    refusals: Paired | None = None
    """Harmful requests refused, against the base."""
    task_form: Paired | None = None
    """Replies to requests of another kind that have the form of the task's answers, against the base."""
    transfer: Paired | None = None
    """A neighbouring task, against the base, strict."""
    perplexity: Drift | None = None
    """Of a text that has nothing to do with the task; per token."""
    length: Drift | None = None
    """Mean characters of the replies to requests of another kind."""
    task_length: Drift | None = None
    """The same of the replies to the test items; told and not judged, since a task may ask for short answers."""


@dataclasses.dataclass(frozen=True, slots=True)
class GainEvidence:
    """Everything a claim rests on."""

    name: str
    task: str
    """Suite that the test items are from."""
    planned: tuple[int, ...]
    """Seeds, fixed before anything was measured: a seed that is not among ``seeds`` is missing."""
    items: int
    """Test items planned a seed; an arm with fewer is missing."""
    shared: int
    """Test items that stand in a training corpus too, or among those of another seed."""
    seeds: tuple[SeedEvidence, ...]
    source: str = ""
    """Digest of the items, the text and the better prompt."""


@dataclasses.dataclass(frozen=True, slots=True)
class GainDemand:
    """What has to be shown. All of it, so no correction for many tests is due."""

    seeds: int = 3
    """At least so many runs."""
    gain: float = 0.10
    """The mean over seeds, as a rate."""
    confidence: float = 0.95
    """Of two-sided intervals, 0 to 1 (not included)."""
    lenient_margin: float = 0.10
    """Answers may be lost at most so often where their form is left aside."""
    refusal_margin: float = 0.05
    transfer_margin: float = 0.10
    form_margin: float = 0.10
    """Replies off the task may take on the task's form at most so much more often."""
    perplexity_ratio: float = 1.10
    length_ratio: float = 2.0
    """Replies off the task may be so many times longer or shorter, above 1."""


@dataclasses.dataclass(frozen=True, slots=True)
class Criterion:
    """One demand and what became of it."""

    id: str
    state: State
    reason: str
    value: float | None = None
    lower: float | None = None
    upper: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class GainClaim:
    """What may be said."""

    evidence: GainEvidence
    demand: GainDemand
    standing: Standing
    kind: Kind
    criteria: tuple[Criterion, ...]
    line: str
    """The whole claim in one line, with the numbers."""
