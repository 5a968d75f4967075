"""Fitness: one number to sort by, and the raw objectives behind it.

A term reads one metric from a candidate's evidence and turns it into an objective that is larger when better::

    objective = (raw - reference) / scale      direction: higher
    objective = (reference - raw) / scale      direction: lower
    score     = sum of weight * objective

Safety is not a term: it is a gate, and what a gate demands cannot be bought with speed. A term without evidence
makes the candidate unranked; it never becomes 0, because a zero would look like a measurement. Dominance is judged
on the objectives before they are weighted, so the front does not move when somebody argues about weights.

Example:
    ``calibration: {metric: general.brier, summary: mean, direction: lower, reference: 1.0, weight: 0.5}`` is one
    minus the mean Brier score, at half weight.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from ecology.contracts.evidence import Against, Count, Evidence, Paired, Proportion, Samples, Split, Statistic
from ecology.contracts.identity import Digest, Json
from ecology.contracts.promotion import Fitness, FitnessTerm
from ecology.errors import ConfigError
from ecology.kernel.codec import structure
from ecology.kernel.pareto import front

Summary = Literal["rate", "mean", "median", "maximum", "count"]


@dataclasses.dataclass(frozen=True, slots=True)
class TermSpec:
    """How one metric becomes one objective."""

    metric: str
    """As in ``Measurement.metric``."""
    summary: Summary
    """``rate`` is k/n of a proportion; ``mean``, ``median`` and ``maximum`` are of samples; ``count`` of a count."""
    weight: float
    """At least 0; a term of weight 0 is shown, and neither needed nor counted."""
    direction: Literal["higher", "lower"] = "higher"
    """Which raw values are better."""
    reference: float = 0.0
    """Raw value that gives objective 0, in the metric's unit."""
    scale: float = 1.0
    """Raw difference that is worth 1, in the metric's unit; above 0."""
    split: Split = "none"
    against: Against = "absolute"


@dataclasses.dataclass(frozen=True, slots=True)
class FitnessSpec:
    """What is worth how much."""

    title: str
    terms: Mapping[str, TermSpec]
    """By name; at least one of a weight above 0."""


def fitness_spec(data: Json, where: str = "fitness") -> FitnessSpec:
    """Reads a spec from plain data and checks its ranges.

    Args:
        data: What ``conf/fitness/<name>.yaml`` holds.
        where: Path prefix for messages.

    Raises:
        ConfigError: Wrong shape, a weight below 0, a scale that is not above 0, or no term that counts.
    """
    spec = structure(FitnessSpec, data, where)
    for name, term in spec.terms.items():
        if not (math.isfinite(term.weight) and term.weight >= 0):
            raise ConfigError(
                f"weight {term.weight} is below 0", where=f"{where}.terms.{name}.weight", todo="use direction: lower"
            )
        if not (math.isfinite(term.scale) and term.scale > 0):
            raise ConfigError(f"scale {term.scale} is not above 0", where=f"{where}.terms.{name}.scale")
    if not any(term.weight > 0 for term in spec.terms.values()):
        raise ConfigError(
            "no term has a weight above 0", where=f"{where}.terms", todo="give at least one term a weight"
        )
    return spec


def rank(subjects: Mapping[Digest, Evidence], spec: FitnessSpec) -> tuple[Fitness, ...]:
    """Scores every subject and marks those that nobody dominates.

    Args:
        subjects: Evidence by artifact digest; admitted candidates only, since safety is not weighed here.
        spec: What is worth how much.

    Returns:
        Best score first, equal scores by digest; the unranked last, by digest. ``FitnessTerm.value`` is the
        objective, so that the score is the sum of weight times value over the terms whose weight is above 0.
    """
    terms = {subject: _terms(evidence, spec) for subject, evidence in subjects.items()}
    scores = {subject: _score(found) for subject, found in terms.items()}
    ranked = sorted((s for s in subjects if scores[s] is not None), key=lambda s: (-(scores[s] or 0.0), s))
    points = [objectives(terms[subject]) for subject in ranked]
    best = {ranked[i] for i in front([tuple(point.values()) for point in points])} if ranked else set()
    unranked = sorted(subject for subject in subjects if scores[subject] is None)
    return tuple(Fitness(s, scores[s], terms[s], s in best) for s in (*ranked, *unranked))


def objectives(terms: Sequence[FitnessTerm]) -> Mapping[str, float]:
    """Objectives that count, by name, in the spec's order; those without evidence are left out."""
    return {term.name: term.value for term in terms if term.weight > 0 and term.value is not None}


def _terms(evidence: Evidence, spec: FitnessSpec) -> tuple[FitnessTerm, ...]:
    return tuple(
        FitnessTerm(name, _objective(evidence, term), term.weight, term.metric) for name, term in spec.terms.items()
    )


def _score(terms: Sequence[FitnessTerm]) -> float | None:
    counted = [term for term in terms if term.weight > 0]
    if any(term.value is None for term in counted):
        return None
    return math.fsum(term.weight * term.value for term in counted if term.value is not None)


def _objective(evidence: Evidence, term: TermSpec) -> float | None:
    wanted = (term.metric, term.split, term.against)
    found = {m.statistic for m in evidence if (m.metric, m.split, m.against) == wanted}
    raw = _raw(found.pop(), term.summary) if len(found) == 1 else None  # contradictory evidence is no evidence
    if raw is None or not math.isfinite(raw):
        return None
    difference = raw - term.reference if term.direction == "higher" else term.reference - raw
    return difference / term.scale


def _raw(statistic: Statistic, summary: Summary) -> float | None:
    raw: float | None = None
    match statistic, summary:
        case Proportion(k=k, n=n), "rate" if n > 0:
            raw = k / n
        case Paired(n=n, n10=n10, n01=n01), "rate" if n > 0:
            raw = (n10 - n01) / n
        case Samples(values=values), "mean" if values:
            raw = math.fsum(values) / len(values)
        case Samples(values=values), "median" if values:
            raw = statistics.median(values)
        case Samples(values=values), "maximum" if values:
            raw = max(values)
        case Count(count=count), "count":
            raw = float(count)
    return raw
