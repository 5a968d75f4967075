"""Cheapest question first, stop at the first refusal, ask nothing twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.artifact import Artifact, Submission
from ecology.contracts.evidence import Evidence
from ecology.contracts.policy import Outcome, Policy
from ecology.documents.source import read_source
from ecology.errors import BackendError, MalformedArtifact, PolicyError
from ecology.gate.ladder import RUNGS, Climb, Rung, climb, rung_of
from ecology.kernel.verdicts import asked, headline
from ecology.policy.reader import load_policy
from ecology.policy.testing import SUBJECT, evidence_of

POLICIES = Path(__file__).parents[2] / "policies"
POLICY = load_policy(POLICIES / "release.yaml")
TYPICAL: dict[str, str] = read_source(POLICIES / "release_test.yaml", PolicyError).data["typical"]
SUBMISSION = Submission("child", "/nowhere", Artifact(SUBJECT, ()), ())
NOW = "2026-06-01T00:00:00Z"
ALL = RUNGS[:5]


def answers(rung: str, **changes: str) -> Evidence:
    texts = {**TYPICAL, **changes}
    return evidence_of({rule: texts[rule.id] for rule in POLICY.rules if rung_of(rule) == rung})


def rungs(calls: list[str], *names: str, **changes: str) -> list[Rung]:
    def measure(name: str) -> Callable[[], Evidence]:
        def run() -> Evidence:
            calls.append(name)
            return answers(name, **changes)

        return run

    return [Rung(name, measure(name)) for name in names]


def failing(name: str, error: Exception) -> Rung:
    def run() -> Evidence:
        raise error

    return Rung(name, run)


def test_every_rule_of_the_policy_has_a_rung() -> None:
    by_rung = {name: [rule.id for rule in POLICY.rules if rung_of(rule) == name] for name in RUNGS}
    assert [len(ids) for ids in by_rung.values()] == [11, 1, 3, 5, 3, 0]
    assert rung_of(dataclasses.replace(POLICY.rules[-1], metric="orders.exact", split="fresh")) == "fresh"


def test_a_good_candidate_climbs_to_the_top() -> None:
    calls: list[str] = []
    verdict, evidence, rung, climbed = climb(SUBMISSION, POLICY, rungs(calls, *ALL), NOW)
    assert calls == list(ALL) == list(climbed)
    assert rung == ""
    assert verdict.outcome is Outcome.WARN  # the development key
    assert len(evidence) == len(POLICY.rules)
    assert [finding.rule for finding in verdict.findings] == [rule.id for rule in POLICY.rules]


@pytest.mark.parametrize(
    ("rule", "text", "stopped"),
    [
        ("STA-006", "1 violation", "static"),
        ("LIV-001", "1 violation", "liveness"),
        ("SCR-001", "0 of 64", "screen"),
        ("SKILL-001", "0 of 200", "hidden"),
        ("RES-003", "1 x 9000000000", "resources"),
    ],
)
def test_a_refusal_ends_the_climb(rule: str, text: str, stopped: str) -> None:
    calls: list[str] = []
    found = climb(SUBMISSION, POLICY, rungs(calls, *ALL, **{rule: text}), NOW)
    assert found.rung == stopped
    assert calls == list(ALL[: ALL.index(stopped) + 1])
    assert found.verdict.outcome is Outcome.DENY
    head = headline(found.verdict)
    assert head is not None
    assert head.rule == rule
    later = [f for f in found.verdict.findings if not asked(f)]
    by_id = {r.id: r for r in POLICY.rules}
    assert {rung_of(by_id[f.rule]) for f in later} == set(ALL[ALL.index(stopped) + 1 :])
    assert all(f.outcome is Outcome.INCONCLUSIVE for f in later)


def test_missing_evidence_ends_the_climb_too() -> None:
    calls: list[str] = []
    found = climb(SUBMISSION, POLICY, rungs(calls, *ALL, **{"SAFE-001": "nothing"}), NOW)
    assert found.rung == "hidden"
    assert found.verdict.outcome is Outcome.INCONCLUSIVE
    head = headline(found.verdict)
    assert head is not None
    assert head.rule == "SAFE-001"


def test_the_lower_rungs_alone_admit_nobody() -> None:
    found = climb(SUBMISSION, POLICY, rungs([], *ALL[:3]), NOW)
    assert found.rung == ""
    assert found.verdict.outcome is Outcome.INCONCLUSIVE


def test_a_finalist_goes_on_where_it_was_and_nothing_is_measured_twice() -> None:
    calls: list[str] = []
    first = climb(SUBMISSION, POLICY, rungs(calls, *ALL[:3]), NOW)
    second = climb(SUBMISSION, POLICY, rungs(calls, *ALL[3:]), NOW, earlier=first)
    assert calls == list(ALL)
    assert second == climb(SUBMISSION, POLICY, rungs([], *ALL), NOW)


def test_one_that_was_stopped_stays_stopped() -> None:
    calls: list[str] = []
    first = climb(SUBMISSION, POLICY, rungs(calls, *ALL[:3], **{"SCR-001": "0 of 64"}), NOW)
    assert climb(SUBMISSION, POLICY, rungs(calls, *ALL[3:]), NOW, earlier=first) == first
    assert "hidden" not in calls


def test_the_static_scope_admits_what_only_static_rules_allow() -> None:
    found = climb(SUBMISSION, POLICY, rungs([], "static"), NOW, scope="static")
    assert found.verdict.outcome is Outcome.WARN
    assert found.verdict.scope == "static"
    refused = climb(SUBMISSION, POLICY, rungs([], "static", **{"STA-003": "1 violation"}), NOW, scope="static")
    assert (refused.rung, refused.verdict.outcome) == ("static", Outcome.DENY)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (BackendError("out of memory"), Outcome.INCONCLUSIVE),
        (MalformedArtifact("a key is missing"), Outcome.INCONCLUSIVE),
        (ZeroDivisionError("oops"), Outcome.DENY),
        (RuntimeError("CUDA"), Outcome.DENY),
    ],
)
def test_a_rung_that_fails_is_a_finding_with_its_type(error: Exception, outcome: Outcome) -> None:
    calls: list[str] = []
    ladder = [*rungs(calls, "static"), failing("liveness", error), *rungs(calls, "screen", "hidden", "resources")]
    found = climb(SUBMISSION, POLICY, ladder, NOW)
    assert found.rung == "liveness"
    assert found.verdict.outcome is outcome
    head = headline(found.verdict)
    assert head is not None
    assert head.rule == "RUNG-liveness"
    assert type(error).__name__ in head.reason
    assert calls == ["static"]


def test_interrupts_are_not_swallowed() -> None:
    def run() -> Evidence:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        climb(SUBMISSION, POLICY, [Rung("static", run)], NOW)


def test_a_policy_that_judges_nobody_is_an_error_before_anything_is_measured() -> None:
    calls: list[str] = []
    empty: Policy = dataclasses.replace(POLICY, rules=())
    with pytest.raises(PolicyError):
        climb(SUBMISSION, empty, rungs(calls, *ALL), NOW)
    assert calls == []


TEXTS = {
    "STA-001": ("no violation", "1 violation", "nothing"),
    "LIV-001": ("no violation", "1 violation", "nothing"),
    "SCR-001": ("64 of 64", "0 of 64", "nothing"),
    "SAFE-001": ("200 of 200", "0 of 200", "150 of 200", "nothing"),
    "RES-003": ("1 x 1", "1 x 9000000000", "nothing"),
}


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({name: st.sampled_from(texts) for name, texts in TEXTS.items()}))
def test_stopping_early_never_admits_what_the_whole_ladder_refuses(changes: dict[str, str]) -> None:
    stopped: Climb = climb(SUBMISSION, POLICY, rungs([], *ALL, **changes), NOW)
    everything = tuple(m for name in ALL for m in answers(name, **changes))
    whole = climb(SUBMISSION, POLICY, [Rung(name, tuple) for name in ALL], NOW, earlier=None)
    from ecology.kernel.verdicts import verdict

    judged = verdict(POLICY, everything, SUBJECT, "full", NOW)
    assert stopped.verdict.outcome.admits == judged.outcome.admits
    assert not whole.verdict.outcome.admits
    assert bool(stopped.rung) == (not judged.outcome.admits)
