"""A configuration may ask for more than the policy and never for less.

With plain comparators that is decidable: a rule is tightened by a threshold further on its safe side, more samples, a
higher severity, or a confidence that makes it harder to pass. Note the last: for ``proven`` a higher confidence is
stricter; for ``not_refuted`` it is the lower one, because what has to be shown with more confidence is the refusal.

Law, property-tested: whatever evidence the tightened policy admits, the original admits too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import Policy, Rule
from ecology.errors import PolicyError
from ecology.kernel.canonical import digest, plain

SEVERITIES = ("info", "warn", "deny")
"""From lax to strict."""
TIGHTENABLE = ("confidence", "min_samples", "severity", "threshold")


def tighten(policy: Policy, overrides: Mapping[str, Mapping[str, Json]]) -> Policy:
    """The policy with some rules made stricter, under a digest of its own.

    Args:
        policy: What is demanded anyway.
        overrides: Rule id to new values of ``threshold``, ``confidence``, ``min_samples`` or ``severity``.

    Raises:
        PolicyError: An override loosens a rule (both values are shown), names an unknown rule or key, or is of the
            wrong type; all of them are listed.
    """
    mistakes: list[str] = []
    rules = {rule.id: rule for rule in policy.rules}
    for name in overrides:
        if name not in rules:
            mistakes.append(f"there is no rule {name!r}; known: {', '.join(rules)}")
            continue
        changes, wrong = _changes(rules[name], overrides[name])
        mistakes += wrong
        rules[name] = dataclasses.replace(rules[name], **changes)
    if mistakes:
        what = "the configuration may only tighten what the policy demands:\n  " + "\n  ".join(mistakes)
        raise PolicyError(what, where=f"policy {policy.id}", todo="leave the value out to keep the policy's own")
    tightened = dataclasses.replace(policy, rules=tuple(rules[rule.id] for rule in policy.rules))
    return dataclasses.replace(tightened, digest=policy_digest(tightened))


def policy_digest(policy: Policy) -> Digest:
    """Digest of the policy's canonical JSON without its ``digest``."""
    return digest({key: value for key, value in plain(policy).items() if key != "digest"})


def _changes(rule: Rule, wanted: Json) -> tuple[dict[str, Any], list[str]]:
    if not isinstance(wanted, Mapping):
        return {}, [f"{rule.id}: expected a mapping of {', '.join(TIGHTENABLE)}, found {wanted!r:.60}"]
    changes: dict[str, Any] = {}
    mistakes = []
    for key, value in wanted.items():
        if key not in TIGHTENABLE:
            mistakes.append(f"{rule.id}.{key}: cannot be changed; these can: {', '.join(TIGHTENABLE)}")
        elif problem := _type_problem(key, value):
            mistakes.append(f"{rule.id}.{key}: {problem}, found {value!r:.60}")
        elif problem := _loosens(rule, key, value):
            mistakes.append(f"{rule.id}.{key}: the policy says {getattr(rule, key)!r}, {value!r} is {problem}")
        else:
            changes[key] = float(value) if key in ("threshold", "confidence") else value
    return changes, mistakes


def _type_problem(key: str, value: Json) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if key == "severity":
        return "" if value in SEVERITIES else f"expected one of {', '.join(SEVERITIES)}"
    if key == "min_samples":
        return (
            "" if isinstance(value, int) and number and 1 <= value <= 10**9 else "expected a whole number of at least 1"
        )
    if key == "confidence":
        return "" if number and 0.5 <= value < 1 else "expected 0.5 to 1 (not included)"
    return "" if number else "expected a number"


def _loosens(rule: Rule, key: str, value: Any) -> str:
    """In what way the value is laxer than the rule's; empty when it is as strict or stricter."""
    if key == "severity":
        return "laxer" if SEVERITIES.index(value) < SEVERITIES.index(rule.severity) else ""
    lower, higher = value < getattr(rule, key), value > getattr(rule, key)
    if key == "threshold":
        laxer = {">=": lower, "<=": higher, "==": lower or higher}[rule.comparator]
    else:
        laxer = higher if key == "confidence" and rule.decide == "not_refuted" else lower
    if not laxer:
        return ""
    return (
        "laxer: this rule refuses only what is shown with that confidence"
        if higher and key == "confidence"
        else "laxer"
    )
