"""Racing drops what has no hope, seldom what has, and power says beforehand what a rule can see."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecology.contracts.evidence import Count, Measurement, Paired, Proportion
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Decidable, Outcome, Rule
from ecology.kernel import racing, sequential, statistics
from ecology.kernel.sight import blind, sees, sight, sufficient

WHO = Digest("sha256:" + "1" * 64)
RATE = Rule("RATE", "t", "s.correct", ">=", 0.75, "hidden")
LOW = Rule("LOW", "t", "s.refused", "<=", 0.25, "hidden")
PAIR = Rule("PAIR", "t", "s.correct", ">=", -0.05, "hidden", "incumbent")


def seen(rule: Rule, statistic: Proportion | Paired) -> Measurement:
    return Measurement(rule.metric, WHO, statistic, rule.split, rule.against)


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        (RATE, Proportion(4, 32), Proportion(20, 32)),
        (LOW, Proportion(28, 32), Proportion(12, 32)),
        (PAIR, Paired(128, 0, 40), Paired(128, 6, 9)),
    ],
)
def test_the_hopeless_are_dropped_with_the_error_that_was_bought(
    rule: Rule, bad: Proportion | Paired, good: Proportion | Paired
) -> None:
    assert racing.hopeless([rule], (seen(rule, good),), 0.01) is None
    found = racing.hopeless([rule], (seen(rule, bad),), 0.01)
    assert found is not None
    assert (found.rule, found.outcome) == ("RACE-" + rule.id, Outcome.DENY)
    assert "at most 0.01" in found.reason
    assert f"after {statistics.sample_size(bad)} items" in found.reason


def test_several_rules_bet_against_one_alpha_and_drop_no_later_than_a_split_of_it() -> None:
    rules = [dataclasses.replace(RATE, id=f"R{i}", metric=f"s{i}.correct") for i in range(4)]
    weak = [Measurement(rule.metric, WHO, Proportion(10, 24), "hidden") for rule in rules]
    alone = racing.standing(rules[0], weak[0].statistic, 0.05).e_value
    assert 20 < alone < 80  # enough for one rule, too little for a quarter of alpha
    assert racing.hopeless(rules, weak[:1], 0.05) is None
    together = racing.hopeless(rules, weak, 0.05)
    assert together is not None
    assert "the mean over 4 rules" in together.reason
    strong = Measurement(rules[2].metric, WHO, Proportion(4, 32), "hidden")
    one = racing.hopeless(rules, (strong,), 0.05)
    assert one is not None
    assert one.rule == "RACE-R2"


def test_one_who_meets_several_demands_is_dropped_with_one_alpha_only() -> None:
    rules = [dataclasses.replace(RATE, id=f"R{i}", metric=f"s{i}.correct") for i in range(3)]
    rng = np.random.Generator(np.random.PCG64(21))
    runs, dropped = 300, 0
    for _ in range(runs):
        right = (rng.random((3, 128)) < 0.75).cumsum(1)  # on every threshold exactly
        for n in (16, 32, 64, 128):
            found = [
                Measurement(r.metric, WHO, Proportion(int(k[n - 1]), n), "hidden")
                for r, k in zip(rules, right, strict=True)
            ]
            if racing.hopeless(rules, found, 0.05):
                dropped += 1
                break
    assert dropped / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_one_who_meets_the_demand_is_seldom_dropped_however_often_one_looks() -> None:
    rng = np.random.Generator(np.random.PCG64(4))
    runs, dropped = 400, 0
    for _ in range(runs):
        right = (rng.random(200) < 0.75).cumsum()  # on the threshold exactly: the likeliest to be dropped
        dropped += any(
            racing.standing(RATE, Proportion(int(right[n - 1]), n), 0.05).state == "hopeless" for n in range(8, 201, 8)
        )
    assert dropped / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_only_an_anytime_rule_is_settled_early() -> None:
    best = Proportion(64, 64)
    assert racing.standing(RATE, best, 0.05).state == "open"
    anytime = dataclasses.replace(RATE, anytime=True)
    assert racing.standing(anytime, best, 0.05).state == "settled"
    assert racing.standing(dataclasses.replace(anytime, min_samples=65), best, 0.05).state == "open"
    assert racing.settled([anytime], (seen(anytime, best),), 0.05)
    assert not racing.settled([anytime, PAIR], (seen(anytime, best),), 0.05)
    assert not racing.settled([], (), 0.05)


def test_evidence_of_another_split_or_kind_says_nothing() -> None:
    bad = Measurement("s.correct", WHO, Proportion(0, 64), "public")
    assert racing.hopeless([RATE], (bad,), 0.05) is None
    assert racing.against(RATE, Paired(64, 0, 64)) == 0
    assert racing.against(RATE, Count(3, ())) == 0


def test_the_cheapest_kill_comes_first() -> None:
    costs = {"dear": 40.0, "cheap": 12.0}
    assert racing.order(costs, {}, {}) == ("cheap", "dear")
    assert racing.order(costs, {"dear": 9}, {"dear": 10, "cheap": 10}) == ("dear", "cheap")


@given(st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=8), st.text(max_size=3))
def test_the_order_of_items_is_a_permutation_that_follows_from_the_seed(ids: list[str], seed: str) -> None:
    assert sorted(racing.shuffled(ids, seed)) == sorted(ids)
    assert racing.shuffled(ids[::-1], seed) == racing.shuffled(ids, seed)


def test_what_a_rule_sees_is_what_simulation_says() -> None:
    found = sight(RATE, 200)
    rng = np.random.Generator(np.random.PCG64(9))
    runs = 3000
    lower = [statistics.clopper_pearson(int(k), 200, 0.95)[0] >= 0.75 for k in rng.binomial(200, 0.80, runs)]
    upper = [statistics.clopper_pearson(int(k), 200, 0.95)[1] < 0.75 for k in rng.binomial(200, 0.70, runs)]
    error = 3 * math.sqrt(0.25 / runs)
    assert abs(np.mean(lower) - found.passes) < error
    assert abs(np.mean(upper) - found.denies) < error
    assert "a 5-point drop is refuted with probability 0.47" in str(found)


def test_a_paired_rule_denies_as_often_as_simulation_says() -> None:
    found = sight(PAIR, 200, Decidable(drop=0.1, gain=0.05, probability=0.8, discordance=0.2))
    rng = np.random.Generator(np.random.PCG64(10))
    runs = 2000
    draws = rng.multinomial(200, [0.025, 0.175, 0.8], size=runs)
    denied = [statistics.tango(int(w), int(lost), 200, 0.95)[1] < -0.05 for w, lost, _ in draws]
    assert abs(np.mean(denied) - found.denies) < 3 * math.sqrt(0.25 / runs)


def test_a_blind_rule_is_named_with_the_n_that_would_do() -> None:
    wanted = Decidable(drop=0.05, gain=0.05, probability=0.8)
    (problem,) = blind([RATE, LOW], {"RATE": 200}, wanted)
    enough = sufficient(RATE, wanted)
    assert enough is not None
    assert f"about {enough} samples" in problem
    assert sees(sight(RATE, enough, wanted), RATE, wanted)
    assert not blind([RATE], {"RATE": 2 * enough}, wanted)


def test_the_benchmarks_wealth_is_the_kernels() -> None:
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[2] / "benchmarks" / "racing.py"
    spec = importlib.util.spec_from_file_location("racing_benchmark", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    counts = np.array([[[3, 9], [10, 30]]])
    found = module.log_e(counts, np.array([100, 200]), 0.475)
    assert found[0, 0] == pytest.approx(sequential.paired_log_e(3, 9, 100, -0.05, "at_most"))
    assert found[0, 1] == pytest.approx(sequential.paired_log_e(10, 30, 200, -0.05, "at_most"))
    rows = {row["what"]: row for row in module.rows_of(module.simulate(2), 2)}
    assert rows["items per candidate, race"]["ratio"] < 0.9
