"""Racing: stop asking a candidate whose fate is sealed.

All candidates answer the same items in the same seeded order, a few at a time. After each look an e-value tells how
badly the answers so far go with "this demand is met". When it reaches ``1 / alpha``, the candidate is hopeless and is
dropped; the chance that this ever happens to a candidate that does meet the demand is at most ``alpha``, however often
one looks. A rule that says ``anytime`` may also be settled in the candidate's favour, since its bounds hold at every
sample size; a rule with fixed-n bounds is never settled early that way.

The error bought is one-sided: a drop can lose a good candidate and cannot let a bad one through. It holds for the
candidate and not for each rule: what has to reach ``1 / alpha`` is the mean of the e-values of all rules raced, each 1
until its suite is asked. That mean is an e-value against "every demand is met" (Vovk and Wang 2021), and it is there
whenever one of m rules would have reached ``m / alpha`` alone, so no split of alpha over the rules drops sooner.

Which suite first: the one with the least cost for a kill, ``cost / P(kill)``, both known from the candidates before
(``order``): to stop at the first refusal at least expected cost, tests are sorted by that ratio (Mitten, Management
Science 7(1), 1960, for independent tests).

Source of the test: ``sequential``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from ecology.contracts.evidence import Evidence, Measurement, Paired, Proportion, Statistic
from ecology.contracts.policy import Finding, Outcome, Rule
from ecology.kernel import sequential, statistics
from ecology.kernel.accounting import mean_e
from ecology.kernel.canonical import digest
from ecology.kernel.decisions import decide

PREFIX = "RACE-"
"""How the id of a finding begins that a race made; the rest is the rule's id."""


@dataclasses.dataclass(frozen=True, slots=True)
class Race:
    """How a race is run."""

    alpha: float
    """Greatest probability of dropping a candidate that meets every demand, 0 to 1 (both not included)."""
    look: int
    """Items between two looks, at least 1."""


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """Where a candidate stands under one rule."""

    state: Literal["open", "hopeless", "settled"]
    e_value: float
    """Against "the demand is met", capped at 1e12."""


def standing(rule: Rule, statistic: Statistic, alpha: float) -> Standing:
    """What the answers so far say about one rule.

    Args:
        rule: Over a rate or a paired difference; others are always open.
        statistic: Of the items asked so far.
        alpha: This rule's share of the budget, 0 to 1 (both not included).
    """
    log_e = against(rule, statistic)
    e_value = math.exp(min(log_e, math.log(1e12)))
    if log_e >= -math.log(alpha):
        return Standing("hopeless", e_value)
    if rule.anytime and isinstance(statistic, (Proportion, Paired)):
        n = statistics.sample_size(statistic)
        if n >= rule.min_samples and decide(rule, statistic) == "met":
            return Standing("settled", e_value)
    return Standing("open", e_value)


def against(rule: Rule, statistic: Statistic) -> float:
    """Logarithm of the e-value against "the demand is met"; 0 where the rule is not of a kind that can be raced."""
    side = {">=": "at_least", "<=": "at_most"}.get(rule.comparator, "")
    if not side or rule.clustered:  # the gambler takes every item for news
        return 0.0
    if isinstance(statistic, Proportion) and rule.against == "absolute" and 0 <= rule.threshold <= 1:
        return sequential.rate_log_e(statistic.k, statistic.n, rule.threshold, side)
    if isinstance(statistic, Paired) and rule.against != "absolute" and -1 <= rule.threshold <= 1:
        return sequential.paired_log_e(statistic.n10, statistic.n01, statistic.n, rule.threshold, side)
    return 0.0


def raced(rules: Sequence[Rule], suite: str, split: str) -> tuple[Rule, ...]:
    """The rules that a race over one split of one suite can lose: those that deny."""
    return tuple(
        rule
        for rule in rules
        if rule.split == split and rule.severity == "deny" and rule.metric.partition(".")[0] == suite
    )


def hopeless(rules: Sequence[Rule], evidence: Evidence, alpha: float) -> Finding | None:
    """The finding that ends a race, or None while there is hope.

    Args:
        rules: All that are raced on this split, those included whose suites were not asked yet: their e-value is 1.
        evidence: Of the items asked so far, of every suite.
        alpha: For all rules together, 0 to 1 (both not included).

    Returns:
        A finding about the rule with the largest e-value.
    """
    seen: list[tuple[Rule, Statistic | None, float]] = []
    for rule in rules:
        mine = [m.statistic for m in evidence if _about(rule, m)]
        e_values = [standing(rule, statistic, alpha).e_value for statistic in mine]
        seen.append((rule, mine[-1] if mine else None, mean_e(e_values) if mine else 1.0))
    if not seen or (together := mean_e([e_value for *_, e_value in seen])) < 1 / alpha:
        return None
    rule, statistic, e_value = max(seen, key=lambda one: one[2])
    return None if statistic is None else _finding(rule, statistic, e_value, together, len(seen), alpha)


def settled(rules: Sequence[Rule], evidence: Evidence, alpha: float) -> bool:
    """Whether every raced rule is settled in the candidate's favour, so that more items would change nothing."""
    states = [
        any(standing(rule, m.statistic, alpha).state == "settled" for m in evidence if _about(rule, m))
        for rule in rules
    ]
    return bool(states) and all(states)


def order(costs: Mapping[str, float], kills: Mapping[str, int], seen: Mapping[str, int]) -> tuple[str, ...]:
    """Suites from the cheapest kill to the dearest.

    Args:
        costs: Suite -> cost of one item, in any one unit, above 0.
        kills: Suite -> candidates that it dropped so far.
        seen: Suite -> candidates that it was put to so far.

    Returns:
        By ``cost / P(kill)``, with Laplace's rule of succession for the probability; equals in the order given.
    """

    def price(suite: str) -> float:
        return costs[suite] * (seen.get(suite, 0) + 2) / (kills.get(suite, 0) + 1)

    return tuple(sorted(costs, key=price))


def shuffled(ids: Sequence[str], seed: str) -> tuple[str, ...]:
    """Item ids in an order that nobody's answers decide: by digest of seed and id, the same for every candidate."""
    return tuple(sorted(ids, key=lambda one: (digest([seed, one]), one)))


def _about(rule: Rule, measurement: Measurement) -> bool:
    return (measurement.metric, measurement.split, measurement.against) == (rule.metric, rule.split, rule.against)


def _finding(rule: Rule, statistic: Statistic, e_value: float, together: float, rules: int, alpha: float) -> Finding:
    n = statistics.sample_size(statistic)
    observed = statistics.observed(rule, statistic)
    mean = f", the mean over {rules} rules {together:.4g}" if rules > 1 else ""
    return Finding(
        rule=PREFIX + rule.id,
        title=f"{rule.title}: still possible",
        metric=rule.metric,
        split=rule.split,
        severity="deny",
        outcome=Outcome.DENY,
        demand=f"{rule.comparator} {rule.threshold:.12g}",
        observed=observed,
        lower=None,
        upper=None,
        n=n,
        reason=(
            f"dropped from the race after {n} items at {observed:.3g}: the e-value against {rule.comparator} "
            f"{rule.threshold:.12g} is {e_value:.4g}{mean}, and {1 / alpha:.4g} is enough; a candidate that meets "
            f"every demand is dropped with probability at most {alpha:.3g}"
        ),
        controls=rule.controls,
    )
