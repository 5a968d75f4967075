"""The first rung: everything that can be said of an adapter without a model, in well under a second.

Eleven questions, each a count of violations with a sentence for each: file, key, what was found, what is allowed.

    static.files        only adapter_config.json, adapter_model.safetensors, claims.jsonl and README.md, plain files all
    static.config       the configuration says nothing but what a LoRA needs               (``configuration``)
    static.tensors      exactly the tensors that follow from configuration and base        (``tensors``)
    static.finite       no NaN, no infinity
    static.limits       size, rank, scale and norm
    static.signature    a trusted key vouches for these bytes and their genome             (``provenance``)
    static.development  the only such key is a development key
    static.base         made for this base
    static.taint        nothing in the lineage that must not be trained on
    static.overlap      nothing in the lineage that it is judged on
    static.anomaly      its spectra look like those of the adapters bred here              (``anomaly``)

Nothing in the folder is trusted, so whatever goes wrong inside a check, foreseen or not, is a violation with a typed
reason. A question that cannot be put (no verified genome to ask about data, no norms of the base at hand) has no
measurement, which is INCONCLUSIVE and admits to nothing.

What is known beforehand is in ``context``, what is seen in the folder in ``look``.

Verify before parse, parse before load: this module imports neither torch nor peft.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from ecology.contracts.artifact import Submission
from ecology.contracts.evidence import Count, Evidence, Measurement, Samples
from ecology.contracts.policy import Finding, Outcome
from ecology.errors import EcologyError
from ecology.gate.context import StaticContext
from ecology.gate.ladder import unmeasured
from ecology.gate.look import Look, asked, vouched
from ecology.gate.violation import Violation

SOURCE = "static/v2"
"""Name and version of the checks, as measurements carry it."""
MOST_DETAILS = 20
"""Violations that are spelled out; the count has all of them."""


def static_evidence(submission: Submission, context: StaticContext) -> Evidence:
    """Asks the eleven questions.

    Args:
        submission: The folder and the claims; neither is trusted.
        context: The base, the bounds and the keys.

    Returns:
        A count for each question that could be put, in the order of the module's list. Never raises for what a
        candidate brought.
    """
    return static_answers(submission, context)[0]


def static_answers(submission: Submission, context: StaticContext) -> tuple[Evidence, str]:
    """As ``static_evidence``; and why the answers may be others when it is asked again, empty where they would not be.

    Memory ran out, the process that reads weights died, the folder changed meanwhile: that refuses as any violation
    does, and whoever keeps what was measured keeps this not.
    """
    look = Look(submission, context)
    questions: Mapping[str, Callable[[], list[Violation] | None]] = {
        "static.files": look.files,
        "static.config": look.config,
        "static.tensors": look.tensors,
        "static.finite": look.finite,
        "static.limits": look.limits,
        "static.signature": look.signature,
        "static.development": look.development,
        "static.base": look.base,
        "static.taint": look.taint,
        "static.overlap": look.overlap,
        "static.anomaly": look.anomaly,
    }
    evidence: list[Measurement] = []
    errors: list[Exception] = []
    for metric, ask in questions.items():
        violations = asked(ask, errors)
        if violations is not None:
            evidence.append(Measurement(metric, submission.artifact.digest, _count(violations), source=SOURCE))
    return tuple(evidence), look.unsettled(errors)


@dataclasses.dataclass
class StaticRung:
    """The first rung, as a ladder climbs it."""

    submission: Submission
    context: StaticContext
    unsettled: str = ""

    def measure(self) -> Evidence:
        """The answers."""
        evidence, self.unsettled = static_answers(self.submission, self.context)
        return evidence

    def findings(self) -> tuple[Finding, ...]:
        """That they are not the last word, where they are not; asked after ``measure``."""
        return (unmeasured("static", Outcome.INCONCLUSIVE, self.unsettled),) if self.unsettled else ()


def retained_evidence(submission: Submission, context: StaticContext) -> Evidence:
    """What projection kept of the worst module, 0 to 1, as the verified genome records it.

    Args:
        submission: The folder and the claims; neither is trusted.
        context: Whose keys count.

    Returns:
        One measurement; none where nobody trusted vouches for a genome, which a rule about it finds inconclusive.
    """
    try:
        genome = vouched(submission.artifact, submission, context).genome
    except EcologyError:  # the signature check says what is wrong with the claims
        return ()
    if genome is None:
        return ()
    profile = genome.resource_profile
    least = min([profile.retained_energy, *(profile.retained or {}).values()])
    kept = Samples((float(least),), "of ||dW||^2")
    return (Measurement("resource.retained_energy", submission.artifact.digest, kept, source="genome/v1"),)


def _count(violations: list[Violation]) -> Count:
    shown = [violation.sentence() for violation in violations[:MOST_DETAILS]]
    if len(violations) > len(shown):
        shown.append(f"and {len(violations) - len(shown)} more")
    return Count(len(violations), tuple(shown))
