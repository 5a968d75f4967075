"""The table of operators that learn: they need the base and a corpus, where those of ``operators`` need parents alone.

Everything else is alike: a recipe in the plan, a genome with lineage and corpora, no-train taint, the same gates.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ecology.breeder.breed import Bred
from ecology.breeder.curricula import FinetuneOptions, SftOptions
from ecology.breeder.finetune import supervise
from ecology.breeder.grpo import GrpoOptions, tinylora_grpo
from ecology.breeder.session import Row, Session
from ecology.contracts.artifact import Corpus


class Learn(Protocol):
    """How a learning operator is called."""

    def __call__(
        self, session: Session, corpus: Corpus, rows: Sequence[Row], options: Any, capabilities: Sequence[str]
    ) -> Bred:
        """Trains one adapter.

        Args:
            session: Base, seed and folders.
            corpus: For the lineage.
            rows: Of the corpus, in file order.
            options: The recipe, an instance of the row's dataclass.
            capabilities: What it is trained for.

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
        "finetune": Learner(supervise, FinetuneOptions, "arXiv:2106.09685, arXiv:1711.05101"),
        "sft": Learner(supervise, SftOptions, "arXiv:2602.04118, section 6"),
        "tinylora_grpo": Learner(tinylora_grpo, GrpoOptions, "arXiv:2602.04118, arXiv:2402.03300, arXiv:2503.20783"),
    }
)
