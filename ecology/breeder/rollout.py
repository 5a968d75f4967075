"""Samples of a policy: several replies to each prompt, drawn so that they can be drawn again.

What makes them cheap:

1. The samples of one prompt share its prefill: keys and values are computed once a prompt and copied to its rows.
2. Layers below the first adapted one do not depend on the adapter. What they give at the cut is kept for every token,
   so that the gradient step after it reads the upper layers only (``policy_gradient``).
3. Rows that have ended leave the batch.

Draws are by inverse transform from one uniform number a token, which the caller makes from the seed; so a reply does
not depend on how prompts are dealt out to threads, nor on who shares its batch, beyond rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache

from ecology.runtime.prefix import RoomyLayer
from ecology.runtime.trunk import can_be_cut, stack_part, with_stack


@dataclasses.dataclass(frozen=True)
class Policy:
    """A model with an adapter in it, as rollouts and gradients see it."""

    model: Any
    """A causal language model of transformers."""
    ends: frozenset[int]
    """Tokens that end a reply; they belong to it."""
    decode: Callable[[Sequence[int]], str]
    cut: int = 0
    """First decoder layer that depends on the adapter; 0 keeps nothing at the cut."""
    temperature: float = 1.0
    """Logits are divided by it, above 0."""
    below: Any = dataclasses.field(init=False, default=None)
    """The layers under the cut; None where the model is not cut."""
    above: Any = dataclasses.field(init=False, default=None)
    """The model from the cut on; the whole of it where it is not cut."""

    def __post_init__(self) -> None:
        """Cuts the model, if its family can be cut."""
        cut = self.cut if can_be_cut(self.model) else 0
        object.__setattr__(self, "cut", cut)
        if cut:
            inner = self.model.base_model
            object.__setattr__(self, "below", stack_part(inner, slice(0, cut), norm=False))
            object.__setattr__(self, "above", with_stack(self.model, stack_part(inner, slice(cut, None))))
        else:
            object.__setattr__(self, "above", self.model)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        found: torch.device = next(self.model.parameters()).device
        return found


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Replies to some prompts, ``group`` to each."""

    prompts: tuple[tuple[int, ...], ...]
    group: int
    replies: tuple[tuple[int, ...], ...]
    """Row i answers prompt i // ``group``; with its end token, if it has ended."""
    at_cut: tuple[torch.Tensor, torch.Tensor] | None = None
    """Hidden states at the cut: of the prompts (prompts, longest, width), padded on the left, and of the replies (rows,
    longest - 1, width), padded on the right; None where the model is not cut."""

    def prompt_of(self, row: int) -> int:
        """Which prompt a row answers."""
        return row // self.group


def uniforms(seed: int, step: int, rows: int, tokens: int) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), (rows, tokens): the draws of one step."""
    return np.random.Generator(np.random.PCG64([seed, step])).random((rows, tokens))


def stop_tokens(vocabulary: int, decode: Callable[[Sequence[int]], str], stop: str) -> frozenset[int]:
    """Tokens whose text holds ``stop``; empty for an empty ``stop``."""
    return frozenset(t for t in range(vocabulary) if stop in decode([t])) if stop else frozenset()


def padded_left(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and which of them are real, (rows, longest), on the device."""
    longest = max(map(len, sequences))
    ids = torch.zeros((len(sequences), longest), dtype=torch.long)
    real = torch.zeros((len(sequences), longest), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids[row, longest - len(sequence) :] = torch.tensor(sequence)
        real[row, longest - len(sequence) :] = True
    return ids.to(device), real.to(device)


def seen(real: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to attention scores, (rows, 1, length, length): a token sees the real ones up to itself."""
    length = real.shape[1]
    past = torch.ones((length, length), dtype=torch.bool, device=real.device).tril()
    own = torch.eye(length, dtype=torch.bool, device=real.device)  # or the softmax of a padding row would be NaN
    return hidden_from((past & real[:, None, :]) | own, dtype)


def hidden_from(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask of what may be seen, (rows, queries, keys), as what is added to attention scores."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)[:, None]


def draw(logits: torch.Tensor, temperature: float, numbers: torch.Tensor) -> torch.Tensor:
    """One token a row by inverse transform.

    Args:
        logits: (rows, vocabulary).
        temperature: Above 0.
        numbers: (rows,) in [0, 1).
    """
    whole = (logits.double() / temperature).softmax(-1).cumsum(-1)
    places = torch.searchsorted(whole, (numbers * whole[:, -1])[:, None], right=True)[:, 0]
    return places.clamp(max=logits.shape[1] - 1)


@torch.no_grad()
def sample(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    group: int,
    max_new_tokens: int,
    numbers: npt.NDArray[np.float64],
) -> Rollouts:
    """``group`` replies to each prompt.

    Args:
        policy: Whose replies.
        prompts: Token ids, each at least one long.
        group: Replies to each, at least 1.
        max_new_tokens: Longest reply, at least 1.
        numbers: (prompts * group, max_new_tokens) in [0, 1).
    """
    talk = _Talk(policy, prompts, group, max_new_tokens)
    return talk.through(max_new_tokens, torch.from_numpy(numbers).to(policy.device))


class _Talk:
    """Rows that are continued together."""

    def __init__(self, policy: Policy, prompts: Sequence[Sequence[int]], group: int, room: int) -> None:
        self._policy, self._group = policy, group
        self._prompts = tuple(tuple(prompt) for prompt in prompts)
        device = policy.device
        ids, real = padded_left(prompts, device)
        depth = policy.model.config.num_hidden_layers
        self._dtype = next(policy.model.parameters()).dtype
        once = [RoomyLayer(ids.shape[1]) for _ in range(depth)]
        logits, at_cut = self._forward(ids, seen(real, self._dtype), (real.cumsum(1) - 1).clamp(min=0), once)
        self._prompt_states = at_cut
        width = ids.shape[1] + room
        self._layers = [RoomyLayer(width) for _ in range(depth)]
        for layer, short in zip(self._layers, once, strict=True):
            keys, values = short.stored
            layer.room = width
            layer.update(keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0))
        self._logits = logits.repeat_interleave(group, 0)
        self._visible = real.repeat_interleave(group, 0)
        self._position = (real.sum(1, keepdim=True) - 1).repeat_interleave(group, 0)
        self._rows = torch.arange(len(prompts) * group, device=device)
        self._replies: list[list[int]] = [[] for _ in range(len(prompts) * group)]
        self._states: list[torch.Tensor] = []

    def through(self, max_new_tokens: int, numbers: torch.Tensor) -> Rollouts:
        policy, ends = self._policy, self._policy.ends
        for step in range(max_new_tokens):
            tokens = draw(self._logits, policy.temperature, numbers[self._rows, step])
            told = tokens.tolist()
            for row, token in zip(self._rows.tolist(), told, strict=True):
                self._replies[row].append(token)
            going = [place for place, token in enumerate(told) if token not in ends]
            if step + 1 == max_new_tokens or not going:
                break
            if len(going) < len(told):
                tokens = self._leave(torch.tensor(going, device=tokens.device), tokens)
            self._visible = torch.cat([self._visible, self._visible.new_ones((len(self._rows), 1))], dim=1)
            self._position = self._position + 1
            mask = hidden_from(self._visible[:, None, :], self._dtype)
            self._logits, at_cut = self._forward(tokens[:, None], mask, self._position, self._layers)
            if at_cut is not None:
                whole = at_cut.new_zeros((len(self._replies), at_cut.shape[2]))
                whole[self._rows] = at_cut[:, 0]
                self._states.append(whole)
        kept: tuple[torch.Tensor, torch.Tensor] | None = None
        if self._prompt_states is not None:
            states = self._prompt_states
            behind = (
                torch.stack(self._states, dim=1)
                if self._states
                else states.new_zeros((len(self._replies), 0, states.shape[2]))
            )
            kept = (states, behind)
        return Rollouts(self._prompts, self._group, tuple(map(tuple, self._replies)), kept)

    def _leave(self, keep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        for layer in self._layers:
            layer.keep_rows(keep)
        self._rows, self._visible, self._position = self._rows[keep], self._visible[keep], self._position[keep]
        return tokens[keep]

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, layers: Sequence[RoomyLayer]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits of the last position, (rows, vocabulary), and hidden states at the cut."""
        policy = self._policy
        given: dict[str, Any] = {"attention_mask": mask, "position_ids": positions}
        if policy.below is None:
            cache = Cache(layers=list(layers))
            found = policy.model(input_ids=ids, past_key_values=cache, logits_to_keep=1, **given)
            return found.logits[:, -1], None
        states = policy.below(
            input_ids=ids, past_key_values=Cache(layers=list(layers[: policy.cut])), **given
        ).last_hidden_state
        found = policy.above(
            inputs_embeds=states, past_key_values=Cache(layers=list(layers)), logits_to_keep=1, **given
        )
        return found.logits[:, -1], states
