"""What a report tells, computed once for every format.

The order is that of a reader with little time: the decision in one sentence, who was there and how they did, then
why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from ecology.contracts.policy import Finding, Outcome
from ecology.contracts.run import NOT_A_FINALIST, CandidateReport, RunReport
from ecology.kernel.verdicts import asked, headline
from ecology.report.figures import COLUMNS, Cell, Column, Tone, cells_of
from ecology.report.words import plural, short, visible

RUNGS = ("static", "liveness", "screen", "hidden", "resources")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison table."""

    name: str
    digest: str
    group: Literal["base", "founder", "child"]
    status: str
    tone: Tone
    why: str
    """The finding that decided; empty for the admitted and for the base."""
    rule: str
    """Id of the rule that decided; empty as ``why``."""
    cells: tuple[Cell | None, ...]
    score: float | None
    on_front: bool
    operator: str
    parents: tuple[str, ...]
    generation: int
    candidate: CandidateReport | None

    @property
    def where(self) -> str:
        """``at hidden``: the rung that stopped it; empty where none did."""
        rung = self.candidate.rung if self.candidate else ""
        return f"at {visible(rung)}" if rung not in {"", NOT_A_FINALIST} else ""

    @property
    def slug(self) -> str:
        """Anchor in the page."""
        return f"c-{short(self.digest)}"


@dataclasses.dataclass(frozen=True, slots=True)
class Story:
    """Everything a renderer needs."""

    report: RunReport
    sentence: str
    tone: Tone
    rows: tuple[Row, ...]
    """Base, founders in their order, children: admitted first by score, then by how far they came."""
    columns: tuple[Column, ...]
    """Those with at least one figure."""
    unmeasured: tuple[str, ...]
    names: Mapping[str, str]
    """Digest -> name."""

    @property
    def admitted(self) -> tuple[Row, ...]:
        """Candidates that passed the whole ladder."""
        return tuple(row for row in self.rows if row.candidate is not None and not row.candidate.rung)

    @property
    def refused(self) -> tuple[Row, ...]:
        """Candidates that did not."""
        return tuple(row for row in self.rows if row.candidate is not None and row.candidate.rung)


def tell(report: RunReport) -> Story:
    """The story of one run."""
    names: dict[str, str] = {c.digest: visible(c.name) for c in report.candidates}
    names.setdefault(report.identity.base_weights, f"the bare base ({visible(report.base)})")
    base = Row(
        name=visible(report.base),
        digest=report.identity.base_weights,
        group="base",
        status="Base",
        tone="plain",
        why="",
        rule="",
        cells=cells_of(report.base_evidence, (), report.policy),
        score=None,
        on_front=False,
        operator="",
        parents=(),
        generation=0,
        candidate=None,
    )
    rows = [_row(candidate, report, names) for candidate in report.candidates]
    founders = [row for row in rows if row.group == "founder"]
    children = sorted((row for row in rows if row.group == "child"), key=_merit)
    ordered = (base, *founders, *children)
    columns = tuple(c for i, c in enumerate(COLUMNS) if any(row.cells[i] is not None for row in ordered))
    kept = [COLUMNS.index(column) for column in columns]
    ordered = tuple(dataclasses.replace(row, cells=tuple(row.cells[i] for i in kept)) for row in ordered)
    sentence, tone = decision(report, names)
    return Story(report, sentence, tone, ordered, columns, unmeasured(report), names)


def decision(report: RunReport, names: Mapping[str, str]) -> tuple[str, Tone]:
    """The decision in one sentence, and how good the news is."""
    made = report.decision
    alias, previous = visible(made.alias), names.get(made.previous, short(made.previous))
    if made.decision == "promoted":
        winner = next((c for c in report.candidates if c.digest == made.subject), None)
        return (
            f"{names.get(made.subject, short(made.subject))} was promoted to {alias} in place of {previous}"
            f"{_merits(winner, report)}.",
            "good",
        )
    reason = visible(made.reason)
    if made.decision == "held":
        return f"The {alias} stays {names.get(made.subject, short(made.subject))}: {reason}.", "plain"
    if made.decision == "rolled_back":
        tried = report.canary.candidate if report.canary else ""
        who = names.get(tried, short(tried)) or "The candidate"
        return f"{who} was rolled back and the {alias} stays {previous}: {reason}.", "bad"
    return f"Nothing was promoted and the {alias} stays {previous}: {reason}.", "open"


def _merits(winner: CandidateReport | None, report: RunReport) -> str:
    if winner is None:
        return ""
    warnings = sum(f.outcome is Outcome.WARN for f in winner.verdict.findings)
    waived = sum(f.outcome is Outcome.WAIVED for f in winner.verdict.findings)
    notes = [plural(n, word) for n, word in ((warnings, "warning"), (waived, "waiver")) if n]
    admitted = sum(not c.rung for c in report.candidates)
    parts = [f"it met the {plural(len(winner.verdict.findings), 'rule')} of policy {visible(report.policy.id)}"]
    parts[0] += f" with {' and '.join(notes)}" if notes else ""
    parts.append("it was the only one admitted" if admitted == 1 else f"it ranked first of {admitted} admitted")
    if report.canary is not None:
        seen = sum(observation.requests for observation in report.canary.observations)
        parts.append(f"it held up on {seen} replayed requests")
    return f": {_list(parts)}"


def _row(candidate: CandidateReport, report: RunReport, names: Mapping[str, str]) -> Row:
    lineage = candidate.genome.lineage if candidate.genome else None
    status, tone = standing(candidate, report)
    decisive = headline(candidate.verdict)
    return Row(
        name=visible(candidate.name),
        digest=candidate.digest,
        group="child" if lineage and lineage.parents else "founder",
        status=status,
        tone=tone,
        why=f"{decisive.rule}: {visible(decisive.reason)}" if decisive and candidate.rung else "",
        rule=decisive.rule if decisive and candidate.rung else "",
        cells=cells_of(candidate.evidence, candidate.reference, report.policy),
        score=candidate.fitness.score if candidate.fitness else None,
        on_front=bool(candidate.fitness and candidate.fitness.on_front),
        operator=visible(lineage.operator) if lineage else "from outside",
        parents=tuple(names.get(parent, short(parent)) for parent in lineage.parents) if lineage else (),
        generation=lineage.generation if lineage else 0,
        candidate=candidate,
    )


def standing(candidate: CandidateReport, report: RunReport) -> tuple[str, Tone]:
    """A candidate's place in two words at most."""
    if not candidate.rung:
        if candidate.digest == report.decision.subject:
            return ("Promoted", "accent") if report.decision.decision == "promoted" else ("Champion", "accent")
        if report.canary and candidate.digest == report.canary.candidate:
            return ("Rolled back", "bad") if report.canary.decision == "rollback" else ("Held", "open")
        return "Admitted", "good"
    if candidate.rung == NOT_A_FINALIST:
        return "Not a finalist", "open"
    return ("Not proven", "open") if candidate.verdict.outcome is Outcome.INCONCLUSIVE else ("Refused", "bad")


def _merit(row: Row) -> tuple[bool, float, int]:
    rung = row.candidate.rung if row.candidate else ""
    height = RUNGS.index(rung) if rung in RUNGS else len(RUNGS)
    return bool(rung), -(row.score if row.score is not None else float("-inf")), -height


def unmeasured(report: RunReport) -> tuple[str, ...]:
    """What this run did not look at, one sentence each: silence must not read as a pass."""
    sentences = []
    stopped: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for candidate in report.candidates:
        skipped = tuple(f.rule for f in candidate.verdict.findings if not asked(f))
        if skipped:
            stopped.setdefault((candidate.rung, skipped), []).append(visible(candidate.name))
    for (rung, rules), who in stopped.items():
        why = f"stopped at the {rung} rung" if rung else "judged on less than the whole policy"
        why = "not refuted by the screen, and others were likelier to pass" if rung == NOT_A_FINALIST else why
        sentences.append(f"{_list(who)}: {why}, so {plural(len(rules), 'rule')} not asked ({', '.join(rules)}).")
    for candidate in report.candidates:
        missing = [t.name for t in candidate.fitness.terms if t.value is None] if candidate.fitness else []
        if missing:
            sentences.append(f"{visible(candidate.name)}: no evidence for {_list(missing)}, so it is unranked.")
    if report.canary is None:
        sentences.append("No canary was run: nothing here was tried on traffic.")
    return tuple(sentences)


def outcomes(findings: Iterable[Finding]) -> Mapping[str, int]:
    """How many findings of each outcome, best first; the rules not asked are counted apart."""
    counts = {outcome.value: 0 for outcome in Outcome} | {"not asked": 0}
    for finding in findings:
        counts[finding.outcome.value if asked(finding) else "not asked"] += 1
    return {name: count for name, count in counts.items() if count}


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
