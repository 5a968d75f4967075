"""What the ``full`` preset asks on top: was it trained on this, what was not measured, how well does it know itself?

Every answer is evidence like any other: a rule may demand it (``contamination.gap``, ``<suite>.smooth_ece``), and
without a rule it stands in the report. Cells of the coverage matrix carry their state as a caveat, so that a thin
cell, or one at floor, can refute and never pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ecology.contracts.evidence import Count, Evidence, Item, Measurement, Proportion, Samples, Split, Suite
from ecology.contracts.identity import Digest
from ecology.evaluator.calibration import upper_bound
from ecology.evaluator.contamination import canaries, gap_problem, shuffle_problem, twins
from ecology.evaluator.coverage import matrix
from ecology.evaluator.perturb import perturbed
from ecology.evaluator.suites import Row

Scores = Mapping[str, Mapping[str, bool | float]]
Ask = Callable[[Suite, Split, Sequence[Item]], Scores]
"""One candidate's scores on items of a suite."""
Asked = Sequence[tuple[Suite, Sequence[Item], Sequence[Item]]]
"""Suites with their public and their hidden items."""

HEADLINE: Mapping[str, str] = {
    "extraction": "exact",
    "refusal": "refused",
    "choice": "correct",
    "numeric": "correct",
    "instruction": "followed",
    "pair": "stereotyped",
}
"""The score of a kind of suite by which its cells are judged."""
GOOD = frozenset({"extraction", "choice", "numeric", "instruction"})
"""Kinds whose headline is a success; of the others a high rate may be good or bad."""


def contaminated(
    subject: Digest, suites: Asked, seed: Callable[[Digest], str], ask: Ask, corpora: Mapping[Digest, Sequence[Row]]
) -> Evidence:
    """Signs that a candidate was trained on the suites.

    Args:
        subject: Who is asked.
        suites: With their items.
        seed: Secret seed of a suite's twins.
        ask: Asks and scores.
        corpora: Rows of the corpora in its lineage that are at hand.
    """
    gaps, moved = [], []
    for suite, public, _ in suites:
        score = HEADLINE.get(suite.kind, "")
        if suite.kind not in GOOD or not public:
            continue
        plain = ask(suite, "public", public)[score]
        others = twins(suite, seed(suite.digest), len(public))
        if others:
            twin = ask(suite, "hidden", others)[score]
            problem = gap_problem(suite.id, _ordered(plain, public), _ordered(twin, others))
            gaps += [problem] if problem else []
        if suite.kind == "choice":
            turned = [perturbed(item, "options", seed(suite.digest)) for item in public]
            after = ask(suite, "public", turned)[score]
            problem = shuffle_problem(suite.id, _ordered(plain, public), _ordered(after, turned))
            moved += [problem] if problem else []
    marks = canaries(corpora, [suite for suite, *_ in suites])
    return tuple(
        Measurement(f"contamination.{name}", subject, Count(len(found), tuple(found)), "hidden", source=f"{name}/v1")
        for name, found in (("gap", gaps), ("shuffle", moved), ("canary", marks))
    )


def covered_and_calibrated(subject: Digest, suites: Asked, ask: Ask) -> Evidence:
    """The coverage matrix, and the smooth calibration error of suites that keep confidence.

    Args:
        subject: Who is asked.
        suites: With their items.
        ask: Asks and scores.
    """
    scored, calibrated = [], []
    for suite, _, hidden in suites:
        scores = ask(suite, "hidden", hidden) if hidden else {}
        right = scores.get(HEADLINE.get(suite.kind, ""), {})
        if suite.kind in GOOD:
            scored.append((suite, hidden, {name: bool(value) for name, value in right.items()}))
        if sure := scores.get("confidence"):
            ids = sorted(sure)
            bound = upper_bound([float(sure[one]) for one in ids], [bool(right[one]) for one in ids])
            error = Samples((bound,), "smooth ECE, 95 % upper bound")
            calibrated.append(Measurement(f"{suite.id}.smooth_ece", subject, error, "hidden", source="smooth-ece/v1"))
    cells = [
        Measurement(
            f"coverage.{cell.capability}.{cell.difficulty}",
            subject,
            Proportion(cell.k, cell.n),
            "hidden",
            source="coverage/v1",
            caveat="" if cell.state == "measured" else cell.state,
        )
        for cell in matrix(scored)
        if cell.n
    ]
    return (*cells, *calibrated)


def _ordered(values: Mapping[str, bool | float], items: Sequence[Item]) -> list[bool]:
    return [bool(values[item.id]) for item in items]
