"""The ladder: cheapest question first, stop at the first refusal, ask nothing twice.

A rung knows how to measure; which rules it answers follows from their metric and split:

    static      static.*, and what the      no model
                genome says was kept
    liveness    liveness.*                  a few forward passes
    screen      anything on public items    one suite pass over few items
    hidden      anything on hidden items    the expensive one, for finalists
    resources   resource.*                  timing and a fresh process
    fresh       anything on fresh items     re-scoring of a winner

After each rung the rules of all rungs so far are judged. The first outcome that does not admit ends the climb: what
comes later would cost time and change nothing. Rules that were not asked are listed as such and are INCONCLUSIVE, so
a stopped candidate is refused by its own finding and no unasked rule can make it look better.

An ``EcologyError`` while measuring is missing evidence with a name: INCONCLUSIVE. Any other exception is DENY with its
type: a candidate that makes the gate fall over in a way that nobody foresaw is not let through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ecology.contracts.artifact import Submission
from ecology.contracts.evidence import Evidence
from ecology.contracts.policy import RUNG_RULE, Finding, GateVerdict, Outcome, Policy, Rule, Scope
from ecology.errors import EcologyError
from ecology.kernel.verdicts import verdict

RUNGS = ("static", "liveness", "screen", "hidden", "resources", "fresh")
"""From the cheapest to the dearest."""


class Rung(NamedTuple):
    """One step: a name of ``RUNGS`` and how to measure what its rules ask for."""

    name: str
    measure: Callable[[], Evidence]
    findings: Callable[[], Sequence[Finding]] = tuple
    """Findings of no rule that measuring made, such as a race that was lost; asked after ``measure``."""


class Climb(NamedTuple):
    """How far a candidate came; the first three unpack as verdict, evidence, rung."""

    verdict: GateVerdict
    evidence: Evidence
    rung: str
    """Where it was stopped; empty when no rung that was climbed refused it."""
    climbed: tuple[str, ...]
    """Rungs that were measured, in order, those of an earlier climb included."""


def rung_of(rule: Rule) -> str:
    """The rung that answers a rule."""
    by_split = {"public": "screen", "hidden": "hidden", "fresh": "fresh"}
    by_metric = {"static": "static", "liveness": "liveness"}
    if rule.metric == "resource.retained_energy":  # the genome says it
        return "static"
    return by_split.get(rule.split) or by_metric.get(rule.metric.split(".", 1)[0], "resources")


def climb(
    submission: Submission,
    policy: Policy,
    rungs: Sequence[Rung],
    decided_at: str,
    *,
    scope: Scope = "full",
    earlier: Climb | None = None,
    standing: Sequence[Finding] = (),
) -> Climb:
    """Climbs until a rung refuses or there is none left.

    Args:
        submission: The candidate.
        policy: What is demanded.
        rungs: Cheapest first.
        decided_at: RFC 3339 instant, UTC, from the run's clock.
        scope: ``static`` judges static rules only; nothing accepts such a verdict for promotion.
        earlier: An earlier climb of the same candidate, whose evidence and rungs travel on.
        standing: Findings about the policy itself, such as a missing approval; they are in every verdict.

    Returns:
        The verdict over all rungs climbed. It admits only if every rule of the policy was asked.

    Raises:
        PolicyError: No rule in scope has severity ``deny``.
    """
    evidence = earlier.evidence if earlier else ()
    climbed = earlier.climbed if earlier else ()
    judged = _judge(submission, policy, evidence, climbed, decided_at, scope, standing)
    if earlier and earlier.rung:
        return earlier
    for rung in rungs:
        trouble: tuple[Finding, ...] = ()
        climbed = (*climbed, rung.name)
        try:
            evidence = (*evidence, *rung.measure())
            trouble = tuple(rung.findings())
        except EcologyError as error:
            trouble = (unmeasured(rung.name, Outcome.INCONCLUSIVE, f"{type(error).__name__}: {error}"),)
        except Exception as error:
            trouble = (unmeasured(rung.name, Outcome.DENY, f"unforeseen {type(error).__name__}: {error}"),)
        judged = _judge(submission, policy, evidence, climbed, decided_at, scope, (*standing, *trouble))
        if trouble or _refused(judged, policy, climbed):
            return Climb(judged, evidence, rung.name, climbed)
    return Climb(judged, evidence, "", climbed)


def _judge(
    submission: Submission,
    policy: Policy,
    evidence: Evidence,
    climbed: Sequence[str],
    decided_at: str,
    scope: Scope,
    trouble: Sequence[Finding],
) -> GateVerdict:
    asked = [rule.id for rule in policy.rules if rung_of(rule) in climbed]
    return verdict(
        policy, evidence, submission.artifact.digest, scope, decided_at, rules_asked=asked, extra=tuple(trouble)
    )


def _refused(judged: GateVerdict, policy: Policy, climbed: Sequence[str]) -> bool:
    """Whether a rule that the rungs so far answer refuses."""
    asked = {rule.id for rule in policy.rules if rung_of(rule) in climbed}
    return any(finding.rule in asked and not finding.outcome.admits for finding in judged.findings)


def unmeasured(rung: str, outcome: Outcome, reason: str) -> Finding:
    """The finding of a rung that could not be measured; whoever remembers what was measured does not remember this.

    Args:
        rung: A name of ``RUNGS``.
        outcome: INCONCLUSIVE or DENY.
        reason: Why.
    """
    return Finding(
        rule=f"{RUNG_RULE}{rung}",
        title=f"The rung {rung!r} could be measured",
        metric=rung,
        split="none",
        severity="deny",
        outcome=outcome,
        demand="measured",
        observed=None,
        lower=None,
        upper=None,
        n=0,
        reason="".join(char if char.isprintable() else ascii(char)[1:-1] for char in reason[:500]),
    )
