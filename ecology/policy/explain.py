"""A policy in plain words: what each rule means, what it saw, and what would have to be true for an adapter to pass.

``sentence`` says a rule as one would say it to a colleague. ``needed`` turns a threshold and a confidence into the
number
a candidate has to reach on as many samples as were taken: not "at least 90 % with 95 % confidence" but "188 of 200".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from ecology.contracts.evidence import Paired, Proportion, Samples, Statistic
from ecology.contracts.policy import Finding, GateVerdict, Policy, Rule
from ecology.kernel.decisions import decide
from ecology.kernel.verdicts import asked, demand
from ecology.policy.metrics import Metric, known_metrics

_SPLITS = {"public": "public items", "hidden": "hidden items", "fresh": "fresh items", "none": ""}
_AGAINST = {"base": "the bare base", "incumbent": "the adapter that serves now", "parents": "each of its parents"}
_SEVERITY = {
    "deny": "Without that the adapter is refused.",
    "warn": "Without that there is a warning; it passes all the same.",
    "info": "For information only; nothing follows from it.",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One rule as it stands for one adapter."""

    rule: str
    outcome: str
    title: str
    saw: str
    needs: str
    """What would have to be true; empty where the rule is content."""

    def __str__(self) -> str:
        text = f"{self.rule} {self.outcome}: {self.title}\n    saw:   {self.saw}"
        return f"{text}\n    needs: {self.needs}" if self.needs else text


def sentence(rule: Rule, metrics: Mapping[str, Metric] | None = None) -> str:
    """A rule in two or three plain sentences."""
    metric = (metrics or known_metrics()).get(rule.metric)
    kind = metric.kind if metric else "samples"
    about = metric.title if metric else rule.metric
    if kind == "count":
        amount = "There must be no" if rule.threshold == 0 else f"There must be {demand(rule)}"
        text = f"{amount} {about}."
    else:
        text = _measured(rule, kind, about)
    n = f"; fewer than {rule.min_samples} samples decide nothing" if rule.min_samples > 1 else ""
    sure = f"{rule.confidence:.0%} confidence"
    if kind == "count":
        proof = ""
    elif rule.min_samples == 1 and kind == "samples":
        proof = " One measurement decides."
    elif rule.decide == "proven":
        proof = f" That has to be proven with {sure}{n}."
    else:
        proof = f" It passes unless the opposite is shown with {sure}{n}."
    return f"{text}{proof} {_SEVERITY[rule.severity]}"


def explain_policy(policy: Policy) -> tuple[str, ...]:
    """The whole policy: one paragraph a rule, with who asks and why."""
    known = known_metrics()
    paragraphs = []
    for rule in policy.rules:
        why = f"\n    why: {rule.rationale}" if rule.rationale else ""
        controls = f"\n    controls: {', '.join(rule.controls)}" if rule.controls else ""
        paragraphs.append(f"{rule.id}  {rule.title}\n    {sentence(rule, known)}{why}{controls}")
    return tuple(paragraphs)


def explain_verdict(policy: Policy, judged: GateVerdict) -> tuple[Step, ...]:
    """What each rule saw and, where it does not pass, what it needs; what concerns the reader first."""
    rules = {rule.id: rule for rule in policy.rules}
    steps = []
    for finding in sorted(judged.findings, key=lambda f: (-f.outcome.rank if asked(f) else 0, not asked(f))):
        rule = rules.get(finding.rule)
        content = finding.outcome.value == "pass"
        needs = "" if content else needed(rule, finding) if rule else "the trouble has to go away; no policy undoes it"
        outcome = finding.outcome.value if asked(finding) else "not asked"
        steps.append(Step(finding.rule, outcome, finding.title, finding.reason, needs))
    return tuple(steps)


def needed(rule: Rule, finding: Finding, metrics: Mapping[str, Metric] | None = None) -> str:
    """What would have to be true for the rule to pass, on as many samples as were taken or are demanded."""
    metric = (metrics or known_metrics()).get(rule.metric)
    kind = metric.kind if metric else "samples"
    n = max(finding.n, rule.min_samples)
    items = f"{n} {_SPLITS[rule.split] or 'samples'}"
    if kind == "count":
        return "no violation" if rule.threshold == 0 else f"a count {demand(rule)}"
    if kind == "samples":
        return _needed_samples(rule, n)
    if rule.against != "absolute":
        up = rule.comparator == ">="
        worse = _most(n, lambda m: _passes(rule, Paired(n, 0, m) if up else Paired(n, m, 0)))
        if worse is None:
            return f"more than {items}, or a difference the other way"
        word = "lost" if up else "won"
        return f"at most {worse} of {items} {word} against {_AGAINST[rule.against]}, with none the other way round"
    if rule.comparator == ">=":
        wrong = _most(n, lambda m: _passes(rule, Proportion(n - m, n)))
        return f"more than {items}" if wrong is None else f"at least {n - wrong} of {items}"
    most = _most(n, lambda m: _passes(rule, Proportion(m, n)))
    return f"more than {items}" if most is None else f"at most {most} of {items}"


def _needed_samples(rule: Rule, n: int) -> str:
    if n == 1 and rule.min_samples == 1:
        return f"a measurement {demand(rule)}"
    good, bad = rule.threshold, rule.threshold + (1 if rule.comparator == "<=" else -1) * (abs(rule.threshold) + 1)
    outside = _most(n, lambda m: _passes(rule, Samples((good,) * (n - m) + (bad,) * m, "")))
    if outside is None:
        return f"more than {n} samples {demand(rule)}"
    return f"{n} samples, {f'all but {outside}' if outside else 'every one'} {demand(rule)}"


def _measured(rule: Rule, kind: str, about: str) -> str:
    word = "at least" if rule.comparator == ">=" else "at most"
    where = f", on {_SPLITS[rule.split]}" if rule.split != "none" else ""
    if rule.against != "absolute" and kind == "proportion":
        margin = f"{abs(rule.threshold):.1%}"
        side = {
            (">=", True): f"no more than {margin} of the items worse than",
            (">=", False): f"on {margin} more of the items better than",
            ("<=", True): f"on {margin} more of the items lower than",
            ("<=", False): f"no more than {margin} of the items higher than",
        }[rule.comparator, rule.threshold < 0]
        return f"The rate of {about} is {side} {_AGAINST[rule.against]}, item by item{where}."
    if kind == "proportion":
        return f"The rate of {about} is {word} {rule.threshold:.1%}{where}."
    if rule.min_samples == 1:
        return f"The {about} is {word} {rule.threshold:,.12g}."
    middle = "median" if rule.quantile == 0.5 else f"{rule.quantile * 100:g}th percentile"
    return f"The {middle} of {about} is {word} {rule.threshold:.12g}{where}."


def _passes(rule: Rule, statistic: Statistic) -> bool:
    decision = decide(rule, statistic)
    return decision == "met" if rule.decide == "proven" else decision != "missed"


def _most(n: int, holds: Callable[[int], bool]) -> int | None:
    """The largest m in 0 to n for which it holds, where it holds up to some m and not beyond; None if not at 0."""
    if not holds(0):
        return None
    low, high = 0, n
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
