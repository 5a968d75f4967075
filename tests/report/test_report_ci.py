"""What CI systems are given: valid by their own published schemas and grammar, whatever an adapter is called."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from lxml import etree

from ecology.contracts.policy import Finding, Outcome, Waiver
from ecology.contracts.run import RunReport
from ecology.kernel.verdicts import verdict
from ecology.report.gated import Judged
from ecology.report.github import step_summary, workflow_commands
from ecology.report.junit import junit, render_junit
from ecology.report.measured import measured
from ecology.report.sarif import sarif
from ecology.report.sight import sights_by_rule

SCHEMAS = Path(__file__).parents[1] / "schemas"
HOSTILE = "a,b:c\n::error::%0Aowned <script>|`x`\u202egpj"
COMMAND = re.compile(
    r"::(?P<name>error|warning|notice) file=(?P<file>[^,:\r\n]*),title=(?P<title>[^,:\r\n]*)::(?P<data>[^\r\n]*)"
)
"""The runner's own grammar for annotations, with properties that hold no separator unescaped."""


@pytest.fixture
def judged(report: RunReport) -> list[Judged]:
    ordinary = [Judged(c.name, f"adapters/{i}", c.verdict) for i, c in enumerate(report.candidates)]
    return [*ordinary, Judged(HOSTILE, HOSTILE, report.candidates[-1].verdict)]


def test_sarif_is_valid_by_the_schema_of_the_standard(judged: list[Judged], report: RunReport) -> None:
    schema = json.loads((SCHEMAS / "sarif-2.1.0.json").read_bytes())
    data = sarif(judged, report.policy)
    log: dict[str, Any] = json.loads(data)
    jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker()).validate(log)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])
    refused = [
        r for r in run["results"] if r["properties"]["outcome"] in ("deny", "inconclusive") and r["kind"] == "fail"
    ]
    assert refused
    assert {r["level"] for r in refused} == {"error"}
    assert all(r["level"] == "none" for r in run["results"] if r["kind"] != "fail")
    assert sarif(judged, report.policy) == data


def test_a_waived_violation_stays_a_result_and_is_suppressed(report: RunReport) -> None:
    refused = next(c for c in report.candidates if c.verdict.outcome is Outcome.DENY)
    rule = next(
        f.rule for f in refused.verdict.findings if f.outcome is Outcome.DENY and f.metric != "static.signature"
    )
    waiver = Waiver(rule, refused.digest, "known", "ann", "T-9", "2999-01-01T00:00:00Z")
    policy = dataclasses.replace(report.policy, waivers=(waiver,))
    again = verdict(policy, refused.evidence, refused.digest, "full", refused.verdict.decided_at)
    log = json.loads(sarif([Judged("x", "x", again)], policy))
    (result,) = [r for r in log["runs"][0]["results"] if r["ruleId"] == rule]
    assert (result["kind"], result["suppressions"][0]["kind"]) == ("fail", "external")
    assert "ann" in result["suppressions"][0]["justification"]


def test_junit_is_valid_by_the_schema_of_jenkins(judged: list[Judged], report: RunReport) -> None:
    schema = etree.XMLSchema(etree.parse(SCHEMAS / "jenkins-junit.xsd"))
    for data in (render_junit(report), junit([(one.name, one.verdict) for one in judged], "all", report.policy)):
        schema.assertValid(etree.fromstring(data))


def test_every_line_for_github_is_one_command_of_its_grammar(judged: list[Judged]) -> None:
    lines = workflow_commands(judged).split("\n")
    commands = [COMMAND.fullmatch(line) for line in lines]
    assert all(commands), [line for line, found in zip(lines, commands, strict=True) if not found]
    told = sum(
        1 for one in judged for f in one.verdict.findings if f.outcome.value != "pass" and "not asked" not in f.reason
    )
    silent = sum(1 for one in judged if all(f.outcome.value == "pass" for f in one.verdict.findings))
    assert len(lines) == told + silent
    names = {undone(found["title"]).split(":")[0] for found in commands if found}
    assert names >= {"a,b"}, "what was escaped reads as it was"


def undone(text: str) -> str:
    """As the runner's ``unescapeProperty``."""
    for code, char in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(code, char)
    return text


def test_the_step_summary_shows_names_and_executes_nothing(judged: list[Judged], report: RunReport) -> None:
    text = step_summary(judged, report.policy, "UNAPPROVED: nobody")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    adapters = rows[: len(judged) + 1]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in adapters), "a name cannot add a column"
    put = sum("not asked" not in f.reason for one in judged for f in one.verdict.findings)
    assert len(rows) == len(adapters) + len(judged) + put, "of each adapter a head, and a row for each rule asked"
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 7 for row in rows[len(adapters) :])
    assert "<script" not in text
    assert "UNAPPROVED: nobody" in text


def test_every_format_for_ci_says_what_each_rule_saw(report: RunReport) -> None:
    refused = next(c for c in report.candidates if c.verdict.outcome is Outcome.DENY)
    put = [f for f in refused.verdict.findings if f.n and "not asked" not in f.reason]
    sampled = [f for f in put if f.lower is not None]
    assert sampled
    rules = {rule.id: rule for rule in report.policy.rules}
    one = Judged(refused.name, "x", refused.verdict)
    log = json.loads(sarif([one], report.policy))["runs"][0]
    results = {result["ruleId"]: result for result in log["results"]}
    cases = {
        case.get("name", "").split()[0]: case.findtext("system-out") or ""
        for case in etree.fromstring(junit([(one.name, one.verdict)], "all", report.policy)).iter("testcase")
    }
    summary = step_summary([one], report.policy, "UNAPPROVED: nobody").replace("\\", "")
    for finding in put:
        saw = measured(finding, report.policy)
        assert str(saw) in cases[finding.rule]
        assert finding.reason in results[finding.rule]["message"]["text"]
        assert f"| {saw.observed} | {saw.within} |" in summary
        numbers = results[finding.rule]["properties"]
        assert (numbers["observed"], numbers["samples"]) == (finding.observed, finding.n)
        assert (numbers.get("lower"), numbers.get("upper")) == (finding.lower, finding.upper)
    for finding in sampled:
        assert f"n = {finding.n}" in cases[finding.rule]
        assert results[finding.rule]["properties"]["confidence"] == rules[finding.rule].confidence
    helped = {rule["id"] for rule in log["tool"]["driver"]["rules"] if "help" in rule}
    assert helped == set(sights_by_rule(report.policy, [refused.verdict]))


def test_what_was_not_observed_or_has_no_interval_says_so(report: RunReport) -> None:
    finding = Finding("r", "t", "m.x", "none", "deny", Outcome.INCONCLUSIVE, ">= 0.9", None, None, None, 0, "no", ())
    assert str(measured(finding, report.policy)) == "nothing observed; demanded: >= 0.9"
    seen = dataclasses.replace(finding, observed=0.25, lower=0.1, upper=0.4, n=8, split="hidden")
    assert str(measured(seen, report.policy)) == "25.0 % (10.0 to 40.0 %), n = 8 hidden; demanded: >= 0.9"
