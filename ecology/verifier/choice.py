"""Which of several answers a model thinks likeliest, and how well it knows that.

Scores are log-likelihoods divided by the answer's length in characters, so that a long answer is not punished for its
length (the ``acc_norm`` of lm-evaluation-harness). Brier score: Brier 1950, in the form for several classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from ecology.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """One item, answered."""

    chosen: int
    """Index of the likeliest option; the first of equals."""
    correct: bool
    brier: float
    """Sum over options of (probability - truth)^2, 0 (certain and right) to 2 (certain and wrong)."""
    confidence: float
    """Probability of the chosen option among the options, 1 / options to 1."""


def choose(loglikelihoods: Sequence[float], options: Sequence[str], answer: int) -> Choice:
    """Judges one item.

    Args:
        loglikelihoods: Of each option as a reply, in nats, finite or -inf.
        options: Their texts.
        answer: Index of the right one.

    Raises:
        ConfigError: No options, lengths differ, the index is out of range, or a score is not a number.
    """
    if not options or len(loglikelihoods) != len(options) or not 0 <= answer < len(options):
        raise ConfigError(
            f"{len(options)} options, {len(loglikelihoods)} scores, answer {answer}", where="multiple-choice item"
        )
    if any(math.isnan(value) or value == math.inf for value in loglikelihoods):
        raise ConfigError("a log-likelihood is not a number", where="multiple-choice item")
    scores = [value / max(1, len(option)) for value, option in zip(loglikelihoods, options, strict=True)]
    top = max(scores)
    # All options impossible: the model knows nothing, which is the uniform distribution.
    weights = [math.exp(score - top) for score in scores] if top > -math.inf else [1.0] * len(scores)
    total = math.fsum(weights)
    brier = math.fsum((w / total - (i == answer)) ** 2 for i, w in enumerate(weights))
    chosen = scores.index(top)
    return Choice(chosen, chosen == answer, brier, weights[chosen] / total)
