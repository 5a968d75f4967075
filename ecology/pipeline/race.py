"""Candidates race over the items of a split: nobody answers more than it takes to see that there is no hope.

What decides is in ``kernel.racing``; this module asks. The suites come in the order of the cheapest kill; the items of
each in one shuffled order, the same for everybody; the first look after ``look`` items, each further one after as many
again as were asked so far, so that a good candidate is interrupted a handful of times and a hopeless one stops early.
What was asked stays in the cache of answers, so whoever survives is asked only what is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ecology.contracts.evidence import Evidence, Item, Split, Suite
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Finding, Policy
from ecology.contracts.ports import Clock
from ecology.contracts.run import RaceReport
from ecology.kernel import racing

Measure = Callable[[Suite, Sequence[Item]], Evidence]
"""Evidence of one candidate on these items of a suite, compared with the incumbent where a rule asks for it."""


@dataclasses.dataclass(frozen=True)
class Lap:
    """How one candidate came through one split."""

    evidence: Evidence
    """Of the items asked; partial where it was dropped."""
    finding: Finding | None
    """Why it was dropped; None where it was not."""
    asked: Mapping[str, tuple[Item, ...]]
    """Suite -> the items that were asked: all of them, or fewer where every rule was settled or the race was lost."""


class Track:
    """The races of one run: who was dropped where, and what that saved."""

    def __init__(self, race: racing.Race, policy: Policy, clock: Clock) -> None:
        """Races under a policy's rules; ``clock`` tells what the items cost that were asked."""
        self._race, self._policy, self._clock = race, policy, clock
        self._kills: dict[tuple[Split, str], int] = {}
        self._seen: dict[tuple[Split, str], int] = {}
        self._seconds: dict[tuple[Split, str], tuple[float, int]] = {}
        self._findings: dict[Digest, list[Finding]] = {}
        self._laps: list[tuple[Digest, Split, str, Mapping[tuple[Split, str], int], int, int]] = []

    def findings(self, subject: Digest) -> tuple[Finding, ...]:
        """Why a candidate was dropped; empty while it is in the race."""
        return tuple(self._findings.get(subject, ()))

    def run(
        self, subject: Digest, suites: Sequence[tuple[Suite, Sequence[Item]]], split: Split, seed: str, measure: Measure
    ) -> Lap:
        """One candidate runs over the suites that can drop it; the others are left out.

        Args:
            subject: Who runs.
            suites: With their items, in the order declared.
            split: Of the items.
            seed: Of the order of the items; the same for every candidate.
            measure: Asks and scores.
        """
        waived = {waiver.rule for waiver in self._policy.waivers}  # a waived demand is no reason to drop anybody
        open_rules = [rule for rule in self._policy.rules if rule.id not in waived]
        rules = {suite.id: racing.raced(open_rules, suite.id, split) for suite, _ in suites}
        field = {suite.id: (suite, items) for suite, items in suites if rules[suite.id] and items}
        if not field:
            return Lap((), None, {})
        raced = [rule for suite in field for rule in rules[suite]]
        alpha = self._race.alpha
        evidence: Evidence = ()
        asked: dict[str, tuple[Item, ...]] = {}
        dropped: Finding | None = None
        for name in self._order({name: suite for name, (suite, _) in field.items()}, split):
            suite, items = field[name]
            by_id = {item.id: item for item in items}
            ordered = [by_id[one] for one in racing.shuffled(list(by_id), seed)]
            found: Evidence = ()
            for stop in _looks(len(ordered), self._race.look):
                asked[name] = tuple(ordered[:stop])
                start = self._clock.monotonic()
                found = measure(suite, asked[name])
                self._spend((split, name), self._clock.monotonic() - start, stop)
                dropped = racing.hopeless(raced, (*evidence, *found), alpha)
                if dropped or racing.settled(rules[name], found, alpha):
                    break
            evidence = (*evidence, *found)
            self._seen[split, name] = self._seen.get((split, name), 0) + 1
            if dropped:
                self._kills[split, name] = self._kills.get((split, name), 0) + 1
                self._findings.setdefault(subject, []).append(dropped)
                break
        self._note(subject, split, dropped, {name: len(items) for name, (_, items) in field.items()}, asked)
        return Lap(evidence, dropped, asked)

    def reports(self) -> tuple[RaceReport, ...]:
        """What the races saved, one entry a candidate and split, in the order run."""
        return tuple(
            RaceReport(
                subject=subject,
                split=split,
                dropped_by=rule,
                asked=asked,
                planned=planned,
                seconds_saved=round(sum(self._cost(key) * count for key, count in left.items()), 3),
                alpha=self._race.alpha,
            )
            for subject, split, rule, left, asked, planned in self._laps
        )

    def _order(self, suites: Mapping[str, Suite], split: Split) -> tuple[str, ...]:
        costs = {name: float(max(12, suite.max_new_tokens)) for name, suite in suites.items()}
        return racing.order(
            costs,
            {name: self._kills.get((split, name), 0) for name in suites},
            {name: self._seen.get((split, name), 0) for name in suites},
        )

    def _spend(self, key: tuple[Split, str], seconds: float, items: int) -> None:
        known = self._seconds.get(key, (0.0, 0))
        if seconds / items > known[0] / max(1, known[1]):  # the dearest look: the others were partly in the cache
            self._seconds[key] = seconds, items

    def _cost(self, key: tuple[Split, str]) -> float:
        seconds, items = self._seconds.get(key, (0.0, 0))
        return seconds / max(1, items)

    def _note(
        self,
        subject: Digest,
        split: Split,
        dropped: Finding | None,
        planned: Mapping[str, int],
        asked: Mapping[str, Sequence[Item]],
    ) -> None:
        left: dict[tuple[Split, str], int] = {
            (split, name): n - len(asked.get(name, ())) for name, n in planned.items()
        }
        rule = dropped.rule.removeprefix(racing.PREFIX) if dropped else ""
        self._laps.append((subject, split, rule, left, sum(map(len, asked.values())), sum(planned.values())))


def _looks(n: int, first: int) -> tuple[int, ...]:
    """After how many items there is a look: first, twice, four times as many, and at the end."""
    looks = []
    stop = first
    while stop < n:
        looks.append(stop)
        stop *= 2
    return (*looks, n)
