"""``policy review --html``: one self-contained page about a policy that a reviewer would rather look at than the YAML.

What the decision needs comes first: is it approved, what did change, whom would it have refused or let in. Then the
rules in
plain words, grouped by what they are about, each with its tests drawn as a row of marks; then bounds, waivers and
approvals. No script, nothing from elsewhere; the same policy, evidence and instant give the same bytes.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from ecology.contracts.policy import Outcome, Policy, Rule
from ecology.kernel.verdicts import demand
from ecology.policy.controls import by_framework, control_map
from ecology.policy.diff import Difference, summary
from ecology.policy.explain import sentence
from ecology.policy.lint import Remark
from ecology.policy.replay import Replay
from ecology.policy.testing import CaseResult
from ecology.policy.waivers import Standing
from ecology.report import texts
from ecology.report.draw import tag
from ecology.report.standing import standing_line
from ecology.report.words import plural, short, visible
from ecology.signer.approval import Approvals

FOLDER = Path(__file__).parent / "templates"
TOPICS: Sequence[tuple[str, str, str]] = (
    ("static", "What it is", "Asked without a model: files, configuration, tensors, signature, data."),
    ("liveness", "That it works", "Does it apply, exactly, and leave the base as it was?"),
    ("public", "First look", "Few public items, to save the hidden ones for those that can still pass."),
    ("hidden", "What it can do and will not do", "Items that nobody has seen, asked once."),
    ("fresh", "Once more, on items drawn for this alone", "Asked of the winner only."),
    ("resource", "What it costs", "Time, memory and size."),
)
TONES: Mapping[Outcome, str] = {
    Outcome.PASS: "good",
    Outcome.WAIVED: "open",
    Outcome.WARN: "open",
    Outcome.INCONCLUSIVE: "open",
    Outcome.DENY: "bad",
}
KINDS = {"loosened": "bad", "changed": "open", "tightened": "good", "reworded": "plain"}


@dataclasses.dataclass(frozen=True, slots=True)
class Review:
    """Everything that the page shows."""

    policy: Policy
    replaces: Policy | None
    """What it is compared with; None where nothing was named."""
    differences: tuple[Difference, ...]
    replay: Replay
    unstored: int
    results: tuple[CaseResult, ...]
    remarks: tuple[Remark, ...]
    waivers: tuple[Standing, ...]
    refused: tuple[str, ...]
    approvals: Approvals | None
    at: str


def render_review(review: Review) -> bytes:
    """The page, UTF-8."""
    style = (FOLDER / "report.css").read_text("utf-8") + (FOLDER / "review.css").read_text("utf-8")
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = review.policy
    failed = [result for result in review.results if not result.passed]
    approved = review.approvals is not None and review.approvals.met
    page = {
        "review": review,
        "policy": policy,
        "style": Markup(style),
        "style_hash": f"sha256-{hashed}",
        "standing": standing_line(policy, review.approvals),
        "approved": approved,
        "lead": _lead(review, failed),
        "changes": [(d, KINDS[d.kind]) for d in review.differences],
        "summary": summary(review.differences),
        "flips": [(f, "bad" if f.before.admits else "good") for f in review.replay.flips],
        "meter": _meter(review.replay),
        "topics": _topics(review),
        "bounds": (*texts.adapter_bounds(policy), *section_sentences(policy)),
        "layers": _layers(policy),
        "failed": failed,
        "controls": by_framework(policy.rules),
        "map_version": control_map().version,
        "deny": sum(rule.severity == "deny" for rule in policy.rules),
    }
    return _template().render(page=page, short=short).encode("utf-8")


def section_sentences(policy: Policy) -> tuple[str, ...]:
    """Reproduction, resources, canary, waivers and approvals in plain words."""
    found = []
    if limits := policy.reproduction:
        which = f"by {', '.join(limits.operators)}" if limits.operators else "by any operator"
        most = plural(limits.max_parents, "parent")
        found.append(f"Children are bred {which}, of at most {most}, up to generation {limits.max_generation}.")
    if budget := policy.resources:
        most = plural(budget.max_candidates, "candidate")
        found.append(f"A run has at most {most}; at most {budget.max_finalists} are asked the hidden items.")
    if canary := policy.canary:
        found.append(
            f"The canary starts with at most {canary.max_first_weight:.0%} of the traffic and takes at least "
            f"{canary.min_requests} requests, with {plural(canary.min_harmful, 'harmful one')} or more for the "
            f"candidate; it allows {plural(canary.max_alerts, 'safety alert')}, a success rate "
            f"{canary.max_quality_margin:.0%} below the incumbent's and {canary.max_latency_ratio:g} times its "
            f"latency, at an error rate of {canary.max_alpha:.0%}."
        )
    terms = policy.waiver_rules
    if terms is None or not terms.approvers:
        found.append("Nobody may waive a violation.")
    else:
        never = f", never of {', '.join(terms.never)}" if terms.never else ""
        names = ", ".join(key.name for key in terms.approvers)
        found.append(f"A violation may be waived by {names} for at most {plural(terms.max_days, 'day')}{never}.")
    if approvals := policy.approvals:
        names = ", ".join(key.name for key in approvals.approvers)
        effect = {"deny": "refuses every adapter", "warn": "is a warning in every verdict", "info": "is only told"}
        found.append(
            f"{approvals.required} of {names} must have signed it; that they have not {effect[approvals.severity]}."
        )
    return tuple(found)


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """One rule as it is shown."""

    rule: Rule
    words: str
    demand: str
    cases: Markup
    tested: str
    changes: tuple[Difference, ...]
    remarks: tuple[Remark, ...]


def _layers(policy: Policy) -> str:
    """``baseline v1 → release v1``, the outermost first."""
    outer = [f"{layer.id} v{layer.version}" for layer in policy.layers]
    return " → ".join([*outer, f"{policy.id} v{policy.version}"])


def _lead(review: Review, failed: Sequence[CaseResult]) -> str:
    policy = review.policy
    parts = [f"{plural(len(policy.rules), 'rule')} that an adapter must meet"]
    if review.replaces is not None:
        parts.append(f"compared with {review.replaces.id} v{review.replaces.version}: {summary(review.differences)}")
    parts.append(review.replay.sentence)
    count = len(review.results)
    tests = f"{plural(len(failed), 'test')} of {count} failed" if failed else f"all {count} tests hold"
    parts.append(tests if count else "it has no tests")
    return "; ".join(parts) + "."


def _topics(review: Review) -> Sequence[tuple[str, str, Sequence[Shown]]]:
    groups = []
    for key, title, about in TOPICS:
        rules = [rule for rule in review.policy.rules if _topic(rule) == key]
        if rules:
            groups.append((title, about, [_shown(rule, review) for rule in rules]))
    return groups


def _topic(rule: Rule) -> str:
    room = rule.metric.partition(".")[0]
    if room in ("static", "liveness"):
        return room
    return rule.split if rule.split != "none" else "resource"


def _shown(rule: Rule, review: Review) -> Shown:
    cases = [result for result in review.results if rule.id in result.rules]
    marks = []
    for i, result in enumerate(cases):
        title = tag("title", visible(f"{result.name.partition(': ')[2]}: {result.found.value}"))
        seat = {"cx": 7 + 13 * i, "cy": 7, "r": 4.5}
        marks.append(
            tag("circle", title, class_=f"case {TONES[result.found]}{'' if result.passed else ' wrong'}", **seat)
        )
    width = 13 * max(1, len(cases)) + 1
    drawn = tag("svg", *marks, class_="cases", viewBox=f"0 0 {width} 14", width=width, height=14, aria_hidden="true")
    seen = {o: sum(r.expected is o for r in cases) for o in Outcome}
    tested = ", ".join(f"{count} {outcome.value}" for outcome, count in seen.items() if count) or "no case"
    return Shown(
        rule=rule,
        words=sentence(rule),
        demand=demand(rule),
        cases=drawn if cases else Markup(""),
        tested=tested,
        changes=tuple(d for d in review.differences if d.where == rule.id and d.kind != "reworded"),
        remarks=tuple(r for r in review.remarks if r.rule == rule.id),
    )


def _meter(found: Replay) -> Markup:
    """The past verdicts as a bar: as they were, newly refused, newly admitted."""
    if not found.judged:
        return Markup("")
    refused = sum(flip.before.admits for flip in found.flips)
    admitted = len(found.flips) - refused
    parts, x = [], 0.0
    for count, tone in ((found.judged - refused - admitted, "same"), (refused, "bad"), (admitted, "good")):
        wide = 600 * count / found.judged
        if count:
            parts.append(
                tag("rect", x=round(x, 2), y=0, width=round(max(wide, 2), 2), height=14, class_=f"part {tone}")
            )
        x += wide
    return tag(
        "svg",
        *parts,
        class_="meter",
        viewBox="0 0 600 14",
        preserveAspectRatio="none",
        role="img",
        aria_label=found.sentence,
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("review.html.j2")
