"""How rows are learned: the options of everything that is taught by text, and what each of them trains.

``FinetuneOptions`` make a LoRA founder. ``SftOptions`` train the very adapters that are trained by reward, which is
what a claim for those has to be compared with: the same rows, the same numbers, another signal. ``distill`` and
``recover`` have options of their own that are built on these.

Source: LoRA, arXiv:2106.09685; the comparison of arXiv:2602.04118, section 6, where supervised learning needs 100 to
1,000 times more numbers.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

from ecology.breeder.options import check_range, check_rank
from ecology.breeder.parametrisation import LoraOptions, parametrisation
from ecology.contracts.identity import Json
from ecology.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How rows are learned, whatever is trained and wherever the rows are from."""

    epochs: int = 1
    batch_size: int = 8
    """Rows a step."""
    learning_rate: float = 1e-3
    """At its peak."""
    warmup_steps: int = 10
    """Steps of linear rise from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the rise: half a cosine down to ``final_share`` of the peak, or level."""
    final_share: float = 0.1
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    """Largest gradient norm of a step."""
    bucket_batches: int = 8
    """Rows are sorted by length inside windows of this many batches, which saves padding; 1 does not sort."""
    loss_over: Literal["tokens", "rows"] = "tokens"
    """What counts alike in a step: every completion token, or every row however long its completion is."""
    token_decay: float = 1.0
    """Each further token of a completion counts this much less, above 0 to 1; below 1 the opening matters most."""
    completion_tokens: int = 0
    """Only so many tokens of a completion are taught, and its end is not when it is longer; 0 is all of them."""
    max_length: int = 256
    """Tokens of a row, frame and completion together; a longer row is an error."""
    checkpoint_steps: int = 25

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: A value is out of range.
        """
        where = self.where
        check_range(self.learning_rate, 0.0, 1.0, f"{where}.learning_rate", open_low=True)
        check_range(self.final_share, 0.0, 1.0, f"{where}.final_share")
        check_range(self.weight_decay, 0.0, 1.0, f"{where}.weight_decay")
        check_range(self.clip_norm, 0.0, 1e6, f"{where}.clip_norm", open_low=True)
        check_range(self.warmup_steps, 0, 10**6, f"{where}.warmup_steps")
        check_range(self.token_decay, 0.0, 1.0, f"{where}.token_decay", open_low=True)
        check_range(self.completion_tokens, 0, 10**6, f"{where}.completion_tokens")
        for name in ("epochs", "batch_size", "bucket_batches", "max_length", "checkpoint_steps"):
            check_range(getattr(self, name), 1, 10**6, f"{where}.{name}")

    @property
    def where(self) -> str:
        """Name of the operator, for messages and lineages."""
        return type(self).__name__.removesuffix("Options").lower()


class Lesson(TrainOptions, abc.ABC):
    """How rows are learned, and by what."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def parametrisation(self) -> tuple[str, object]:
        """Row of the table of parametrisations, and its options: what is trained."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoraTraining(Lesson):
    """What is trained is a LoRA."""

    rank: int = 8
    """Of every module's factors."""
    alpha: float = 16.0
    """Scale is ``alpha / rank``; folded into the factors when they are written."""
    targets: tuple[str, ...] = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    """Last part of the names of the linear modules that are adapted."""
    layers: int = 15
    """How many of the last decoder layers are adapted; 0 is all of them. The backward pass ends at the first."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: A value is out of range.
        """
        TrainOptions.__post_init__(self)
        check_rank(self.rank, f"{self.where}.rank")
        check_range(self.alpha, 0.0, 1e4, f"{self.where}.alpha", open_low=True)
        check_range(self.layers, 0, 4096, f"{self.where}.layers")
        if not self.targets:
            raise ConfigError("no module is named", where=f"{self.where}.targets", todo="name at least one")

    @property
    def parametrisation(self) -> tuple[str, object]:
        """A LoRA of this rank in these modules."""
        return "lora", LoraOptions(r=self.rank, alpha=self.alpha, targets=self.targets, layers=self.layers)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneOptions(LoraTraining):
    """How a founder is trained."""

    tells: ClassVar[bool] = False
    """Genomes of founders were signed before a lineage told what was learned; the same recipe has the same genome."""
    corpus: str
    """Name or folder of the corpus."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SftOptions(Lesson):
    """How an adapter of any parametrisation is taught by a corpus."""

    tells: ClassVar[bool] = True
    corpus: str
    """Name or folder of the corpus."""
    adapter: str = "tinylora"
    """Row of the table of parametrisations."""
    adapter_options: Mapping[str, Json] = dataclasses.field(default_factory=dict)
    """That row's keys."""

    def __post_init__(self) -> None:
        """Checks ranges and the adapter's own options.

        Raises:
            ConfigError: A value is out of range, or an unknown adapter or key.
        """
        TrainOptions.__post_init__(self)
        parametrisation(self.adapter).of(self.adapter_options, self.adapter)

    @property
    def parametrisation(self) -> tuple[str, object]:
        """As configured."""
        return self.adapter, parametrisation(self.adapter).of(self.adapter_options, self.adapter)
