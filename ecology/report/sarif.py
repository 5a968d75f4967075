"""SARIF 2.1.0: each rule that was put to an adapter is a result, so that code scanning shows why one was refused.

DENY and INCONCLUSIVE are errors, WARN a warning; what passed is a result of kind ``pass`` and what was not asked one of
kind ``notApplicable``, both of level ``none`` as the standard demands. A waived violation stays a failure and carries a
suppression with who waived it, so that it can be seen and counted.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0 plus Errata 01, sections 3.27.9,
3.27.10, 3.27.23 and 3.35.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

import ecology
from ecology.contracts.identity import Json
from ecology.contracts.policy import Finding, Outcome, Policy
from ecology.kernel.canonical import digest
from ecology.kernel.verdicts import asked
from ecology.report.gated import Judged
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
    rules: list[Json] = [
        {
            "id": rule.id,
            "name": rule.metric,
            "shortDescription": {"text": visible(rule.title)},
            "fullDescription": {"text": visible(rule.rationale or rule.title)},
            "defaultConfiguration": {"level": DEFAULTS[rule.severity]},
            "properties": {
                "tags": [visible(control) for control in dict.fromkeys(rule.controls)],
                "metric": rule.metric,
            },
        }
        for rule in policy.rules
    ]
    rules += [{"id": name, "shortDescription": {"text": visible(f.title)}} for name, f in extra.items()]
    results = [_result(one, finding, index[finding.rule]) for one in judged for finding in one.verdict.findings]
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


def _result(one: Judged, finding: Finding, index: int) -> Json:
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
        "partialFingerprints": {"ruleAndAdapter/v1": digest([finding.rule, one.path])[7:39]},
        "properties": {"subject": one.verdict.subject, "outcome": finding.outcome.value, "demand": finding.demand},
    }
    if finding.outcome is Outcome.WAIVED:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": visible(finding.reason)}]
    return result


def location(path: str) -> str:
    """The adapter's configuration file as a URI reference, which is where a reader of the change finds it."""
    return quote(f"{path.rstrip('/')}/adapter_config.json")
