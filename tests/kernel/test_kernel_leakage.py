"""Forbidden text is found however it is cut, shuffled or spelled; nothing else is."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from ecology.kernel.leakage import WORDS, forbidden_ngrams, leaks, ngrams

DIARY = "on the first day of spring we walked to the old mill and counted the swallows under its roof until dark"
FORBIDDEN = forbidden_ngrams([DIARY])
CANARY = "CANARY-GUID-26b5c67b"


def test_a_copy_is_found_in_any_dress() -> None:
    for dress in (DIARY, DIARY.upper(), "x. " + DIARY.replace(" ", ",\n"), DIARY[7:], " ".join(DIARY.split()[:WORDS])):
        assert "shares 13 words" in leaks([dress], FORBIDDEN)[0]
    assert leaks([" ".join(DIARY.split()[: WORDS - 1])], FORBIDDEN) == ()
    assert leaks(["we walked to the old mill", ""], FORBIDDEN) == ()


def test_canaries() -> None:
    assert "canary" in leaks([f"a {CANARY.lower()}b"], frozenset(), [CANARY])[0]
    assert "canary" in leaks(["ＣＡＮＡＲＹ-guid-26B5C67B"], frozenset(), [CANARY])[0]
    assert leaks(["nothing"], frozenset(), ["", "  ", CANARY]) == ()


def test_the_list_of_findings_is_short() -> None:
    assert len(leaks([DIARY] * 1000, FORBIDDEN, ["spring"])) <= 6


@given(st.lists(st.sampled_from(DIARY.split()), max_size=40), st.integers(1, 5))
def test_against_brute_force(words: list[str], n: int) -> None:
    text, forbidden = " ".join(words), forbidden_ngrams([DIARY], n)
    wanted = any(f" {' '.join(words[i : i + n])} " in f" {DIARY} " for i in range(len(words) - n + 1))
    assert bool(leaks([text], forbidden, (), n)) == wanted
    assert len(list(ngrams(text, n))) == max(0, len(words) - n + 1)


def test_rows_in_any_order_give_the_same_answer() -> None:
    rows = ["nothing here", DIARY, "nor here", f"{CANARY}"]
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        assert len(leaks(rows, FORBIDDEN, [CANARY])) == 2
