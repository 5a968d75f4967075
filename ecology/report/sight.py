"""What the rules could see with the samples they got, and what racing saved: sentences that all formats share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ecology.contracts.evidence import Proportion
from ecology.contracts.policy import GateVerdict, Policy, Rule
from ecology.contracts.run import RunReport
from ecology.kernel.accounting import any_of, false_admission
from ecology.kernel.differences import independent
from ecology.kernel.sight import USUAL, sight
from ecology.report.words import plural, visible

REAL_VALUED = frozenset({"fields", "brier", "constraints", "confidence", "smooth_ece", "spread"})
"""Scores that are no rates: how they vary is known only once they are measured."""


def sights(report: RunReport) -> tuple[str, ...]:
    """One sentence for each rule that judges a sample, at the greatest n that it saw here, and the errors allowed."""
    lines = list(rule_sights(report.policy, [one.verdict for one in report.candidates]))
    alpha = false_admission(report.policy)
    judged = sum(any(m.split == "hidden" for m in one.evidence) for one in report.candidates)
    if alpha < 1 and judged:
        lines.append(
            f"A candidate that misses a demand is admitted with probability at most {alpha:.3g}; "
            f"{plural(judged, 'candidate')} saw the hidden items, so any such one among them with at most "
            f"{any_of(alpha, judged):.3g}."
        )
    budget = report.policy.error_budget
    if budget is not None and budget.denial < 1:
        lines.append(
            f"One that meets every demand is denied by some rule with probability at most {budget.denial:.3g} (Holm)."
        )
    return tuple(lines)


def rule_sights(policy: Policy, verdicts: Sequence[GateVerdict]) -> tuple[str, ...]:
    """What each rule that judges a sample sees, at the greatest n that any of these verdicts rests on."""
    return tuple(sights_by_rule(policy, verdicts).values())


def sights_by_rule(policy: Policy, verdicts: Sequence[GateVerdict]) -> Mapping[str, str]:
    """The same by rule's id; a rule that was not asked, or judges no sample, is not in it."""
    seen = {rule.id: _n(verdicts, rule) for rule in policy.rules if _samples(rule)}
    wanted = policy.decidable or USUAL
    return {
        rule.id: visible(str(sight(rule, seen[rule.id], wanted)))
        for rule in policy.rules
        if seen.get(rule.id, 0) >= max(2, rule.min_samples)
    }


def contamination(report: RunReport) -> tuple[str, ...]:
    """Of each finalist that was asked them: public items against twins, with interval, and options turned."""
    lines = []
    for one in report.candidates:
        seen = {(m.metric, m.split): m.statistic for m in one.evidence if m.against == "absolute"}
        for (metric, _), twins in seen.items():
            suite, _, score = metric.rpartition(".")
            rates = (seen.get((f"{suite}.{name}", "public")) for name in ("exact", "correct", "followed"))
            public = next((rate for rate in rates if isinstance(rate, Proportion)), None)
            if score != "twins" or not isinstance(twins, Proportion) or public is None:
                continue
            low, high = independent(public.k, public.n, twins.k, twins.n, 0.95)
            turned = seen.get((f"{suite}.shuffled", "hidden"))
            after = f"; {turned.k} of {turned.n} with the options turned" if isinstance(turned, Proportion) else ""
            lines.append(
                f"{visible(one.name)}, {visible(suite)}: {public.k} of {public.n} public items and {twins.k} of "
                f"{twins.n} twins right, a gap of {public.k / public.n - twins.k / twins.n:+.2f} "
                f"(90 % interval {low:+.2f} to {high:+.2f}){after}."
            )
    return tuple(lines)


def confirmation(report: RunReport) -> tuple[str, ...]:
    """What the fresh items said of the best of several; empty where nobody was asked them."""
    found = report.confirmation
    if found is None:
        return ()
    name = next((one.name for one in report.candidates if one.digest == found.subject), found.subject)
    good = all(finding.outcome.admits for finding in found.findings)
    head = (
        f"{visible(name)}, the best of {found.among} admitted, was asked {found.items} fresh items a suite, which "
        f"chose nobody: {'confirmed' if good else 'not confirmed'}."
    )
    return (head, *(visible(f"{f.rule}: {f.outcome.value}: {f.reason}") for f in found.findings))


def races(report: RunReport) -> tuple[str, ...]:
    """What racing did, and the error that was bought with it; empty where nobody raced."""
    if not report.races:
        return ()
    asked, planned = sum(race.asked for race in report.races), sum(race.planned for race in report.races)
    seconds = sum(race.seconds_saved for race in report.races)
    names = {one.digest: one.name for one in report.candidates}
    lines = [
        f"{asked} of {plural(planned, 'item')} were asked; the rest would have taken about {seconds:.0f} s. A "
        "candidate that meets every demand is dropped with probability at most "
        f"{max(r.alpha for r in report.races):.3g} a split, "
        "and none that misses one is let through by it."
    ]
    lines += [
        f"{visible(names.get(race.subject, race.subject))} was dropped on {race.split} items after {race.asked} of "
        f"{race.planned}: {visible(race.dropped_by)} was out of reach."
        for race in report.races
        if race.dropped_by
    ]
    return tuple(lines)


def _n(verdicts: Sequence[GateVerdict], rule: Rule) -> int:
    found = [finding.n for one in verdicts for finding in one.findings if finding.rule == rule.id]
    return max(found, default=0)


def _samples(rule: Rule) -> bool:
    """Whether the rule judges a sample whose power can be computed: answers to items, or latencies."""
    if rule.metric.startswith("resource."):
        return rule.min_samples > 1
    score = rule.metric.partition(".")[2]
    return rule.split != "none" and score not in REAL_VALUED and -1 <= rule.threshold <= 1
