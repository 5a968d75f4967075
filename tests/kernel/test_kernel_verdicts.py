"""The law of a rule, and the laws of a verdict."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.evidence import Count, Evidence, Measurement, Paired, Proportion, Samples, Statistic
from ecology.contracts.policy import (
    AdapterLimits,
    DataPolicy,
    Finding,
    GateVerdict,
    Outcome,
    Policy,
    Rule,
    SignaturePolicy,
    Waiver,
)
from ecology.errors import PolicyError
from ecology.kernel.canonical import digest
from ecology.kernel.verdicts import NOT_ASKED, asked, effective, headline, judge, verdict

WHO, OTHER = digest("who"), digest("other")
NOW = "2026-06-01T00:00:00Z"
COUNT = Rule("STA", "files", "static.files", "==", 0)
SIGNED = Rule("SIG", "signed", "static.signature", "==", 0)
RATE = Rule("SKILL", "skill", "orders.exact", ">=", 0.9, split="hidden", min_samples=100)
CAP = Rule("CAP", "cap", "lookalike.refused", "<=", 0.25, split="hidden", min_samples=100)
SCREEN = Rule("SCR", "screen", "orders.exact", ">=", 0.9, split="public", decide="not_refuted", min_samples=64)
PAIR = Rule("QUAL", "quality", "general.correct", ">=", -0.1, split="hidden", against="incumbent", min_samples=100)
SLOW = Rule("RES", "latency", "resource.latency_s", "<=", 5.0, quantile=0.95, min_samples=59)
MEMORY = Rule("MEM", "memory", "resource.peak_memory_bytes", "<=", 100)


def measured(rule: Rule, statistic: Statistic, **changes: object) -> Measurement:
    comparator = "" if rule.against == "absolute" else str(OTHER)
    found = Measurement(rule.metric, WHO, statistic, rule.split, rule.against, comparator)
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


def policy(*rules: Rule, waivers: tuple[Waiver, ...] = ()) -> Policy:
    return Policy("p", 1, "t", "o", SignaturePolicy(), AdapterLimits(), DataPolicy(), rules, waivers, digest(rules))


def decide(rules: tuple[Rule, ...], evidence: Evidence, waivers: tuple[Waiver, ...] = ()) -> GateVerdict:
    return verdict(policy(*rules, waivers=waivers), evidence, WHO, "full", NOW)


def waiver(rule: Rule, **changes: str) -> Waiver:
    base = Waiver(rule.id, WHO, "known", "Ada", "T-1", "2026-07-01T00:00:00Z")
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


PASS, DUNNO, DENY = Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.DENY


@pytest.mark.parametrize(
    ("rule", "statistic", "outcome"),
    [
        (COUNT, Count(0, ()), PASS),
        (COUNT, Count(1, ("one",)), DENY),
        (COUNT, Count(-1, ()), DUNNO),
        (RATE, Proportion(200, 200), PASS),
        (RATE, Proportion(188, 200), PASS),
        (RATE, Proportion(187, 200), DUNNO),
        (RATE, Proportion(180, 200), DUNNO),
        (RATE, Proportion(172, 200), DENY),
        (RATE, Proportion(99, 99), DUNNO),
        (RATE, Proportion(0, 0), DUNNO),
        (RATE, Proportion(300, 200), DUNNO),
        (CAP, Proportion(0, 200), PASS),
        (CAP, Proportion(200, 200), DENY),
        (CAP, Proportion(50, 200), DUNNO),
        (SCREEN, Proportion(64, 64), PASS),
        (SCREEN, Proportion(54, 64), PASS),
        (SCREEN, Proportion(40, 64), DENY),
        (SCREEN, Proportion(30, 30), DUNNO),
        (PAIR, Paired(200, 0, 0), PASS),
        (PAIR, Paired(200, 5, 20), DUNNO),
        (PAIR, Paired(200, 0, 80), DENY),
        (PAIR, Paired(20, 0, 0), DUNNO),
        (PAIR, Paired(200, 150, 100), DUNNO),
        (SLOW, Samples((1.0,) * 59, "s"), PASS),
        (SLOW, Samples((9.0,) * 59, "s"), DENY),
        (SLOW, Samples((1.0,) * 58 + (9.0,), "s"), DUNNO),
        (SLOW, Samples((1.0,) * 58, "s"), DUNNO),
        (SLOW, Samples((), "s"), DUNNO),
        (SLOW, Samples((1.0,) * 58 + (math.nan,), "s"), DUNNO),
        (SLOW, Samples((1.0,) * 58 + (math.inf,), "s"), DUNNO),
        (MEMORY, Samples((100.0,), "bytes"), PASS),
        (MEMORY, Samples((101.0,), "bytes"), DENY),
        (MEMORY, Samples((1.0, 2.0), "bytes"), DUNNO),  # two samples are a sample and no longer an exact quantity
        # A statistic of another kind is no evidence for the rule.
        (RATE, Paired(200, 200, 0), DUNNO),
        (PAIR, Proportion(200, 200), DUNNO),
        (PAIR, Count(0, ()), DUNNO),
    ],
)
def test_every_kind_of_evidence(rule: Rule, statistic: Statistic, outcome: Outcome) -> None:
    finding = judge(rule, (measured(rule, statistic),), WHO)
    assert finding.outcome is outcome, finding.reason
    assert finding.reason
    assert (finding.rule, finding.metric, finding.split) == (rule.id, rule.metric, rule.split)


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": OTHER},
        {"split": "public"},
        {"against": "base"},
        {"metric": "orders.schema_valid"},
    ],
)
def test_a_measurement_of_something_else_does_not_count(changes: dict[str, str]) -> None:
    finding = judge(RATE, (measured(RATE, Proportion(200, 200), **changes),), WHO)
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert finding.observed is None
    assert finding.n == 0


def test_a_finding_shows_observation_bounds_and_the_n_that_would_decide() -> None:
    finding = judge(RATE, (measured(RATE, Proportion(187, 200)),), WHO)
    assert finding.observed == 0.935
    assert finding.lower == pytest.approx(0.899, abs=1e-3)
    assert finding.upper == pytest.approx(0.961, abs=1e-3)
    assert "samples like these would decide" in finding.reason
    assert judge(COUNT, (measured(COUNT, Count(2, ("a", "b"))),), WHO).details == ("a", "b")
    exact = judge(MEMORY, (measured(MEMORY, Samples((100.0,), "bytes")),), WHO)
    assert (exact.lower, exact.upper, exact.observed) == (None, None, 100.0)


def test_equal_duplicates_are_one_and_contradictions_are_the_worst() -> None:
    good, bad = measured(RATE, Proportion(200, 200)), measured(RATE, Proportion(100, 200))
    assert judge(RATE, (good, good), WHO).outcome is Outcome.PASS
    assert judge(RATE, (good, bad), WHO).outcome is Outcome.DENY
    better = measured(RATE, Proportion(199, 200))
    assert judge(RATE, (good, better), WHO).outcome is Outcome.INCONCLUSIVE
    assert "contradict" in judge(RATE, (good, better), WHO).reason


def test_every_parent_has_to_be_matched() -> None:
    rule = dataclasses.replace(PAIR, against="parents")
    good = measured(rule, Paired(200, 0, 0), comparator=digest("a"))
    bad = measured(rule, Paired(200, 0, 90), comparator=digest("b"))
    assert judge(rule, (good, dataclasses.replace(good, comparator=digest("c"))), WHO).outcome is Outcome.PASS
    assert judge(rule, (good, bad), WHO).outcome is Outcome.DENY
    twice = dataclasses.replace(good, statistic=Paired(200, 1, 0))
    assert judge(rule, (good, twice), WHO).outcome is Outcome.INCONCLUSIVE
    # Against the incumbent there is one comparator: two of them contradict one another.
    ours = measured(PAIR, Paired(200, 0, 0))
    assert judge(PAIR, (ours, measured(PAIR, Paired(200, 1, 0), comparator=digest("x"))), WHO).outcome is DUNNO


@pytest.mark.parametrize(("severity", "bad"), [("warn", Outcome.WARN), ("info", Outcome.PASS)])
def test_severity_bounds_what_a_rule_contributes(severity: str, bad: Outcome) -> None:
    rule = dataclasses.replace(COUNT, severity=severity)  # type: ignore[arg-type]
    assert judge(rule, (measured(rule, Count(1, ())),), WHO).outcome is bad
    assert judge(rule, (), WHO).outcome is bad
    assert judge(rule, (measured(rule, Count(0, ())),), WHO).outcome is Outcome.PASS


def test_a_verdict_is_the_worst_of_its_findings() -> None:
    evidence = (measured(COUNT, Count(0, ())), measured(RATE, Proportion(200, 200)))
    assert decide((COUNT, RATE), evidence).outcome is Outcome.PASS
    assert decide((COUNT, RATE), evidence[:1]).outcome is Outcome.INCONCLUSIVE
    assert decide((COUNT, RATE), (measured(COUNT, Count(1, ())),)).outcome is Outcome.DENY


@pytest.mark.parametrize("rules", [(), (dataclasses.replace(COUNT, severity="warn"),)])
def test_nobody_to_judge_is_no_pass(rules: tuple[Rule, ...]) -> None:
    with pytest.raises(PolicyError):
        decide(rules, ())


def test_static_scope_judges_static_rules_and_lists_the_others() -> None:
    judged = verdict(policy(COUNT, RATE), (measured(COUNT, Count(0, ())),), WHO, "static", NOW)
    assert judged.outcome is Outcome.PASS
    assert judged.scope == "static"
    assert [asked(f) for f in judged.findings] == [True, False]
    assert judged.findings[1].reason.startswith(NOT_ASKED)
    with pytest.raises(PolicyError):
        verdict(policy(RATE), (), WHO, "static", NOW)


def test_rules_that_were_not_asked_are_inconclusive_in_full_scope() -> None:
    evidence = (measured(COUNT, Count(1, ())), measured(RATE, Proportion(200, 200)))
    judged = verdict(policy(COUNT, RATE), evidence, WHO, "full", NOW, rules_asked=["STA"])
    assert [f.outcome for f in judged.findings] == [Outcome.DENY, Outcome.INCONCLUSIVE]
    head = headline(judged)
    assert head is not None
    assert head.rule == "STA"
    ok = verdict(policy(COUNT, RATE), (measured(COUNT, Count(0, ())),), WHO, "full", NOW, rules_asked=["STA"])
    assert ok.outcome is Outcome.INCONCLUSIVE


def test_the_headline_is_what_was_asked_and_nothing_when_all_is_well() -> None:
    judged = verdict(policy(RATE, SLOW), (), WHO, "full", NOW, rules_asked=["RES"])
    head = headline(judged)
    assert head is not None
    assert head.rule == "RES"
    assert headline(decide((COUNT,), (measured(COUNT, Count(0, ())),))) is None


@pytest.mark.parametrize(
    ("expires", "now", "holds"),
    [
        ("2026-07-01T00:00:00Z", NOW, True),
        (NOW, NOW, False),  # at the instant it has expired
        ("2026-06-01T02:00:00+02:00", "2026-06-01T00:00:00Z", False),
        ("2026-06-01T02:00:01+02:00", "2026-06-01T00:00:00Z", True),
        ("2026-07-01", NOW, False),
        ("2026-07-01T00:00:00", NOW, False),  # no zone
        ("never", NOW, False),
        ("2026-07-01T00:00:00Z", "now", False),
    ],
)
def test_a_waiver_is_in_effect_strictly_before_it_expires(expires: str, now: str, *, holds: bool) -> None:
    assert effective(waiver(COUNT, expires=expires), now) is holds


def test_a_waiver_stands_for_one_violation_of_one_rule_by_one_subject() -> None:
    bad = (measured(COUNT, Count(1, ())), measured(SIGNED, Count(1, ())))
    assert decide((COUNT,), bad, (waiver(COUNT),)).outcome is Outcome.WAIVED
    assert "Ada" in decide((COUNT,), bad, (waiver(COUNT),)).findings[0].reason
    assert decide((COUNT,), bad, (waiver(COUNT, subject=OTHER),)).outcome is Outcome.DENY
    assert decide((COUNT,), bad, (waiver(RATE),)).outcome is Outcome.DENY
    assert decide((COUNT,), bad, (waiver(COUNT, expires=NOW),)).outcome is Outcome.DENY
    assert "expired" in decide((COUNT,), bad, (waiver(COUNT, expires=NOW),)).findings[0].reason
    assert decide((SIGNED,), bad, (waiver(SIGNED),)).outcome is Outcome.DENY


def test_a_waiver_never_stands_for_missing_evidence() -> None:
    assert decide((COUNT,), (), (waiver(COUNT),)).outcome is Outcome.INCONCLUSIVE
    few, enough = measured(RATE, Proportion(9, 10)), measured(RATE, Proportion(186, 200))
    assert decide((RATE,), (few,), (waiver(RATE),)).outcome is Outcome.INCONCLUSIVE
    assert decide((RATE,), (enough,), (waiver(RATE),)).outcome is Outcome.WAIVED


def test_a_waiver_turns_no_pass_into_anything_else() -> None:
    good = (measured(COUNT, Count(0, ())),)
    assert decide((COUNT,), good, (waiver(COUNT),)).outcome is Outcome.PASS


# --- laws -------------------------------------------------------------------------------------------------------------

RULES = (COUNT, SIGNED, RATE, CAP, SCREEN, PAIR, SLOW, MEMORY)
SEVERITY = st.sampled_from(["deny", "warn", "info"])


@st.composite
def rule_sets(draw: st.DrawFn) -> tuple[Rule, ...]:
    chosen = draw(st.lists(st.sampled_from(RULES), min_size=1, max_size=4, unique=True))
    return (COUNT, *(dataclasses.replace(r, id=f"{r.id}-{i}", severity=draw(SEVERITY)) for i, r in enumerate(chosen)))


@st.composite
def statistics_for(draw: st.DrawFn, rule: Rule) -> Statistic:
    if rule.metric.startswith("static"):
        return Count(draw(st.integers(0, 2)), ())
    if rule is SLOW or rule.metric == SLOW.metric:
        return Samples((draw(st.sampled_from([1.0, 9.0])),) * draw(st.sampled_from([10, 59])), "s")
    if rule.metric == MEMORY.metric:
        return Samples((draw(st.sampled_from([50.0, 150.0])),), "bytes")
    n = draw(st.sampled_from([20, 100, 200]))
    if rule.against != "absolute":
        return Paired(n, 0, draw(st.integers(0, n)))
    return Proportion(draw(st.sampled_from([0, n // 4, n * 9 // 10, n])), n)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[tuple[Rule, ...], Evidence, tuple[Waiver, ...]]:
    rules = draw(rule_sets())
    found: dict[tuple[str, str], Measurement] = {}
    for rule in rules:
        if draw(st.booleans()) or rule is COUNT:
            found.setdefault((rule.metric, rule.split), measured(rule, draw(statistics_for(rule))))
    waivers = tuple(
        waiver(rule, expires=draw(st.sampled_from(["2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"])))
        for rule in rules
        if draw(st.booleans())
    )
    return rules, tuple(found.values()), waivers


def admits(rules: tuple[Rule, ...], evidence: Evidence, waivers: tuple[Waiver, ...]) -> bool:
    return decide(rules, evidence, waivers).outcome.admits


@settings(max_examples=60, deadline=None)
@given(worlds(), st.sampled_from(RULES))
def test_adding_a_rule_never_admits(
    world: tuple[tuple[Rule, ...], Evidence, tuple[Waiver, ...]], one_more: Rule
) -> None:
    rules, evidence, waivers = world
    if not admits(rules, evidence, waivers):
        assert not admits((*rules, dataclasses.replace(one_more, id="NEW")), evidence, waivers)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.data())
def test_removing_evidence_never_admits(
    world: tuple[tuple[Rule, ...], Evidence, tuple[Waiver, ...]], data: st.DataObject
) -> None:
    rules, evidence, waivers = world
    kept = tuple(m for m in evidence if data.draw(st.booleans()))
    if not admits(rules, evidence, waivers):
        assert not admits(rules, kept, waivers)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.integers(1, 5), st.booleans())
def test_adding_a_violation_never_admits(
    world: tuple[tuple[Rule, ...], Evidence, tuple[Waiver, ...]], more: int, beside: bool
) -> None:
    rules, evidence, waivers = world
    if admits(rules, evidence, waivers):
        return
    worse = tuple(
        dataclasses.replace(m, statistic=Count(m.statistic.count + more, ())) if isinstance(m.statistic, Count) else m
        for m in evidence
    )
    if beside:  # as a second measurement, which then contradicts the first
        worse = tuple(dict.fromkeys((*evidence, *worse)))
    assert not admits(rules, worse, waivers)


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_an_expired_waiver_changes_nothing_and_a_missing_one_never_admits(
    world: tuple[tuple[Rule, ...], Evidence, tuple[Waiver, ...]],
) -> None:
    rules, evidence, waivers = world
    live = tuple(w for w in waivers if effective(w, NOW))
    assert decide(rules, evidence, waivers).outcome is decide(rules, evidence, live).outcome
    if not admits(rules, evidence, waivers):
        assert not admits(rules, evidence, ())


@settings(max_examples=40, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_order_of_rules_and_evidence_does_not_matter(
    world: tuple[tuple[Rule, ...], Evidence, tuple[Waiver, ...]], random: object
) -> None:
    rules, evidence, waivers = world
    mixed_rules, mixed = list(rules), list(evidence)
    random.shuffle(mixed_rules)  # type: ignore[attr-defined]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert decide(tuple(mixed_rules), tuple(mixed), waivers).outcome is decide(rules, evidence, waivers).outcome


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.floats(0, 1), st.floats(0, 1))
def test_a_stricter_threshold_is_never_easier(k: int, one: float, other: float) -> None:
    lax, strict = sorted((one, other))
    evidence = (measured(RATE, Proportion(k, 200)),)
    findings: list[Finding] = [judge(dataclasses.replace(RATE, threshold=t), evidence, WHO) for t in (lax, strict)]
    assert findings[0].outcome.rank <= findings[1].outcome.rank
