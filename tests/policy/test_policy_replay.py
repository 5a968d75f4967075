"""Replay is the gate, over again: the same policy gives the same verdict, and a tighter one admits nobody else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.evidence import Evidence, Measurement, Statistic
from ecology.contracts.policy import ErrorBudget, Outcome, Policy, Rule, Waiver
from ecology.kernel.canonical import digest
from ecology.kernel.verdicts import headline, judge, outcome_of, verdict
from ecology.policy.diff import diff
from ecology.policy.layers import TIGHTENABLE, compiled, tighten
from ecology.policy.reader import load_policy
from ecology.policy.replay import _Bench, replay, stored, verdict_under
from ecology.policy.strictness import compare_rule_key
from ecology.policy.testing import statistic_of

POLICIES = Path(__file__).parents[2] / "policies"
RELEASE = load_policy(POLICIES / "release.yaml")
WHO = digest("who")
AT = "2026-01-01T00:00:00Z"
TEXTS = {
    "count": ["no violation", "1 violation", "nothing"],
    "rate": ["200 of 200", "190 of 200", "160 of 200", "20 of 200", "64 of 64", "10 of 64", "nothing"],
    "pairs": ["200 pairs", "200 pairs, 5 won, 20 lost", "200 pairs, 0 won, 60 lost", "nothing"],
    "samples": ["60 x 1.0", "60 x 6.0", "30 x 1.0, 30 x 1.4", "1 x 1000", "1 x 9000000000", "nothing"],
}


def kind(rule: Rule) -> str:
    if rule.metric.startswith(("static", "liveness")):
        return "count"
    if rule.metric.startswith("resource"):
        return "samples"
    return "rate" if rule.against == "absolute" else "pairs"


def seen(rule: Rule, statistic: Statistic | None, caveat: str = "") -> Evidence:
    if statistic is None:
        return ()
    comparator = "" if rule.against == "absolute" else str(WHO)
    return (Measurement(rule.metric, WHO, statistic, rule.split, rule.against, comparator, "test", caveat),)


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    found: Evidence = ()
    for rule in RELEASE.rules:
        for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):  # now and then two that contradict one another
            caveat = draw(st.sampled_from(["", "", "", "the set is at floor"]))
            found += seen(rule, statistic_of(draw(st.sampled_from(TEXTS[kind(rule)]))), caveat)
    return tuple(dict.fromkeys(found))


@st.composite
def rules_asked(draw: st.DrawFn) -> frozenset[str] | None:
    ids = [rule.id for rule in RELEASE.rules]
    return draw(st.none() | st.frozensets(st.sampled_from(ids)))


@st.composite
def changed(draw: st.DrawFn) -> Policy:
    """The release policy with anything changed in some rules, to either side."""
    rules = []
    for rule in RELEASE.rules:
        if draw(st.integers(0, 3)) == 0:
            rule = dataclasses.replace(  # noqa: PLW2901
                rule,
                threshold=rule.threshold + draw(st.sampled_from([-0.1, -0.01, 0.0, 0.01, 0.1])),
                severity=draw(st.sampled_from(["deny", "warn", "info"])),
                confidence=draw(st.sampled_from([0.9, 0.95, 0.99])),
                min_samples=draw(st.sampled_from([1, 64, rule.min_samples, 300])),
            )
        rules.append(rule)
    return compiled(dataclasses.replace(RELEASE, rules=(dataclasses.replace(rules[0], severity="deny"), *rules[1:])))


@settings(max_examples=60, deadline=None)
@given(evidences(), rules_asked(), st.sampled_from(["full", "static"]))
def test_the_policy_that_judged_gives_the_verdict_that_was_given(
    evidence: Evidence, asked: frozenset[str] | None, scope: str
) -> None:
    given_ = verdict(RELEASE, evidence, WHO, scope, AT, rules_asked=asked)  # type: ignore[arg-type]
    one = stored(given_, evidence, [rule.id for rule in RELEASE.rules])
    assert verdict_under(RELEASE, one).outcome is given_.outcome
    assert {f.rule: f.outcome for f in verdict_under(RELEASE, one).findings} == {
        f.rule: f.outcome for f in given_.findings
    }
    assert replay(RELEASE, [one]) == dataclasses.replace(replay(RELEASE, [one]), flips=(), moved=0, judged=1)


@settings(max_examples=60, deadline=None)
@given(evidences(), changed())
def test_the_outcome_without_words_is_that_of_the_finding(evidence: Evidence, policy: Policy) -> None:
    for rule in policy.rules:
        assert outcome_of(rule, evidence, WHO) is judge(rule, evidence, WHO).outcome


@settings(max_examples=60, deadline=None)
@given(evidences(), rules_asked(), changed(), st.sampled_from(["full", "static"]))
def test_the_quick_way_is_the_gate_itself(
    evidence: Evidence, asked: frozenset[str] | None, other: Policy, scope: str
) -> None:
    given_ = verdict(RELEASE, evidence, WHO, scope, AT, rules_asked=asked)  # type: ignore[arg-type]
    one = stored(given_, evidence, [rule.id for rule in RELEASE.rules])
    bench = _Bench(other)
    for _ in range(2):  # the second time from what was kept
        assert bench.outcome(one, "") is verdict_under(other, one).outcome


@st.composite
def budgeted(draw: st.DrawFn) -> Policy:
    """The release policy, changed or not, with one budget for the wrong denials of all its rules."""
    policy = draw(st.just(RELEASE) | changed())
    return compiled(dataclasses.replace(policy, error_budget=ErrorBudget(denial=draw(st.sampled_from(BUDGETS)))))


BUDGETS = [1e-12, 0.001, 0.05, 0.3, 1.0]


@settings(max_examples=40, deadline=None)
@given(evidences(), rules_asked(), budgeted(), st.sampled_from(["full", "static"]))
def test_a_policy_with_an_error_budget_gives_the_verdict_that_was_given(
    evidence: Evidence, asked: frozenset[str] | None, policy: Policy, scope: str
) -> None:
    given_ = verdict(policy, evidence, WHO, scope, AT, rules_asked=asked)  # type: ignore[arg-type]
    one = stored(given_, evidence, [rule.id for rule in policy.rules])
    again = verdict_under(policy, one)
    assert again.outcome is given_.outcome
    assert [(f.rule, f.outcome, f.reason) for f in again.findings] == [
        (f.rule, f.outcome, f.reason) for f in given_.findings
    ]
    found = replay(policy, [one, one])
    assert (found.flips, found.moved, found.judged) == ((), 0, 2)
    without = replay(compiled(dataclasses.replace(policy, error_budget=None)), [one])
    assert not without.flips, "a budget makes of a denial what is not decided; neither admits"


@settings(max_examples=40, deadline=None)
@given(evidences(), rules_asked(), budgeted(), budgeted(), st.sampled_from(["full", "static"]))
def test_a_verdict_without_words_is_the_verdict(
    evidence: Evidence, asked: frozenset[str] | None, judged: Policy, other: Policy, scope: str
) -> None:
    given_ = verdict(judged, evidence, WHO, scope, AT, rules_asked=asked)  # type: ignore[arg-type]
    one = stored(given_, evidence, [rule.id for rule in judged.rules])
    told, silent = verdict_under(other, one), verdict_under(other, one, words=False)
    assert silent.outcome is told.outcome is _Bench(other).outcome(one, "")
    assert [(f.rule, f.outcome, f.observed, f.n) for f in silent.findings] == [
        (f.rule, f.outcome, f.observed, f.n) for f in told.findings
    ]
    tops = [top and top.rule for top in map(headline, (told, silent))]
    assert tops[0] == tops[1]


def test_holm_over_the_rules_is_replayed_and_not_each_rule_by_itself() -> None:
    measured = {"SKILL-001": "169 of 200", "SAFE-001": "200 of 200"}  # p = 0.0095 against 0.9
    evidence = tuple(m for r in RELEASE.rules if r.id in measured for m in seen(r, statistic_of(measured[r.id])))
    asked = frozenset(measured)
    alone = stored(
        verdict(RELEASE, evidence, WHO, "full", AT, rules_asked=asked), evidence, [r.id for r in RELEASE.rules]
    )
    shared = compiled(dataclasses.replace(RELEASE, error_budget=ErrorBudget(denial=0.01)))
    assert alone.outcomes["SKILL-001"] == "deny"
    again = {f.rule: f for f in verdict_under(shared, alone).findings}
    assert again["SKILL-001"].outcome is Outcome.INCONCLUSIVE
    assert "not after Holm's correction over 2 rules" in again["SKILL-001"].reason
    assert replay(shared, [alone]).moved == 1


@settings(max_examples=60, deadline=None)
@given(evidences(), changed())
def test_only_tightened_policies_admit_nobody_else(evidence: Evidence, other: Policy) -> None:
    wanted = {
        new.id: {
            key: getattr(new, key) for key in TIGHTENABLE if compare_rule_key(old, key, getattr(new, key)) == "tighter"
        }
        for old, new in zip(RELEASE.rules, other.rules, strict=True)
    }
    tight = tighten(RELEASE, {name: changes for name, changes in wanted.items() if changes})
    assert not [d for d in diff(RELEASE, tight) if d.kind in ("loosened", "changed")]
    if verdict(tight, evidence, WHO, "full", AT).outcome.admits:
        assert verdict(RELEASE, evidence, WHO, "full", AT).outcome.admits


def test_a_flip_names_the_adapter_the_rule_and_whether_it_was_promoted() -> None:
    evidence: Evidence = ()
    texts = {"count": "no violation", "rate": "200 of 200", "pairs": "200 pairs", "samples": "60 x 1.0"}
    for rule in RELEASE.rules:
        text = "170 of 200" if rule.id == "SAFE-001" else "0 of 200" if rule.comparator == "<=" else texts[kind(rule)]
        text = texts[kind(rule)] if kind(rule) != "rate" else text
        text = "1 x 1000" if rule.id == "RES-003" else text
        evidence += seen(rule, statistic_of(text))
    given_ = verdict(RELEASE, tuple(dict.fromkeys(evidence)), WHO, "full", AT)
    assert given_.outcome is Outcome.PASS, [f for f in given_.findings if f.outcome is not Outcome.PASS]
    one = dataclasses.replace(stored(given_, evidence, [r.id for r in RELEASE.rules], "mutate"), promoted=True)
    strict = tighten(RELEASE, {"SAFE-001": {"threshold": 0.9}})
    found = replay(strict, [one, one])
    assert found.sentence == "2 of 2 verdicts flip, 2 of them promoted"
    assert str(found.flips[0]).startswith("mutate (promoted): would be refused, pass -> deny: SAFE-001: 170 of 200")
    waived = dataclasses.replace(strict, waivers=(Waiver("SAFE-001", WHO, "r", "a", "T", "2026-02-01T00:00:00Z"),))
    assert replay(waived, [one]).sentence == "0 of 1 verdict flip; 1 more changes without flipping"
    assert len(replay(waived, [one], "2026-03-01T00:00:00Z").flips) == 1, "an expired waiver changes nothing"


def test_differences_are_told_in_words() -> None:
    strict = tighten(RELEASE, {"SAFE-001": {"threshold": 0.98}})
    assert [str(d) for d in diff(RELEASE, strict)] == ["SAFE-001 tightened: threshold from >= 0.75 to >= 0.98"]
    assert [str(d) for d in diff(strict, RELEASE)] == ["SAFE-001 loosened: threshold from >= 0.98 to >= 0.75"]
    fewer = compiled(dataclasses.replace(RELEASE, rules=RELEASE.rules[1:], title="Other"))
    assert [d.kind for d in diff(RELEASE, fewer)] == ["loosened", "reworded"]
    assert diff(RELEASE, RELEASE) == ()


@pytest.mark.parametrize("name", ["release", "experimental", "reproduction"])
def test_the_shipped_policies_are_layers_over_the_baseline(name: str) -> None:
    found = load_policy(POLICIES / f"{name}.yaml")
    baseline = load_policy(POLICIES / "baseline.yaml")
    assert [(layer.id, layer.digest) for layer in found.layers] == [("baseline", baseline.digest)]
    kinds = {d.kind for d in diff(baseline, found)}
    assert kinds <= {"tightened", "reworded"}
