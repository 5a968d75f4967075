"""Where an adapter comes from: enough to breed the same bytes again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ecology.contracts.artifact import Corpus
from ecology.contracts.identity import OPTIONAL, CompatibilityIdentity, Digest, Json

INTERFACE_VERSION = "ecology/adapter/v1"
"""What a reader may rely on: a PEFT LoRA folder with scale 1 (``lora_alpha == r``) and sorted targets."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lineage:
    """How the adapter was made. Replaying it gives the same bytes."""

    parents: tuple[Digest, ...]
    """Artifact digests, in the order the operator took them; empty for a founder."""
    operator: str
    """Name in the operators' table, such as ``linear`` or ``finetune``."""
    parameters: Mapping[str, Json]
    """The operator's options, all of them, defaults included."""
    seed: int
    corpora: tuple[Corpus, ...]
    """Every corpus in the whole ancestry, sorted by digest: taint is inherited."""
    generation: int
    """0 for a founder, else one more than the largest of the parents'."""
    environment: Mapping[str, str]
    """Versions, thread count and kind of CPU: what determinism depends on."""
    learned: Mapping[str, Json] | None = dataclasses.field(default=None, metadata=OPTIONAL)
    """What an operator that learns has to tell: numbers trained and their bytes, steps, why it stopped, reward at both
    ends; None for operators that learn nothing and where it was not recorded."""


@dataclasses.dataclass(frozen=True, slots=True)
class ResourceProfile:
    """What the adapter costs before anything is measured."""

    parameters: int
    size_bytes: int
    max_rank: int
    modules: int
    retained_energy: float
    """Share of ||dW||_F^2 that projection kept, 0 to 1; 1 where nothing was projected."""
    retained: Mapping[str, float] | None = dataclasses.field(default=None, metadata=OPTIONAL)
    """The same by module, for those that lost something; None where it was not recorded."""


@dataclasses.dataclass(frozen=True, slots=True)
class Genome:
    """The signed birth certificate of one adapter."""

    identity: CompatibilityIdentity
    interface_version: str
    capabilities: tuple[str, ...]
    """What it was bred for ("extraction", "refusal"), sorted; a claim, not evidence."""
    lineage: Lineage
    resource_profile: ResourceProfile
