"""SARIF 2.1.0: each rule that was put to an adapter is a result, so that code scanning shows why one was refused.

DENY and INCONCLUSIVE are errors, WARN a warning; what passed is a result of kind ``pass`` and what was not asked one of
kind ``notApplicable``, both of level ``none`` as the standard demands. A waived violation stays a failure and carries a
suppression with who waived it, so that it can be seen and counted.

A result's properties hold what its rule saw as numbers (value, bounds, samples, confidence); its message says the same
in words and, where nothing is decided, how many samples would decide. What a rule could see at all is its help.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0 plus Errata 01, sections 3.27.9,
3.27.10, 3.27.23 and 3.35.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from urllib.parse import quote

import ecology
from ecology.contracts.identity import Json
from ecology.contracts.policy import Finding, Outcome, Policy
from ecology.kernel.canonical import digest
from ecology.kernel.verdicts import asked
from ecology.report.gated import Judged
from ecology.report.sight import sights_by_rule
from ecology.report.words import visible

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {Outcome.DENY: "error", Outcome.INCONCLUSIVE: "error", Outcome.WARN: "warning", Outcome.WAIVED: "error"}
DEFAULTS = {"deny": "error", "warn": "warning", "info": "note"}


def sarif(judged: Sequence[Judged], policy: Policy) -> bytes:
    """Verdicts as a SARIF log, UTF-8. The same verdicts give the same bytes.

    Args:
        judged: Adapters in the order to be shown.
        policy: What they were judged by; its rules are the tool's rules.
    """
    titles = {rule.id: rule.title for rule in policy.rules}
    extra = {f.rule: f for one in judged for f in one.verdict.findings if f.rule not in titles}
    index = {name: i for i, name in enumerate([*titles, *extra])}
    sees = sights_by_rule(policy, [one.verdict for one in judged])
    rules: list[Json] = [
        {
            "id": rule.id,
            "name": rule.metric,
            "shortDescription": {"text": visible(rule.title)},
            "fullDescription": {"text": visible(rule.rationale or rule.title)},
            **({"help": {"text": sees[rule.id]}} if rule.id in sees else {}),
            "defaultConfiguration": {"level": DEFAULTS[rule.severity]},
            "properties": {
                "tags": [visible(control) for control in dict.fromkeys(rule.controls)],
                "metric": rule.metric,
            },
        }
        for rule in policy.rules
    ]
    rules += [{"id": name, "shortDescription": {"text": visible(f.title)}} for name, f in extra.items()]
    results = [_result(one, f, index[f.rule], policy) for one in judged for f in one.verdict.findings]
    log: Json = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "tiny-ecology",
                        "version": ecology.__version__,
                        "rules": rules,
                        "properties": {"policy": f"{policy.id} v{policy.version}", "policyDigest": policy.digest},
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": results,
            }
        ],
    }
    return (json.dumps(log, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode("utf-8")


def _result(one: Judged, finding: Finding, index: int, policy: Policy) -> Json:
    kind, level = "fail", LEVELS.get(finding.outcome, "none")
    if not asked(finding):
        kind, level = "notApplicable", "none"
    elif finding.outcome is Outcome.PASS:
        kind = "pass"
    details = "".join(f"\n{visible(detail)}" for detail in finding.details)
    result: dict[str, Json] = {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "kind": kind,
        "level": level,
        "message": {"text": f"{visible(one.name)}: {visible(finding.title)}: {visible(finding.reason)}{details}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": location(one.path)}}}],
        "partialFingerprints": {"ruleAndAdapter/v1": digest([finding.rule, _utf8(one.path)])[7:39]},
        "properties": {"subject": one.verdict.subject, "outcome": finding.outcome.value, **_seen(finding, policy)},
    }
    if finding.outcome is Outcome.WAIVED:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": visible(finding.reason)}]
    return result


def _seen(finding: Finding, policy: Policy) -> dict[str, Json]:
    """What the rule saw, as numbers; a member is missing where there is none."""
    rule = next((rule for rule in policy.rules if rule.id == finding.rule), None)
    bounded = finding.lower is not None or finding.upper is not None
    numbers: dict[str, Json] = {
        "observed": finding.observed,
        "lower": finding.lower,
        "upper": finding.upper,
        "samples": finding.n or None,
        "confidence": rule.confidence if rule and bounded else None,
    }
    about: dict[str, Json] = {"demand": finding.demand, "metric": finding.metric, "split": finding.split}
    return {**about, **{name: value for name, value in numbers.items() if value is not None}}


def _utf8(path: str) -> str:
    """The path itself; of one that is not UTF-8, its URI."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return location(path)
    return path


def location(path: str) -> str:
    """The adapter's configuration file as a URI reference, which is where a reader of the change finds it.

    What is not UTF-8 in the path is percent-encoded octet by octet (RFC 3986, section 2.1).
    """
    return quote(os.fsencode(f"{path.rstrip('/')}/adapter_config.json"))
