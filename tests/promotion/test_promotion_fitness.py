"""Ranking: what counts, what does not, and what a missing measurement does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.evidence import Count, Measurement, Paired, Proportion, Samples
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError
from ecology.promotion.archive import archive_key, entries, merge
from ecology.promotion.fitness import FitnessSpec, TermSpec, fitness_spec, rank

ROOT = Path(__file__).parents[2]
SPEC = FitnessSpec(
    "two",
    {
        "quality": TermSpec("orders.exact", "rate", 1.0, split="hidden"),
        "latency": TermSpec("resource.latency_ratio", "median", 0.5, "lower", 1.0, against="base"),
    },
)


def name(letter: str) -> Digest:
    return Digest("sha256:" + letter * 64)


def seen(subject: Digest, k: int, ratios: tuple[float, ...]) -> tuple[Measurement, ...]:
    return (
        Measurement("orders.exact", subject, Proportion(64, 64), "public"),
        Measurement("orders.exact", subject, Proportion(k, 200), "hidden"),
        Measurement("resource.latency_ratio", subject, Samples(ratios, "ratio"), against="base"),
    )


def test_score_is_the_sum_of_weight_times_objective() -> None:
    (one,) = rank({name("a"): seen(name("a"), 150, (1.0, 1.5, 1.2))}, SPEC)
    assert [term.value for term in one.terms] == [0.75, pytest.approx(-0.2)]
    assert one.score == pytest.approx(0.75 - 0.5 * 0.2)
    assert one.on_front


def test_best_first_and_only_the_undominated_on_the_front() -> None:
    found = rank(
        {
            name("a"): seen(name("a"), 150, (1.0,)),
            name("b"): seen(name("b"), 180, (1.1,)),
            name("c"): seen(name("c"), 140, (1.2,)),
        },
        SPEC,
    )
    assert [f.subject for f in found] == [name("b"), name("a"), name("c")]
    assert [f.on_front for f in found] == [True, True, False]


def test_a_missing_metric_leaves_unranked_and_never_zero() -> None:
    found = rank({name("a"): seen(name("a"), 10, (1.0,))[:2], name("b"): seen(name("b"), 1, (9.0,))}, SPEC)
    assert [f.subject for f in found] == [name("b"), name("a")]
    assert found[1].score is None
    assert found[1].terms[1].value is None
    assert not found[1].on_front
    assert found[0].on_front


@pytest.mark.parametrize(
    "statistic", [Proportion(0, 0), Samples((), "ratio"), Samples((math.nan,), "ratio"), Count(0, ()), Paired(0, 0, 0)]
)
def test_an_empty_or_wrong_statistic_is_no_evidence(statistic: Proportion | Samples | Count | Paired) -> None:
    subject = name("a")
    evidence = (
        *seen(subject, 10, (1.0,))[:2],
        Measurement("resource.latency_ratio", subject, statistic, against="base"),
    )
    assert rank({subject: evidence}, SPEC)[0].score is None


def test_evidence_that_contradicts_itself_is_none() -> None:
    subject = name("a")
    assert rank({subject: seen(subject, 10, (1.0,)) * 2}, SPEC)[0].score is not None
    assert rank({subject: seen(subject, 10, (1.0,)) + seen(subject, 11, (1.0,))}, SPEC)[0].score is None


def test_a_term_of_weight_zero_is_shown_and_not_needed() -> None:
    spec = FitnessSpec("t", {**SPEC.terms, "memory": TermSpec("resource.peak_memory_bytes", "maximum", 0.0, "lower")})
    (one,) = rank({name("a"): seen(name("a"), 100, (1.0,))}, spec)
    assert one.score == 0.5
    assert one.terms[2].value is None


def test_no_candidates_no_ranking() -> None:
    assert rank({}, SPEC) == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0.5, 2.0)), min_size=1, max_size=8))
def test_the_front_does_not_depend_on_weights(points: list[tuple[int, float]]) -> None:
    subjects = {name(f"{i:x}"): seen(name(f"{i:x}"), k, (r,)) for i, (k, r) in enumerate(points)}
    heavy = FitnessSpec("h", {k: TermSpec(**{**_fields(t), "weight": 7.0}) for k, t in SPEC.terms.items()})
    assert {f.subject for f in rank(subjects, SPEC) if f.on_front} == {
        f.subject for f in rank(subjects, heavy) if f.on_front
    }
    assert any(f.on_front for f in rank(subjects, SPEC))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0.5, 2.0)), max_size=9), st.integers(0, 9))
def test_archive_laws(points: list[tuple[int, float]], cut: int) -> None:
    subjects = {name(f"{i:x}"): seen(name(f"{i:x}"), k, (r,)) for i, (k, r) in enumerate(points)}
    found = entries(rank(subjects, SPEC), SPEC, name("f"))
    left, right = found[:cut], found[cut:]
    both = merge(merge((), left), right)
    assert both == merge(merge((), right), left) == merge((), found)
    assert merge(both, ()) == both == merge(both, both)
    assert {e.subject for e in both} == {f.subject for f in rank(subjects, SPEC) if f.on_front}


def test_archive_keeps_what_is_not_comparable_apart() -> None:
    other = FitnessSpec("o", {"quality": SPEC.terms["quality"]})
    assert archive_key(other) != archive_key(SPEC)
    reweighted = FitnessSpec("w", {k: TermSpec(**{**_fields(t), "weight": 3.0}) for k, t in SPEC.terms.items()})
    assert archive_key(reweighted) == archive_key(SPEC)
    best = entries(rank({name("a"): seen(name("a"), 200, (0.5,))}, other), other, name("f"))
    worse = entries(rank({name("b"): seen(name("b"), 1, (2.0,))}, SPEC), SPEC, name("f"))
    assert len(merge(best, worse)) == 2
    newer = entries(rank({name("a"): seen(name("a"), 3, (0.5,))}, other), other, name("e"))
    assert merge(best, newer)[0].run == name("e")


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "fitness").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_specs_are_usable(path: Path) -> None:
    fitness_spec(yaml.safe_load(path.read_text(encoding="utf-8")), path.name)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"weight": -1.0}, "below 0"),
        ({"weight": 0.0}, "no term"),
        ({"scale": 0.0}, "not above 0"),
        ({"weight": math.nan}, "below 0"),
        ({"surprise": 1}, "unknown key"),
        ({"summary": "mode"}, "one of"),
    ],
)
def test_a_wrong_spec_is_refused(change: dict[str, object], word: str) -> None:
    term = {"metric": "m", "summary": "rate", "weight": 1.0, **change}
    with pytest.raises(ConfigError, match=word):
        fitness_spec({"title": "t", "terms": {"quality": term}})


def _fields(term: TermSpec) -> dict[str, object]:
    return {field: getattr(term, field) for field in TermSpec.__dataclass_fields__}
