"""The table of operators that learn: they need the base and a corpus, where those of ``operators`` need parents alone.

Everything else is alike: a recipe in the plan, a genome with lineage and corpora, no-train taint, the same gates.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ecology.breeder.breed import Bred
from ecology.breeder.finetune import FinetuneOptions, Row, finetune
from ecology.breeder.grpo import GrpoOptions, tinylora_grpo
from ecology.breeder.sft import SftOptions, sft
from ecology.contracts.artifact import Corpus
from ecology.contracts.ports import Progress

if TYPE_CHECKING:
    from ecology.runtime.engine import TransformersEngine


class Learn(Protocol):
    """How a learning operator is called."""

    def __call__(
        self,
        engine: TransformersEngine,
        corpus: Corpus,
        rows: Sequence[Row],
        options: Any,
        *,
        seed: int,
        out: Path,
        work: Path,
        environment: Mapping[str, str],
        capabilities: Sequence[str],
        progress: Progress,
        name: str,
        keep: Path | None = None,
    ) -> Bred:
        """Trains one adapter.

        Args:
            engine: With no adapter attached; the same base when it is done, which is proven.
            corpus: For the lineage.
            rows: Of the corpus, in file order.
            options: The recipe, an instance of the row's dataclass.
            seed: Of all draws.
            out: New folder of the adapter.
            work: Folder of checkpoints; emptied at the end.
            environment: For the lineage.
            capabilities: What it is trained for.
            progress: Told about steps.
            name: For people.
            keep: Folder of what outlives the run: cached decompositions, and what is made beside the adapter.

        Raises:
            LearningRefused: There is nothing to learn from, or it went wrong.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Learner:
    """One way to learn."""

    function: Learn
    options: type
    """Frozen dataclass with a field ``corpus``; its fields are the keys of ``options`` in a configuration."""
    source: str


LEARNERS: Mapping[str, Learner] = types.MappingProxyType(
    {
        "finetune": Learner(finetune, FinetuneOptions, "arXiv:2106.09685, arXiv:1711.05101"),
        "sft": Learner(sft, SftOptions, "arXiv:2602.04118, section 6"),
        "tinylora_grpo": Learner(tinylora_grpo, GrpoOptions, "arXiv:2602.04118, arXiv:2402.03300, arXiv:2503.20783"),
    }
)
