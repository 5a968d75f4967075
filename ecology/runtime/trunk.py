"""What the layers that nobody touches make of a prompt is computed once for all adapters.

Adapters here change the last layers of the base alone, so up to the first changed layer every candidate, and the base,
computes the same numbers from the same question. The trunk keeps them: hidden states at the cut, and for replies the
keys and values below it. A second candidate then reads a prompt through the upper layers only. With the upper fifth
adapted that is four fifths of all reading, and of scoring by likelihood; decoding new tokens costs what it did.

The cut is the lowest layer that an adapter changes, and the highest such when adapters differ: one that reaches below
the cut is computed in full. What is kept holds for the base's own weights, which are proven unchanged before each
candidate. Room is limited; what came first stays, because candidates are asked the same items over and over, in the
same order, and throwing out the oldest would throw out what is needed next.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast

from ecology.runtime.prefix import Prefix, RoomyLayer

CUTTABLE = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""``model_type`` whose stack is embedding, equal layers, norm, head, with nothing between."""
ROOM_BYTES = 1 << 30

Place = tuple[int, slice | torch.Tensor]
"""Row of a batch, and the columns in which a sequence stands."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """One sequence as it stands at the cut."""

    hidden: torch.Tensor
    """(tokens, width)."""
    keys: tuple[torch.Tensor, ...]
    """Of each layer below the cut, (heads, tokens, size); empty where nothing will be decoded behind it."""
    values: tuple[torch.Tensor, ...]

    @property
    def size_bytes(self) -> int:
        """What it takes to keep."""
        return sum(t.nbytes for t in (self.hidden, *self.keys, *self.values))


class Trunk:
    """The lower layers of one model, and what they gave before."""

    def __init__(self, model: Any, room_bytes: int = ROOM_BYTES) -> None:
        """Keeps nothing yet.

        Args:
            model: A causal language model of transformers.
            room_bytes: What may be kept.
        """
        self._model = model
        self._room = room_bytes
        self._kept: dict[Hashable, Reading] = {}
        self._used = 0
        self._lock = threading.Lock()
        self.below: Any = None
        """Decoder with the shared layers alone, whose output is not normed."""
        self.above: Any = None
        """Decoder with the other layers, for hidden states in place of tokens."""
        self.cut = 0
        """Layers below it are shared; 0 shares nothing."""

    def serves(self, lowest: int | None) -> bool:
        """Whether an adapter can use the trunk; raises the cut if it allows a higher one.

        Args:
            lowest: First decoder layer that it changes; None for the bare base.
        """
        if not can_be_cut(self._model):
            return False
        if lowest is not None and lowest > self.cut:
            self.cut, self._kept, self._used = lowest, {}, 0
            self.below = stack_part(self._model.base_model, slice(0, lowest), norm=False)
            self.above = stack_part(self._model.base_model, slice(lowest, None))
        return self.cut > 0 and (lowest is None or lowest >= self.cut)

    def recall(self, keys: Sequence[Hashable]) -> list[Reading] | None:
        """What is kept under these keys; None unless all of it is."""
        found = [self._kept.get(key) for key in keys]
        return [reading for reading in found if reading is not None] if None not in found else None

    def keep(self, keys: Sequence[Hashable], readings: Sequence[Reading]) -> None:
        """Keeps as much as there is room for."""
        with self._lock:
            for key, reading in zip(keys, readings, strict=True):
                if key not in self._kept and self._used + reading.size_bytes <= self._room:
                    self._kept[key] = reading
                    self._used += reading.size_bytes

    def read(
        self,
        prefix: Prefix,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        places: Sequence[Place],
        *,
        decode: bool,
    ) -> list[Reading]:
        """Runs the lower layers.

        Args:
            prefix: Shared by all rows.
            ids: (rows, length).
            mask: (rows, 1, length, prefix + length).
            positions: (rows, length).
            places: Where each sequence stands.
            decode: Whether keys and values are wanted; places are slices then.
        """
        rows, length = ids.shape
        layers = prefix.layers(self.cut, rows, len(prefix) + length)
        hidden = self.below(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=Cache(layers=list(layers))
        ).last_hidden_state
        stored = [layer.stored for layer in layers] if decode else []
        readings = []
        for row, columns in places:
            pairs = [(keys[row, :, len(prefix) :], values[row, :, len(prefix) :]) for keys, values in stored]
            readings.append(
                Reading(
                    hidden[row, columns].clone(),
                    tuple(keys[:, columns].clone() for keys, _ in pairs),
                    tuple(values[:, columns].clone() for _, values in pairs),
                )
            )
        return readings

    def go_on(
        self,
        readings: Sequence[Reading],
        places: Sequence[Place],
        mask: torch.Tensor,
        positions: torch.Tensor,
        layers: Sequence[RoomyLayer],
    ) -> torch.Tensor:
        """Runs the upper layers.

        Args:
            readings: One a sequence.
            places: Where each stands.
            mask: As for the whole stack.
            positions: As for the whole stack.
            layers: The cache of the whole stack, with the prefix in it; lower layers are filled from the readings.

        Returns:
            Hidden states behind the last norm, (rows, length, width).
        """
        rows, length = positions.shape
        given = readings[0].hidden.new_zeros((rows, length, readings[0].hidden.shape[1]))
        for reading, (row, columns) in zip(readings, places, strict=True):
            given[row, columns] = reading.hidden
        for number in range(self.cut if readings[0].keys else 0):
            heads, _, size = readings[0].keys[number].shape
            keys = given.new_zeros((rows, heads, length, size))
            values = given.new_zeros((rows, heads, length, readings[0].values[number].shape[2]))
            for reading, (row, columns) in zip(readings, places, strict=True):
                keys[row, :, columns], values[row, :, columns] = reading.keys[number], reading.values[number]
            layers[number].update(keys, values)
        found: torch.Tensor = self.above(
            inputs_embeds=given,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=Cache(layers=list(layers)),
        ).last_hidden_state
        return found


class Head:
    """What a language model makes of hidden states: its head, and whatever the model does to logits besides."""

    def __init__(self, model: Any) -> None:
        """Of a causal language model of transformers; shares its parameters."""
        self._model = _twin(model)
        setattr(self._model, model.base_model_prefix, _Given())

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits, (positions, vocabulary), of hidden states behind the last norm, (positions, width)."""
        found: torch.Tensor = self._model(inputs_embeds=hidden[None]).logits[0]
        return found


class _Given(torch.nn.Module):
    """Stands where a decoder stood and hands on what it is given."""

    def forward(self, inputs_embeds: torch.Tensor, **_: Any) -> BaseModelOutputWithPast:
        """The hidden states, unchanged."""
        return BaseModelOutputWithPast(last_hidden_state=inputs_embeds)


def can_be_cut(model: Any) -> bool:
    """Whether the model's stack can be run in two parts."""
    alike = len(set(getattr(model.config, "layer_types", None) or ("full",))) == 1
    return model.config.model_type in CUTTABLE and alike


def lowest_layer(model: Any, modules: Sequence[torch.nn.Module]) -> int:
    """Index of the first decoder layer that holds one of the modules; the number of layers where none does."""
    wanted = {id(module) for module in modules}
    layers = getattr(model.base_model, "layers", ())
    for number, layer in enumerate(layers):
        if any(id(module) in wanted for module in layer.modules()):
            return number
    return len(layers)


def stack_part(inner: Any, layers: slice, *, norm: bool = True) -> Any:
    """The decoder with a part of its layers, and without its last norm where that part is not the last.

    The parameters are the decoder's own; the decoder itself is left as it is, so others may use it at the same time.
    """
    part = _twin(inner)
    part.layers = inner.layers[layers]
    if not norm:
        part.norm = torch.nn.Identity()
    return part


def with_stack(model: Any, stack: Any) -> Any:
    """The language model with another decoder under the same head."""
    found = _twin(model)
    setattr(found, model.base_model_prefix, stack)
    return found


def _twin(module: Any) -> Any:
    """Another module with the same parts, whose parts can be exchanged."""
    twin = copy.copy(module)
    twin.__dict__["_modules"] = dict(module._modules)
    return twin
