"""What everything that learns is given, whatever it learns: a base, a seed, folders, and who listens.

``finetune``, ``grpo``, ``distill`` and ``recover`` take one ``Session`` and what is their own (a corpus, parents,
teachers). What comes out is alike too: an adapter's folder and a genome, which ``Session.born`` writes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ecology.breeder.breed import Bred, profile
from ecology.contracts.artifact import Corpus
from ecology.contracts.genome import INTERFACE_VERSION, Genome, Lineage
from ecology.contracts.identity import Digest, Json
from ecology.contracts.ports import Progress
from ecology.kernel.canonical import plain
from ecology.lowrank.lowrank import LowRank
from ecology.store.adapters import write_adapter

if TYPE_CHECKING:  # torch is imported when there is something to train
    from ecology.breeder.adapted import Pair
    from ecology.runtime.engine import TransformersEngine

Row = tuple[str, str, bool]
"""Prompt, completion, and whether the completion stops in mid-answer (then it is not taught to end there)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Learned:
    """What training left."""

    factors: Mapping[str, Pair]
    """The exact LoRA, by module."""
    told: Mapping[str, Json]
    """For the lineage: numbers trained, their bytes, steps, loss or reward at both ends."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One training."""

    engine: TransformersEngine
    """The base that learns, with no adapter attached; the same base when it is done, which is proven."""
    seed: int
    """Of all draws, 0 to 2**53 - 1."""
    out: Path
    """New folder of the adapter."""
    work: Path
    """Folder of checkpoints; emptied at the end."""
    environment: Mapping[str, str]
    """For the lineage; a checkpoint of another one is not gone on from."""
    progress: Progress
    """Told about steps and answers."""
    name: str
    """Of the adapter, for people."""
    keep: Path | None = None
    """What outlives the session: ``svd`` has decompositions, ``learned`` what is made beside an adapter. None computes
    the one and leaves the other out."""

    @property
    def decompositions(self) -> Path | None:
        """Where singular vectors are kept."""
        return None if self.keep is None else self.keep / "svd"

    def lineage(
        self,
        operator: str,
        options: object,
        corpora: Sequence[Corpus],
        *,
        parents: Sequence[Digest] = (),
        generation: int = 0,
        learned: Mapping[str, Json] | None = None,
    ) -> Lineage:
        """Where what was learned here comes from.

        Args:
            operator: Its name in the table.
            options: All of them, defaults included.
            corpora: Of the whole ancestry.
            parents: In the operator's order; none for a founder.
            generation: One more than the highest of the parents'.
            learned: What training tells.
        """
        return Lineage(
            parents=tuple(parents),
            operator=operator,
            parameters=plain(options),
            seed=self.seed,
            corpora=tuple(corpora),
            generation=generation,
            environment=dict(sorted(self.environment.items())),
            learned=learned,
        )

    def born(self, factors: Mapping[str, Pair], lineage: Lineage, capabilities: Sequence[str]) -> Bred:
        """Writes the adapter's folder, and its genome.

        Args:
            factors: The exact LoRA, by module.
            lineage: Where it comes from.
            capabilities: What it was taught.
        """
        engine = self.engine
        artifact = write_adapter(self.out, factors, engine.base.name, engine.identity.base_weights)
        resources = profile(LowRank.of(factors), artifact)
        genome = Genome(engine.identity, INTERFACE_VERSION, tuple(sorted(capabilities)), lineage, resources)
        return Bred(artifact, genome, self.out)
