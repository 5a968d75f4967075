"""Greedy replies for many prompts at once.

What makes it fast on a CPU, in order of what it saves:

1. The key-value cache has room for the whole reply from the start and hands out views, so a step copies nothing. The
   cache of transformers concatenates: at 64 rows of 100 tokens that is a quarter of a gigabyte a step.
2. What all prompts begin with is computed once (``prefix``), and what no adapter changes once for all (``trunk``).
3. Prompts of about the same length share a batch, so little is spent on padding.
4. Rows that have said their end token leave the batch, a quarter of it at a time: leaving copies the cache once.
5. Logits are computed for the last position only.

Padding is on the left and masked, and positions count from the first real token, so a reply does not depend on its
neighbours beyond the rounding of a matrix product of another shape (1e-5 in a logit).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache

from ecology.contracts.ports import Step
from ecology.runtime.beginnings import Beginnings
from ecology.runtime.mixing import Gates
from ecology.runtime.prefix import NONE, Prefix, additive
from ecology.runtime.trunk import Head, Trunk
from ecology.runtime.workers import LockedStep, dealt, side_by_side

LEAVE_AT = 0.75
"""Finished rows are taken out when at most this share of the batch is still talking."""

Done = Callable[[Sequence[int]], bool]
"""Whether a reply, given its tokens so far, is complete; for stop strings."""


def left_padded(sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and a mask of the real ones, both of shape (sequences, longest); padding is token 0."""
    longest = max(map(len, sequences))
    ids = torch.zeros((len(sequences), longest), dtype=torch.long)
    real = torch.zeros((len(sequences), longest), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids[row, longest - len(sequence) :] = torch.tensor(sequence, dtype=torch.long)
        real[row, longest - len(sequence) :] = True
    return ids, real


def causal(real: torch.Tensor, before: int = 0) -> torch.Tensor:
    """Mask of shape (rows, 1, length, before + length): a token sees the real ones up to itself; padding sees itself.

    Args:
        real: Which tokens are no padding, (rows, length).
        before: Tokens of a shared prefix, which all see.
    """
    rows, length = real.shape
    past = torch.ones((length, length), dtype=torch.bool).tril()
    # a row of a mask that allows nothing would make the softmax NaN
    own = (past & real[:, None, :]) | torch.eye(length, dtype=torch.bool)
    return torch.cat([own.new_ones((rows, length, before)), own], dim=2)[:, None]


@torch.inference_mode()
def greedy(
    model: Any,
    sequences: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: frozenset[int],
    batch_size: int,
    progress: Step | None = None,
    done: Done | None = None,
    trunk: Trunk | None = None,
    workers: int = 1,
    beginnings: Beginnings | None = None,
    gates: Gates | None = None,
) -> tuple[tuple[int, ...], ...]:
    """The most likely continuation of each sequence, token by token.

    Args:
        model: A causal language model of transformers.
        sequences: Token ids, each at least one long.
        max_new_tokens: Longest continuation, at least 1.
        ends: Tokens that end a continuation; they are left out of it. Empty for a fixed length.
        batch_size: Rows at a time.
        progress: Advanced by one for each finished sequence.
        done: Asked after each token whether the continuation is complete.
        trunk: Given where it holds for the weights as they are now.
        workers: Batches computed side by side.
        beginnings: What was computed before of the same weights; nothing where none are given.
        gates: Told which sequences the rows of a batch are, where rows belong to different mixtures.

    Returns:
        Continuations in the order of ``sequences``.
    """
    replies: list[tuple[int, ...]] = [()] * len(sequences)
    # mixtures differ in what they make of the same beginning
    prefix = NONE if gates else (beginnings or Beginnings(model, trunk, workers)).of(sequences)
    bar = LockedStep(progress)

    def talk(chosen: list[int]) -> list[tuple[int, ...]]:
        tell = functools.partial(_tell, gates, chosen) if gates else None
        batch = _Batch(model, prefix, [sequences[i][len(prefix) :] for i in chosen], max_new_tokens, trunk, tell)
        return batch.talk(max_new_tokens, ends, bar, done)

    batches = dealt([len(s) for s in sequences], batch_size, workers)
    for chosen, said in zip(batches, side_by_side(talk, batches, workers), strict=True):
        for place, reply in zip(chosen, said, strict=True):
            replies[place] = reply
    return tuple(replies)


def _tell(gates: Gates, chosen: Sequence[int], rows: Sequence[int]) -> None:
    gates.choose([chosen[row] for row in rows])


class _Batch:
    """Sequences that are continued together; rows leave as they finish."""

    def __init__(
        self,
        model: Any,
        prefix: Prefix,
        sequences: Sequence[Sequence[int]],
        max_new_tokens: int,
        trunk: Trunk | None,
        tell: Callable[[Sequence[int]], None] | None,
    ) -> None:
        self._model = model
        self._tell = tell or (lambda _: None)
        self._said: list[list[int]] = [[] for _ in sequences]
        self._rows = list(range(len(sequences)))  # which sequence each row of the batch belongs to
        self._tell(self._rows)
        self._talking = [True] * len(sequences)
        ids, real = left_padded(sequences)
        room = len(prefix) + ids.shape[1] + max_new_tokens
        self._layers = prefix.layers(model.config.num_hidden_layers, len(sequences), room)
        self._cache = Cache(layers=list(self._layers))
        positions = (real.cumsum(1) - 1).clamp(min=0) + len(prefix)
        self._visible = torch.cat([real.new_ones((len(sequences), len(prefix))), real], dim=1)
        self._position = positions[:, -1:]
        mask = additive(causal(real, len(prefix)))
        if trunk is None:
            self._logits = self._forward(ids, mask, positions)
            return
        spans = [(row, slice(ids.shape[1] - len(s), ids.shape[1])) for row, s in enumerate(sequences)]
        keys = [("reply", prefix.tokens, tuple(sequence)) for sequence in sequences]
        readings = trunk.recall(keys)
        if readings is None:
            first = {key: row for row, key in reversed(list(enumerate(keys)))}  # mixtures are asked the same prompts
            rows = sorted(first.values())
            places = [(place, spans[row][1]) for place, row in enumerate(rows)]
            fresh = trunk.read(prefix, ids[rows], mask[rows], positions[rows], places, decode=True)
            trunk.keep([keys[row] for row in rows], fresh)
            found = dict(zip(rows, fresh, strict=True))
            readings = [found[first[key]] for key in keys]
        hidden = trunk.go_on(readings, spans, mask, positions, self._layers)
        self._logits = Head(model)(hidden[:, -1])

    def talk(
        self, max_new_tokens: int, ends: frozenset[int], bar: LockedStep, done: Done | None
    ) -> list[tuple[int, ...]]:
        for step in range(max_new_tokens):
            tokens = self._logits.argmax(-1)
            finished = self._note(tokens.tolist(), ends, done, last=step + 1 == max_new_tokens)
            if finished:
                bar.advance(finished)
            if not any(self._talking):
                break
            self._visible = torch.cat([self._visible, self._visible.new_ones((len(self._rows), 1))], dim=1)
            self._position = self._position + 1
            if sum(self._talking) <= LEAVE_AT * len(self._talking):
                tokens = self._leave(tokens)
            self._logits = self._forward(tokens[:, None], additive(self._visible[:, None, None, :]), self._position)
        return [tuple(reply) for reply in self._said]

    def _note(self, tokens: Sequence[int], ends: frozenset[int], done: Done | None, *, last: bool) -> int:
        """Writes down what each talking row says; returns how many rows that finished."""
        finished = 0
        for row, token in enumerate(tokens):
            if self._talking[row]:
                reply = self._said[self._rows[row]]
                complete = token in ends
                if not complete:
                    reply.append(token)
                    complete = done is not None and done(reply)  # told of every token, the last one too
                if last or complete:
                    self._talking[row] = False
                    finished += 1
        return finished

    def _leave(self, tokens: torch.Tensor) -> torch.Tensor:
        """Takes finished rows out; returns the tokens of those that stay."""
        keep = torch.tensor([row for row, talks in enumerate(self._talking) if talks])
        for layer in self._layers:
            layer.keep_rows(keep)
        self._rows = [self._rows[row] for row in keep.tolist()]
        self._tell(self._rows)
        self._talking = [True] * len(self._rows)
        self._visible, self._position = self._visible[keep], self._position[keep]
        return tokens[keep]

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Logits of the last position, (rows, vocabulary)."""
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits
