"""Computes what prompts have in common, on every core at once, and keeps it while an adapter is on.

One long beginning is one row, which would leave all cores but one idle. It is cut into stretches, one a core, and each
layer of a stretch waits for the same layer of the one before, whose keys and values it needs: a pipeline through the
layers, in which a core is never more than a layer behind. Numbers do not depend on who waits for whom.

What is kept belongs to the adapter that is on, and is dropped with it. Where lower layers are shared between adapters
(``trunk``) only the upper ones are computed for the next adapter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache

from ecology.errors import BackendError
from ecology.runtime.prefix import NONE, WORTH_IT, Prefix, RoomyLayer, additive, common
from ecology.runtime.trunk import Reading, Trunk
from ecology.runtime.workers import side_by_side

STRETCH = 64
"""Tokens that a core gets at least: a shorter stretch does not fill its matrix products."""
KEPT = 4
"""Beginnings kept at a time; 400 tokens of a base of 135 million parameters are 18 MB."""

Run = Callable[[slice, torch.Tensor, torch.Tensor, Cache], torch.Tensor]
"""(columns, mask, positions, cache) -> hidden states of these columns, (1, columns, width)."""


class Beginnings:
    """Beginnings of what one adapter is asked; safe to ask again, not safe for threads."""

    def __init__(self, model: Any, trunk: Trunk | None = None, workers: int = 1) -> None:
        """Keeps nothing yet.

        Args:
            model: A causal language model of transformers, with the adapter on.
            trunk: Given where it holds for the weights as they are now.
            workers: Cores.
        """
        self._model, self._trunk, self._workers = model, trunk, workers
        self._kept: dict[tuple[int, ...], Prefix] = {}

    def of(self, sequences: Sequence[Sequence[int]]) -> Prefix:
        """What these sequences have in common, if that pays; at least one token of each is left over."""
        length = common(sequences)
        if length < WORTH_IT or len(sequences) < 2:
            return NONE
        tokens = tuple(sequences[0][:length])
        if tokens not in self._kept:
            if len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[tokens] = Prefix(tokens, self._states(tokens))
        return self._kept[tokens]

    def _states(self, tokens: tuple[int, ...]) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        ids, count = torch.tensor([tokens]), self._model.config.num_hidden_layers
        trunk = self._trunk
        if trunk is None:
            _, states = self._piped(_reads(self._model.base_model, input_ids=ids), len(tokens), count)
            return states
        key = ("beginning", tokens)
        known = trunk.recall([key])
        if known is None:
            hidden, states = self._piped(_reads(trunk.below, input_ids=ids), len(tokens), trunk.cut)
            known = [Reading(hidden[0], *zip(*((k[0], v[0]) for k, v in states), strict=True))]
            trunk.keep([key], known)
        (reading,) = known
        _, upper = self._piped(_reads(trunk.above, inputs_embeds=reading.hidden[None]), len(tokens), count)
        lower = zip(reading.keys, reading.values, strict=True)
        return (*((keys[None], values[None]) for keys, values in lower), *upper[trunk.cut :])

    def _piped(
        self, run: Run, length: int, count: int
    ) -> tuple[torch.Tensor, tuple[tuple[torch.Tensor, torch.Tensor], ...]]:
        """Hidden states, (1, length, width), and keys and values of ``count`` layers; those not run have none."""
        pieces = max(1, min(self._workers, length // STRETCH))
        ends = [length * (piece + 1) // pieces for piece in range(pieces)]
        lanes = [_Lane(length, pieces) for _ in range(count)]

        def read(places: list[int]) -> torch.Tensor:
            (piece,) = places
            start, end = ends[piece - 1] if piece else 0, ends[piece]
            seen = torch.ones((end - start, end), dtype=torch.bool).tril(start)[None, None]
            cache = Cache(layers=[_Stretch(lane, piece, start) for lane in lanes])
            try:
                return run(slice(start, end), additive(seen), torch.arange(start, end)[None], cache)
            except BaseException:
                for lane in lanes:
                    lane.give_up()
                raise

        found = list(side_by_side(read, [[piece] for piece in range(pieces)], pieces))
        return torch.cat(found, dim=1), tuple(lane.stored for lane in lanes)


def _reads(stack: Any, **given: torch.Tensor) -> Run:
    """A stack that reads some columns of its input."""
    ((name, whole),) = given.items()

    def run(columns: slice, mask: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        found: torch.Tensor = stack(
            **{name: whole[:, columns]}, attention_mask=mask, position_ids=positions, past_key_values=cache
        ).last_hidden_state
        return found

    return run


class _Lane:
    """Keys and values of one layer, written by the stretches in turn."""

    def __init__(self, room: int, pieces: int) -> None:
        self._room = room
        self._written = [threading.Event() for _ in range(pieces)]
        self._broken = False
        self._buffers: list[torch.Tensor] = []

    @property
    def stored(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both, (1, heads, length, size); empty where the layer was not run."""
        if not self._buffers:
            return torch.empty(0), torch.empty(0)
        return self._buffers[0], self._buffers[1]

    def write(
        self, piece: int, start: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores a stretch when those before it are there; returns all so far."""
        if piece:
            self._written[piece - 1].wait()
            if self._broken:
                raise BackendError("another stretch of the shared beginning failed")
        else:
            self._buffers = [t.new_empty((*t.shape[:2], self._room, t.shape[3])) for t in (keys, values)]
        end = start + keys.shape[2]
        for buffer, fresh in zip(self._buffers, (keys, values), strict=True):
            buffer[:, :, start:end] = fresh
        self._written[piece].set()
        return self._buffers[0][:, :, :end], self._buffers[1][:, :, :end]

    def give_up(self) -> None:
        """Lets those who wait fail."""
        self._broken = True
        for event in self._written:
            event.set()


class _Stretch(RoomyLayer):  # type: ignore[no-untyped-call]  # transformers has no types
    """One stretch's view of a layer, as transformers wants its caches."""

    def __init__(self, lane: _Lane, piece: int, start: int) -> None:
        super().__init__(0)
        self._lane, self._piece, self.length = lane, piece, start

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores the new keys and values and returns all of them so far."""
        self.is_initialized = True
        self.keys, self.values = self._lane.write(self._piece, self.length, key_states, value_states)
        self.length += key_states.shape[2]
        return self.keys, self.values
