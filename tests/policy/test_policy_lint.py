"""Rules that are well-formed and unwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ecology.contracts.policy import Outcome, Policy, Rule
from ecology.policy import testing
from ecology.policy.lint import lint
from ecology.policy.reader import load_policy
from ecology.policy.testing import run_tests

POLICIES = Path(__file__).parents[2] / "policies"
RELEASE = load_policy(POLICIES / "release.yaml")
STATIC = Rule("STA", "t", "static.files", "==", 0)
RATE = Rule("RATE", "t", "orders.exact", ">=", 0.9, split="hidden", min_samples=200)


def policy(*rules: Rule) -> Policy:
    return dataclasses.replace(RELEASE, rules=(STATIC, *rules))


def remarks(found: Policy, **options: object) -> str:
    return "\n".join(map(str, lint(found, **options)))  # type: ignore[arg-type]


def test_the_release_policy_is_wise() -> None:
    tested = testing.coverage(run_tests(POLICIES / "release_test.yaml"))
    assert lint(RELEASE, tested=tested) == ()


def test_contradictions_are_found() -> None:
    below = dataclasses.replace(RATE, id="LOW", comparator="<=", threshold=0.5)
    assert "error: RATE: orders.exact >= 0.9 contradicts LOW, which demands <= 0.5" in remarks(policy(RATE, below))
    warned = dataclasses.replace(below, severity="warn")
    assert "warning: RATE" in remarks(policy(RATE, warned))
    assert remarks(policy(RATE, dataclasses.replace(below, threshold=0.95))) == ""
    assert remarks(policy(RATE, dataclasses.replace(below, split="public", min_samples=500))) == ""


def test_duplicates_are_found() -> None:
    assert "stands twice" in remarks(policy(RATE, RATE))
    assert "demands the same as TWO" in remarks(policy(RATE, dataclasses.replace(RATE, id="TWO")))


def test_untested_rules_are_found() -> None:
    assert "warning: RATE: no case tests it" in remarks(policy(RATE), tested={"STA": {Outcome.PASS, Outcome.DENY}})
    assert "RATE: no case shows what it complains about" in remarks(policy(RATE), tested={"RATE": {Outcome.PASS}})
    assert "RATE: no case shows what passes it" in remarks(policy(RATE), tested={"RATE": {Outcome.DENY}})


SAME = dataclasses.replace(RATE, against="incumbent", threshold=-0.01)
SHORT = Rule("S", "t", "resource.latency_s", "<=", 5.0, quantile=0.95, min_samples=58)


@pytest.mark.parametrize(
    ("rule", "remark"),
    [
        (dataclasses.replace(RATE, threshold=0.99), "200 perfect samples do not prove >= 0.99 with 95% confidence"),
        (dataclasses.replace(RATE, threshold=0.99), "ask for at least 299 samples"),
        (dataclasses.replace(RATE, threshold=1.0), "no number of samples proves it"),
        (dataclasses.replace(RATE, comparator="<=", threshold=0.01), "ask for at least 299 samples"),
        (SHORT, "error: S: 58 perfect samples"),
        (SHORT, "ask for at least 59 samples"),
        (
            SAME,
            "warning: RATE: an adapter that answers exactly like its comparator does not pass >= -0.01 on 200 pairs",
        ),
        (SAME, "268 would do"),
    ],
)
def test_rules_that_cannot_decide_are_found(rule: Rule, remark: str) -> None:
    assert remark in remarks(policy(rule))


def test_what_can_decide_is_left_alone() -> None:
    fine = (
        dataclasses.replace(RATE, threshold=0.98),
        dataclasses.replace(RATE, id="C", threshold=1.0, decide="not_refuted", split="public"),
        Rule("S", "t", "resource.latency_s", "<=", 5.0, quantile=0.95, min_samples=59),
        Rule("M", "t", "resource.peak_memory_bytes", "<=", 5.0),
        dataclasses.replace(RATE, id="Q", against="incumbent", threshold=-0.02),
    )
    assert remarks(policy(*fine)) == ""


def test_a_rule_that_another_makes_idle_is_named() -> None:
    strict = dataclasses.replace(RATE, id="STRICT", threshold=RATE.threshold + 0.01)
    assert "RATE: shadowed: STRICT demands" in remarks(policy(RATE, strict))
    other_side = dataclasses.replace(strict, severity="warn")
    assert "shadowed" not in remarks(policy(RATE, other_side)), "a warning does not stand for a refusal"


def test_a_control_that_the_map_does_not_have_is_named() -> None:
    assert "the control map has no 'OWASP-LLM99:2025'" in remarks(
        policy(dataclasses.replace(RATE, controls=("OWASP-LLM99:2025",)))
    )


def test_a_policy_without_a_static_deny_is_named() -> None:
    assert "gate --static has nothing to judge by" in remarks(dataclasses.replace(RELEASE, rules=(RATE,)))
