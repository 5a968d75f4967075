"""Greedy replies for many prompts at once.

What makes it fast on a CPU, in order of what it saves:

1. The key-value cache has room for the whole reply from the start and hands out views, so a step copies nothing. The
   cache of transformers concatenates: at 64 rows of 100 tokens that is a quarter of a gigabyte a step.
2. Prompts of about the same length share a batch, so little is spent on padding.
3. Rows that have said their end token leave the batch, a quarter of it at a time: leaving copies the cache once.
4. Logits are computed for the last position only.

Padding is on the left and masked, and positions count from the first real token, so a reply does not depend on its
neighbours beyond the rounding of a matrix product of another shape (1e-5 in a logit).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from ecology.contracts.ports import Step

LEAVE_AT = 0.75
"""Finished rows are taken out when at most this share of the batch is still talking."""


class RoomyLayer(DynamicLayer):
    """One layer's keys and values in a buffer with room for the reply; what is handed out is a view of it."""

    def __init__(self, room: int) -> None:
        """Makes an empty layer.

        Args:
            room: Tokens that will be stored at most, prompt included.
        """
        super().__init__()
        self.room = room
        self.length = 0
        self._keys: torch.Tensor
        self._values: torch.Tensor

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocates the buffers when the first keys show their shape."""
        self.dtype, self.device = key_states.dtype, key_states.device
        rows, heads, _, size = key_states.shape
        self._keys = key_states.new_empty((rows, heads, self.room, size))
        self._values = value_states.new_empty((rows, heads, self.room, value_states.shape[-1]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores the new keys and values and returns all of them so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        self._keys[:, :, self.length : end] = key_states
        self._values[:, :, self.length : end] = value_states
        self.length = end
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens stored so far."""
        return self.length

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Drops all rows but these."""
        self._keys, self._values = self._keys.index_select(0, rows), self._values.index_select(0, rows)


def chunks(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices in batches of at most ``size``, longest first, so that the batch that needs most memory fails first."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def left_padded(sequences: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and a mask of the real ones, both of shape (sequences, longest)."""
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), pad, dtype=torch.long)
    real = torch.zeros((len(sequences), longest), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids[row, longest - len(sequence) :] = torch.tensor(sequence, dtype=torch.long)
        real[row, longest - len(sequence) :] = True
    return ids, real


def causal(real: torch.Tensor) -> torch.Tensor:
    """Mask of shape (rows, 1, length, length): a token sees the real ones up to itself; padding sees itself alone."""
    length = real.shape[1]
    past = torch.ones((length, length), dtype=torch.bool).tril()
    # a row of a mask that allows nothing would make the softmax NaN
    return ((past & real[:, None, :]) | torch.eye(length, dtype=torch.bool))[:, None]


@torch.inference_mode()
def greedy(
    model: Any,
    sequences: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: frozenset[int],
    batch_size: int,
    progress: Step | None = None,
) -> tuple[tuple[int, ...], ...]:
    """The most likely continuation of each sequence, token by token.

    Args:
        model: A causal language model of transformers.
        sequences: Token ids, each at least one long.
        max_new_tokens: Longest continuation, at least 1.
        ends: Tokens that end a continuation; they are left out of it. Empty for a fixed length.
        batch_size: Rows at a time.
        progress: Advanced by one for each finished sequence.

    Returns:
        Continuations in the order of ``sequences``.
    """
    replies: list[tuple[int, ...]] = [()] * len(sequences)
    for chosen in chunks([len(s) for s in sequences], batch_size):
        for place, reply in zip(
            chosen, _batch(model, [sequences[i] for i in chosen], max_new_tokens, ends, progress), strict=True
        ):
            replies[place] = reply
    return tuple(replies)


def _batch(
    model: Any, sequences: Sequence[Sequence[int]], max_new_tokens: int, ends: frozenset[int], progress: Step | None
) -> list[tuple[int, ...]]:
    ids, real = left_padded(sequences, pad=0)
    layers = [RoomyLayer(ids.shape[1] + max_new_tokens) for _ in range(model.config.num_hidden_layers)]
    cache = Cache(layers=list(layers))
    positions = (real.cumsum(1) - 1).clamp(min=0)
    logits = model(
        input_ids=ids, attention_mask=causal(real), position_ids=positions, past_key_values=cache, logits_to_keep=1
    ).logits
    said: list[list[int]] = [[] for _ in sequences]
    rows = list(range(len(sequences)))  # which sequence each row of the batch belongs to
    talking = [True] * len(sequences)
    position = positions[:, -1:]
    for step in range(max_new_tokens):
        tokens = logits[:, -1].argmax(-1)
        for row, token in enumerate(tokens.tolist()):
            if not talking[row]:
                continue
            if token not in ends:
                said[rows[row]].append(token)
            if token in ends or step + 1 == max_new_tokens:
                talking[row] = False
                if progress is not None:
                    progress.advance(1)
        if step + 1 == max_new_tokens or not any(talking):
            break
        real = torch.cat([real, real.new_ones((real.shape[0], 1))], dim=1)
        position = position + 1
        if sum(talking) <= LEAVE_AT * len(talking):
            keep = torch.tensor([row for row, talks in enumerate(talking) if talks])
            for layer in layers:
                layer.keep_rows(keep)
            rows, talking = [rows[row] for row in keep.tolist()], [True] * len(keep)
            real, position, tokens = real[keep], position[keep], tokens[keep]
        logits = model(
            input_ids=tokens[:, None],
            attention_mask=real[:, None, None, :],
            position_ids=position,
            past_key_values=cache,
            logits_to_keep=1,
        ).logits
    return [tuple(reply) for reply in said]
