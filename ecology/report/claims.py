"""Claims of learning, as every format tells them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from ecology.contracts.gain import CLAIM_METRIC, Standing, State
from ecology.contracts.run import RunReport
from ecology.errors import EcologyError
from ecology.kernel.gain import decide
from ecology.report.figures import Tone
from ecology.report.words import visible

STANDINGS: Mapping[Standing, Tone] = {"supported": "good", "inconclusive": "open", "not supported": "bad"}
STATES: Mapping[State, Tone] = {"met": "good", "open": "open", "missed": "bad"}


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """One claim as it is shown."""

    name: str
    line: str
    standing: str
    tone: Tone
    criteria: tuple[tuple[str, str, Tone, str], ...]
    """Criterion, state, tone, reason."""


def told(report: RunReport) -> tuple[Told, ...]:
    """Every claim, in the order of the configuration."""
    return tuple(
        Told(
            visible(claim.evidence.name),
            visible(claim.line),
            claim.standing,
            STANDINGS[claim.standing],
            tuple((c.id, c.state, STATES[c.state], visible(c.reason)) for c in claim.criteria),
        )
        for claim in report.claims
    )


def claim_problems(report: RunReport) -> Iterable[str]:
    """Where a stored claim, or what a verdict was told of it, does not follow from its own evidence."""
    for claim in report.claims:
        name = visible(claim.evidence.name)
        try:
            again = decide(claim.evidence, claim.demand)
        except EcologyError as error:
            yield f"claim {name}: it cannot be decided again: {error}"
            continue
        if again != claim:
            yield f"claim {name}: its evidence gives {again.standing!r}, stored is another claim"
    lines = {claim.line for claim in report.claims if claim.standing != "supported"}
    for candidate in report.candidates:
        about = [c for c in report.claims for seed in c.evidence.seeds if seed.subject == candidate.digest]
        for found in (m for m in candidate.evidence if m.metric == CLAIM_METRIC):
            if found.caveat not in lines and not (not found.caveat and any(c.standing == "supported" for c in about)):
                yield f"verdict on {visible(candidate.name)}: it was told of a claim that the report does not make"
