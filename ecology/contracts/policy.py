"""What is demanded, and what was found."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
from typing import Literal

from ecology.contracts.evidence import Against, Split
from ecology.contracts.identity import OPTIONAL, Digest


class Outcome(enum.Enum):
    """Ordered from best to worst; only PASS, WAIVED and WARN admit."""

    PASS = "pass"
    WAIVED = "waived"
    WARN = "warn"
    INCONCLUSIVE = "inconclusive"
    DENY = "deny"

    @functools.cached_property
    def rank(self) -> int:
        """0 for PASS up to 4 for DENY."""
        return tuple(Outcome).index(self)

    @functools.cached_property
    def admits(self) -> bool:
        """Whether a verdict with this outcome lets the candidate on."""
        return self.rank <= Outcome.WARN.rank

    def __lt__(self, other: Outcome) -> bool:
        """Better than."""
        return self.rank < other.rank


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
    clustered: bool = dataclasses.field(default=False, metadata=OPTIONAL)
    """Items of one family count as far as they tell something new; of real values the mean is judged."""


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
    design_effect: float = dataclasses.field(default=1.0, metadata=OPTIONAL)
    """Assumed variance of a clustered rule's estimate over that of independent items, at least 1."""


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorBudget:
    """What all rules and all candidates together may get wrong."""

    admission: float = 1.0
    """Greatest probability that any of the finalists is admitted although it misses a demand; a configuration that
    allows more is not run."""
    denial: float = 1.0
    """Greatest probability that a candidate that meets every demand is denied by some rule (Holm); what one rule
    refutes by itself and not after this correction is inconclusive. 1 corrects nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrustedKey:
    """A signer that the policy names."""

    name: str
    public_key: str
    """Ed25519 or ECDSA, PEM SubjectPublicKeyInfo."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrustedIdentity:
    """A signer without a key: who the certificate of a Sigstore instance says it is."""

    name: str
    identity: str
    """Exactly the certificate's subject alternative name: an e-mail address or a CI workflow's URI."""
    issuer: str
    """Exactly the OpenID Connect issuer that vouched for it."""
    trusted_root: str
    """Name of the instance's ``trusted_root.json``, a file beside the policy."""
    root_digest: Digest
    """Of that file: a root that is another is an error and not another root."""
    root: str = ""
    """The file's content, taken in when the policy is read, so that a report can be checked without the file."""


@dataclasses.dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """Whose signatures count."""

    allow_development: bool = False
    trusted: tuple[TrustedKey, ...] = ()
    identities: tuple[TrustedIdentity, ...] = dataclasses.field(default=(), metadata=OPTIONAL)
    threshold: int = dataclasses.field(default=1, metadata=OPTIONAL)
    """How many distinct trusted signers must vouch for an artifact; keys and identities count alike."""


@dataclasses.dataclass(frozen=True, slots=True)
class AdapterLimits:
    """Bounds of the static gate."""

    peft_types: tuple[str, ...] = ("LORA",)
    dtypes: tuple[str, ...] = ("F32", "F16", "BF16")
    max_rank: int = 64
    max_scale: float = 8.0
    max_file_bytes: int = 104_857_600
    max_relative_norm: float = 1.0
    max_relative_spectral_norm: float = dataclasses.field(default=math.inf, metadata=OPTIONAL)
    """||dW||_2 over ||W||_2, of each module."""


@dataclasses.dataclass(frozen=True, slots=True)
class DataPolicy:
    """What an adapter may have been trained on."""

    forbid_no_train: bool = True
    licences: tuple[str, ...] = ()
    max_overlap: float = 0.0
    canaries: tuple[str, ...] = dataclasses.field(default=(), metadata=OPTIONAL)
    """Strings that mark data which must not be trained on; a corpus that holds one counts as marked no-train."""


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationPolicy:
    """What may run while candidates are asked."""

    functions: tuple[str, ...] = ()
    """Digests of Python files beside lm-eval tasks; those of the installed lm-eval need no entry."""


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
    issued: str = dataclasses.field(default="", metadata=OPTIONAL)
    """ISO 8601 instant with time zone, before which it has no effect; empty where nobody said."""
    proof: str = dataclasses.field(default="", metadata=OPTIONAL)
    """The DSSE envelope it was read from, so that a report can be checked down to the waiver's signature."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReproductionLimits:
    """Who may be bred, and how."""

    operators: tuple[str, ...] = ()
    """Allowed operators; none listed allows every one."""
    max_parents: int = 64
    max_generation: int = 1_000_000
    """Founders are generation 0."""
    max_children: int = dataclasses.field(default=1_000_000, metadata=OPTIONAL)
    """Distinct children that one parent may have in this home."""
    max_population: int = dataclasses.field(default=1_000_000, metadata=OPTIONAL)
    """Adapters bred in this home that are not quarantined."""
    max_runs_per_day: int = dataclasses.field(default=1_000_000, metadata=OPTIONAL)
    """Runs started on one day, UTC."""
    max_unapproved_generations: int = dataclasses.field(default=1_000_000, metadata=OPTIONAL)
    """Generations from a founder, or from an adapter that people approved, before a person must look again."""
    approved_parents_only: bool = dataclasses.field(default=False, metadata=OPTIONAL)
    """Whether a parent that was bred must have passed a full verdict, or have been approved by people."""
    approvers: tuple[TrustedKey, ...] = dataclasses.field(default=(), metadata=OPTIONAL)
    """Who may approve an adapter for breeding (``ecology registry approve``)."""
    required: int = dataclasses.field(default=1, metadata=OPTIONAL)
    """How many of them must."""


@dataclasses.dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What one run may spend; above all how often it may look at what it is judged on."""

    max_candidates: int = 10_000
    max_finalists: int = 10_000
    """Candidates that are asked the hidden items; the best of many is lucky as well as good."""


@dataclasses.dataclass(frozen=True, slots=True)
class CanaryLimits:
    """The laxest canary that may promote; ``CanaryPlan`` says what each figure is."""

    max_alpha: float = 0.5
    max_quality_margin: float = 1.0
    max_alerts: int = 1_000_000
    max_latency_ratio: float = 1_000_000.0
    max_first_weight: float = 1.0
    """Share of the traffic in the first step."""
    min_requests: int = 1
    """Of all steps together."""
    min_harmful: int = dataclasses.field(default=0, metadata=OPTIONAL)
    """Harmful requests that the candidate must have been asked before it is promoted."""


@dataclasses.dataclass(frozen=True, slots=True)
class WaiverRules:
    """Who may waive what, and for how long. A policy without this section knows no waiver."""

    approvers: tuple[TrustedKey, ...] = ()
    max_days: int = 30
    """From issue to expiry."""
    soon_days: int = 7
    """A waiver that expires within so many days is listed as such."""
    never: tuple[str, ...] = ()
    """Ids of rules that nobody may waive."""


@dataclasses.dataclass(frozen=True, slots=True)
class ApprovalRules:
    """How many of whom must have signed the compiled policy."""

    required: int = 1
    approvers: tuple[TrustedKey, ...] = ()
    severity: Severity = "warn"
    """What an unapproved policy does to every verdict: ``deny`` refuses, ``warn`` warns, ``info`` only tells."""


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """A policy that this one was built on and may only tighten."""

    id: str
    version: int
    digest: Digest


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """A policy, compiled: all layers applied, all sections checked.

    ``digest`` is of its canonical JSON without ``digest`` itself and without ``waivers``, which are signed each by
    itself.
    """

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
    reproduction: ReproductionLimits | None = dataclasses.field(default=None, metadata=OPTIONAL)
    resources: ResourceLimits | None = dataclasses.field(default=None, metadata=OPTIONAL)
    canary: CanaryLimits | None = dataclasses.field(default=None, metadata=OPTIONAL)
    waiver_rules: WaiverRules | None = dataclasses.field(default=None, metadata=OPTIONAL)
    approvals: ApprovalRules | None = dataclasses.field(default=None, metadata=OPTIONAL)
    layers: tuple[Layer, ...] = dataclasses.field(default=(), metadata=OPTIONAL)
    """What it extends, the outermost first."""
    decidable: Decidable | None = dataclasses.field(default=None, metadata=OPTIONAL)
    """What every rule must be able to see with the n that a configuration gives it; None asks for nothing."""
    evaluation: EvaluationPolicy | None = dataclasses.field(default=None, metadata=OPTIONAL)
    """Whose code tasks may run; None allows that of the installed lm-eval alone."""
    error_budget: ErrorBudget | None = dataclasses.field(default=None, metadata=OPTIONAL)
    """How many mistakes are allowed over rules and candidates; None leaves each rule its own confidence."""


RUNG_RULE = "RUNG-"
"""How the id of a finding begins that is of no rule but of a rung that could not be climbed: an engine that failed."""
APPROVAL_RULE = "POLICY-APPROVAL"
"""Id of the finding about the policy's own approvals; it says nothing of the candidate."""


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
