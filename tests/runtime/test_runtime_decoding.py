from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecology.runtime.decoding import causal, greedy, left_padded
from ecology.runtime.engine import TransformersEngine
from ecology.runtime.prefix import common

TOKENS = st.lists(st.integers(3, 258), min_size=1, max_size=24)
SLOW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def naive(model: Any, sequence: Sequence[int], new: int, ends: frozenset[int]) -> tuple[int, ...]:
    """One sequence at a time, everything computed again for each token."""
    said: list[int] = []
    for _ in range(new):
        with torch.inference_mode():
            token = int(model(input_ids=torch.tensor([[*sequence, *said]])).logits[0, -1].argmax())
        if token in ends:
            break
        said.append(token)
    return tuple(said)


@SLOW
@given(sequences=st.lists(TOKENS, min_size=1, max_size=7), batch_size=st.integers(1, 5), new=st.integers(1, 6))
def test_batched_replies_are_the_naive_ones(
    engine: TransformersEngine, sequences: list[list[int]], batch_size: int, new: int
) -> None:
    ends = frozenset(range(3, 120))  # many, so that rows leave at different times
    found = greedy(engine.model, sequences, new, ends, batch_size)
    assert found == tuple(naive(engine.model, sequence, new, ends) for sequence in sequences)


def test_a_shared_beginning_changes_nothing(engine: TransformersEngine) -> None:
    start = list(range(10, 40))
    sequences = [start + [50 + i, 60] * (1 + i % 3) for i in range(6)]
    found = greedy(engine.model, sequences, 5, frozenset(), 4)
    assert found == tuple(naive(engine.model, sequence, 5, frozenset()) for sequence in sequences)


def test_a_reply_ends_where_done_says(engine: TransformersEngine) -> None:
    full = greedy(engine.model, [[5, 6, 7]], 6, frozenset(), 1)[0]
    short = greedy(engine.model, [[5, 6, 7]], 6, frozenset(), 1, done=lambda said: len(said) == 2)[0]
    assert short == full[:2]


def test_progress_counts_every_sequence_once(engine: TransformersEngine) -> None:
    class Count:
        done = 0

        def advance(self, amount: int = 1, note: str = "") -> None:
            self.done += amount

    count = Count()
    greedy(engine.model, [[5], [6, 7], [8]], 3, frozenset(range(3, 200)), 2, count)
    assert count.done == 3


def test_masks() -> None:
    ids, real = left_padded([[7], [8, 9]])
    assert ids.tolist() == [[0, 7], [8, 9]]
    assert real.tolist() == [[False, True], [True, True]]
    assert causal(real)[:, 0].int().tolist() == [[[1, 0], [0, 1]], [[1, 0], [1, 1]]]
    assert causal(real, before=1)[1, 0].int().tolist() == [[1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("sequences", "length"),
    [([], 0), ([[1, 2]], 1), ([[1, 2], [1, 2]], 1), ([[1, 2, 3], [1, 2, 4], [1, 2, 3, 5]], 2), ([[1], [2]], 0)],
)
def test_what_sequences_have_in_common_leaves_one_token(sequences: list[list[int]], length: int) -> None:
    assert common(sequences) == length
