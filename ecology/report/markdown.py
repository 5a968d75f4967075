"""``report.md``: the same story in GitHub-flavoured Markdown, for a pull request or a mail."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ecology.contracts.run import RunReport
from ecology.kernel.verdicts import asked
from ecology.report import texts
from ecology.report.claims import told
from ecology.report.figures import Cell
from ecology.report.measured import measured
from ecology.report.objectives import ranked
from ecology.report.sight import confirmation, contamination, races, sights
from ecology.report.story import Row, Story, outcomes, tell
from ecology.report.words import number, short, visible

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#&!$@])")


def render_markdown(report: RunReport) -> bytes:
    """The report, UTF-8. The same report gives the same bytes."""
    story = tell(report)
    parts = [
        f"# {escape(story.sentence)}",
        "> **Development key.** It proves that nothing was changed since, and not who signed."
        if report.development_key
        else "",
        f"Run `{short(report.run)}` ({escape(report.name)}), base {escape(report.base)}, "
        f"policy {escape(report.policy.id)} version {report.policy.version}, "
        f"{report.started_at} to {report.finished_at}. Policy {escape(texts.standing(report))}.",
        "## Candidates",
        _candidates(story),
        "90 % intervals; each end is the one-sided 95 % bound that the gate works with. "
        "*p*: public items, *r*: measured after the verdict, for reference.",
        *_section("## Is the gain real?", [claim.line for claim in told(report)]),
        *_ranking(story),
        *(["## Revoked in this home", _bullets(texts.quarantine(report))] if report.revoked else []),
        "## Canary",
        _canary(story),
        "## Rule by rule",
        *(_rules(row, report) for row in story.rows if row.candidate),
        *_section("## What the rules could see", sights(report)),
        *_section("## What racing saved", races(report)),
        *_section("## The winner on fresh items", confirmation(report)),
        *_section("## Public items against twins", contamination(report)),
        "## What was not measured",
        _bullets(story.unmeasured),
        "What this report cannot tell:",
        _bullets(texts.LIMITS),
        "## How to verify this report",
        f"```\n{texts.COMMANDS}\n```",
        f"Signed by key `{escape(report.signer)}`. Checkpoint of the audit log:",
        "\n".join("    " + visible(line) for line in report.checkpoint.rstrip("\n").split("\n")),
    ]
    return ("\n\n".join(part for part in parts if part) + "\n").encode("utf-8")


def _section(title: str, sentences: Sequence[str]) -> Sequence[str]:
    return (title, _bullets(sentences)) if sentences else ()


def escape(text: str) -> str:
    """Text that Markdown, and the HTML in it, take as text."""
    return _SPECIAL.sub(r"\\\1", visible(text)).replace("://", ":\\//")


def _candidates(story: Story) -> str:
    head = ["Name", "Outcome", *(column.title for column in story.columns), "Fitness"]
    lines = [
        [
            f"**{escape(row.name)}**" if row.tone == "accent" else escape(row.name),
            _standing(row),
            *(_figure(cell) for cell in row.cells),
            "" if row.score is None else number(row.score) + (" (front)" if row.on_front else ""),
        ]
        for row in story.rows
    ]
    return _table(head, lines, right=range(2, len(head)))


def _standing(row: Row) -> str:
    return (
        f"{row.status} {escape(row.where)}" + (f": {escape(row.rule)}" if row.rule else "") if row.where else row.status
    )


def _figure(cell: Cell | None) -> str:
    if cell is None:
        return "not measured"
    note = " *r*" if cell.reference else " *p*" if cell.split == "public" else ""
    return f"{cell.text}<br>{cell.interval}{note}" if cell.interval else cell.text + note


def _ranking(story: Story) -> Sequence[str]:
    rows = ranked(story)
    fitness = rows[0].candidate.fitness if rows and rows[0].candidate else None
    if fitness is None:
        return ()
    head = ["Rank", "Name", "Score", *(f"{escape(t.name)} × {number(t.weight)}" for t in fitness.terms)]
    lines = []
    for place, row in enumerate(rows, start=1):
        terms = row.candidate.fitness.terms if row.candidate and row.candidate.fitness else ()
        shown = ["none" if term.value is None else number(term.value) for term in terms]
        lines.append([str(place), escape(row.name), number(row.score or 0.0), *shown])
    return ("## Ranking", _table(head, lines, right=range(2, len(head))))


def _canary(story: Story) -> str:
    canary = story.report.canary
    if canary is None:
        return "No canary was run: nothing here was tried on traffic."
    who = escape(story.names.get(canary.candidate, short(canary.candidate)))
    against = escape(story.names.get(canary.incumbent, short(canary.incumbent)))
    steps = [
        f"{i}. {o.requests} requests at {o.step.weight:.0%}: {o.decision}, since {escape(o.reason)}."
        for i, o in enumerate(canary.observations, start=1)
    ]
    return f"{who} against {against}: **{canary.decision}**, since {escape(canary.reason)}.\n\n" + "\n".join(steps)


def _rules(row: Row, report: RunReport) -> str:
    findings = row.candidate.verdict.findings if row.candidate else ()
    lines = []
    for finding in findings:
        seen = measured(finding, report.policy)
        lines.append(
            [
                f"{escape(finding.rule)} {escape(finding.title)}",
                finding.outcome.value if asked(finding) else "not asked",
                f"{seen.observed}{f' ({seen.within})' if seen.within else ''}",
                escape(seen.demand),
                str(finding.n or ""),
                escape("; ".join((finding.reason, *finding.details))),
            ]
        )
    table = _table(["Rule", "Outcome", "Observed", "Demand", "n", "Reason"], lines, right=(4,))
    summary = f"{escape(row.name)}: {row.status.lower()} ({texts.tally(outcomes(findings))})"
    born = f"{escape(texts.birth(row))} `{row.digest}`"
    return f"<details><summary>{summary}</summary>\n\n{born}\n\n{table}\n\n</details>"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    marks = ["---:" if i in right else "---" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *lines))


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {escape(sentence)}" for sentence in sentences) or "- Nothing."
