"""A policy on the stored evidence of everything ever judged: which verdicts would flip, and why.

Exact, because evidence holds sufficient statistics and the rule computes the interval: no model, no accelerator, no
network. What was not asked then stays not asked: a rule that an earlier refusal kept from being asked is INCONCLUSIVE
under the new policy too, and a rule that is new is judged by whatever was measured.

Law, property-tested: replaying the policy that judged gives the verdict that its rules gave, and ``_Bench.outcome`` is
that of ``kernel.verdicts.verdict`` on every record. It is quicker only because equal statistics are judged once:
evidence is kept as text, and text that was seen before is not even read. Whether a policy was approved is a question
about the policy and not about the candidate, so a verdict's outcome stands here as its rules gave it.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from ecology.contracts.evidence import Against, Evidence, Measurement, Samples, Split, Statistic
from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import Finding, GateVerdict, Outcome, Policy, Rule, Scope
from ecology.errors import PolicyError
from ecology.kernel.canonical import plain
from ecology.kernel.codec import structure
from ecology.kernel.verdicts import asked, headline, is_static, outcome_of, verdict


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """One verdict as it was given, with all that it rests on."""

    subject: Digest
    name: str
    outcome: Outcome
    scope: Scope
    decided_at: str
    policy: Digest
    outcomes: Mapping[str, str]
    """Id of each rule of the policy that judged to what it found, in the policy's order."""
    unasked: frozenset[str]
    """Those of them that were not put to the candidate."""
    trouble: tuple[Finding, ...]
    """Findings of no rule, such as an engine that failed; no policy undoes them."""
    topics: Mapping[str, str]
    """The evidence: metric, split and comparison (see ``topic``) to what was measured, as JSON text."""
    held: bool = True
    """Whether this home holds the adapter; of others, as of a folder that nobody signed, it keeps only the verdict."""
    promoted: bool = False
    """Whether an alias ever named it."""

    @property
    def refused_by(self) -> tuple[str, ...]:
        """Ids of the findings that did not admit."""
        rules = (rule for rule, found in self.outcomes.items() if not Outcome(found).admits)
        return (*(f.rule for f in self.trouble if not f.outcome.admits), *rules)

    @property
    def waived(self) -> tuple[str, ...]:
        """Ids of the rules that a waiver stood for."""
        return tuple(rule for rule, found in self.outcomes.items() if found == Outcome.WAIVED.value)

    @property
    def evidence(self) -> Evidence:
        """The measurements that rules read; where they came from is not kept.

        Raises:
            ConfigError: A statistic is not one.
        """
        return tuple(m for name, text in self.topics.items() for m in _read(name, text, self.subject))


def topic(metric: str, split: str, against: str) -> str:
    """What a rule and a measurement must share for the one to see the other, as one key."""
    return f"{metric} {split} {against}"


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
    held: bool = True
    """Whether this home holds the adapter, and not only what it saw of it."""

    def __str__(self) -> str:
        what = "would be refused" if self.before.admits else "would be admitted"
        marks = [word for word, is_so in (("promoted", self.promoted), ("not held here", not self.held)) if is_so]
        name = f"{self.name} ({', '.join(marks)})" if marks else self.name
        return f"{name}: {what}, {self.before.value} -> {self.after.value}: {self.rule}: {self.reason}"


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
    def lines(self) -> tuple[str, ...]:
        """One sentence a flip; what several verdicts on one adapter say alike is said once."""
        counted = collections.Counter(map(str, self.flips))
        return tuple(f"{line} ({count} verdicts)" if count > 1 else line for line, count in counted.items())

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


def verdict_under(policy: Policy, one: Stored, at: str = "", *, words: bool = True) -> GateVerdict:
    """The verdict that the policy gives on the stored evidence; without words, its outcomes alone."""
    return verdict(
        policy,
        one.evidence,
        one.subject,
        one.scope,
        at or one.decided_at,
        rules_asked=asked_under(policy, one),
        extra=one.trouble,
        words=words,
    )


def asked_under(policy: Policy, one: Stored) -> frozenset[str]:
    """Ids of the policy's rules that count as asked: those that were, and those that nobody could ask then."""
    return frozenset(rule.id for rule in policy.rules if rule.id not in one.unasked)


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
        outcomes={f.rule: f.outcome.value for f in given.findings if f.rule in rules},
        unasked=frozenset(f.rule for f in given.findings if f.rule in rules and not asked(f)),
        trouble=tuple(f for f in given.findings if f.rule not in rules),
        topics=topics_of((plain(m) for m in evidence), given.subject),
    )


_text = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def topics_of(
    measurements: Iterable[Mapping[str, Any]], subject: Digest, text: Callable[[Sequence[Json]], str] = _text
) -> Mapping[str, str]:
    """Evidence on a subject as text by topic; whose statistics are equal, their text is equal.

    Args:
        measurements: ``Measurement`` as plain data (``canonical.plain``), as a stored verdict holds it.
        subject: What is said of others is left out.
        text: Writes JSON without white space and with keys in order.

    Raises:
        KeyError: One lacks a field that every measurement has.
    """
    found: dict[str, list[Json]] = {}
    for m in measurements:
        if m["subject"] == subject:
            against = m["against"]
            parent = m["comparator"] if against == "parents" else ""  # only there does it matter with whom
            row = [parent, m["statistic"], m.get("caveat", "")]
            found.setdefault(topic(m["metric"], m["split"], against), []).append(row)
    return {name: text(rows) for name, rows in found.items()}


def _read(name: str, text: str, subject: Digest) -> Iterator[Measurement]:
    metric, split, against = name.rsplit(" ", 2)
    for parent, statistic, caveat in json.loads(text):
        read: Statistic = _samples(statistic) or structure(cast("type[Statistic]", Statistic), statistic)
        yield Measurement(
            metric, subject, read, cast(Split, split), cast(Against, against), str(parent), caveat=str(caveat)
        )


def _samples(row: Mapping[str, Json]) -> Samples | None:
    """Samples are many and each set its own, so they are read the short way; None for any other statistic."""
    values = row.get("values")
    if not isinstance(values, list) or not {*map(type, values)} <= {float, int} or row.get("families"):
        return None
    return Samples(tuple(map(float, values)), str(row.get("unit", "")))


def _flip(policy: Policy, one: Stored, at: str) -> Flip:
    again = verdict_under(policy, one, at)
    top = headline(again)
    if again.outcome.admits:
        names = {f.rule: f for f in again.findings}
        rule = next((name for name in one.refused_by if name in names), next(iter(one.refused_by), ""))
        reason = names[rule].reason if rule in names else "this policy has no such rule"
    else:
        rule, reason = (top.rule, top.reason) if top else ("", "")
    return Flip(one.subject, one.name, one.outcome, again.outcome, one.promoted, rule, reason, one.held)


class _Bench:
    """Outcomes of one policy, each set of equal statistics judged once."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._seen: dict[tuple[str, str], Outcome] = {}
        self._waived = {waiver.subject for waiver in policy.waivers}
        self._shares_alpha = policy.error_budget is not None and policy.error_budget.denial < 1
        self._topics = [
            (rule, topic(rule.metric, rule.split, rule.against), is_static(rule), _unasked(rule))
            for rule in policy.rules
        ]

    def outcome(self, one: Stored, at: str) -> Outcome:
        if one.subject in self._waived or self._shares_alpha:  # then a rule does not decide by itself
            return verdict_under(self.policy, one, at, words=False).outcome
        worst = max((finding.outcome for finding in one.trouble), key=_rank, default=Outcome.PASS)
        rank, denies = worst.rank, False
        for rule, name, static, unasked in self._topics:
            if one.scope == "static" and not static:
                continue
            denies = denies or rule.severity == "deny"
            if rule.id in one.unasked:
                found = unasked
            else:
                key = (rule.id, one.topics.get(name, ""))
                found = self._seen.get(key) or self._judge(rule, name, key, one.subject)
            if RANKS[found] > rank:
                worst, rank = found, RANKS[found]
        if not denies:
            raise PolicyError(f"no rule in scope {one.scope!r} has severity deny", where=f"policy {self.policy.id}")
        return worst

    def _judge(self, rule: Rule, name: str, key: tuple[str, str], subject: Digest) -> Outcome:
        matching = tuple(_read(name, key[1], subject)) if key[1] else ()
        self._seen[key] = outcome_of(rule, matching, subject)
        return self._seen[key]


RANKS = {outcome: outcome.rank for outcome in Outcome}


def _unasked(rule: Rule) -> Outcome:
    return {"deny": Outcome.INCONCLUSIVE, "warn": Outcome.WARN, "info": Outcome.PASS}[rule.severity]


def _rank(outcome: Outcome) -> int:
    return outcome.rank
