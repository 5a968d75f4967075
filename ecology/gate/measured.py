"""Answers counted: per-item scores become the sufficient statistics that a rule computes its interval from.

A score that is true or false for each item becomes a ``Proportion``, or ``Paired`` against a comparator's scores of the
same items; a score with values becomes ``Samples``, in the order of the item ids so that the same answers give the same
bytes. Pairs are formed by item id: an item that only one of the two was asked is no pair. Where the items' families are
known, their counts go along, so that a rule may judge by families.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from ecology.contracts.evidence import Against, Count, Evidence, Measurement, Paired, Proportion, Samples, Split
from ecology.contracts.identity import Digest
from ecology.errors import BackendError
from ecology.kernel.statistics import clopper_pearson

Scores = Mapping[str, Mapping[str, bool | float]]
"""Score name to item id to value."""


def proportions(
    subject: Digest,
    suite: str,
    split: Split,
    scores: Scores,
    source: str = "",
    families: Mapping[str, str] | None = None,
) -> Evidence:
    """What a candidate scored on its own.

    Args:
        subject: Who was asked.
        suite: Id of the suite.
        split: Of the items.
        scores: Result of ``CandidateEvaluator.ask``.
        source: Digest of the items asked.
        families: Item id to family; None where nobody knows.

    Returns:
        One measurement a score, sorted by score; none for a score without items, since nothing was measured.

    Raises:
        BackendError: A score mixes true or false with values.
    """
    found = []
    for score in sorted(scores):
        items = sorted(scores[score])
        values = [scores[score][item] for item in items]
        if not values:
            continue
        statistic: Proportion | Samples
        if _binary(f"{suite}.{score}", values):
            found_in = _families(items, families, [(1, int(value)) for value in values])
            statistic = Proportion(sum(map(bool, values)), len(values), families=cast(Any, found_in))
        else:
            statistic = Samples(tuple(map(float, values)), score, families=_numbers(items, families))
        found.append(Measurement(f"{suite}.{score}", subject, statistic, split, source=source))
    return tuple(found)


def compared(
    subject: Digest,
    suite: str,
    split: Split,
    ours: Scores,
    theirs: Scores,
    against: Against,
    comparator: Digest,
    source: str = "",
    floor: float = 0.0,
    families: Mapping[str, str] | None = None,
) -> Evidence:
    """What a candidate scored against somebody else, item by item.

    Args:
        subject: Who is judged.
        suite: Id of the suite.
        split: Of the items.
        ours: The candidate's scores.
        theirs: The comparator's scores.
        against: What the comparator is to the candidate.
        comparator: The comparator's digest.
        source: Digest of the items asked.
        floor: Rate that guessing reaches, 0 to 1. Where neither of the two is shown to be above it, the comparison is
            one of noise with noise and carries a caveat: it can refute and never pass.
        families: Item id to family; None where nobody knows.

    Returns:
        One measurement for each score that both have, sorted by score; none where no item was put to both.

    Raises:
        BackendError: A score mixes true or false with values.
    """
    found = []
    for score in sorted(set(ours) & set(theirs)):
        items = sorted(set(ours[score]) & set(theirs[score]))
        if not items:
            continue
        pairs = [(ours[score][item], theirs[score][item]) for item in items]
        statistic: Paired | Samples
        if _binary(f"{suite}.{score}", [value for pair in pairs for value in pair]):
            won, lost = sum(bool(a) and not b for a, b in pairs), sum(bool(b) and not a for a, b in pairs)
            counts = [(1, int(bool(a) and not b), int(bool(b) and not a)) for a, b in pairs]
            found_in = cast(Any, _families(items, families, counts))
            statistic = Paired(n=len(items), n10=won, n01=lost, families=found_in)
            caveat = no_signal([bool(a) for a, _ in pairs], [bool(b) for _, b in pairs], floor)
        else:
            caveat = ""
            statistic = Samples(
                tuple(float(a) - float(b) for a, b in pairs), f"{score} difference", families=_numbers(items, families)
            )
        found.append(Measurement(f"{suite}.{score}", subject, statistic, split, against, comparator, source, caveat))
    return tuple(found)


def no_signal(ours: Sequence[bool], theirs: Sequence[bool], floor: float) -> str:
    """Why a comparison on these items means nothing; empty where one of the two is above guessing.

    Args:
        ours: The candidate's answers.
        theirs: The comparator's answers to the same items.
        floor: Rate that guessing reaches, 0 to 1; 0 where nothing can be guessed.
    """
    above = [clopper_pearson(sum(one), len(one), 0.95)[0] > floor for one in (ours, theirs) if one]
    if floor <= 0 or any(above):
        return ""
    return (
        f"no signal: neither it ({sum(ours)} of {len(ours)}) nor what it is compared with ({sum(theirs)}) is shown to "
        f"be better than guessing ({floor:.0%})"
    )


def liveness(subject: Digest, failures: Sequence[str], source: str = "liveness/v1") -> Evidence:
    """What an engine found wrong with the adapter at run time.

    Args:
        subject: Who was looked at.
        failures: Result of ``ModelEngine.liveness``, one sentence each.
        source: Name and version of the check.
    """
    return (Measurement("liveness.failures", subject, Count(len(failures), tuple(failures)), source=source),)


def resources(
    subject: Digest,
    base: Digest,
    pairs: Sequence[tuple[float, float]],
    peak_memory_bytes: int | None,
    source: str = "resources/v1",
) -> Evidence:
    """What an adapter costs while it serves.

    Args:
        subject: Who was measured.
        base: Digest of the base that it was timed against.
        pairs: Seconds of (adapter, bare base) for each prompt, from ``ModelEngine.time_turns``.
        peak_memory_bytes: Peak resident memory; None where it was not measured.
        source: Name and version of the measurement.

    Raises:
        BackendError: A time is not above 0.
    """
    if any(not (ours > 0 and theirs > 0) for ours, theirs in pairs):
        raise BackendError("a request that took no time was not measured", where="resource.latency_ratio")
    found = []
    if pairs:
        ratios, seconds = tuple(ours / theirs for ours, theirs in pairs), tuple(ours for ours, _ in pairs)
        ratio = Samples(ratios, "ratio")
        found.append(Measurement("resource.latency_ratio", subject, ratio, "none", "base", base, source))
        found.append(Measurement("resource.latency_s", subject, Samples(seconds, "s"), source=source))
    if peak_memory_bytes is not None:
        peak = Samples((float(peak_memory_bytes),), "bytes")
        found.append(Measurement("resource.peak_memory_bytes", subject, peak, source=source))
    return tuple(found)


def _families(
    items: Sequence[str], families: Mapping[str, str] | None, counts: Sequence[tuple[int, ...]]
) -> tuple[tuple[int, ...], ...]:
    """Counts added up by family, sorted; empty where an item's family is not known."""
    if not families or not all(families.get(item) for item in items):
        return ()
    totals: dict[str, tuple[int, ...]] = {}
    for item, count in zip(items, counts, strict=True):
        known = totals.get(families[item], (0,) * len(count))
        totals[families[item]] = tuple(map(sum, zip(known, count, strict=True)))
    return tuple(sorted(totals.values()))


def _numbers(items: Sequence[str], families: Mapping[str, str] | None) -> tuple[int, ...]:
    """A number for each item's family, in the order in which the families appear; empty where one is not known."""
    if not families or not all(families.get(item) for item in items):
        return ()
    names = list(dict.fromkeys(families[item] for item in items))
    return tuple(names.index(families[item]) for item in items)


def _binary(metric: str, values: Sequence[bool | float]) -> bool:
    kinds = {isinstance(value, bool) for value in values}
    if len(kinds) > 1:
        raise BackendError("an evaluator gave true or false for some items and values for others", where=metric)
    return kinds == {True}
