"""A policy on the stored evidence of everything ever judged: which verdicts would flip, and why.

Exact, because evidence holds sufficient statistics and the rule computes the interval: no model, no accelerator, no
network. What was not asked then stays not asked: a rule that an earlier refusal kept from being asked is INCONCLUSIVE
under the new policy too, and a rule that is new is judged by whatever was measured.

Law, property-tested: replaying the policy that judged gives the verdict that was given, and ``outcome_under`` equals
``kernel.verdicts.verdict`` on every record. It is quicker only because equal statistics are judged once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence

from ecology.contracts.evidence import Evidence, Measurement, Statistic
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Finding, GateVerdict, Outcome, Policy, Rule, Scope
from ecology.errors import PolicyError
from ecology.kernel.verdicts import asked, headline, is_static, judge, verdict


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """One verdict as it was given, with all that it rests on."""

    subject: Digest
    name: str
    outcome: Outcome
    scope: Scope
    decided_at: str
    policy: Digest
    known: frozenset[str]
    """Ids of the rules of the policy that judged."""
    asked: frozenset[str]
    """Those of them that were put to the candidate."""
    refused_by: tuple[str, ...]
    """Ids of the findings that did not admit."""
    trouble: tuple[Finding, ...]
    """Findings of no rule, such as an engine that failed; no policy undoes them."""
    evidence: Evidence
    waived: tuple[str, ...] = ()
    """Ids of the rules that a waiver stood for."""
    promoted: bool = False
    """Whether an alias ever named it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Flip:
    """A verdict that the new policy would have given the other way."""

    subject: Digest
    name: str
    before: Outcome
    after: Outcome
    promoted: bool
    rule: str
    """Of the new policy where it refuses, of the old one where it admits."""
    reason: str

    def __str__(self) -> str:
        what = "would be refused" if self.before.admits else "would be admitted"
        promoted = " (promoted)" if self.promoted else ""
        return f"{self.name}{promoted}: {what}, {self.before.value} -> {self.after.value}: {self.rule}: {self.reason}"


@dataclasses.dataclass(frozen=True, slots=True)
class Replay:
    """What a policy would have done to the past."""

    policy: Digest
    judged: int
    flips: tuple[Flip, ...]
    """Promoted ones first, then by name."""
    moved: int
    """Verdicts with another outcome that admit, or refuse, as before."""

    @property
    def sentence(self) -> str:
        """``7 of 312 verdicts flip, 3 of them promoted``."""
        verdicts = f"{self.judged} verdict{'s' * (self.judged != 1)}"
        if not self.judged:
            return "there is no past verdict to replay on"
        promoted = sum(flip.promoted for flip in self.flips)
        flip = "flips" if len(self.flips) == 1 else "flip"
        tail = f", {promoted} of them promoted" if self.flips else ""
        moved = f"; {self.moved} more change{'s' * (self.moved == 1)} without flipping" if self.moved else ""
        return f"{len(self.flips)} of {verdicts} {flip}{tail}{moved}"


def replay(policy: Policy, past: Iterable[Stored], at: str = "") -> Replay:
    """What the policy says of every stored verdict.

    Args:
        policy: The new policy, or the one that judged.
        past: Verdicts in any order.
        at: Instant as of which waivers are in effect; each verdict's own where empty.

    Raises:
        PolicyError: The policy has no deny rule in the scope of a verdict.
    """
    bench = _Bench(policy)
    flips, judged, moved = [], 0, 0
    for one in past:
        judged += 1
        after = bench.outcome(one, at)
        if after.admits != one.outcome.admits:
            flips.append(_flip(policy, one, at))
        elif after is not one.outcome:
            moved += 1
    flips.sort(key=lambda flip: (not flip.promoted, flip.name, flip.subject))
    return Replay(policy.digest, judged, tuple(flips), moved)


def verdict_under(policy: Policy, one: Stored, at: str = "") -> GateVerdict:
    """The verdict that the policy gives on the stored evidence."""
    return verdict(
        policy,
        one.evidence,
        one.subject,
        one.scope,
        at or one.decided_at,
        rules_asked=asked_under(policy, one),
        extra=one.trouble,
    )


def asked_under(policy: Policy, one: Stored) -> frozenset[str]:
    """Ids of the policy's rules that count as asked: those that were, and those that nobody could ask then."""
    return frozenset(rule.id for rule in policy.rules if rule.id in one.asked or rule.id not in one.known)


def stored(given: GateVerdict, evidence: Evidence, rules: Collection[str], name: str = "") -> Stored:
    """A verdict as this room replays it.

    Args:
        given: The verdict.
        evidence: What it rests on.
        rules: Ids of the rules of the policy that judged; other findings are trouble.
        name: For people; the beginning of the digest where empty.
    """
    return Stored(
        subject=given.subject,
        name=name or given.subject[7:19],
        outcome=given.outcome,
        scope=given.scope,
        decided_at=given.decided_at,
        policy=given.policy,
        known=frozenset(rules),
        asked=frozenset(f.rule for f in given.findings if f.rule in rules and asked(f)),
        refused_by=tuple(f.rule for f in given.findings if not f.outcome.admits),
        trouble=tuple(f for f in given.findings if f.rule not in rules),
        evidence=evidence,
        waived=tuple(f.rule for f in given.findings if f.outcome is Outcome.WAIVED),
    )


def _flip(policy: Policy, one: Stored, at: str) -> Flip:
    again = verdict_under(policy, one, at)
    top = headline(again)
    if again.outcome.admits:
        names = {f.rule: f for f in again.findings}
        rule = next((name for name in one.refused_by if name in names), next(iter(one.refused_by), ""))
        reason = names[rule].reason if rule in names else "this policy has no such rule"
    else:
        rule, reason = (top.rule, top.reason) if top else ("", "")
    return Flip(one.subject, one.name, one.outcome, again.outcome, one.promoted, rule, reason)


_Key = tuple[tuple[str, Statistic], ...]


class _Bench:
    """Outcomes of one policy, each set of equal statistics judged once."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._seen: dict[tuple[str, _Key], Outcome] = {}
        self._waived = {waiver.subject for waiver in policy.waivers}
        self._topics = [(rule, (rule.metric, rule.split, rule.against)) for rule in policy.rules]
        self._unasked = {rule.id: _unasked(rule) for rule in policy.rules}

    def outcome(self, one: Stored, at: str) -> Outcome:
        if one.subject in self._waived:
            return verdict_under(self.policy, one, at).outcome
        topics: dict[tuple[str, str, str], list[Measurement]] = {}
        for measurement in one.evidence:
            if measurement.subject == one.subject:
                key = (measurement.metric, measurement.split, measurement.against)
                topics.setdefault(key, []).append(measurement)
        worst, denies = max((f.outcome for f in one.trouble), key=_rank, default=Outcome.PASS), False
        for rule, topic in self._topics:
            if one.scope == "static" and not is_static(rule):
                continue
            denies = denies or rule.severity == "deny"
            if rule.id in one.known and rule.id not in one.asked:
                found = self._unasked[rule.id]
            else:
                found = self._judge(rule, topics.get(topic, ()), one.subject)
            if found.rank > worst.rank:
                worst = found
        if not denies:
            raise PolicyError(f"no rule in scope {one.scope!r} has severity deny", where=f"policy {self.policy.id}")
        return worst

    def _judge(self, rule: Rule, matching: Sequence[Measurement], subject: Digest) -> Outcome:
        key = (rule.id, tuple((m.comparator, m.statistic) for m in matching))
        if key not in self._seen:
            self._seen[key] = judge(rule, tuple(matching), subject).outcome
        return self._seen[key]


def _unasked(rule: Rule) -> Outcome:
    return {"deny": Outcome.INCONCLUSIVE, "warn": Outcome.WARN, "info": Outcome.PASS}[rule.severity]


def _rank(outcome: Outcome) -> int:
    return outcome.rank
