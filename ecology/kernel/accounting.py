"""Many rules, many candidates, one alpha: what it does to the chance of being wrong.

Three questions with three different answers:

- **Promotion**: every rule must pass. The hypothesis that is refuted is "at least one demand is missed", a union, so
  the test is an intersection-union test: a bad candidate passes with probability at most the largest ``alpha`` of a
  single rule, and nothing is corrected (``false_admission``). Correcting would only make good candidates fail.
- **Refusal**: any rule may refuse. A candidate that meets all demands is denied wrongly with probability at most the
  sum over rules (``false_refusal``); a policy's ``error_budget.denial`` bounds it by Holm's correction over the rules'
  p-values (``p_value``). In a race the mean of the rules' e-values stands against one alpha (``mean_e``): whatever a
  split of alpha over the rules would drop, the mean drops too.
- **Several candidates**: each is tested once more, so the chance that any bad one slips through grows with their number
  (``any_of``), and the score of the best of N is too high by selection (``best_of``). Correction: the winner answers
  fresh items, whose score is unbiased because it chose nobody.

Sources: Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24(4), 1982; Holm,
Scandinavian Journal of Statistics 6(2), 1979; Vovk and Wang, "E-values: calibration, combination and applications",
Annals of Statistics 49(3), 2021 (the mean of e-values is an e-value).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ecology.contracts.evidence import Statistic
from ecology.contracts.policy import Policy, Rule
from ecology.errors import ConfigError
from ecology.kernel import statistics
from ecology.kernel.binomial import binomial_cdf
from ecology.kernel.decisions import decide


def false_admission(policy: Policy) -> float:
    """Greatest probability with which a candidate that misses at least one proven demand is admitted.

    Only rules that deny and must be proven count; a policy without one admits anything: 1.
    """
    return max((1 - rule.confidence for rule in policy.rules if _proves(rule)), default=1.0)


def false_refusal(policy: Policy) -> float:
    """Greatest probability with which a candidate that meets every demand is *denied*: the sum over rules, at most 1.

    Denied is not "not admitted": what is neither proven nor refuted is inconclusive, and how often that happens is a
    matter of power, not of alpha.
    """
    allowed = policy.error_budget.denial if policy.error_budget else 1.0
    return min(allowed, math.fsum(1 - rule.confidence for rule in policy.rules if judges_a_sample(rule)))


def p_value(rule: Rule, statistic: Statistic) -> float:
    """Least alpha at which the evidence refutes that the rule's demand is met: its test, turned round.

    Args:
        rule: Any; of what is exact the p-value is 0 or 1.
        statistic: Evidence that the rule can read.

    Returns:
        0 to 1; what is not refuted at a confidence of 50 % is 1.

    Raises:
        ConfigError: The statistic is not possible.
    """

    def refuted(confidence: float) -> bool:
        return decide(dataclasses.replace(rule, confidence=confidence), statistic) == "missed"

    if statistics.exact(rule, statistic):
        return 0.0 if refuted(rule.confidence) else 1.0
    if not refuted(0.5):
        return 1.0
    low, high = -math.log(0.5), 30.0  # of -log alpha, in which small p-values lie evenly
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(-math.expm1(-middle)) else (low, middle)
    return math.exp(-low)


def holm(p_values: Mapping[str, float], alpha: float) -> frozenset[str]:
    """Which hypotheses are rejected with a family-wise error rate of at most ``alpha``.

    Args:
        p_values: By hypothesis, 0 to 1.
        alpha: 0 to 1 (both not included).

    Raises:
        ConfigError: Out of range.
    """
    if not 0 < alpha < 1 or any(not 0 <= p <= 1 for p in p_values.values()):
        raise ConfigError(f"p-values and alpha are between 0 and 1, found {dict(p_values)} and {alpha}")
    rejected = []
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda pair: (pair[1], pair[0]))):
        if p > alpha / (len(p_values) - place):
            break
        rejected.append(name)
    return frozenset(rejected)


def mean_e(e_values: Sequence[float]) -> float:
    """One e-value from several of the same hypothesis, however they depend on each other.

    Raises:
        ConfigError: None at all, or one that is negative or no number.
    """
    if not e_values or any(not value >= 0 for value in e_values):
        raise ConfigError(f"e-values are at least 0, found {list(e_values)}")
    return math.fsum(e_values) / len(e_values)


def any_of(alpha: float, candidates: int) -> float:
    """Greatest probability that at least one of several bad candidates passes: the union bound.

    Raises:
        ConfigError: Out of range.
    """
    if not 0 <= alpha <= 1 or candidates < 0:
        raise ConfigError(f"an alpha of 0 to 1 and candidates of at least 0, found {alpha} and {candidates}")
    return min(1.0, alpha * candidates)


def best_of(candidates: int, rate: float, n: int) -> float:
    """How far the observed score of the best of several equal candidates lies above the truth, on average.

    Args:
        candidates: At least 1, all with the same true rate, judged on n independent items each.
        rate: 0 to 1.
        n: At least 1.

    Returns:
        The bias, in the unit of the rate: the expected maximum of that many binomial shares minus the rate. On shared
        items, whose errors are correlated, it is smaller.

    Raises:
        ConfigError: Out of range.
    """
    if candidates < 1 or n < 1 or not 0 <= rate <= 1:
        raise ConfigError(f"found {candidates} candidates with rate {rate} on {n} items")
    # E[max] is the sum over k of P(max > k), and P(max <= k) is a power of the binomial distribution function.
    expected = math.fsum(1 - binomial_cdf(k, n, rate) ** candidates for k in range(n)) / n
    return max(0.0, expected - rate)


def judges_a_sample(rule: Rule) -> bool:
    """Whether a rule denies on evidence that has a sampling error."""
    return rule.severity == "deny" and not rule.metric.startswith(("static.", "liveness."))


def _proves(rule: Rule) -> bool:
    return judges_a_sample(rule) and rule.decide == "proven"
