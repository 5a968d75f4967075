"""What a rule says about the evidence, and what all rules together say about the candidate.

The law of a rule, in the order in which it is applied:

1. A measurement counts only if metric, subject, split and ``against`` are the rule's. None: INCONCLUSIVE.
2. Its statistic must be of the kind that the rule can read, possible, and of at least ``min_samples``. Else:
   INCONCLUSIVE.
   A measurement with a caveat (a set at floor) can refute and never pass: INCONCLUSIVE instead of PASS.
3. ``proven``: the bound on the safe side meets the threshold: PASS. The other bound shows that it is missed: DENY.
   Neither: INCONCLUSIVE, with the n that would decide. ``not_refuted``: DENY if it is shown to be missed, else PASS.
4. Measurements that contradict one another are each judged, and the finding is the worst of them and of INCONCLUSIVE.
   (Of ``parents`` there may be several: every one of them has to be satisfied.)
5. Severity: ``warn`` contributes at most WARN, ``info`` only a note.
6. A waiver in effect turns a refusal that rests on enough evidence into WAIVED, for its rule and its subject alone. It
   never stands for missing evidence, nor for a signature.

7. Where the policy has an error budget for denials, what a rule refutes by itself and Holm's correction over all
   rules asked does not is INCONCLUSIVE instead of DENY. Neither admits.

A verdict is the worst of its findings, and nobody to judge is no pass: a policy without a deny rule is a
``PolicyError``. From this follow the laws that the tests hold: adding a rule, a violation or a revocation, or removing
evidence, never turns a refusal into an admission; an expired waiver changes nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from ecology.contracts.evidence import Count, Evidence, Measurement, Paired, Proportion, Samples, Statistic
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Finding, GateVerdict, Outcome, Policy, Rule, Scope, Waiver
from ecology.errors import EcologyError, PolicyError
from ecology.kernel import accounting, planning, statistics
from ecology.kernel.decisions import decide

NOT_ASKED = "not asked"
"""How the reason of a finding begins whose rule was left out of the question on purpose."""
NEVER_WAIVED = "static.signature"
"""The one metric that no waiver stands for: without a signature nobody vouches for what is waived."""


def judge(rule: Rule, evidence: Evidence, subject: Digest, *, words: bool = True) -> Finding:
    """What one rule sees in the evidence, waivers not yet applied.

    Args:
        rule: The demand.
        evidence: Everything measured, of whatever subject.
        subject: Digest of the candidate.
        words: Whether the finding says what it saw. Without, it has no bounds, and a reason only where it was not
            asked or cannot be read: enough for whoever wants the outcome.
    """
    distinct = _distinct(rule, evidence, subject)
    if not distinct:
        return _severity(rule, _finding(rule, None, Outcome.INCONCLUSIVE, _absence(rule, evidence, subject)))
    found = [_judge_one(rule, statistic, caveat, words) for _, statistic, caveat in distinct]
    worst = max(found, key=lambda finding: finding.outcome.rank)
    if _contradict(distinct):
        reason = f"{len(distinct)} measurements contradict one another; the worst: {worst.reason}"
        worst = dataclasses.replace(worst, outcome=max(worst.outcome, Outcome.INCONCLUSIVE, key=_rank), reason=reason)
    return _severity(rule, worst)


def outcome_of(rule: Rule, evidence: Evidence, subject: Digest) -> Outcome:
    """``judge(rule, evidence, subject).outcome`` without a word of why: what a replay of thousands asks."""
    distinct = _distinct(rule, evidence, subject)
    found = [_conclude(rule, statistic, caveat).outcome for _, statistic, caveat in distinct]
    if not distinct or _contradict(distinct):
        found.append(Outcome.INCONCLUSIVE)
    return _mildest(rule, max(found, key=_rank))


def verdict(
    policy: Policy,
    evidence: Evidence,
    subject: Digest,
    scope: Scope,
    decided_at: str,
    *,
    rules_asked: Collection[str] | None = None,
    extra: Sequence[Finding] = (),
    words: bool = True,
) -> GateVerdict:
    """The worst of what the policy's rules find, waivers applied.

    Args:
        policy: The rules and the waivers.
        evidence: Everything measured.
        subject: Digest of the candidate.
        scope: ``static`` judges only rules over ``static.`` metrics; the others are listed as not asked and stay out of
            the worst-of.
        decided_at: RFC 3339 instant, UTC; waivers are in effect or not as of it.
        rules_asked: Ids of the rules whose measurements were asked for; None for all. In full scope the others are
            INCONCLUSIVE.
        extra: Findings of no rule, such as an engine that failed; they take part in the worst-of.
        words: Whether findings say what they saw, as ``judge`` has it.

    Raises:
        PolicyError: No rule in scope has severity ``deny``.
    """
    judged = [rule for rule in policy.rules if scope == "full" or is_static(rule)]
    if not any(rule.severity == "deny" for rule in judged):
        raise PolicyError(
            f"no rule in scope {scope!r} has severity deny, so everything would pass",
            where=f"policy {policy.id}",
            todo="add a rule with severity: deny",
        )
    put = [rule for rule in judged if rules_asked is None or rule.id in rules_asked]
    judgements = {rule.id: judge(rule, evidence, subject, words=words) for rule in put}
    answered = _corrected(policy, judgements, evidence, subject)
    findings: list[Finding] = []
    worst = [finding.outcome for finding in extra]
    for rule in policy.rules:
        if rule not in judged:
            findings.append(_not_asked(rule, f"scope is {scope}"))
            continue
        if rule.id not in answered:
            finding = _severity(rule, _not_asked(rule, "an earlier rung refused or this one was not climbed"))
        else:
            finding = _waive(rule, answered[rule.id], policy.waivers, subject, decided_at)
        findings.append(finding)
        worst.append(finding.outcome)
    return GateVerdict(
        subject=subject,
        policy=policy.digest,
        scope=scope,
        outcome=max(worst, key=_rank),
        findings=(*extra, *findings),  # what went wrong explains what is missing
        decided_at=decided_at,
    )


def effective(waiver: Waiver, now: str) -> bool:
    """Whether the waiver is in effect at an instant: from when it was issued until strictly before it expires.

    The one function for gate, command line, report and replay. An instant that cannot be read puts no waiver into
    effect.

    Args:
        waiver: The waiver.
        now: ISO 8601 instant with time zone.
    """
    try:
        begun = not waiver.issued or instant(waiver.issued) <= instant(now)
        return begun and instant(now) < instant(waiver.expires)
    except PolicyError:
        return False


def instant(text: str) -> datetime.datetime:
    """An ISO 8601 instant with its time zone.

    Raises:
        PolicyError: Not an instant, or without a time zone.
    """
    try:
        read = datetime.datetime.fromisoformat(text)
    except ValueError:
        read = None
    if read is None or read.tzinfo is None:
        raise PolicyError(
            f"expected an ISO 8601 instant with time zone, found {text!r}", todo="write 2027-01-31T00:00:00Z"
        )
    return read


def is_static(rule: Rule) -> bool:
    """Whether the rule can be judged without a model."""
    return rule.metric.startswith("static.")


def asked(finding: Finding) -> bool:
    """Whether the finding's rule was put to the candidate at all; renderers show the others as skipped."""
    return not finding.reason.startswith(NOT_ASKED)


def headline(judged: GateVerdict) -> Finding | None:
    """The finding that tells a reader why: the first of the worst outcome, asked ones before those not asked.

    None where everything passed without a note.
    """
    concerning = [f for f in judged.findings if f.outcome is judged.outcome and f.outcome is not Outcome.PASS]
    return min(concerning, key=lambda finding: not asked(finding), default=None)


def demand(rule: Rule) -> str:
    """The rule's condition in one token: ``>= 0.9``."""
    return f"{rule.comparator} {rule.threshold:.12g}"


def _rank(outcome: Outcome) -> int:
    return outcome.rank


def _fits(rule: Rule, measurement: Measurement, subject: Digest) -> bool:
    return (measurement.metric, measurement.subject, measurement.split, measurement.against) == (
        rule.metric,
        subject,
        rule.split,
        rule.against,
    )


def _absence(rule: Rule, evidence: Evidence, subject: Digest) -> str:
    other = [m for m in evidence if m.metric == rule.metric and m.subject == subject]
    if not other:
        return f"{rule.metric} was not measured"
    seen = ", ".join(sorted({f"split {m.split}, against {m.against}" for m in other}))
    return f"{rule.metric} was measured on {seen}, the rule asks for split {rule.split}, against {rule.against}"


def _corrected(
    policy: Policy, answered: Mapping[str, Finding], evidence: Evidence, subject: Digest
) -> Mapping[str, Finding]:
    """The findings after Holm's correction of the denials, if the policy has a budget for them."""
    alpha = policy.error_budget.denial if policy.error_budget else 1.0
    p_values = {}
    for rule in policy.rules if alpha < 1 else ():
        if rule.id in answered and accounting.judges_a_sample(rule):
            fitting = {m.statistic for m in evidence if _fits(rule, m, subject)}
            seen = [one for one in fitting if _conclude(rule, one, "").ground != "problem"]
            smallest = min((accounting.p_value(rule, one) for one in seen), default=1.0)
            p_values[rule.id] = min(1.0, smallest * max(1, len(seen)))
    refuted = accounting.holm(p_values, alpha) if p_values else frozenset()
    return {
        name: dataclasses.replace(
            finding,
            outcome=Outcome.INCONCLUSIVE,
            reason=f"{finding.reason}; not after Holm's correction over {len(p_values)} rules "
            f"(p = {p_values[name]:.2g}, {alpha:g} for all of them)",
        )
        if finding.outcome is Outcome.DENY and name in p_values and name not in refuted
        else finding
        for name, finding in answered.items()
    }


_Distinct = Collection[tuple[str, Statistic, str]]
"""With whom it was compared (of parents alone there are several), what was measured, and its caveat."""


def _distinct(rule: Rule, evidence: Evidence, subject: Digest) -> _Distinct:
    """Measurements that bear on the rule, equal ones once, in the order of the evidence."""
    parents = rule.against == "parents"
    return dict.fromkeys(
        (m.comparator if parents else "", m.statistic, m.caveat) for m in evidence if _fits(rule, m, subject)
    )


def _contradict(distinct: _Distinct) -> bool:
    return len(distinct) > len({comparator for comparator, *_ in distinct})


_Ground = Literal["problem", "few", "missed", "caveat", "met", "possible", "open"]


@dataclasses.dataclass(frozen=True, slots=True)
class _Conclusion:
    """What one measurement says under a rule, before it is put into words."""

    outcome: Outcome
    ground: _Ground
    problem: str = ""


def _conclude(rule: Rule, statistic: Statistic, caveat: str) -> _Conclusion:
    """Steps 2 and 3 of the law."""
    if problem := _problem(rule, statistic):
        return _Conclusion(Outcome.INCONCLUSIVE, "problem", problem=problem)
    try:
        decision = decide(rule, statistic)
    except EcologyError as error:
        return _Conclusion(Outcome.INCONCLUSIVE, "problem", problem=error.what)
    outcome = Outcome.INCONCLUSIVE
    ground: _Ground = "open"
    if statistics.sample_size(statistic) < rule.min_samples:
        ground = "few"
    elif decision == "missed":
        outcome, ground = Outcome.DENY, "missed"
    elif caveat:
        ground = "caveat"
    elif decision == "met":
        outcome, ground = Outcome.PASS, "met"
    elif rule.decide == "not_refuted":
        outcome, ground = Outcome.PASS, "possible"
    return _Conclusion(outcome, ground)


def _judge_one(rule: Rule, statistic: Statistic, caveat: str, words: bool) -> Finding:
    found = _conclude(rule, statistic, caveat)
    if found.ground == "problem":
        return _finding(rule, None, found.outcome, found.problem)
    if not words:
        return _finding(rule, statistic, found.outcome, "")
    edges = statistics.bounds(rule, statistic)
    wanted = demand(rule)
    said = {
        "few": f"at least {rule.min_samples} samples are required",
        "missed": f"{wanted} is missed",
        "caveat": caveat,
        "met": f"{wanted} is met",
        "possible": f"{wanted} is still possible",
    }
    conclusion = said.get(found.ground) or _undecided(rule, statistic)
    return _finding(rule, statistic, found.outcome, f"{_seen(rule, statistic, *edges)}: {conclusion}", edges)


def _undecided(rule: Rule, statistic: Statistic) -> str:
    enough = planning.needed_n(rule, statistic)
    after = f"about {enough}" if enough and enough > statistics.sample_size(statistic) else "no number of"
    return f"{demand(rule)} is neither proven nor refuted; {after} samples like these would decide"


def _problem(rule: Rule, statistic: Statistic) -> str:
    """Why the statistic is of no kind that the rule can read; empty when it is."""
    paired, problem = rule.against != "absolute", ""
    # A rate read against a margin of -0.05 would always pass, so a kind that the rule is not about is no evidence.
    if isinstance(statistic, (Count, Proportion)) and paired:
        problem = f"the rule compares against {rule.against} and needs a paired difference, found a {statistic.kind}"
    elif isinstance(statistic, Paired) and not paired:
        problem = "the rule is about the candidate alone, found a paired difference"
    elif isinstance(statistic, Count) and statistic.count < 0:
        problem = f"a negative count, {statistic.count}"
    elif rule.clustered and not isinstance(statistic, Count) and not statistic.families:
        problem = "the rule is clustered, and nobody said which items come of one family"
    elif statistics.sample_size(statistic) <= 0:
        problem = "there are no samples"
    elif isinstance(statistic, Samples) and not all(map(math.isfinite, statistic.values)):
        problem = "a sample is not a finite number"
    return problem


def _seen(rule: Rule, statistic: Statistic, lower: float | None = None, upper: float | None = None) -> str:
    """What was seen, with the bounds that bear on the rule."""
    if isinstance(statistic, Count):
        return "no violation" if statistic.count == 0 else f"{statistic.count} violation{'s' * (statistic.count != 1)}"
    value = statistics.observed(rule, statistic)
    if isinstance(statistic, Proportion):
        text = f"{statistic.k} of {statistic.n} ({value:.1%})"
    elif isinstance(statistic, Paired):
        text = f"{value:+.3f} over {statistic.n} pairs (won {statistic.n10}, lost {statistic.n01})"
    elif rule.clustered and statistic.families:
        text = f"mean {value:.4g} {statistic.unit} over {len(statistic.values)} items"
    elif statistics.exact(rule, statistic):
        return f"{value:.12g} {statistic.unit}"
    else:
        text = f"quantile {rule.quantile:g} of {len(statistic.values)} samples is {value:.4g} {statistic.unit}"
    if rule.clustered and statistic.families:
        worth = len(set(statistic.families)) if isinstance(statistic, Samples) else len(statistic.families)
        text += f" of {worth} families"
        if not isinstance(statistic, Samples):
            text += f", worth {statistic.n * statistics.shrinkage(rule, statistic):.0f} independent ones"
    missed_below = upper is not None and upper < rule.threshold
    missed_above = lower is not None and lower > rule.threshold
    sides = []
    if lower is not None and (missed_above or (rule.comparator != "<=" and not missed_below)):
        sides.append(f"at least {lower:.4g}")
    if upper is not None and (missed_below or (rule.comparator != ">=" and not missed_above)):
        sides.append(f"at most {upper:.4g}")
    return f"{text}, with {rule.confidence:.0%} confidence {' and '.join(sides)}" if sides else text


def _finding(
    rule: Rule,
    statistic: Statistic | None,
    outcome: Outcome,
    reason: str,
    edges: tuple[float | None, float | None] = (None, None),
) -> Finding:
    bounded = statistic is not None and not statistics.exact(rule, statistic)
    return Finding(
        rule=rule.id,
        title=rule.title,
        metric=rule.metric,
        split=rule.split,
        severity=rule.severity,
        outcome=outcome,
        demand=demand(rule),
        observed=None if statistic is None else statistics.observed(rule, statistic),
        lower=edges[0] if bounded else None,
        upper=edges[1] if bounded else None,
        n=0 if statistic is None else statistics.sample_size(statistic),
        reason=reason,
        details=statistic.details if isinstance(statistic, Count) else (),
        controls=rule.controls,
    )


def _not_asked(rule: Rule, why: str) -> Finding:
    return _finding(rule, None, Outcome.INCONCLUSIVE, f"{NOT_ASKED}: {why}")


def _severity(rule: Rule, finding: Finding) -> Finding:
    outcome = _mildest(rule, finding.outcome)
    if rule.severity == "info" and finding.outcome is not Outcome.PASS:
        return dataclasses.replace(finding, outcome=outcome, reason=f"{finding.reason} (for information)")
    return finding if outcome is finding.outcome else dataclasses.replace(finding, outcome=outcome)


def _mildest(rule: Rule, outcome: Outcome) -> Outcome:
    """What a rule of this severity contributes at most."""
    if rule.severity == "deny":
        return outcome
    return min(outcome, Outcome.WARN, key=_rank) if rule.severity == "warn" else Outcome.PASS


def _waive(rule: Rule, finding: Finding, waivers: Sequence[Waiver], subject: Digest, now: str) -> Finding:
    enough = finding.observed is not None and finding.n >= rule.min_samples
    if finding.outcome.admits or not enough:
        return finding
    for waiver in waivers:
        if (waiver.rule, waiver.subject) != (rule.id, subject):
            continue
        if rule.metric == NEVER_WAIVED:
            return dataclasses.replace(finding, reason=f"{finding.reason}; a missing signature cannot be waived")
        if effective(waiver, now):
            by = f"waived until {waiver.expires} by {waiver.approver} ({waiver.ticket}): {waiver.reason}"
            return dataclasses.replace(finding, outcome=Outcome.WAIVED, reason=f"{by}; {finding.reason}")
        begun = effective(dataclasses.replace(waiver, issued=""), now)
        state = "is not in effect yet" if begun else "has expired"
        return dataclasses.replace(finding, reason=f"{finding.reason}; the waiver {waiver.ticket} {state}")
    return finding
