"""A layer may ask for more than the layers outside it and never for less: organisation, then team, then run.

The organisation's file is extended by the team's (``extends: baseline.yaml``), and the team's by the run's
configuration
(``gate.tighten``). Both go through here: each rule id and each key of each section is compared by itself, by the table
in
``strictness``. Loosening is an error that shows both values.

Law, property-tested: whatever evidence the tightened policy admits, the original admits too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import Layer, Policy, Rule
from ecology.errors import PolicyError
from ecology.kernel.canonical import digest, plain
from ecology.policy.strictness import ADDING, SECTIONS, SEVERITIES, compare_key, compare_rule_key

TIGHTENABLE = ("confidence", "min_samples", "severity", "threshold")
Wrong = tuple[tuple[str, ...], str]
"""Where in the layer, and what is wrong."""


def tighten(policy: Policy, overrides: Mapping[str, Mapping[str, Json]]) -> Policy:
    """The policy with some rules made stricter, under a digest of its own and with the original as a layer.

    Args:
        policy: What is demanded anyway.
        overrides: Rule id to new values of ``threshold``, ``confidence``, ``min_samples`` or ``severity``.

    Raises:
        PolicyError: An override loosens a rule (both values are shown), names an unknown rule or key, or is of the
            wrong type; all of them are listed.
    """
    rules, wrong = tightened_rules(policy, overrides)
    if wrong:
        mistakes = [f"{'.'.join(place)}: {what}" if place[1:] else what for place, what in wrong]
        what = "the configuration may only tighten what the policy demands:\n  " + "\n  ".join(mistakes)
        raise PolicyError(what, where=f"policy {policy.id}", todo="leave the value out to keep the policy's own")
    if rules == policy.rules:
        return policy
    return compiled(dataclasses.replace(policy, rules=rules, layers=(*policy.layers, layer_of(policy))))


def tightened_rules(policy: Policy, overrides: Mapping[str, Json]) -> tuple[tuple[Rule, ...], tuple[Wrong, ...]]:
    """The rules after the overrides, and everything wrong with the overrides."""
    wrong: list[Wrong] = []
    rules = {rule.id: rule for rule in policy.rules}
    for name, wanted in overrides.items():
        if name not in rules:
            wrong.append(((name,), f"there is no rule {name!r}; known: {', '.join(rules)}"))
        elif not isinstance(wanted, Mapping):
            expected = f"expected a mapping of {', '.join(TIGHTENABLE)}"
            wrong.append(((name,), f"{name}: {expected}, found {wanted!r:.60}"))
        else:
            changes = dict(wanted)
            for key, problem in _rule_problems(rules[name], wanted):
                wrong.append(((name, key), problem))
                del changes[key]
            numbers = {k: float(v) for k, v in changes.items() if k in ("threshold", "confidence")}
            rules[name] = dataclasses.replace(rules[name], **{**changes, **numbers})
    return tuple(rules[rule.id] for rule in policy.rules), tuple(wrong)


def tightened_sections(
    policy: Policy, given: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], tuple[Wrong, ...]]:
    """The sections after a layer, and everything in which the layer is laxer.

    Args:
        policy: The outer layers.
        given: Section to the keys that the layer writes, as contract values; others stay as they are.
    """
    sections: dict[str, Any] = {}
    wrong: list[Wrong] = []
    for name, values in given.items():
        outer = getattr(policy, name)
        if outer is None:
            if ADDING.get(name) == "looser" and values.get("approvers"):
                wrong.append(((name,), f"policy {policy.id} has no such section, which is stricter than any"))
            continue
        for key, new in values.items():
            old = getattr(outer, key)
            if compare_key(name, key, old, new) in ("looser", "other"):
                wrong.append(((name, key), f"policy {policy.id} says {_show(old)}, {_show(new)} is laxer"))
        sections[name] = dataclasses.replace(outer, **values)
    return sections, tuple(wrong)


def compiled(policy: Policy) -> Policy:
    """The policy under the digest of what it says."""
    return dataclasses.replace(policy, digest=policy_digest(policy))


def policy_digest(policy: Policy) -> Digest:
    """Digest of the policy's canonical JSON without its ``digest`` and without its waivers.

    A waiver is bound to a rule and an adapter and signed by itself; it comes and goes without a new approval of the
    whole.
    """
    return digest({**{key: value for key, value in plain(policy).items() if key != "digest"}, "waivers": []})


def layer_of(policy: Policy) -> Layer:
    """The policy as a layer of another."""
    return Layer(policy.id, policy.version, policy.digest)


def run_layer(policy: Policy) -> Layer | None:
    """The policy file that a run's configuration tightened; None where the policy is a file's own."""
    last = policy.layers[-1] if policy.layers else None
    return last if last is not None and (last.id, last.version) == (policy.id, policy.version) else None


def _rule_problems(rule: Rule, wanted: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    for key, value in wanted.items():
        if key not in TIGHTENABLE:
            yield key, f"cannot be changed; these can: {', '.join(TIGHTENABLE)}"
        elif problem := _type_problem(key, value):
            yield key, f"{problem}, found {value!r:.60}"
        elif compare_rule_key(rule, key, value) == "looser":
            refuses = key == "confidence" and rule.decide == "not_refuted"
            why = ": this rule refuses only what is shown with that confidence" if refuses else ""
            yield key, f"the policy says {getattr(rule, key)!r}, {value!r} is laxer{why}"


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


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(getattr(item, 'name', str(item)) for item in value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


__all__ = [
    "SECTIONS",
    "TIGHTENABLE",
    "compiled",
    "layer_of",
    "policy_digest",
    "run_layer",
    "tighten",
    "tightened_rules",
    "tightened_sections",
]
