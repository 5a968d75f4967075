"""Error rates of many rules and many candidates, against simulation."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from ecology.contracts.evidence import Measurement, Paired, Proportion
from ecology.contracts.identity import Digest
from ecology.contracts.policy import ErrorBudget, Outcome, Rule
from ecology.errors import ConfigError
from ecology.kernel import accounting, statistics
from ecology.kernel.binomial import binomial_cdf
from ecology.kernel.decisions import decide_bounds
from ecology.kernel.verdicts import verdict
from ecology.policy.reader import load_policy

POLICY = load_policy(Path(__file__).parents[2] / "policies" / "release.yaml")
WHO = Digest("sha256:" + "1" * 64)


def test_a_bad_candidate_passes_all_rules_with_at_most_the_largest_alpha() -> None:
    assert accounting.false_admission(POLICY) == pytest.approx(0.05)
    rules = [rule for rule in POLICY.rules if rule.id in ("SKILL-001", "SAFE-001")]
    rng = np.random.Generator(np.random.PCG64(1))
    runs, passed = 2000, 0
    for good, edge in zip(rng.binomial(200, 0.99, runs), rng.binomial(200, 0.75, runs), strict=True):
        # The first demand is met by far, the second is missed by nothing: the least favourable case.
        seen = (Proportion(int(good), 200), Proportion(int(edge), 200))
        passed += all(
            decide_bounds(rule, *statistics.bounds(rule, statistic)) == "met"
            for rule, statistic in zip(rules, seen, strict=True)
        )
    assert passed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_the_best_of_several_scores_too_high_by_what_is_computed_and_fresh_items_repair_it() -> None:
    rng = np.random.Generator(np.random.PCG64(2))
    scores = rng.binomial(200, 0.8, size=(4000, 10)) / 200
    seen = scores.max(1).mean() - 0.8
    assert accounting.best_of(10, 0.8, 200) == pytest.approx(seen, abs=0.001)
    assert seen > 0.03
    fresh = rng.binomial(200, 0.8, size=4000) / 200  # the winner's own new items
    assert abs(fresh.mean() - 0.8) < 3 * 0.0283 / math.sqrt(4000)
    assert accounting.best_of(1, 0.8, 200) == pytest.approx(0, abs=1e-9)


def test_holm_keeps_the_family_wise_error_rate() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    runs = 2000
    wrong = sum(
        bool(accounting.holm({str(i): float(p) for i, p in enumerate(row)}, 0.05)) for row in rng.random((runs, 8))
    )
    assert abs(wrong / runs - (1 - (1 - 0.05 / 8) ** 8)) < 3 * math.sqrt(0.05 * 0.95 / runs)
    assert accounting.holm({"a": 0.01, "b": 0.03, "c": 0.04}, 0.05) == {"a"}
    assert accounting.holm({"a": 0.001, "b": 0.02, "c": 0.03}, 0.05) == {"a", "b", "c"}


def test_means_of_e_values_are_e_values_and_unions_add_up() -> None:
    assert accounting.mean_e([0.0, 40.0]) == 20.0
    assert accounting.any_of(0.05, 3) == pytest.approx(0.15)
    assert accounting.any_of(0.5, 3) == 1


@pytest.mark.parametrize(("k", "n"), [(130, 200), (150, 200), (0, 59), (59, 59)])
def test_the_p_value_is_where_the_bound_meets_the_threshold(k: int, n: int) -> None:
    rule = next(rule for rule in POLICY.rules if rule.id == "SAFE-001")
    found = accounting.p_value(rule, Proportion(k, n))
    exact = binomial_cdf(k, n, rule.threshold)  # the exact test of "at least the threshold"
    assert found == pytest.approx(exact if exact < 0.5 else 1.0, rel=1e-6, abs=1e-12)
    pairs = dataclasses.replace(rule, against="incumbent", threshold=-0.05)
    p = accounting.p_value(pairs, Paired(200, 2, 30))
    assert decide_bounds(pairs, *_bounds(pairs, 1 - 1.01 * p)) == "missed"
    assert decide_bounds(pairs, *_bounds(pairs, 1 - 0.99 * p)) != "missed"


def _bounds(rule: Rule, confidence: float) -> tuple[float | None, float | None]:
    return statistics.bounds(dataclasses.replace(rule, confidence=confidence), Paired(200, 2, 30))


def test_a_budget_for_denials_holds_over_all_rules_and_admits_nobody() -> None:
    rules = [dataclasses.replace(r, threshold=0.75) for r in POLICY.rules if r.id in ("SKILL-001", "SAFE-001")]
    rules += [dataclasses.replace(rule, id=f"{rule.id}-{i}", metric=f"m{i}.x") for rule in rules for i in range(3)]
    alone = dataclasses.replace(POLICY, rules=tuple(rules))
    shared = dataclasses.replace(alone, error_budget=ErrorBudget(denial=0.05))
    rng = np.random.Generator(np.random.PCG64(33))
    runs, wrong = 300, {"alone": 0, "shared": 0}
    for row in rng.binomial(200, 0.75, (runs, len(rules))):  # every demand is met, by nothing
        seen = [Measurement(r.metric, WHO, Proportion(int(k), 200), "hidden") for r, k in zip(rules, row, strict=True)]
        for name, policy in (("alone", alone), ("shared", shared)):
            found = verdict(policy, tuple(seen), WHO, "full", "2026-01-01T00:00:00Z")
            wrong[name] += found.outcome is Outcome.DENY
            if name == "shared" and not verdict(alone, tuple(seen), WHO, "full", "").outcome.admits:
                assert not found.outcome.admits
    assert wrong["shared"] / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert wrong["alone"] / runs > 0.15
    assert accounting.false_refusal(shared) == 0.05


def test_a_screen_that_is_refuted_only_alone_is_inconclusive_and_not_let_through() -> None:
    screen = next(rule for rule in POLICY.rules if rule.id == "SCR-002")
    rules = [dataclasses.replace(screen, id=f"S{i}", metric=f"m{i}.x") for i in range(8)]
    policy = dataclasses.replace(POLICY, rules=tuple(rules), error_budget=ErrorBudget(denial=0.05))
    seen = [Measurement(r.metric, WHO, Proportion(64, 64), "public") for r in rules[1:]]
    seen.append(Measurement(rules[0].metric, WHO, Proportion(40, 64), "public"))  # p is about 0.02
    found = verdict(policy, tuple(seen), WHO, "full", "2026-01-01T00:00:00Z")
    first = next(finding for finding in found.findings if finding.rule == "S0")
    assert found.outcome is first.outcome is Outcome.INCONCLUSIVE
    assert "Holm's correction over 8 rules" in first.reason


def test_a_policy_that_proves_nothing_admits_anything() -> None:
    static = dataclasses.replace(POLICY, rules=POLICY.rules[:10])
    assert accounting.false_admission(static) == 1
    assert accounting.false_refusal(static) == 0
    assert accounting.false_refusal(POLICY) == pytest.approx(0.55)


@pytest.mark.parametrize(
    "call",
    [
        lambda: accounting.holm({"a": 2}, 0.05),
        lambda: accounting.mean_e([]),
        lambda: accounting.any_of(2, 1),
        lambda: accounting.best_of(0, 0.5, 10),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    with pytest.raises(ConfigError):
        call()  # type: ignore[operator]
