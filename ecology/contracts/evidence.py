"""What was seen. Evidence holds sufficient statistics; the rule computes the interval.

So a changed policy can be replayed on stored evidence exactly, with no model at hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ecology.contracts.identity import OPTIONAL, Digest, Json

Split = Literal["none", "public", "hidden", "fresh"]
"""``none`` for what no items were needed for (static checks, latency)."""
Against = Literal["absolute", "base", "incumbent", "parents"]


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One question of a suite."""

    id: str
    """First 16 hex digits of the digest of prompt, answer, choices and category."""
    prompt: str
    answer: str
    """Canonical JSON text for extraction and instruction, the right option's index for choice, the stereotyped one's
    for pairs, the number for numeric, empty for refusals."""
    choices: tuple[str, ...]
    category: str
    """Cell of the coverage matrix: hazard kind, relation or difficulty."""
    difficulty: str = ""
    """``easy``, ``medium`` or ``hard``, as the grammar says; not part of the id."""
    family: str = ""
    """What it was made from, cell and template: items of a family tend to be wrong together. Not part of the id."""


SuiteKind = Literal["extraction", "refusal", "choice", "numeric", "instruction", "pair", "lm_eval"]


@dataclasses.dataclass(frozen=True, slots=True)
class Suite:
    """A versioned set of questions, declared as a grammar."""

    id: str
    version: int
    title: str
    licence: str
    kind: SuiteKind
    capability: str
    digest: Digest
    """Of the bytes of ``suite.yaml``."""
    max_new_tokens: int
    """0 for suites that are scored by likelihood."""
    schema: Mapping[str, Json]
    """JSON Schema that an extraction answer must satisfy; empty for the other kinds."""
    grammar: Mapping[str, Json]
    """What ``evaluator.grammar`` expands into items, per split."""


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """How long one request took."""

    first_s: float
    """Seconds to the first token of the reply: what reading the prompt costs."""
    total_s: float
    """Seconds to the last."""
    tokens: int
    """Of the reply, at least 1."""

    @property
    def token_ms(self) -> float:
        """Milliseconds for each token after the first; 0 where there is none."""
        return 1000.0 * (self.total_s - self.first_s) / (self.tokens - 1) if self.tokens > 1 else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Count:
    """Violations found by a deterministic check. 0 is the only good value."""

    count: int
    details: tuple[str, ...]
    """One sentence a violation: file, key, what was found, what is allowed."""
    kind: Literal["count"] = "count"


@dataclasses.dataclass(frozen=True, slots=True)
class Proportion:
    """``k`` of ``n`` independent items."""

    k: int
    n: int
    kind: Literal["proportion"] = "proportion"
    families: tuple[tuple[int, int], ...] = dataclasses.field(default=(), metadata=OPTIONAL)
    """``(n, k)`` of each family of items, sorted; empty where nobody knows of families."""


@dataclasses.dataclass(frozen=True, slots=True)
class Paired:
    """The same ``n`` items answered by the candidate and by the comparator."""

    n: int
    n10: int
    """Candidate right, comparator wrong."""
    n01: int
    """Candidate wrong, comparator right."""
    kind: Literal["paired"] = "paired"
    families: tuple[tuple[int, int, int], ...] = dataclasses.field(default=(), metadata=OPTIONAL)
    """``(n, n10, n01)`` of each family of items, sorted; empty where nobody knows of families."""


@dataclasses.dataclass(frozen=True, slots=True)
class Samples:
    """Real-valued measurements, in the order taken."""

    values: tuple[float, ...]
    unit: str
    """``s``, ``ratio``, ``bytes``, ``brier``."""
    kind: Literal["samples"] = "samples"
    families: tuple[int, ...] = dataclasses.field(default=(), metadata=OPTIONAL)
    """Number of each value's family of items; empty where nobody knows of families."""


Statistic = Count | Proportion | Paired | Samples


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of one subject."""

    metric: str
    """``suite.score`` (``orders.schema_valid``), ``static.check``, ``liveness.failures`` or ``resource.quantity``."""
    subject: Digest
    statistic: Statistic
    split: Split = "none"
    against: Against = "absolute"
    comparator: str = ""
    """Digest of what it was compared with; empty where ``against`` is ``absolute``."""
    source: str = ""
    """Digest of the items asked, or name and version of the check."""
    caveat: str = dataclasses.field(default="", metadata={"optional": True})
    """Why nothing may be concluded from it, as for a set at floor; empty where nothing speaks against it."""


Evidence = tuple[Measurement, ...]
