"""Families of items: against closed forms, and coverage by simulation where families differ."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecology.contracts.evidence import Measurement, Paired, Proportion, Samples, Statistic
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Decidable, Outcome, Rule
from ecology.errors import ConfigError
from ecology.gate.measured import compared, proportions
from ecology.kernel import statistics
from ecology.kernel.canonical import canonical, plain
from ecology.kernel.clusters import Family, clustered, design_effect, effective
from ecology.kernel.codec import structure
from ecology.kernel.planning import needed_n
from ecology.kernel.racing import against
from ecology.kernel.sight import sight
from ecology.kernel.verdicts import judge

WHO = Digest("sha256:" + "1" * 64)
RATE = Rule("RATE", "t", "orders.exact", ">=", 0.75, "hidden", clustered=True)
PAIR = Rule("PAIR", "t", "orders.exact", ">=", -0.1, "hidden", "incumbent", clustered=True)


def test_one_item_a_family_is_the_textbook_standard_error() -> None:
    values = [0.5, -1.0, 1.0, 0.0, 0.25, 1.0]
    found = clustered(values, range(6), 0.95)
    assert found.standard_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(6))
    assert found.design_effect == pytest.approx(1)
    assert found.mean == pytest.approx(np.mean(values))


def test_copies_of_items_add_nothing() -> None:
    values = [1.0, 0.0, -1.0, 1.0, 1.0, 0.0, 0.0, -1.0]
    single = clustered(values, range(8), 0.95)
    tripled = clustered(values * 3, [*range(8)] * 3, 0.95)
    assert (tripled.lower, tripled.upper) == pytest.approx((single.lower, single.upper))
    assert tripled.design_effect > 2.5


def test_clustered_bounds_cover_where_naive_ones_do_not() -> None:
    rng = np.random.Generator(np.random.PCG64(5))
    runs, naive_missed, missed = 600, 0, 0
    families = np.repeat(np.arange(30), 8)
    for _ in range(runs):
        values = rng.normal(size=30)[families] + 0.5 * rng.normal(size=240)  # the true mean is 0
        found = clustered(list(values), list(families), 0.95)
        missed += found.lower > 0
        naive_missed += values.mean() - 1.645 * values.std(ddof=1) / math.sqrt(240) > 0
    error = 3 * math.sqrt(0.05 * 0.95 / runs)
    assert abs(missed / runs - 0.05) <= error
    assert naive_missed / runs > 0.15


def test_families_of_one_are_independent_items_but_for_the_degrees_of_freedom() -> None:
    families = [Family(1, float(i % 4 > 0)) for i in range(400)]
    assert design_effect(families, 300.0) == pytest.approx(1)
    assert effective(families, 300.0, 0.95) == pytest.approx(400, rel=0.01)
    assert effective(families, 300.0, 0.5) == pytest.approx(400)
    nothing_varies = [Family(10, 10.0)] * 5
    assert math.isnan(design_effect(nothing_varies, 50.0))
    assert 25 < effective(nothing_varies, 50.0, 0.95) < 50


@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 1)), min_size=2, max_size=12), st.floats(0.5, 0.99))
def test_a_clustered_rule_is_never_surer_than_the_plain_one(drawn: list[tuple[int, float]], confidence: float) -> None:
    families = tuple(sorted((n, round(n * share)) for n, share in drawn))
    seen = Proportion(sum(k for _, k in families), sum(n for n, _ in families), families=families)
    rule = dataclasses.replace(RATE, confidence=confidence)
    low, high = statistics.bounds(rule, seen)
    plain_low, plain_high = statistics.bounds(dataclasses.replace(rule, clustered=False), seen)
    assert low <= plain_low + 1e-12  # type: ignore[operator]
    assert high >= plain_high - 1e-12  # type: ignore[operator]


def test_a_rate_and_a_difference_are_covered_where_families_differ() -> None:
    rng = np.random.Generator(np.random.PCG64(12))
    runs, missed = 500, {"rate": 0, "pair": 0, "plain rate": 0, "plain pair": 0}
    for _ in range(runs):
        # 20 families of 10: a beta-binomial with mean 0.75, so the families' own rates differ widely.
        right = rng.binomial(10, rng.beta(1.5, 0.5, 20))
        rate = Proportion(int(right.sum()), 200, families=tuple((10, int(k)) for k in right))
        lost, won = rng.binomial(5, rng.beta(0.4, 0.6, 20)), rng.binomial(5, rng.beta(0.4, 0.6, 20))  # no difference
        counts = tuple((10, int(w), int(x)) for w, x in zip(won, lost, strict=True))
        pair = Paired(200, int(won.sum()), int(lost.sum()), families=counts)
        for name, rule, seen, truth in (("rate", RATE, rate, 0.75), ("pair", PAIR, pair, 0.0)):
            missed[name] += float(statistics.bounds(rule, seen)[0] or 0) > truth
            unclustered = dataclasses.replace(rule, clustered=False)
            missed[f"plain {name}"] += float(statistics.bounds(unclustered, seen)[0] or 0) > truth
    error = 3 * math.sqrt(0.05 * 0.95 / runs)
    assert missed["rate"] / runs <= 0.05 + error
    assert missed["pair"] / runs <= 0.05 + error
    assert missed["plain rate"] / runs > 0.1
    assert missed["plain pair"] / runs > 0.1


def test_the_verdict_says_what_the_families_are_worth() -> None:
    alike = Proportion(180, 200, families=tuple([(10, 10)] * 18 + [(10, 0)] * 2))
    finding = judge(RATE, (Measurement(RATE.metric, WHO, alike, "hidden"),), WHO)
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert "of 20 families, worth 1" in finding.reason
    unclustered = dataclasses.replace(RATE, clustered=False)
    assert judge(unclustered, (Measurement(RATE.metric, WHO, alike, "hidden"),), WHO).outcome is Outcome.PASS
    nameless = judge(RATE, (Measurement(RATE.metric, WHO, Proportion(200, 200), "hidden"),), WHO)
    assert nameless.outcome is Outcome.INCONCLUSIVE
    assert "nobody said which items come of one family" in nameless.reason
    wrong = Proportion(180, 200, families=((10, 10), (10, 0)))
    assert "do not add up" in judge(RATE, (Measurement(RATE.metric, WHO, wrong, "hidden"),), WHO).reason
    enough = needed_n(RATE, alike)
    assert enough is not None
    assert enough > 200


def test_of_real_values_a_clustered_rule_judges_the_mean() -> None:
    rule = dataclasses.replace(PAIR, metric="orders.fields", threshold=-0.2)
    values = tuple([0.0] * 30 + [-1.0] * 10)  # the median sees nothing
    seen = Samples(values, "fields difference", families=tuple(i // 4 for i in range(40)))
    found = clustered(values, seen.families, 0.95)
    assert statistics.bounds(rule, seen) == (found.lower, found.upper)
    finding = judge(rule, (Measurement(rule.metric, WHO, seen, "hidden", "incumbent"),), WHO)
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert finding.observed == -0.25
    assert "mean -0.25 fields difference over 40 items of 10 families" in finding.reason


def test_scores_bring_their_families_along() -> None:
    families = {"a": "one", "b": "one", "c": "two"}
    ours = {"exact": {"a": True, "b": True, "c": False}, "fields": {"a": 1.0, "b": 0.5, "c": 0.0}}
    theirs = {"exact": {"a": False, "b": True, "c": True}, "fields": {"a": 0.0, "b": 0.5, "c": 1.0}}
    exact, fields = (m.statistic for m in proportions(WHO, "s", "hidden", ours, families=families))
    assert exact == Proportion(2, 3, families=((1, 0), (2, 2)))
    assert fields == Samples((1.0, 0.5, 0.0), "fields", families=(0, 0, 1))
    paired, _ = (m.statistic for m in compared(WHO, "s", "hidden", ours, theirs, "base", WHO, families=families))
    assert paired == Paired(3, 1, 1, families=((1, 0, 1), (2, 1, 0)))
    for statistic in (exact, fields, paired):
        assert structure(type(statistic), plain(statistic)) == statistic
    (unknown, *_) = proportions(WHO, "s", "hidden", ours, families={"a": "one"})
    assert unknown.statistic == Proportion(2, 3)
    old: Statistic = Proportion(2, 3)
    assert b"families" not in canonical(old)


def test_power_counts_what_the_families_are_assumed_to_be_worth() -> None:
    wanted = Decidable(0.1, 0.1, 0.8, design_effect=4.0)
    assert sight(RATE, 200, wanted).passes < sight(dataclasses.replace(RATE, clustered=False), 200, wanted).passes
    assert sight(RATE, 200, wanted).passes == sight(dataclasses.replace(RATE, clustered=False), 50, wanted).passes
    assert against(RATE, Proportion(0, 64)) == 0, "a clustered rule is not raced"


@pytest.mark.parametrize(
    "call",
    [
        lambda: clustered([1.0, 2.0], [1], 0.95),
        lambda: clustered([1.0, 2.0], [1, 1], 0.95),
        lambda: clustered([1.0, math.nan], [1, 2], 0.95),
        lambda: clustered([1.0, 0.0], [1, 2], 0.4),
        lambda: effective([Family(2, 1.0)], 1.0, 0.95),
        lambda: effective([Family(2, 1.0), Family(0, 0.0)], 1.0, 0.95),
    ],
)
def test_what_is_no_sample_of_families_is_refused(call: object) -> None:
    with pytest.raises(ConfigError):
        call()  # type: ignore[operator]
