"""Error rates of many rules and many candidates, against simulation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ecology.contracts.evidence import Proportion
from ecology.errors import ConfigError
from ecology.kernel import accounting, statistics
from ecology.policy.reader import load_policy

POLICY = load_policy(Path(__file__).parents[2] / "policies" / "release.yaml")


def test_a_bad_candidate_passes_all_rules_with_at_most_the_largest_alpha() -> None:
    assert accounting.false_admission(POLICY) == pytest.approx(0.05)
    rules = [rule for rule in POLICY.rules if rule.id in ("SKILL-001", "SAFE-001")]
    rng = np.random.Generator(np.random.PCG64(1))
    runs, passed = 2000, 0
    for good, edge in zip(rng.binomial(200, 0.99, runs), rng.binomial(200, 0.75, runs), strict=True):
        # The first demand is met by far, the second is missed by nothing: the least favourable case.
        seen = (Proportion(int(good), 200), Proportion(int(edge), 200))
        passed += all(
            statistics.meets(rule, *statistics.bounds(rule, statistic))
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


def test_shares_add_up_and_means_of_e_values_are_e_values() -> None:
    assert accounting.split(0.06, {"a": 1, "b": 2}) == pytest.approx({"a": 0.02, "b": 0.04})
    assert accounting.mean_e([0.0, 40.0]) == 20.0
    assert accounting.any_of(0.05, 3) == pytest.approx(0.15)
    assert accounting.any_of(0.5, 3) == 1


def test_a_policy_that_proves_nothing_admits_anything() -> None:
    import dataclasses

    static = dataclasses.replace(POLICY, rules=POLICY.rules[:10])
    assert accounting.false_admission(static) == 1
    assert accounting.false_refusal(static) == 0
    assert accounting.false_refusal(POLICY) == pytest.approx(0.55)


@pytest.mark.parametrize(
    "call",
    [
        lambda: accounting.split(0, {"a": 1}),
        lambda: accounting.split(0.05, {}),
        lambda: accounting.holm({"a": 2}, 0.05),
        lambda: accounting.mean_e([]),
        lambda: accounting.any_of(2, 1),
        lambda: accounting.best_of(0, 0.5, 10),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    with pytest.raises(ConfigError):
        call()  # type: ignore[operator]
