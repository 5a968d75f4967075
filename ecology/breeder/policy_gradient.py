"""The GRPO loss of some rollouts, and its gradient, at a fraction of the usual work.

    advantage of reply i in its group   A_i = (r_i - mean r) / (std r + 1e-4), or without the division
    per token                           l = -min(rho A, clip(rho, 1 - eps, 1 + eps) A) + beta rho KL, rho = pi / pi_old
    dr_grpo  sum l / (replies * longest allowed)      grpo  mean over replies of the mean over their tokens
    dapo, bnpo  sum l / (tokens of all replies)

There is one gradient step for each batch of samples, so pi_old is pi and rho is 1 with the gradient of log pi. What is
computed is what ``trl.GRPOTrainer`` computes, to 1e-5, and these are left out:

1. The prompt of a group is read once and not once a reply; the replies attend to copies of its keys and values, and
   their gradients come together in it.
2. Groups in which every reply earned the same have no advantage, and no gradient (with beta 0).
3. Logits are computed where a reply's token is predicted, and for its first token once a prompt.
4. Replies are cut into buckets of about the same length, so little of it is padding.
5. Nothing is recorded below the first adapted layer; where rollouts kept what those layers gave, they are not run.

Source: arXiv:2402.03300 (GRPO), arXiv:2503.20783 (Dr. GRPO), arXiv:2503.14476 (DAPO); trl 1.16.0, ``_compute_loss``;
KL is the estimator k3, exp(d) - d - 1 with d = log pi_base - log pi, http://joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
from transformers.cache_utils import Cache, DynamicLayer

from ecology.breeder.rollout import Policy, Rollouts, hidden_from, padded_left, seen

Loss = Literal["dr_grpo", "grpo", "dapo", "bnpo"]
EPSILON = 1e-4
"""Beside the standard deviation, as in TRL."""
BUCKET, WIDE_BUCKET = 24, 512
"""Replies that are scored together, at most, on a CPU and on an accelerator, where a launch costs more than padding."""


def advantages(rewards: Sequence[float], group: int, *, scale: bool) -> list[float]:
    """How much better than its group each reply is.

    Args:
        rewards: Group by group.
        group: Replies a group, at least 2.
        scale: Whether to divide by the group's standard deviation (n - 1 in its denominator).
    """
    table = torch.tensor(rewards, dtype=torch.float32).view(-1, group)
    found = table - table.mean(1, keepdim=True)
    if scale:
        found = found / (table.std(1, keepdim=True) + EPSILON)
    flat: list[float] = found.flatten().tolist()
    return flat


@dataclasses.dataclass(frozen=True)
class Normaliser:
    """What the sum over tokens is divided by; the same for every part of a batch."""

    loss: Loss
    replies: int
    """In the whole batch."""
    tokens: int
    """Of all replies of the batch."""
    longest: int
    """Tokens a reply may have."""

    def weight(self, length: int) -> float:
        """What a token of a reply of that length counts."""
        if self.loss == "dr_grpo":
            return 1.0 / (self.replies * self.longest)
        if self.loss == "grpo":
            return 1.0 / (self.replies * max(1, length))
        return 1.0 / max(1, self.tokens)


def loss_of(
    policy: Policy,
    rollouts: Rollouts,
    advantage: Sequence[float],
    normaliser: Normaliser,
    *,
    beta: float = 0.0,
    reference: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor | None:
    """The loss of a part of a batch, with its graph.

    Args:
        policy: As it was when it drew the rollouts.
        rollouts: The part.
        advantage: One a reply.
        normaliser: Of the whole batch.
        beta: Weight of the divergence from the base.
        reference: Log-probabilities of each reply's tokens by the base; needed where beta is not 0.

    Returns:
        A scalar; None where no reply has an advantage and beta is 0.
    """
    rows = [i for i, a in enumerate(advantage) if a != 0.0 or beta]
    if not rows:
        return None
    total = torch.zeros((), device=policy.device)
    for row, logps in zip(rows, log_probabilities(policy, rollouts, rows), strict=True):
        ratio = (logps - logps.detach()).exp()  # 1, with the gradient of log pi
        terms = -ratio * advantage[row]
        if beta and reference is not None:
            apart = reference[row] - logps
            terms = terms + beta * ratio * (apart.exp() - apart - 1)
        total = total + terms.sum() * normaliser.weight(len(rollouts.replies[row]))
    return total


def log_probabilities(policy: Policy, rollouts: Rollouts, rows: Sequence[int]) -> list[torch.Tensor]:
    """Log-probabilities of the tokens of some replies, float32, one tensor a row, in their order.

    Args:
        policy: Whose.
        rollouts: The replies.
        rows: Which of them.
    """
    found: dict[int, torch.Tensor] = {}
    prompts = sorted({rollouts.prompt_of(row) for row in rows})
    states = rollouts.at_cut[0][prompts] if policy.cut and rollouts.at_cut is not None else None
    read = _Prompts(policy, [rollouts.prompts[p] for p in prompts], states)
    places = {prompt: place for place, prompt in enumerate(prompts)}
    order = sorted(rows, key=lambda row: (len(rollouts.replies[row]), row))
    size = BUCKET if policy.device.type == "cpu" else WIDE_BUCKET
    for start in range(0, len(order), size):
        bucket = order[start : start + size]
        behind = None
        if policy.cut and rollouts.at_cut is not None:
            behind = rollouts.at_cut[1][bucket]
        logps = read.replies(
            [places[rollouts.prompt_of(row)] for row in bucket], [rollouts.replies[row] for row in bucket], behind
        )
        found |= dict(zip(bucket, logps, strict=True))
    return [found[row] for row in rows]


class _Prompts:
    """Prompts that were read once, each for all its replies."""

    def __init__(self, policy: Policy, prompts: Sequence[Sequence[int]], states: torch.Tensor | None) -> None:
        self._policy = policy
        ids, self._real = padded_left(prompts, policy.device)
        self._dtype = next(policy.model.parameters()).dtype
        layers = self._layers()
        mask, positions = seen(self._real, self._dtype), (self._real.cumsum(1) - 1).clamp(min=0)
        given: Any = {"input_ids": ids}
        if policy.cut:
            if states is None:
                states = self._below(ids, mask, positions, layers)
            given = {"inputs_embeds": states[:, -ids.shape[1] :]}
        self._first = policy.above(
            **given,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=Cache(layers=layers),
            logits_to_keep=1,
        ).logits[:, -1]
        self._kept = [layer if layer.is_initialized else None for layer in layers]

    def _layers(self) -> list[Any]:
        return [DynamicLayer() for _ in range(self._policy.model.config.num_hidden_layers)]  # type: ignore[no-untyped-call]

    def _below(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, layers: list[Any]) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = self._policy.below(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=Cache(layers=layers[: self._policy.cut]),
            ).last_hidden_state
        return found

    def replies(
        self, places: Sequence[int], replies: Sequence[Sequence[int]], behind: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Log-probabilities of replies' tokens.

        Args:
            places: Which prompt each reply answers.
            replies: Token ids, each at least one long.
            behind: Hidden states at the cut of all tokens but the last; None where they have to be computed.
        """
        policy, device = self._policy, self._policy.device
        which = torch.tensor(places, device=device)
        length = max(map(len, replies))
        logits = self._first[which][:, None]
        if length > 1:
            ids = torch.zeros((len(replies), length - 1), dtype=torch.long)
            for row, reply in enumerate(replies):
                ids[row, : len(reply) - 1] = torch.tensor(reply[:-1])
            ids = ids.to(device)
            before = self._real[which]
            own = torch.ones((length - 1, length - 1), dtype=torch.bool, device=device).tril()
            mask = torch.cat([before[:, None, :].expand(-1, length - 1, -1), own.expand(len(replies), -1, -1)], dim=2)
            positions = before.sum(1, keepdim=True) + torch.arange(length - 1, device=device)
            layers = self._layers()
            for layer, kept in zip(layers, self._kept, strict=True):
                if kept is not None:
                    layer.update(kept.keys[which], kept.values[which])
            given: Any = {"input_ids": ids}
            added = hidden_from(mask, self._dtype)
            if policy.cut:
                if behind is None:
                    behind = self._below(ids, added, positions, layers)
                given = {"inputs_embeds": behind[:, : length - 1]}
            later = policy.above(
                **given, attention_mask=added, position_ids=positions, past_key_values=Cache(layers=layers)
            ).logits
            logits = torch.cat([logits, later], dim=1)
        logps = (logits.float() / policy.temperature).log_softmax(-1)
        targets = torch.zeros((len(replies), length), dtype=torch.long)
        for row, reply in enumerate(replies):
            targets[row, : len(reply)] = torch.tensor(reply)
        chosen = logps.gather(-1, targets.to(device)[..., None])[..., 0]
        return [chosen[row, : len(reply)] for row, reply in enumerate(replies)]
