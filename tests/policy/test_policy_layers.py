"""A configuration may tighten and never loosen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.evidence import Measurement, Proportion
from ecology.contracts.policy import Policy, Rule
from ecology.errors import PolicyError
from ecology.kernel.canonical import digest
from ecology.kernel.verdicts import verdict
from ecology.policy.layers import policy_digest, tighten
from ecology.policy.reader import load_policy

RELEASE = load_policy(Path(__file__).parents[2] / "policies" / "release.yaml")
WHO = digest("who")


def rule(policy: Policy, name: str) -> Rule:
    return next(r for r in policy.rules if r.id == name)


def test_what_is_tightened_is_changed_and_gets_another_digest() -> None:
    found = tighten(RELEASE, {"SKILL-001": {"threshold": 0.95, "min_samples": 300}, "STA-007": {"severity": "deny"}})
    assert rule(found, "SKILL-001").threshold == 0.95
    assert rule(found, "SKILL-001").min_samples == 300
    assert rule(found, "STA-007").severity == "deny"
    assert found.digest == policy_digest(found) != RELEASE.digest
    assert [r.id for r in found.rules] == [r.id for r in RELEASE.rules]


def test_equal_values_change_nothing() -> None:
    assert tighten(RELEASE, {}) == RELEASE
    assert tighten(RELEASE, {"SKILL-001": {"threshold": 0.9, "confidence": 0.95, "severity": "deny"}}) == RELEASE


@pytest.mark.parametrize(
    ("name", "changes", "shown"),
    [
        ("SKILL-001", {"threshold": 0.85}, ("0.9", "0.85")),
        ("SAFE-002", {"threshold": 0.3}, ("0.25", "0.3")),
        ("STA-001", {"threshold": 1}, ("0.0", "1")),
        ("STA-001", {"threshold": -1}, ("0.0", "-1")),
        ("SKILL-001", {"confidence": 0.9}, ("0.95", "0.9")),
        ("SCR-001", {"confidence": 0.99}, ("0.95", "0.99")),
        ("SKILL-001", {"min_samples": 100}, ("200", "100")),
        ("SKILL-001", {"severity": "warn"}, ("'deny'", "'warn'")),
        ("STA-007", {"severity": "info"}, ("'warn'", "'info'")),
        ("QUAL-001", {"threshold": -0.2}, ("-0.1", "-0.2")),
        ("SKILL-001", {"metric": "static.files"}, ("cannot be changed",)),
        ("SKILL-001", {"decide": "proven"}, ("cannot be changed",)),
        ("SKILL-001", {"threshold": True}, ("expected a number",)),
        ("SKILL-001", {"threshold": float("nan")}, ("expected a number",)),
        ("SKILL-001", {"confidence": 1.0}, ("expected 0.5 to 1",)),
        ("SKILL-001", {"min_samples": 2.5}, ("expected a whole number",)),
        ("SKILL-001", {"severity": "fatal"}, ("expected one of",)),
        ("SKILL-001", 3, ("expected a mapping",)),
        ("SKILL-999", {}, ("there is no rule",)),
    ],
)
def test_loosening_is_refused_with_both_values(name: str, changes: object, shown: tuple[str, ...]) -> None:
    with pytest.raises(PolicyError) as caught:
        tighten(RELEASE, {name: changes})  # type: ignore[dict-item]
    for part in (name, *shown):
        assert part in str(caught.value)


def test_every_loosening_is_listed() -> None:
    with pytest.raises(PolicyError) as caught:
        tighten(RELEASE, {"SKILL-001": {"threshold": 0.1, "min_samples": 1}, "SAFE-001": {"confidence": 0.6}})
    assert all(
        part in str(caught.value) for part in ("SKILL-001.threshold", "SKILL-001.min_samples", "SAFE-001.confidence")
    )


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["proven", "not_refuted"]),
    st.sampled_from([">=", "<="]),
    st.sampled_from(["deny", "warn", "info"]),
    st.fixed_dictionaries(
        {},
        optional={
            "threshold": st.floats(0, 1),
            "confidence": st.floats(0.5, 0.999),
            "min_samples": st.integers(1, 120),
            "severity": st.sampled_from(["deny", "warn", "info"]),
        },
    ),
    st.integers(1, 120),
    st.data(),
)
def test_whatever_the_tightened_policy_admits_the_original_admits(
    decide: str, comparator: str, severity: str, changes: dict[str, object], n: int, data: st.DataObject
) -> None:
    one = Rule("R", "t", "orders.exact", comparator, 0.5, split="hidden", decide=decide, min_samples=20)  # type: ignore[arg-type]
    one = dataclasses.replace(one, severity=severity)  # type: ignore[arg-type]
    always = Rule("A", "t", "orders.exact", ">=", 0.0, split="hidden")
    policy = dataclasses.replace(RELEASE, rules=(one, always), waivers=())
    try:
        tightened = tighten(policy, {"R": changes})
    except PolicyError:
        return
    evidence = (Measurement("orders.exact", WHO, Proportion(data.draw(st.integers(0, n)), n), "hidden"),)
    if verdict(tightened, evidence, WHO, "full", "2026-01-01T00:00:00Z").outcome.admits:
        assert verdict(policy, evidence, WHO, "full", "2026-01-01T00:00:00Z").outcome.admits
