"""What is demanded, and what was found."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Literal

from ecology.contracts.evidence import Against, Split
from ecology.contracts.identity import Digest


class Outcome(enum.Enum):
    """Ordered from best to worst; only PASS, WAIVED and WARN admit."""

    PASS = "pass"
    WAIVED = "waived"
    WARN = "warn"
    INCONCLUSIVE = "inconclusive"
    DENY = "deny"

    @property
    def rank(self) -> int:
        """0 for PASS up to 4 for DENY."""
        return tuple(Outcome).index(self)

    @property
    def admits(self) -> bool:
        """Whether a verdict with this outcome lets the candidate on."""
        return self.rank <= Outcome.WARN.rank

    def __lt__(self, other: Outcome) -> bool:
        """Better than."""
        return self.rank < other.rank


OPTIONAL: Mapping[str, bool] = {"optional": True}
"""Metadata of a field that came later: at its default it is left out of canonical JSON, so that what was signed before
it was there keeps its digest."""

Severity = Literal["deny", "warn", "info"]
Comparator = Literal[">=", "<=", "=="]
Decide = Literal["proven", "not_refuted"]
Scope = Literal["full", "static"]


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One demand. Read: ``metric`` on ``split`` items must be ``comparator`` ``threshold``."""

    id: str
    title: str
    metric: str
    comparator: Comparator
    threshold: float
    split: Split = "none"
    against: Against = "absolute"
    decide: Decide = "proven"
    """``proven``: the bound must meet the threshold; ``not_refuted``: the opposite bound must not miss it."""
    confidence: float = 0.95
    """One-sided, 0.5 to 1 (not included)."""
    quantile: float = 0.5
    """Of ``Samples``; 0 to 1 (not included)."""
    min_samples: int = 1
    severity: Severity = "deny"
    rationale: str = ""
    owner: str = ""
    controls: tuple[str, ...] = ()
    anytime: bool = dataclasses.field(default=False, metadata=OPTIONAL)
    """Bounds hold at every sample size at once, so evidence may be gathered until it decides."""


@dataclasses.dataclass(frozen=True, slots=True)
class Decidable:
    """A gate that cannot decide is not run: every rule must see what a policy wants seen."""

    drop: float
    """A candidate this much worse than the threshold must be refused..."""
    gain: float
    """... and one this much better must pass, ..."""
    probability: float
    """... each with at least this probability."""
    discordance: float = 0.1
    """Assumed share of pairs on which candidate and comparator differ."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrustedKey:
    """A signer that the policy names."""

    name: str
    public_key: str
    """Ed25519, PEM SubjectPublicKeyInfo."""


@dataclasses.dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """Whose signatures count."""

    allow_development: bool = False
    trusted: tuple[TrustedKey, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class AdapterLimits:
    """Bounds of the static gate."""

    peft_types: tuple[str, ...] = ("LORA",)
    dtypes: tuple[str, ...] = ("F32", "F16", "BF16")
    max_rank: int = 64
    max_scale: float = 8.0
    max_file_bytes: int = 104_857_600
    max_relative_norm: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class DataPolicy:
    """What an adapter may have been trained on."""

    forbid_no_train: bool = True
    licences: tuple[str, ...] = ()
    max_overlap: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Waiver:
    """A named person accepts one violation of one rule by one subject, until a day."""

    rule: str
    subject: Digest
    reason: str
    approver: str
    ticket: str
    expires: str
    """ISO 8601 instant with time zone; at and after it the waiver has no effect."""


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """A policy file, checked. ``digest`` is of its canonical JSON without ``digest`` itself."""

    id: str
    version: int
    title: str
    owner: str
    signatures: SignaturePolicy
    adapter: AdapterLimits
    data: DataPolicy
    rules: tuple[Rule, ...]
    waivers: tuple[Waiver, ...]
    digest: Digest
    decidable: Decidable | None = dataclasses.field(default=None, metadata=OPTIONAL)
    """What every rule must be able to see with the n that a configuration gives it; None asks for nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What one rule saw."""

    rule: str
    title: str
    metric: str
    split: Split
    severity: Severity
    outcome: Outcome
    demand: str
    """``>= 0.9``, ``== 0``: the rule's condition in one token."""
    observed: float | None
    """Point estimate; None where there was no evidence."""
    lower: float | None
    upper: float | None
    """One-sided bounds at the rule's confidence; None where no interval applies."""
    n: int
    reason: str
    """One sentence for people: what was seen and why it is this outcome; with the n that would decide, if any."""
    details: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class GateVerdict:
    """The worst of its findings."""

    subject: Digest
    policy: Digest
    scope: Scope
    outcome: Outcome
    findings: tuple[Finding, ...]
    decided_at: str
    """RFC 3339 instant, UTC; read once a run from the injected clock."""
