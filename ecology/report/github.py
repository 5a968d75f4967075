"""GitHub Actions: one annotation a refusal, a warning or a waiver, and a summary of the step in Markdown.

An annotation says what the rule saw, on how many samples, how sure that is and what would decide; the summary has the
same of every rule that was asked as a table.

An annotation is a workflow command on a line of its own:

    ::error file=adapters/a/adapter_config.json,title=STA-006 A trusted key ...::there are no claims

Everything comes from outside, a folder's name above all, so data are escaped as the runner unescapes them: ``%``,
carriage return and line feed everywhere, ``:`` and ``,`` in properties as well. A name can then never begin another
command.

Source: actions/toolkit, packages/core/src/command.ts (``escapeData``, ``escapeProperty``); GitHub documentation,
"Workflow commands for GitHub Actions", "Adding a job summary".
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from ecology.contracts.policy import Finding, Outcome, Policy
from ecology.kernel.verdicts import asked, headline
from ecology.report.gated import Judged
from ecology.report.measured import measured
from ecology.report.words import visible

COMMANDS = {
    Outcome.DENY: "error",
    Outcome.INCONCLUSIVE: "error",
    Outcome.WARN: "warning",
    Outcome.WAIVED: "notice",
}


def workflow_commands(judged: Sequence[Judged]) -> str:
    """Workflow commands, one a line; passing adapters without a note say so in a ``notice``."""
    lines = []
    for one in judged:
        told = [f for f in one.verdict.findings if asked(f) and f.outcome in COMMANDS]
        lines += [_annotation(one, finding) for finding in told]
        if not told:
            lines.append(_command("notice", one, "passed", f"{one.name} meets every rule that was asked"))
    return "\n".join(lines)


def step_summary(judged: Sequence[Judged], policy: Policy, standing: str, seen: Sequence[str] = ()) -> str:
    """Markdown for ``$GITHUB_STEP_SUMMARY``: a table of adapters, what concerns each, what the rules could see."""
    refused = sum(not one.verdict.outcome.admits for one in judged)
    head = f"{refused} of {len(judged)} refused" if refused else f"{len(judged)} passed"
    lines = [
        f"## {head} under {_cell(policy.id)} v{policy.version}",
        "",
        f"Policy `{policy.digest}`, {_cell(standing)}.",
        "",
        "| adapter | verdict | scope | because |",
        "|---|---|---|---|",
    ]
    for one in judged:
        top = headline(one.verdict)
        why = f"{top.rule} {top.title}: {top.reason}" if top else ""
        mark = "✅" if one.verdict.outcome.admits else "❌"
        lines.append(f"| {_cell(one.name)} | {mark} {one.verdict.outcome.value} | {one.verdict.scope} | {_cell(why)} |")
    for one in judged:
        lines += ["", f"<details><summary>{html.escape(visible(one.name))}</summary>", "", f"`{one.verdict.subject}`"]
        lines += ["", *_saw(one, policy)]
        for finding in one.verdict.findings:
            if not asked(finding) or finding.outcome is Outcome.PASS:
                continue
            lines.append(
                f"- **{finding.outcome.value}** {_cell(finding.rule)} {_cell(finding.title)}: {_cell(finding.reason)}"
            )
            lines += [f"  - {_cell(detail)}" for detail in finding.details]
        lines += ["", "</details>"]
    if seen:
        lines += ["", "<details><summary>What the rules could see</summary>", ""]
        lines += [*(f"- {_cell(sentence)}" for sentence in seen), "", "</details>"]
    return "\n".join(lines) + "\n"


def _saw(one: Judged, policy: Policy) -> list[str]:
    """A table of what every rule saw that was asked."""
    asked_of = [finding for finding in one.verdict.findings if asked(finding)]
    if not asked_of:
        return []
    lines = ["| rule | outcome | observed | interval | n | demanded |", "|---|---|---|---|---|---|"]
    for finding in asked_of:
        saw = measured(finding, policy)
        cells = (f"{finding.rule} {finding.title}", finding.outcome.value, saw.observed, saw.within)
        n = f"{saw.n} {saw.split}".strip() if saw.n else ""
        lines.append(f"| {' | '.join(map(_cell, (*cells, n, saw.demand)))} |")
    return [*lines, ""]


def _annotation(one: Judged, finding: Finding) -> str:
    details = "".join(f"\n{visible(detail)}" for detail in finding.details)
    title = f"{one.name}: {finding.rule} {finding.title}"
    return _command(COMMANDS[finding.outcome], one, title, f"{visible(finding.reason)}{details}")


def _command(name: str, one: Judged, title: str, message: str) -> str:
    file = escape_property(visible(f"{one.path.rstrip('/')}/adapter_config.json"))
    return f"::{name} file={file},title={escape_property(visible(title))}::{escape_data(message)}"


def escape_data(text: str) -> str:
    """As the runner's ``unescapeData`` undoes."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """As the runner's ``unescapeProperty`` undoes."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def _cell(text: str) -> str:
    """Text in a table or a list: no HTML, no Markdown that could change what the reader sees."""
    safe = html.escape(visible(text), quote=False)
    for char in "\\`*_[]|!#~":
        safe = safe.replace(char, f"\\{char}")
    return safe.replace("@", "&#64;")
