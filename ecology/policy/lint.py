"""Rules that are well-formed and unwise.

A policy can be read without a mistake and still demand what cannot be shown: two rules that no candidate can meet
together, a threshold that no perfect score on ``min_samples`` items proves, a rule that nobody ever wrote a case for.
Each is a ``Remark`` with a level: ``error`` for what makes a rule useless, ``warning`` for what a reviewer should know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from typing import Literal

from ecology.contracts.evidence import Paired, Proportion, Samples, Statistic
from ecology.contracts.policy import Policy, Rule
from ecology.kernel import planning, statistics
from ecology.kernel.verdicts import demand, effective, is_static
from ecology.policy.metrics import Metric, known_metrics


@dataclasses.dataclass(frozen=True, slots=True)
class Remark:
    """Something a reviewer should know about a rule."""

    level: Literal["error", "warning"]
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.level}: {self.rule}: {self.what}"


def lint(
    policy: Policy,
    *,
    tested: Collection[str] | None = None,
    now: str = "",
    metrics: Mapping[str, Metric] | None = None,
) -> tuple[Remark, ...]:
    """Everything unwise in a policy.

    Args:
        policy: A policy that was read without a mistake.
        tested: Ids of the rules that the policy's cases judge; None where the cases are not looked at.
        now: ISO 8601 instant, to list waivers that have expired; empty where nobody knows the time.
        metrics: Known metrics by name; the shipped ones where None.
    """
    found: list[Remark] = []
    for one, other in combinations(policy.rules, 2):
        found += _pair(one, other)
    for rule in policy.rules:
        found += _undecidable(rule, metrics or known_metrics())
        if tested is not None and rule.id not in tested:
            found.append(
                Remark("warning", rule.id, "no case tests it; write one into the _test.yaml beside the policy")
            )
    if not any(is_static(rule) and rule.severity == "deny" for rule in policy.rules):
        found.append(Remark("warning", policy.id, "no static rule denies, so gate --static has nothing to judge by"))
    found += _waivers(policy, now)
    return tuple(found)


def _pair(one: Rule, other: Rule) -> Iterator[Remark]:
    """What is wrong with two rules together."""
    if one.id == other.id:
        yield Remark("error", one.id, "stands twice")
    if _topic(one) != _topic(other):
        return
    low, high = _range(one), _range(other)
    if max(low[0], high[0]) > min(low[1], high[1]):
        what = f"{one.metric} {demand(one)} contradicts {other.id}, which demands {demand(other)}"
        yield Remark("error" if one.severity == other.severity == "deny" else "warning", one.id, what)
    elif (demand(one), one.decide, one.severity) == (demand(other), other.decide, other.severity):
        yield Remark("warning", one.id, f"demands the same as {other.id}")


def _topic(rule: Rule) -> tuple[str, str, str, float]:
    return rule.metric, rule.split, rule.against, rule.quantile


def _range(rule: Rule) -> tuple[float, float]:
    infinite = float("inf")
    at = rule.threshold
    return {">=": (at, infinite), "<=": (-infinite, at), "==": (at, at)}[rule.comparator]


def _undecidable(rule: Rule, metrics: Mapping[str, Metric]) -> Iterator[Remark]:
    """Whether the best evidence of ``min_samples`` proves the demand."""
    kind = metrics[rule.metric].kind if rule.metric in metrics else "count"
    if kind == "count" or rule.decide == "not_refuted":
        return
    n, up = rule.min_samples, rule.comparator != "<="
    best: Statistic
    if rule.against != "absolute" and kind == "proportion":
        best = Paired(n, n if up else 0, 0 if up else n)
    elif kind == "proportion":
        best = Proportion(n if up else 0, n)
    else:
        best = Samples((rule.threshold,) * n, "")
    if not statistics.meets(rule, *statistics.bounds(rule, best)):
        enough = _enough(rule, best)
        todo = f"ask for at least {enough} samples" if enough else "no number of samples proves it"
        what = f"{n} perfect samples do not prove {demand(rule)} with {rule.confidence:.0%} confidence; {todo}"
        yield Remark("error", rule.id, what)
    elif isinstance(best, Paired) and (rule.threshold < 0 if up else rule.threshold > 0):
        same = Paired(n, 0, 0)
        if not statistics.meets(rule, *statistics.bounds(rule, same)):
            what = f"an adapter that answers exactly like its comparator does not pass {demand(rule)} on {n} pairs"
            enough = _enough(rule, same)
            yield Remark("warning", rule.id, f"{what}; {enough} would do" if enough else what)


def _enough(rule: Rule, best: Statistic) -> int | None:
    """The fewest samples like these that prove the demand."""
    if isinstance(best, Samples):
        best = Samples(best.values * 2, best.unit)  # a single sample would count as exact
    return planning.needed_n(dataclasses.replace(rule, min_samples=1), best)


def _waivers(policy: Policy, now: str) -> Iterator[Remark]:
    for waiver in policy.waivers:
        if now and not effective(waiver, now):
            yield Remark("warning", waiver.rule, f"the waiver {waiver.ticket} expired at {waiver.expires}; remove it")
