"""What a gate can see before anything is asked, rule by rule, with the samples that a configuration gives it.

A threshold without a sample size says little: with 200 items and 95 % confidence, a rule that demands 75 % passes a
candidate at 80 % less than half of the time, and refutes one at 70 % as seldom. ``sight`` puts both figures beside the
rule; ``blind`` lists the rules that see less than a policy wants (its section ``decidable``), with the n that would do.
All of it is computed from the bounds that judge, nothing is simulated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ecology.contracts.policy import Decidable, Rule
from ecology.kernel.planning import power

MOST = 20_000
"""Where the search for a sufficient n gives up."""
USUAL = Decidable(drop=0.05, gain=0.05, probability=0.8)
"""What is shown where a policy asks for nothing: five points."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sight:
    """What one rule can see."""

    rule: str
    n: int
    drop: float
    denies: float
    """Probability that a candidate this much worse than the threshold is refuted (never admitted is another thing: that
    holds for ``proven`` rules with their confidence, whatever n)."""
    gain: float
    passes: float
    """Probability that a candidate this much better than the threshold passes."""
    comparison: str
    """``rate``, ``paired`` or ``quantile``: what a point is a point of."""

    def __str__(self) -> str:
        drop, gain = f"{100 * self.drop:.3g}", f"{100 * self.gain:.3g}"
        if self.comparison == "quantile":
            return (
                f"{self.rule}: n = {self.n}, {drop} points fewer requests within the limit than demanded are refuted "
                f"with probability {self.denies:.2f}, {gain} points more pass with {self.passes:.2f}"
            )
        return (
            f"{self.rule}: n = {self.n}, a {drop}-point drop is refuted with probability {self.denies:.2f}, "
            f"a {gain}-point reserve passes with {self.passes:.2f}"
        )


def sight(rule: Rule, n: int, wanted: Decidable = USUAL) -> Sight:
    """What a rule over a rate, a paired difference or a quantile of samples sees with n samples.

    Args:
        rule: Not an exact one.
        n: At least 1.
        wanted: Which drop and gain to look at, and which discordance to assume for pairs.

    Raises:
        ConfigError: n is below 1.
    """
    comparison = _comparison(rule)
    _, bad, good = _truths(rule, wanted)
    asked = n
    if rule.clustered and n >= rule.min_samples:
        n, rule = max(1, int(n / wanted.design_effect)), dataclasses.replace(rule, min_samples=1)
    spread = {True: 0.0, False: 0.0}
    if comparison == "paired":
        spread = {True: max(wanted.discordance, abs(bad)), False: max(wanted.discordance, abs(good))}
    return Sight(
        rule=rule.id,
        n=asked,
        drop=wanted.drop,
        denies=power(rule, n, bad, spread[True], "deny"),
        gain=wanted.gain,
        passes=power(rule, n, good, spread[False], "pass"),
        comparison=comparison,
    )


def _comparison(rule: Rule) -> str:
    if rule.metric.startswith("resource."):
        return "quantile"
    return "rate" if rule.against == "absolute" else "paired"


def _truths(rule: Rule, wanted: Decidable) -> tuple[float, float, float]:
    """The threshold as a share or difference, that of a candidate so much worse, and that of one so much better."""
    samples = _comparison(rule) == "quantile"
    better = 1.0 if samples or rule.comparator == ">=" else -1.0
    at = rule.quantile if samples else rule.threshold
    low = -1.0 if _comparison(rule) == "paired" else 0.0
    bad, good = (min(1.0, max(low, at + step)) for step in (-better * wanted.drop, better * wanted.gain))
    return at, bad, good


def _never(rule: Rule, wanted: Decidable) -> bool:
    """Whether no number of samples lets the rule see what is wanted.

    Nobody is better than a demand of all, or worse than one of none. A candidate that is exactly at the threshold is
    told from it with the probability of an error, whatever n: at most ``1 - confidence``, and of the score test, which
    is not exact, hardly more; twice as much is never reached.
    """
    at, bad, good = _truths(rule, wanted)
    told = good if rule.decide == "proven" else bad
    return rule.comparator != "==" and told == at and wanted.probability > 2 * (1 - rule.confidence)


def sees(found: Sight, rule: Rule, wanted: Decidable) -> bool:
    """Whether a rule sees what is wanted: a screen refutes bad ones, and good ones pass."""
    refutes = rule.decide == "proven" or found.denies >= wanted.probability
    return refutes and found.passes >= wanted.probability


def sufficient(rule: Rule, wanted: Decidable) -> int | None:
    """About the fewest samples with which the rule sees what is wanted; None where 20,000 do not suffice.

    About: exact tests gain power in a saw-tooth, and the search halves as if it were a slope.
    """
    if _never(rule, wanted):
        return None
    low, high = 0, max(rule.min_samples, 16)
    while not sees(sight(rule, high, wanted), rule, wanted):
        if high >= MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > max(1, high // 50):  # two per cent: it is a plan
        middle = (low + high) // 2
        low, high = (low, middle) if sees(sight(rule, middle, wanted), rule, wanted) else (middle, high)
    return high


def blind(rules: Sequence[Rule], samples: Mapping[str, int], wanted: Decidable) -> tuple[str, ...]:
    """One sentence for each rule that cannot see what is wanted.

    Args:
        rules: Those that judge samples.
        samples: Rule id -> n that the configuration gives it; rules that are not in it are left out.
        wanted: What the policy asks for.
    """
    problems = []
    for rule in rules:
        if rule.id not in samples or rule.severity != "deny":
            continue
        found = sight(rule, samples[rule.id], wanted)
        if sees(found, rule, wanted):
            continue
        enough = sufficient(rule, wanted)
        todo = f"about {enough} samples would do" if enough else f"{MOST} samples would not do either"
        problems.append(f"{found}; the policy wants {wanted.probability:.2f}: {todo}")
    return tuple(problems)
