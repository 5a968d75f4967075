"""What is taught, by rules that need no model."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.breeder.lessons import ensemble, hardest, made_corpus, mixture
from ecology.contracts.artifact import Corpus
from ecology.errors import ConfigError
from ecology.kernel.canonical import digest, digest_bytes
from ecology.verifier.reference import agrees, gist


@pytest.mark.parametrize(
    ("replies", "choice", "taught"),
    [
        (["7", "8", "8"], "verified_majority", None),  # the majority is wrong
        (["8", "7", "it is 7"], "verified_majority", None),  # in a tie the earliest leads, and it is wrong
        (["7", "8", " 7 "], "verified_majority", "7"),
        (["It makes 7", "7", "9"], "best", "7"),
        (["1", "2"], "best", None),
        (["8", "7"], "first", "8"),
        (["", "7"], "first", None),
        (["", ""], "verified_majority", None),
        (["", "7"], "best", "7"),
    ],
)
def test_the_ensemble(replies: list[str], choice: str, taught: str | None) -> None:
    assert ensemble(replies, "7", choice, agrees, gist) == taught  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(["7", "8", "nine", "7.0", ""]), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_what_is_verified_is_right(replies: list[str]) -> None:
    for choice in ("verified_majority", "best"):
        taught = ensemble(replies, "7", choice, agrees, gist)  # type: ignore[arg-type]
        assert taught is None or agrees(taught, "7")
    if any(agrees(reply, "7") for reply in replies):
        assert ensemble(replies, "7", "best", agrees, gist) is not None


@pytest.mark.parametrize(
    ("reply", "reference", "right"),
    [
        ('{"b":2,"a":1}', '{"a": 1, "b": 2}', True),
        ('{"a":1}', '{"a": 1, "b": 2}', False),
        ("so it is 1,000", "1000", True),
        ("I cannot help with that.", "I'm sorry, but I can't help with that.", True),
        ("Sure!", "I'm sorry, but I can't help with that.", False),
        ("hello, ANN", "Hello, Ann.", True),
        ("NaN", "NaN", True),
    ],
)
def test_the_check_follows_from_the_reference(reply: str, reference: str, right: bool) -> None:
    assert agrees(reply, reference) is right


@given(
    st.dictionaries(st.integers(0, 30), st.sampled_from([0.0, 0.5, 1.0]), min_size=1),
    st.integers(1, 20),
    st.floats(0, 1),
)
@settings(max_examples=80, deadline=None)
def test_the_hardest_come_first(wrong: dict[int, float], count: int, share: float) -> None:
    chosen = hardest(wrong, count, share, 3)
    assert chosen == hardest(wrong, count, share, 3) == tuple(sorted(set(chosen)))
    assert len(chosen) == min(count, len(wrong))
    hard = sorted((v for v in wrong.values() if v > 0), reverse=True)[: round(share * count)]
    assert sum(wrong[i] for i in chosen) >= sum(hard) - 1e-9


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_corpora_have_equal_parts(sizes: list[int], count: int) -> None:
    parts = [[("p", str(i), False) for i in range(size)] for size in sizes]
    chosen = mixture(parts, count, 5)
    assert len(set(chosen)) == len(chosen) == min(count, sum(sizes))
    taken = [sum(1 for place, _ in chosen if place == i) for i in range(len(sizes))]
    for i, size in enumerate(sizes):
        if taken[i] < size:  # one that has more to give is at most one behind any other
            assert max(taken) <= taken[i] + 1


def test_what_was_made_inherits_ban_and_licences() -> None:
    free = Corpus("a", digest("a"), "Apache-2.0", "train", False, 1)
    banned = Corpus("b", digest("b"), "MIT", "train", True, 1)
    corpus, data = made_corpus("made", [("p", "c", False), ("q", "d", True)], [free, banned])
    assert corpus == Corpus("made", digest_bytes(data), "Apache-2.0 AND MIT", "train", True, 2)
    assert [json.loads(line) for line in data.splitlines()] == [
        {"prompt": "p", "completion": "c"},
        {"prompt": "q", "completion": "d", "cut": True},
    ]
    assert not made_corpus("made", [("p", "c", False)], [free])[0].no_train
    with pytest.raises(ConfigError, match="no row is left"):
        made_corpus("made", [], [free])
