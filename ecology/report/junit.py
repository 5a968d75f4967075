"""``junit.xml``: a suite for each candidate, a case for each rule, so that any CI shows why a candidate was refused.

DENY and INCONCLUSIVE are failures, a rule that was not asked is skipped. Every case that was asked says in
``system-out`` what its rule saw: value, interval, number of samples, demand, and why that leads to its outcome. The
suite's own ``system-out`` says what the rules could see with so many samples.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from ecology.contracts.policy import Finding, GateVerdict, Policy
from ecology.contracts.run import RunReport
from ecology.kernel.verdicts import asked
from ecology.report.measured import measured
from ecology.report.sight import rule_sights
from ecology.report.words import visible


def render_junit(report: RunReport) -> bytes:
    """All candidates of a run, UTF-8. The same report gives the same bytes."""
    return junit([(candidate.name, candidate.verdict) for candidate in report.candidates], report.name, report.policy)


def junit(verdicts: Iterable[tuple[str, GateVerdict]], name: str, policy: Policy) -> bytes:
    """Verdicts as JUnit XML, UTF-8; ``ecology gate --format junit`` prints it too.

    Args:
        verdicts: Name and verdict of each candidate, in the order to be shown.
        name: Of the whole.
        policy: What they were judged by.
    """
    root = ET.Element("testsuites", {"name": visible(name)})
    totals = [0, 0, 0]
    for who, verdict in verdicts:
        suite = ET.SubElement(root, "testsuite", {"name": visible(who)})
        counts = [len(verdict.findings), 0, 0]
        properties = ET.SubElement(suite, "properties")
        for key, value in (
            ("subject", verdict.subject),
            ("policy", verdict.policy),
            ("scope", verdict.scope),
            ("outcome", verdict.outcome.value),
        ):
            ET.SubElement(properties, "property", {"name": key, "value": value})
        for finding in verdict.findings:
            failed, skipped = _case(suite, who, finding, policy)
            counts[1] += failed
            counts[2] += skipped
        if seen := rule_sights(policy, [verdict]):
            ET.SubElement(suite, "system-out").text = "\n".join(map(visible, seen))
        for key, count in zip(("tests", "failures", "skipped"), counts, strict=True):
            suite.set(key, str(count))
        suite.set("errors", "0")
        suite.set("timestamp", verdict.decided_at.removesuffix("Z"))
        suite.set("time", "0")
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    for key, count in zip(("tests", "failures"), totals, strict=False):  # the schema allows no sum of those skipped
        root.set(key, str(count))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'.encode()


def _case(suite: ET.Element, who: str, finding: Finding, policy: Policy) -> tuple[bool, bool]:
    """Adds one case; whether it failed, and whether it was skipped."""
    title = visible(f"{finding.rule} {finding.title}")
    case = ET.SubElement(suite, "testcase", {"classname": visible(who), "name": title, "time": "0"})
    reason = visible(finding.reason)
    if not asked(finding):
        ET.SubElement(case, "skipped").text = reason
        return False, True
    details = "\n".join(visible(detail) for detail in finding.details)
    refused = not finding.outcome.admits
    if refused:
        failure = ET.SubElement(case, "failure", {"type": finding.outcome.value, "message": reason})
        failure.text = f"{visible(finding.metric)} must be {visible(finding.demand)}\n{reason}" + (
            f"\n{details}" if details else ""
        )
    told = [str(measured(finding, policy)), *([] if refused else [f"{finding.outcome.value}: {reason}", details])]
    ET.SubElement(case, "system-out").text = "\n".join(filter(None, told))
    return refused, False
