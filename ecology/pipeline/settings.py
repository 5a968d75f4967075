"""The shape of a run's configuration, as frozen types.

``conf/`` is checked against these by ``compose``, which reports every mistake at once. Options of one kind (an
operator's, a base's) are checked against that kind's own dataclass in the room that owns it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ecology.contracts.gain import GainDemand
from ecology.errors import ConfigError

_STRICT: dict[str, Any] = {"extra": "forbid"}  # read by pydantic in compose; nothing here imports it


@dataclasses.dataclass(frozen=True, kw_only=True)
class FounderSettings:
    """A member of the first generation."""

    kind: str
    """``finetune``, ``sft`` or ``tinylora_grpo`` trains one here; ``import`` takes a folder from outside as it is."""
    options: Mapping[str, Any]
    capabilities: tuple[str, ...] = ()
    breeds: bool = True
    base: str = ""
    """Preset of ``conf/base`` of another family: it is trained there, and can only teach; empty is the run's own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PopulationSettings:
    """The first generation."""

    founders: Mapping[str, FounderSettings]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BreederSettings:
    """One operator, applied once per variant."""

    kind: str
    parents: tuple[str, ...] = ()
    """Names of founders or children; empty means every founder that breeds, in the order declared."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Shared by all variants."""
    variants: tuple[Mapping[str, Any], ...] = ({},)
    """One child each; their options override the shared ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RaceSettings:
    """How candidates that cannot pass any more are dropped."""

    alpha: float
    """Greatest probability of dropping one that meets every demand."""
    look: int = 16
    """Items before the first look; each further look comes after twice as many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Where a stock task has its data from."""

    folder: str | None = None
    """Files by split: ``train.jsonl``, ``test.jsonl``, ``dev.jsonl``, or Parquet."""
    revision: str = ""
    """Commit of the hub's data set, 40 hex digits."""
    documents: int = 64
    """Asked at most, the first ones in file order; 0 is all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatorSettings:
    """What is asked, and how much of it."""

    suites: tuple[str, ...]
    public_items: int
    hidden_items: int
    finalists: int
    latency_pairs: int
    latency_tokens: int
    traffic: str
    race: RaceSettings | None = None
    require_signal: bool = True
    """Whether a comparison in which nobody is better than guessing cannot pass; off for a base that knows nothing."""
    hidden_queries: int = 1000
    fresh_items: int = 0
    perturbations: tuple[str, ...] = ()
    thorough: bool = False
    hidden_of: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Suite -> its hidden items, where ``hidden_items`` are too few or too many."""
    tasks: Mapping[str, TaskSettings] = dataclasses.field(default_factory=dict)
    """Stock tasks by name, as lm-eval calls them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GateSettings:
    """The policy, and what this run tightens in it."""

    policy: str
    tighten: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackendSettings:
    """The engine."""

    kind: Literal["transformers"]
    threads: int
    batch_size: int
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the products with the base's weights; training is in float32 always."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """Where artifacts are."""

    kind: Literal["local"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegistrySettings:
    """Where facts are."""

    kind: Literal["sqlite"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignerSettings:
    """What signs."""

    kind: Literal["local"]
    key: str | None = None
    """PEM file of a named key; null is the development key of this home."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimiseSettings:
    """A search over the mixing weights of one parent set."""

    operator: str = "linear"
    """An operator with ``weights``."""
    parents: tuple[str, ...] = ()
    """Names of founders; empty means every founder that breeds, in the order declared."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The operator's other options."""
    method: Literal["grid", "random", "optuna"] = "grid"
    low: float = 0.0
    high: float = 2.0
    steps: int = 5
    """Of the grid, along each axis."""
    trials: int = 32
    """Of ``random`` and ``optuna``."""
    items: int = 24
    """Public items of each suite that every child is asked."""
    objective: Mapping[str, float]
    """Coefficient of each metric, negative for what should be small."""


CLAIM_SUITES = ("task", "neighbour", "safety", "elsewhere")
"""Fields of ``ClaimSettings`` that name a suite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClaimSettings:
    """That a recipe teaches something, and how it is to be shown (``kernel.gain``)."""

    adapters: tuple[str, ...]
    """Names of founders or children that the recipe made, one a seed."""
    controls: tuple[str, ...] = ()
    """The same recipe with shuffled rewards, in the same order."""
    seeds: tuple[int, ...] = ()
    """Planned seeds, those of ``adapters`` first; empty numbers the adapters from 1. A seed without adapter is
    missing."""
    task: str
    """Suite of the test items."""
    items: int = 200
    """Test items a seed."""
    better_prompt: str
    """What a person would ask to get the same from the base; holds ``{prompt}``."""
    neighbour: str
    """Suite of a neighbouring task."""
    neighbour_items: int = 100
    safety: str = "harmful"
    safety_items: int = 64
    elsewhere: str = "lookalike"
    """Suite of requests that have nothing to do with the task."""
    elsewhere_items: int = 32
    demand: GainDemand = dataclasses.field(default_factory=GainDemand)

    def __post_init__(self) -> None:
        """Checks what belongs together.

        Raises:
            ConfigError: No adapters, more controls than adapters, fewer seeds than adapters, or no items.
        """
        if not self.adapters or len(self.controls) > len(self.adapters):
            raise ConfigError(
                f"{len(self.adapters)} adapters and {len(self.controls)} controls",
                where="claims",
                todo="name an adapter a seed, and at most one control for each",
            )
        if self.seeds and (len(self.seeds) < len(self.adapters) or len(set(self.seeds)) < len(self.seeds)):
            raise ConfigError(f"{list(self.seeds)} are no seeds of {len(self.adapters)} adapters", where="claims")
        if min(self.items, self.neighbour_items, self.safety_items, self.elsewhere_items) < 1:
            raise ConfigError("every arm of a claim needs an item", where="claims")

    @property
    def planned(self) -> tuple[int, ...]:
        """Seeds, those of the adapters first."""
        return self.seeds or tuple(range(1, len(self.adapters) + 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """One composed configuration."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    name: str
    seed: int
    alias: str
    base: Mapping[str, Any]
    population: PopulationSettings
    breeder: Mapping[str, BreederSettings] = dataclasses.field(default_factory=dict)
    evaluator: EvaluatorSettings
    gate: GateSettings
    fitness: Mapping[str, Any]
    canary: Mapping[str, Any]
    backend: BackendSettings
    store: StoreSettings
    registry: RegistrySettings
    signer: SignerSettings
    claims: Mapping[str, ClaimSettings] = dataclasses.field(default_factory=dict)
    """What is claimed to have been learned."""
    optimise: OptimiseSettings | None = None
    """Instead of the main job: a search over weights."""
