"""``report.html``: one file that opens from disk, for a reader who decides.

No script, no font, no picture from elsewhere, and a content security policy that forbids all of it: the only style
allowed is the one whose hash the page names. Text is escaped by Jinja; what Jinja may pass as it is, our own
drawings, escapes in ``draw``.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from ecology.contracts.policy import Finding, Outcome, Policy
from ecology.contracts.run import RunReport
from ecology.kernel import canonical
from ecology.kernel.verdicts import asked
from ecology.report import texts
from ecology.report.claims import told
from ecology.report.draw import Scale, tag
from ecology.report.figures import Cell, Tone
from ecology.report.lineage import lineage
from ecology.report.measured import measured
from ecology.report.objectives import objectives, ranked
from ecology.report.plane import plane
from ecology.report.sight import confirmation, contamination, races, sights
from ecology.report.story import Row, Story, outcomes, tell
from ecology.report.timeline import timeline
from ecology.report.words import fixed, number, short, visible

FOLDER = Path(__file__).parent / "templates"
TONES: Mapping[Outcome, Tone] = {
    Outcome.PASS: "good",
    Outcome.WAIVED: "open",
    Outcome.WARN: "open",
    Outcome.INCONCLUSIVE: "open",
    Outcome.DENY: "bad",
}
GROUPS = (("base", "Base"), ("founder", "Founders and guests"), ("child", "Children"))
CONTENTS = (
    ("candidates", "Candidates"),
    ("claims", "Is it real?"),
    ("figures", "Pictures"),
    ("ranking", "Ranking"),
    ("canary", "Canary"),
    ("rules", "Rule by rule"),
    ("revoked", "Revoked"),
    ("policy", "Policy"),
    ("limits", "Not measured"),
    ("verify", "Verify"),
    ("origin", "Where it ran"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One finding as it is shown."""

    rule: str
    title: str
    outcome: str
    tone: Tone
    observed: str
    within: str
    n: int
    split: str
    demand: str
    severity: str
    reason: str
    details: tuple[str, ...]


def render_html(report: RunReport) -> bytes:
    """The page, UTF-8. The same report gives the same bytes."""
    story = tell(report)
    style = (FOLDER / "report.css").read_text(encoding="utf-8")
    hashed = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    pictures = {
        "plane": plane(story),
        "objectives": objectives(story),
        "lineage": lineage(story),
        "canary": timeline(story),
    }
    present = {"figures": any(pictures[k] for k in ("plane", "objectives", "lineage")), "ranking": bool(ranked(story))}
    present["claims"] = bool(report.claims)
    present["revoked"] = bool(report.revoked)
    candidates = [row for row in story.rows if row.candidate is not None]
    page = {
        "report": report,
        "story": story,
        "style": Markup(style),
        "style_hash": f"sha256-{hashed}",
        "lead": story.sentence.partition(": ")[0],
        "rest": "".join(story.sentence.partition(": ")[1:]),
        "facts": _facts(story),
        "contents": [(a, t) for a, t in CONTENTS if present.get(a, True)],
        "groups": [(title, rows) for key, title in GROUPS if (rows := [r for r in story.rows if r.group == key])],
        "pictures": pictures,
        "ranked": ranked(story),
        "tried": story.names.get(report.canary.candidate, short(report.canary.candidate)) if report.canary else "",
        "against": story.names.get(report.canary.incumbent, short(report.canary.incumbent)) if report.canary else "",
        "tallies": {row.digest: texts.tally(outcomes(_findings(row))) for row in candidates},
        "births": {row.digest: texts.birth(row) for row in candidates},
        "findings": {row.digest: [_line(f, report.policy) for f in _findings(row)] for row in candidates},
        "rules": [texts.rule_line(rule) for rule in report.policy.rules],
        "bounds": texts.adapter_bounds(report.policy),
        "waivers": texts.waivers(report),
        "revoked": texts.quarantine(report),
        "controls": texts.controls(report.policy),
        "sights": sights(report),
        "confirmation": confirmation(report),
        "contamination": contamination(report),
        "races": races(report),
        "claims": told(report),
        "limits": texts.LIMITS,
        "commands": texts.COMMANDS,
        "checkpoint": Markup(tag("code", *_lines(report.checkpoint))),
        "stages": [texts.stage(stage) for stage in report.stages],
        "inputs": texts.inputs(report),
        "config": Markup(tag("code", *_lines(json.dumps(canonical.plain(report.config), indent=2, sort_keys=True)))),
    }
    text = _template().render(page=page, bar=bar, num=number, fixed=fixed)
    return text.encode("utf-8")


def bar(cell: Cell) -> Markup:
    """A small drawing of a figure: track, interval, point, and a tick at what the policy demands."""
    scale = Scale(0, 1, 4, 100)
    seat: Mapping[str, float | None] = {
        "point": cell.point,
        "low": cell.lower,
        "high": cell.upper,
        "tick": cell.threshold,
    }
    if cell.column.unit == "ratio":  # half as slow to twice as slow, 1 in the middle
        scale = Scale(-1, 1, 4, 100)
        seat = {k: math.log2(max(v, 1e-3)) if v is not None else None for k, v in seat.items()}
    at = {key: scale(value) for key, value in seat.items() if value is not None}
    parts = [tag("line", x1=4, x2=100, y1=6, y2=6, class_="track")]
    if "low" in at and "high" in at:
        parts.append(tag("line", x1=at["low"], x2=at["high"], y1=6, y2=6, class_=f"interval {cell.tone}"))
    if "tick" in at:
        parts.append(tag("line", x1=at["tick"], x2=at["tick"], y1=0, y2=12, class_="threshold"))
    parts.append(tag("circle", cx=at["point"], cy=6, r=3, class_=f"mark {cell.tone} full"))
    return tag("svg", *parts, class_="bar", viewBox="0 0 104 12", aria_hidden="true")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _shown(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _lines(text: str) -> Sequence[str | Markup]:
    """Text for a ``pre``: what is invisible made visible, line breaks kept."""
    return ["\n" if i % 2 else visible(part) for i, part in enumerate(_interleave(text.rstrip("\n").split("\n")))]


def _interleave(lines: Sequence[str]) -> Sequence[str]:
    return [part for line in lines for part in (line, "\n")][:-1]


def _facts(story: Story) -> Sequence[tuple[str, str]]:
    report = story.report
    return (
        ("Candidates", f"{len(story.admitted)} admitted, {len(story.refused)} not"),
        ("Policy", f"{report.policy.id} version {report.policy.version}"),
        ("Approval", texts.standing(report)),
        ("Base", report.base),
        ("Started", _minute(report.started_at)),
        ("Finished", _minute(report.finished_at)),
        ("Run", short(report.run)),
    )


def _minute(instant: str) -> str:
    """``2026-11-22 09:41 UTC`` of an RFC 3339 instant in UTC; anything else as it is."""
    date, sign, time = instant.partition("T")
    return f"{date} {time[:5]} UTC" if sign and time.endswith("Z") else instant


def _findings(row: Row) -> tuple[Finding, ...]:
    return row.candidate.verdict.findings if row.candidate else ()


def _line(finding: Finding, policy: Policy) -> Line:
    skipped, seen = not asked(finding), measured(finding, policy)
    return Line(
        rule=finding.rule,
        title=finding.title,
        outcome="not asked" if skipped else finding.outcome.value,
        tone="plain" if skipped else TONES[finding.outcome],
        observed=seen.observed,
        within=seen.within,
        n=seen.n,
        split=seen.split,
        demand=seen.demand,
        severity=finding.severity,
        reason=finding.reason,
        details=finding.details,
    )
