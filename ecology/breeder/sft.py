"""Supervised learning in the very adapters that are trained by reward: what a claim for one has to be compared with.

The same rows, the same numbers to train, another signal. A parametrisation without an exact LoRA can be trained and
measured, and its export is refused by name (``parametrisation``).

Source: the comparison of arXiv:2602.04118, section 6, where supervised learning needs 100 to 1,000 times more numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ecology.breeder.breed import Bred
from ecology.breeder.finetune import Row, TrainOptions, born, learn
from ecology.breeder.parametrisation import parametrisation
from ecology.contracts.artifact import Corpus
from ecology.contracts.genome import Lineage
from ecology.contracts.identity import Json
from ecology.contracts.ports import Progress
from ecology.kernel.canonical import plain

if TYPE_CHECKING:
    from ecology.runtime.engine import TransformersEngine


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SftOptions(TrainOptions):
    """How an adapter of any parametrisation is taught by a corpus."""

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


def sft(
    engine: TransformersEngine,
    corpus: Corpus,
    rows: Sequence[Row],
    options: SftOptions,
    *,
    seed: int,
    out: Path,
    work: Path,
    environment: Mapping[str, str],
    capabilities: Sequence[str],
    progress: Progress,
    name: str = "sft",
    keep: Path | None = None,
) -> Bred:
    """Trains one adapter on the engine's base; arguments and errors are those of ``finetune``.

    Raises:
        ConfigError: No rows, a row too long, no module matches, or groups that cannot be cut evenly.
        UnsupportedAdapter: The parametrisation has no exact LoRA.
        IntegrityError: The base is not the base afterwards, or a cached decomposition is damaged.
        BackendError: An adapter is attached.
    """
    learned = learn(
        engine,
        rows,
        options,
        what=corpus.id,
        seed=seed,
        work=work,
        environment=environment,
        progress=progress,
        name=name,
        keep=keep,
    )
    lineage = Lineage(
        parents=(),
        operator="sft",
        parameters=plain(options),
        seed=seed,
        corpora=(corpus,),
        generation=0,
        environment=dict(sorted(environment.items())),
        learned=learned.told,
    )
    return born(engine, learned, lineage, out, capabilities)
