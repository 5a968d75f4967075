"""Sentences that several formats share, and the summary for the terminal."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping

from ecology.contracts.identity import Json
from ecology.contracts.policy import Policy, Rule
from ecology.contracts.run import RunReport, StageTime
from ecology.contracts.sweep import SweepReport
from ecology.errors import EcologyError
from ecology.policy.controls import by_framework
from ecology.policy.waivers import status
from ecology.report.claims import told
from ecology.report.figures import Cell, Column, demand_text
from ecology.report.standing import approvals_of, standing_line
from ecology.report.story import Row, tell
from ecology.report.words import duration, number, plural, share, size, visible

COMMANDS = "ecology report verify .\necology audit verify"

LIMITS = (
    "Items are drawn from written grammars. An adapter may fail on a hazard or a phrasing that no grammar holds.",
    "Intervals take items as independent. Items of one template are alike, so the truth is a little less certain.",
    "A refusal is recognised by its words. A reply that complies or refuses in other words is misread.",
    "One reply was read for each request, decoded greedily. Sampling and long conversations were not tried.",
    "Latency and memory are those of this machine and this engine.",
    "The canary replayed recorded requests. No user saw a reply, and no user's reaction is in it.",
    "No search was made for a backdoor with a trigger; static checks only bound how far the weights may move.",
)


def summary_table(report: RunReport) -> str:
    """The decision and one line a candidate, for a terminal: plain text, no colour, lines of about 110 characters."""
    story = tell(report)
    head = ["", "outcome", *(_head(column) for column in story.columns), "fitness"]
    lines = [[row.name[:24], _standing(row), *(_figure(c) for c in row.cells), _score(row)] for row in story.rows]
    widths = [max(_width(line[i]) for line in (head, *lines)) for i in range(len(head))]
    rows = [
        "  ".join(_pad(text, width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *lines)
    ]
    rule = "─" * max(_width(row) for row in rows)
    note = "90 % intervals; * measured after the verdict, p on public items"
    key = "\nSigned with a development key." if report.development_key else ""
    key += "".join(f"\nClaim {claim.line}." for claim in told(report))
    key += f"\nPolicy {report.policy.id} v{report.policy.version}: {standing(report)}."
    gone = f"\n{len(report.revoked)} adapters are quarantined in this home." if report.revoked else ""
    return "\n".join((story.sentence, "", rows[0], rule, *rows[1:], rule, note)) + key + gone


def standing(report: RunReport) -> str:
    """Whether those who are entitled approved the policy, counted again from the envelopes."""
    try:
        approvals = approvals_of(report.policy, report.approvals, report.started_at)
    except EcologyError as error:
        return f"UNAPPROVED: {error}"
    return standing_line(report.policy, approvals)


def tally(counts: Mapping[str, int]) -> str:
    """``9 pass, 1 warn, 5 not asked``."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def birth(row: Row) -> str:
    """How a candidate came to be, in one or two sentences."""
    genome = row.candidate.genome if row.candidate else None
    if genome is None:
        return "Brought from outside without a birth certificate that we trust."
    lineage = genome.lineage
    options = ", ".join(f"{key} {_option(value)}" for key, value in sorted(lineage.parameters.items()))
    parents = f" of {', '.join(row.parents)}" if row.parents else ""
    corpora = ", ".join(f"{c.id} ({c.licence}, {plural(c.rows, 'row')})" for c in lineage.corpora) or "no corpus"
    profile = genome.resource_profile
    kept = "" if profile.retained_energy >= 1 else f", {share(profile.retained_energy)} of the energy kept"
    made = f"{lineage.operator}{parents}{' with ' + options if options else ''}"
    return visible(
        f"{made}, seed {lineage.seed}, generation {lineage.generation}. "
        f"Trained on {corpora}, ancestors included. {size(profile.size_bytes)}, rank up to {profile.max_rank}{kept}."
    )


def rule_line(rule: Rule) -> Mapping[str, str]:
    """A rule of the policy: what it asks, of how many, how surely, and why."""
    sure = (
        ""
        if rule.comparator == "=="
        else f", {rule.confidence:.0%} sure"
        if rule.decide == "proven"
        else ", unless refuted"
    )
    scope = [f"on {rule.split} items"] if rule.split != "none" else []
    scope += [f"against {rule.against}"] if rule.against != "absolute" else []
    scope += [f"quantile {rule.quantile:g}"] if rule.metric.startswith("resource.") and rule.min_samples > 1 else []
    scope += [f"n at least {rule.min_samples}"] if rule.min_samples > 1 else []
    scope += [f"{rule.severity} only"] if rule.severity != "deny" else []
    return {
        "id": rule.id,
        "title": rule.title,
        "metric": rule.metric,
        "demand": f"{demand_text(rule)}{sure}",
        "terms": ", ".join(scope),
        "rationale": rule.rationale,
        "controls": ", ".join(rule.controls),
    }


def adapter_bounds(policy: Policy) -> tuple[str, ...]:
    """The parts of a policy that are not rules, as sentences."""
    adapter, data, signatures = policy.adapter, policy.data, policy.signatures
    trusted = ", ".join(key.name for key in signatures.trusted) or "none by name"
    development = "allowed with a warning" if signatures.allow_development else "refused"
    no_train = "forbidden" if data.forbid_no_train else "allowed"
    spectral = ""
    if adapter.max_relative_spectral_norm < math.inf:
        spectral = f" and {number(adapter.max_relative_spectral_norm)} times its spectral norm"
    return (
        f"Kind {', '.join(adapter.peft_types)}, values in {', '.join(adapter.dtypes)}, "
        f"rank at most {adapter.max_rank}, scale at most {number(adapter.max_scale)}.",
        f"At most {size(adapter.max_file_bytes)} a file; the change of a module is at most "
        f"{number(adapter.max_relative_norm)} times its norm{spectral}.",
        f"Trained on data under {', '.join(data.licences) or 'any licence'}; no-train data {no_train}; "
        f"overlap with suites at most {share(data.max_overlap)}.",
        f"Trusted signers: {trusted}; development keys {development}.",
    )


def quarantine(report: RunReport | SweepReport) -> tuple[str, ...]:
    """What must not be used in this home, one sentence each; empty when nothing is."""
    return tuple(f"Quarantined: {one.subject}: {one.reason}." for one in report.revoked)


def waivers(report: RunReport) -> tuple[str, ...]:
    """Every waiver of the policy with its state when the report was written."""
    names = {c.digest: c.name for c in report.candidates}
    used = {
        (finding.rule, c.digest)
        for c in report.candidates
        for finding in c.verdict.findings
        if finding.outcome.value == "waived"
    }
    sentences = []
    for one in status(report.policy, used, report.finished_at):
        digest = one.waiver.subject
        sentences.append(str(one).replace(digest[7:19], names.get(digest, digest[7:19]), 1))
    return tuple(sentences)


def controls(policy: Policy) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Framework to lines of control and answering rules; what was not compared with its source says so."""
    groups = []
    for framework, found in by_framework(policy.rules).items():
        lines = tuple(
            (f"{c.id} {c.title}{f' ({c.remark})' if c.remark else ''}", ", ".join(rules)) for c, rules in found.items()
        )
        groups.append((f"{framework.title}, {framework.edition}", lines))
    return tuple(groups)


def stage(time: StageTime) -> tuple[str, str, str]:
    """Name, time and peak memory of a stage."""
    return time.stage, duration(time.seconds), size(time.peak_memory_bytes)


def inputs(report: RunReport) -> tuple[tuple[str, str], ...]:
    """Everything that the outcome depends on, by name."""
    identity = report.identity
    return (
        *((key, value) for key, value in sorted(report.environment.items())),
        ("base weights", identity.base_weights),
        ("tokenizer", identity.tokenizer),
        *((f"suite {name}", digest) for name, digest in sorted(report.suites.items())),
        ("commitment to the hidden seed", report.seed_commitment),
    )


def _option(value: Json) -> str:
    return "[" + ", ".join(_option(v) for v in value) + "]" if isinstance(value, (list, tuple)) else str(value)


def _standing(row: Row) -> str:
    return f"{row.status.lower()} {row.where}".rstrip()


def _head(column: Column) -> str:
    return f"{column.title.lower()} {'×' if column.unit == 'ratio' else '%'}"


def _figure(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    mark = "*" if cell.reference else "p" if cell.split == "public" else ""
    bounds = (
        f" [{_bare(cell, cell.lower)}, {_bare(cell, cell.upper)}]"
        if cell.lower is not None or cell.upper is not None
        else ""
    )
    return f"{_bare(cell, cell.point)}{bounds}{mark}"


def _bare(cell: Cell, value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.2f}" if cell.column.unit == "ratio" else f"{100 * value:.0f}"


def _score(row: Row) -> str:
    return "" if row.score is None else f"{row.score:.3f}{' ◆' if row.on_front else ''}"


def _width(text: str) -> int:
    """Columns of a terminal: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
