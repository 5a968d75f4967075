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
from ecology.contracts.policy import Outcome, Policy, Rule
from ecology.kernel import planning
from ecology.kernel.decisions import decide
from ecology.kernel.verdicts import demand, is_static
from ecology.policy.controls import unknown_controls
from ecology.policy.metrics import Metric, known_metrics
from ecology.policy.strictness import SEVERITIES


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
    tested: Mapping[str, Collection[Outcome]] | None = None,
    metrics: Mapping[str, Metric] | None = None,
) -> tuple[Remark, ...]:
    """Everything unwise in a policy.

    Args:
        policy: A policy that was read without a mistake.
        tested: For each rule that the policy's cases judge, the outcomes they expect; None where nobody looked.
        metrics: Known metrics by name; the shipped ones where None.
    """
    found: list[Remark] = []
    for one, other in combinations(policy.rules, 2):
        found += _pair(one, other)
    for rule in policy.rules:
        found += _undecidable(rule, metrics or known_metrics())
        found += [Remark("warning", rule.id, f"the control map has no {name!r}") for name in unknown_controls(rule)]
        if tested is not None:
            found += _untested(rule, tested.get(rule.id, ()))
    if not any(is_static(rule) and rule.severity == "deny" for rule in policy.rules):
        found.append(Remark("warning", policy.id, "no static rule denies, so gate --static has nothing to judge by"))
    return tuple(found)


def _untested(rule: Rule, outcomes: Collection[Outcome]) -> Iterator[Remark]:
    """A rule is tested when a case shows it content and another shows it complaining."""
    if not outcomes:
        yield Remark("warning", rule.id, "no case tests it; write one into the _test.yaml beside the policy")
    elif Outcome.PASS not in outcomes:
        yield Remark("warning", rule.id, "no case shows what passes it")
    elif rule.severity != "info" and all(outcome is Outcome.PASS for outcome in outcomes):
        yield Remark("warning", rule.id, "no case shows what it complains about")


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
    else:
        for inner, outer in ((one, other), (other, one)):
            if _shadows(inner, outer):
                what = f"{outer.id} demands {demand(outer)}, so {demand(inner)} never decides anything"
                yield Remark("warning", inner.id, f"shadowed: {what}")


def _shadows(inner: Rule, outer: Rule) -> bool:
    """Whether whatever ``inner`` refuses ``outer`` refuses as well."""
    low, high = _range(inner), _range(outer)
    return (
        (low[0] <= high[0] and low[1] >= high[1])
        and SEVERITIES.index(outer.severity) >= SEVERITIES.index(inner.severity)
        and inner.decide == outer.decide
        and outer.min_samples >= inner.min_samples
        and (outer.confidence >= inner.confidence if outer.decide == "proven" else outer.confidence <= inner.confidence)
    )


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
    if decide(rule, best) != "met":
        enough = _enough(rule, best)
        todo = f"ask for at least {enough} samples" if enough else "no number of samples proves it"
        what = f"{n} perfect samples do not prove {demand(rule)} with {rule.confidence:.0%} confidence; {todo}"
        yield Remark("error", rule.id, what)
    elif isinstance(best, Paired) and (rule.threshold < 0 if up else rule.threshold > 0):
        same = Paired(n, 0, 0)
        if decide(rule, same) != "met":
            what = f"an adapter that answers exactly like its comparator does not pass {demand(rule)} on {n} pairs"
            enough = _enough(rule, same)
            yield Remark("warning", rule.id, f"{what}; {enough} would do" if enough else what)


def _enough(rule: Rule, best: Statistic) -> int | None:
    """The fewest samples like these that prove the demand."""
    if isinstance(best, Samples):
        best = Samples(best.values * 2, best.unit)  # a single sample would count as exact
    return planning.needed_n(dataclasses.replace(rule, min_samples=1), best)
