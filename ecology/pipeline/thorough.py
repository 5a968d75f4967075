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
from ecology.evaluator.contamination import canaries, covered_problems, gap_problem, shuffle_problem, twins
from ecology.evaluator.corpora import Row
from ecology.evaluator.coverage import matrix
from ecology.evaluator.perturb import perturbed, worst_of
from ecology.kernel.canonical import digest

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


def told_by_lineage(subject: Digest, suites: Asked, corpora: Mapping[Digest, Sequence[Row]]) -> Evidence:
    """What the corpora in a lineage hold of the suites: canary strings, and items by their runs of words.

    Needs no model, so every finalist is looked at.

    Args:
        subject: Whose lineage it is.
        suites: With their items.
        corpora: Rows of the corpora in it that are at hand.
    """
    marks = canaries(corpora, [suite for suite, *_ in suites])
    held = covered_problems([(suite, (*public, *hidden)) for suite, public, hidden in suites], corpora)
    return tuple(
        Measurement(f"contamination.{name}", subject, Count(len(found), found), "hidden", source=f"{name}/v1")
        for name, found in (("canary", marks), ("covered", held))
    )


def contaminated(subject: Digest, suites: Asked, seed: Callable[[Digest], str], ask: Ask) -> Evidence:
    """Signs in its answers that a candidate was trained on the suites, whatever its lineage says.

    Args:
        subject: Who is asked.
        suites: With their items.
        seed: Secret seed of a suite's twins.
        ask: Asks and scores.

    Returns:
        Of each suite how many twins of its public items were right, and how many items with their options turned; and
        over all suites which of the two differ from the public items by more than is tolerated.
    """
    found: list[Measurement] = []
    gaps, moved = [], []
    for suite, public, _ in suites:
        score = HEADLINE.get(suite.kind, "")
        if suite.kind not in GOOD or not public:
            continue
        plain = ask(suite, "public", public)[score]
        others = twins(suite, seed(suite.digest), len(public))
        if others:
            twin = _ordered(ask(suite, "hidden", others)[score], others)
            problem = gap_problem(suite.id, _ordered(plain, public), twin)
            gaps += [problem] if problem else []
            found.append(_rate(f"{suite.id}.twins", subject, twin))
        if suite.kind == "choice":
            turned = [perturbed(item, "options", seed(suite.digest)) for item in public]
            after = _ordered(ask(suite, "public", turned)[score], turned)
            problem = shuffle_problem(suite.id, _ordered(plain, public), after)
            moved += [problem] if problem else []
            found.append(_rate(f"{suite.id}.shuffled", subject, after))
    return (
        *found,
        *(
            Measurement(f"contamination.{name}", subject, Count(len(why), tuple(why)), "hidden", source=f"{name}/v1")
            for name, why in (("gap", gaps), ("shuffle", moved))
        ),
    )


def steady(subject: Digest, suites: Asked, kinds: Sequence[str], seed: Callable[[Digest], str], ask: Ask) -> Evidence:
    """The same hidden items under every kind of noise: worst of k, and spread, of every suite that has a right answer.

    Args:
        subject: Who is asked.
        suites: With their public items, whose number is asked, and their hidden ones.
        kinds: Names of ``perturb.KINDS``; turned options are for choices alone.
        seed: Secret seed of a suite's noise.
        ask: Asks and scores.
    """
    found: list[Measurement] = []
    for suite, public, hidden in suites:
        named = [kind for kind in kinds if kind != "options" or suite.kind == "choice"]
        plain = hidden[: len(public)]
        if suite.kind == "pair" or not named or not plain:
            continue
        good = suite.grammar.get("expect") != "answer"  # of a look-alike the refusal is the failure
        right: dict[str, list[bool]] = {}
        for kind in named:
            asked = [perturbed(item, kind, seed(suite.digest)) for item in plain]
            scores = _ordered(ask(suite, "hidden", asked)[HEADLINE[suite.kind]], asked)
            right[kind] = [one is good for one in scores]
        robust = worst_of(right)
        source = digest([[item.id for item in plain], named, seed(suite.digest)])
        worst, spread = Proportion(robust.worst, robust.n), Samples((robust.spread,), "rate")
        found.append(Measurement(f"{suite.id}.worst", subject, worst, "hidden", source=source))
        found.append(Measurement(f"{suite.id}.spread", subject, spread, "hidden", source=source))
    return tuple(found)


def _rate(metric: str, subject: Digest, right: Sequence[bool]) -> Measurement:
    return Measurement(metric, subject, Proportion(sum(right), len(right)), "hidden", source="contamination/v1")


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
