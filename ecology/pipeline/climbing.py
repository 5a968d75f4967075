"""Who may pass: every member climbs the ladder, cheapest rung first, and stops at its first refusal.

The screen is asked of everyone who is alive; the hidden items only of the few finalists that the screen leaves and
fitness prefers. A candidate that the screen did not refute and that is no finalist lacks evidence, which is
INCONCLUSIVE and admits to nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

from ecology.contracts.evidence import Evidence, Proportion
from ecology.contracts.policy import Policy
from ecology.gate.ladder import Climb, Rung, climb
from ecology.pipeline.judged import Judged
from ecology.pipeline.judging import Judge
from ecology.pipeline.members import Member
from ecology.promotion.fitness import FitnessSpec, TermSpec, rank

RUNGS = ("static", "liveness", "screen", "hidden", "resources")
"""The whole ladder, cheapest first."""


def judge_all(judge: Judge, members: Sequence[Member], fitness: FitnessSpec) -> tuple[Judged, ...]:
    """Verdicts on all members, in their order.

    Raises:
        IntegrityError: The resident base is no longer the base.
    """
    first: dict[str, Judged] = {}
    with judge.house.progress.track("gates: static, liveness, screen", len(members), "candidate") as step:
        for member in members:
            first[member.name] = climb_all(judge, member, ("static", "liveness", "screen"))
            step.advance(1, f"{member.name}: {first[member.name].climb.rung or 'goes on'}")
    open_ones = [one for one in first.values() if not one.climb.rung]
    finalists = [one.member.name for one in _preferred(judge, open_ones, fitness)[: judge.budget.finalists]]
    judged = []
    with judge.house.progress.track("gates: hidden items, resources", len(finalists), "finalist") as step:
        for one in first.values():
            if one.member.name in finalists:
                judged.append(climb_all(judge, one.member, ("hidden", "resources"), one.climb))
                step.advance(1, f"{one.member.name}: {judged[-1].rung or 'passed'}")
            else:
                judged.append(one)
    return tuple(judged)


def climb_all(judge: Judge, member: Member, names: Sequence[str], earlier: Climb | None = None) -> Judged:
    """One member climbs the named rungs, on from an earlier climb if there was one.

    Raises:
        IntegrityError: The resident base is no longer the base.
    """
    measure: Mapping[str, Callable[[Member], Evidence]] = {
        "static": judge.static,
        "liveness": judge.liveness,
        "screen": judge.screen,
        "hidden": judge.hidden,
        "resources": judge.resources,
    }
    dropped = functools.partial(judge.dropped, member)
    rungs = [Rung(name, functools.partial(measure[name], member), dropped) for name in names]
    climbed = climb(member.submission, judge.policy, rungs, judge.decided_at, earlier=earlier, standing=judge.standing)
    if "liveness" in climbed.climbed:
        judge.bench.engine.prove_base()  # a trace in the base would be everyone's, so it ends the run
    return Judged(member, climbed)


def _preferred(judge: Judge, open_ones: Sequence[Judged], fitness: FitnessSpec) -> list[Judged]:
    """Those likeliest to pass the hidden rules first, by what the screen saw; equals by fitness on the public items.

    Likeliest: the smallest distance of an observed rate from its threshold, in standard errors at the threshold.
    """
    public = {one.digest: one.evidence for one in open_ones}
    places = {f.subject: place for place, f in enumerate(rank(public, screening(fitness)))}

    def key(one: Judged) -> tuple[float, int]:
        return -round(_slack(judge.policy, one.evidence), 6), places[one.digest]

    return sorted(open_ones, key=key)


def _slack(policy: Policy, evidence: Evidence) -> float:
    distances = [math.inf]
    for rule in policy.rules:
        for m in evidence:
            same = (m.metric, m.split, rule.split) == (rule.metric, "public", "public")
            if same and isinstance(m.statistic, Proportion) and m.statistic.n and 0 < rule.threshold < 1:
                error = math.sqrt(rule.threshold * (1 - rule.threshold) / m.statistic.n)
                sign = -1.0 if rule.comparator == "<=" else 1.0
                distances.append(sign * (m.statistic.k / m.statistic.n - rule.threshold) / error)
    return min(distances)


def screening(fitness: FitnessSpec) -> FitnessSpec:
    """The fitness as far as public items can tell: hidden terms read the public split, the others weigh nothing."""
    terms = {
        name: dataclasses.replace(
            term, split="public", weight=term.weight if "." in term.metric and screened(term) else 0.0
        )
        for name, term in fitness.terms.items()
    }
    return dataclasses.replace(fitness, terms=terms)


def screened(term: TermSpec) -> bool:
    """Whether the screen measures what a term reads."""
    return term.split == "hidden" and not term.metric.startswith("robust.")
