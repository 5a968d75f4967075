"""The half of ``grpo`` that imports torch: one step, and the state that makes it resumable.

Prompts of a step are dealt out to the cores, each with its replies; gradients are added up in a fixed order. All draws
follow from (seed, number of the step), so a resumed run draws what it would have drawn. Nothing here knows the engine:
the same steps run on an accelerator.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch

from ecology.breeder.adapted import Adapted
from ecology.breeder.grpo import GrpoOptions, Told, order
from ecology.breeder.moments import restore, state_of
from ecology.breeder.policy_gradient import Normaliser, advantages, log_probabilities, loss_of
from ecology.breeder.rewards import dealt, score
from ecology.breeder.rollout import Policy, Rollouts, sample, stop_tokens, uniforms
from ecology.errors import BackendError
from ecology.runtime.engine import TransformersEngine


def steps_on(
    engine: TransformersEngine,
    adapted: Adapted,
    rows: Sequence[Mapping[str, str]],
    options: GrpoOptions,
    seed: int,
) -> Steps:
    """A training on the resident base.

    Args:
        engine: With no adapter attached, whose model ``adapted`` wraps.
        adapted: What is trained.
        rows: Of the corpus.
        options: The recipe.
        seed: Of all draws.

    Raises:
        BackendError: An adapter is attached.
    """
    if engine.attached:
        raise BackendError("an adapter is attached to the base", todo="train on the bare base")
    vocabulary = min(engine.model.config.vocab_size, len(engine.tokenizer))
    ends = engine.ends | stop_tokens(vocabulary, engine.decode, options.stop)
    policy = Policy(adapted.model, ends, engine.decode, adapted.first_layer, options.temperature)
    prompts = engine.encode_prompts([row["prompt"] for row in rows])
    return Steps(policy, adapted, prompts, rows, options, seed, engine.threads)


class Steps:
    """The steps of one training, inside a ``with`` block."""

    def __init__(
        self,
        policy: Policy,
        adapted: Adapted,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[Mapping[str, str]],
        options: GrpoOptions,
        seed: int,
        workers: int = 1,
    ) -> None:
        """Sets up the optimiser.

        Args:
            policy: Around the model that ``adapted`` wraps.
            adapted: What is trained.
            prompts: Token ids, one a row.
            rows: Of the corpus.
            options: The recipe.
            seed: Of all draws.
            workers: Parts of a step computed side by side; the last digits depend on it.
        """
        self.policy, self.adapted = policy, adapted
        self._prompts, self._rows, self._options, self._seed = prompts, rows, options, seed
        self._order = order(len(rows), options, seed)
        self._workers = workers
        self._trained = list(adapted.trained.values())
        self._optimiser = torch.optim.Adam(self._trained, lr=options.learning_rate, betas=options.betas, foreach=False)
        self._pool = ThreadPoolExecutor(workers)

    def __enter__(self) -> Steps:
        # gradients of small numbers become denormal, and those are slow; the switch is each thread's own
        self._pool = ThreadPoolExecutor(self._workers, initializer=torch.set_flush_denormal, initargs=(True,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def step(self, number: int) -> Told:
        """One gradient step.

        Args:
            number: Of the step, from 0; prompts and draws follow from it.

        Raises:
            ConfigError: A row lacks what the reward reads.
        """
        options = self._options
        rows = self._order[number]
        parts = self.drawn(number)
        replies = [reply for part in parts for reply in part.replies]
        texts = [self.policy.decode([t for t in reply if t not in self.policy.ends]) for reply in replies]
        rewards = score(options.reward, texts, [self._rows[row] for row in rows for _ in range(options.group)])
        used = rewards if options.control == "none" else dealt(rewards, self._seed, number)
        advantage = advantages(used, options.group, scale=options.scale_rewards)
        loss, gradient, divergence = self._descend(parts, advantage, number)
        groups = np.asarray(rewards).reshape(-1, options.group)
        cut_off = [len(r) == options.max_new_tokens and r[-1] not in self.policy.ends for r in replies]
        return Told(
            reward=float(np.mean(rewards)),
            uniform=float(np.mean(groups.min(1) == groups.max(1))),
            length=float(np.mean([len(reply) for reply in replies])),
            clipped=float(np.mean(cut_off)),
            loss=loss,
            gradient=gradient,
            divergence=divergence,
        )

    def drawn(self, number: int) -> list[Rollouts]:
        """The replies of a step, one part a worker."""
        options, rows = self._options, self._order[number]
        numbers = uniforms(self._seed, number, len(rows) * options.group, options.max_new_tokens)
        spans = np.array_split(np.arange(len(rows)), min(self._workers, len(rows)))

        def one(span: np.ndarray) -> Rollouts:
            lines = slice(int(span[0]) * options.group, (int(span[-1]) + 1) * options.group)
            prompts = [self._prompts[rows[int(i)]] for i in span]
            return sample(self.policy, prompts, options.group, options.max_new_tokens, numbers[lines])

        # a CPU computes with weights that were laid out before; there the adapter stays beside them
        with self.adapted.merged() if self.policy.device.type != "cpu" else contextlib.nullcontext():
            return list(self._pool.map(one, spans))

    def _descend(
        self, parts: Sequence[Rollouts], advantage: Sequence[float], number: int
    ) -> tuple[float, float, float | None]:
        """Loss, norm of its gradient, divergence from the base before the step."""
        options = self._options
        look = options.beta > 0 or number % options.divergence_steps == 0
        reference = self._reference(parts) if look else [None] * len(parts)
        lengths = [len(reply) for part in parts for reply in part.replies]
        normaliser = Normaliser(options.loss, len(lengths), sum(lengths), options.max_new_tokens)
        starts = np.cumsum([0, *(len(part.replies) for part in parts)])

        def one(place: int) -> tuple[float, tuple[torch.Tensor, ...] | None]:
            loss = loss_of(
                self.policy,
                parts[place],
                advantage[starts[place] : starts[place + 1]],
                normaliser,
                beta=options.beta,
                reference=reference[place],
            )
            if loss is None:
                return 0.0, None
            return float(loss.detach()), torch.autograd.grad(loss, self._trained)

        found = list(self._pool.map(one, range(len(parts))))
        divergence = self._divergence(parts, reference) if look else None
        gradients = [g for _, g in found if g is not None]
        if not gradients:
            return 0.0, 0.0, divergence
        for place, parameter in enumerate(self._trained):
            parameter.grad = functools.reduce(torch.add, [g[place] for g in gradients])
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained, options.clip_norm, foreach=False))
        if math.isfinite(norm):
            self._optimiser.step()
            self.adapted.settle()
        return math.fsum(loss for loss, _ in found), norm, divergence

    @torch.no_grad()
    def _reference(self, parts: Sequence[Rollouts]) -> list[list[torch.Tensor] | None]:
        """Log-probabilities of every reply by the base."""
        with self.adapted.bypassed():
            return list(self._pool.map(self._log_probabilities, parts))

    @torch.no_grad()
    def _log_probabilities(self, part: Rollouts) -> list[torch.Tensor] | None:
        with torch.no_grad():  # the switch is each thread's own
            return log_probabilities(self.policy, part, range(len(part.replies)))

    def _divergence(self, parts: Sequence[Rollouts], reference: Sequence[list[torch.Tensor] | None]) -> float:
        own = list(self._pool.map(self._log_probabilities, parts))
        apart = torch.cat(
            [
                r - o
                for theirs, mine in zip(reference, own, strict=True)
                for r, o in zip(theirs or (), mine or (), strict=True)
            ]
        ).double()
        return max(0.0, float((apart.exp() - apart - 1).mean()))

    def state(self) -> bytes:
        """Numbers and moments as safetensors."""
        return state_of(self.adapted, self._optimiser)

    def load(self, state: bytes) -> None:
        """Goes on from ``state``."""
        restore(self.adapted, self._optimiser, state)
