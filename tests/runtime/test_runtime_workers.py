"""Batches are dealt out evenly, come back in their order, and an error in one is an error of all."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecology.runtime.workers import dealt, side_by_side


def test_the_longest_come_first_and_neighbours_in_length_are_dealt_out() -> None:
    assert dealt([1, 5, 3, 5], 3, 1) == [[1, 3], [2, 0]]
    assert dealt([1, 5, 3, 5], 3, 2) == [[1, 2], [3, 0]]
    assert dealt([], 3, 2) == []


@given(st.lists(st.integers(1, 99), max_size=40), st.integers(1, 9), st.integers(1, 4))
def test_everything_is_dealt_once_and_evenly(lengths: list[int], size: int, workers: int) -> None:
    batches = dealt(lengths, size, workers)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    assert all(0 < len(batch) <= size for batch in batches)
    for start in range(0, len(batches), workers):
        sizes = [len(batch) for batch in batches[start : start + workers]]
        assert max(sizes) - min(sizes) <= 1


def test_results_keep_their_order_and_are_computed_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=30)  # broken unless two batches are worked on at once

    def work(batch: list[int]) -> tuple[int, bool]:
        both.wait()
        return sum(batch), torch.is_inference_mode_enabled()

    assert list(side_by_side(work, [[1, 2], [3]], 2)) == [(3, True), (3, True)]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_error_is_raised(workers: int) -> None:
    def work(batch: list[int]) -> int:
        return 1 // batch[0]

    with pytest.raises(ZeroDivisionError):
        list(side_by_side(work, [[1], [0], [2], [3], [0]], workers))
