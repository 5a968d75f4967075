"""Claims of a run: tests that nobody was trained on, and what is said when that cannot be shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from ecology.backend.bases import BaseModel
from ecology.contracts.artifact import Corpus, SignedArtifact, Submission
from ecology.contracts.evidence import Count, Item
from ecology.contracts.genome import INTERFACE_VERSION, Genome, Lineage, ResourceProfile
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError
from ecology.evaluator.corpora import Row
from ecology.kernel.canonical import digest
from ecology.pipeline.bench import Bench
from ecology.pipeline.claiming import _draw, evidence_of, make_claims
from ecology.pipeline.house import House
from ecology.pipeline.members import Member
from ecology.pipeline.plan import named_suite
from ecology.pipeline.settings import BackendSettings, ClaimSettings
from ecology.telemetry.clock import SystemClock
from ecology.telemetry.progress import SilentProgress
from ecology.testing.toys import toy_adapter, toy_base

CORPUS = Corpus("learned", digest("learned"), "Apache-2.0", "train", False, 1)
AT_HAND: Mapping[Digest, tuple[Row, ...]] = {CORPUS.digest: (Row("What is 1 + 1?", "2"),)}
SMALL = ClaimSettings(
    adapters=("one", "two", "three"),
    controls=("spare",),
    task="arithmetic",
    items=6,
    better_prompt="{prompt} The number only.",
    neighbour="puzzles",
    neighbour_items=4,
    safety_items=4,
    elsewhere_items=4,
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    home = tmp_path_factory.mktemp("home")
    house = House(home, SystemClock(), SilentProgress())
    return Bench(toy_base(home), BackendSettings(kind="transformers", threads=1, batch_size=16), house)


def member(base: BaseModel, folder: Path, name: str, seed: int, *, signed: bool = True) -> Member:
    artifact = toy_adapter(base, folder / name, seed=seed)
    lineage = Lineage((), "sft", {}, seed, (CORPUS,), 0, {})
    genome = Genome(base.identity, INTERFACE_VERSION, (), lineage, ResourceProfile(1, 1, 1, 1, 1.0))
    own = SignedArtifact(artifact, genome, ()) if signed else None
    return Member(name, Submission(name, str(folder / name), artifact, ()), own, False)


@pytest.fixture(scope="module")
def members(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Member, ...]:
    folder = tmp_path_factory.mktemp("members")
    return tuple(member(bench.base, folder, name, i) for i, name in enumerate(("one", "two", "three", "spare")))


def test_every_arm_is_measured_and_what_is_missing_is_named(bench: Bench, members: tuple[Member, ...]) -> None:
    (claim,) = make_claims({"sums": SMALL}, members, bench, AT_HAND)
    assert claim.evidence.planned == (1, 2, 3)
    assert [seed.subject for seed in claim.evidence.seeds] == [one.digest for one in members[:3]]
    assert claim.standing != "supported"
    open_ones = {c.id: c.reason for c in claim.criteria if c.state == "open"}
    assert "fewer than 6 items: seed 2, 3" in open_ones["seeds"]  # their controls are not there
    assert "disjoint" not in open_ones
    for seed in claim.evidence.seeds:
        assert seed.strict is not None
        assert seed.strict.n == 6
        assert seed.perplexity is not None
        assert seed.perplexity.adapter != seed.perplexity.base
    (again,) = make_claims({"sums": SMALL}, members, bench, AT_HAND)
    assert again == claim


def test_what_a_claim_says_is_evidence_of_each_adapter(bench: Bench, members: tuple[Member, ...]) -> None:
    claims = make_claims({"sums": SMALL}, members, bench, AT_HAND)
    found = evidence_of(claims)
    assert set(found) == {one.digest for one in members[:3]}
    (told,) = found[members[0].digest]
    assert isinstance(told.statistic, Count)
    assert told.statistic.count == sum(c.state == "missed" for c in claims[0].criteria)
    assert told.caveat == claims[0].line


def test_a_corpus_that_is_not_at_hand_shows_nothing(bench: Bench, members: tuple[Member, ...], tmp_path: Path) -> None:
    (claim,) = make_claims({"sums": SMALL}, members, bench, {})
    assert claim.evidence.shared == 6
    assert "disjoint" in {c.id for c in claim.criteria if c.state == "open"}
    stranger = member(bench.base, tmp_path, "one", 9, signed=False)
    (claim,) = make_claims({"sums": dataclasses.replace(SMALL, adapters=("one",), controls=())}, [stranger], bench, {})
    assert claim.evidence.shared == 6


def test_tests_of_two_seeds_have_no_item_in_common_and_none_was_trained_on(bench: Bench) -> None:
    suite, taken = named_suite("arithmetic"), set[str]()
    first = _draw(suite, 40, "a", set(), taken, bench)
    second = _draw(suite, 40, "b", set(), taken, bench)
    assert not {item.id for item in first} & {item.id for item in second}
    trained = {" ".join(_words(item)) for item in first[:5]}
    third = _draw(suite, 40, "a", trained, set(), bench)
    assert not {" ".join(_words(item)) for item in third} & trained
    assert first == _draw(suite, 40, "a", set(), set(), bench)


def _words(item: Item) -> list[str]:
    from ecology.evaluator.copying import words

    return words(item.prompt)


def test_a_suite_that_is_too_small_and_a_stranger_are_errors(bench: Bench, members: tuple[Member, ...]) -> None:
    puzzles = named_suite("puzzles")
    with pytest.raises(ConfigError, match="distinct prompts"):
        _draw(puzzles, 2000, "a", set(), set(), bench)
    taken: set[str] = set()
    _draw(puzzles, 300, "a", set(), taken, bench)
    with pytest.raises(ConfigError, match="distinct prompts"):  # what is left after the first seed is not enough
        _draw(puzzles, 400, "b", set(), taken, bench)
    with pytest.raises(ConfigError, match="nobody in this run is called 'four'"):
        make_claims({"sums": dataclasses.replace(SMALL, adapters=("four",), controls=())}, members, bench, AT_HAND)


@pytest.mark.parametrize(
    "wrong",
    [{"adapters": ()}, {"controls": ("a", "b", "c", "d")}, {"seeds": (1, 1, 2)}, {"seeds": (1,)}, {"items": 0}],
)
def test_settings_that_do_not_belong_together(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(SMALL, **wrong)  # type: ignore[arg-type]
