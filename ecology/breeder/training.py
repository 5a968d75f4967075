"""The half of ``finetune`` that imports torch: one supervised step of any parametrisation, and the state to resume it.

What makes a step cheap on a CPU:

- No system message in the frame, so a row is thirty tokens shorter (``runtime.chat``).
- Logits only where a completion token is predicted: with 49,152 words they cost as much as ten layers.
- Nothing is recorded for the backward pass below the first adapted layer. Where rows are seen more than once, what the
  frozen layers below give is computed once and kept, for families whose layers can be cut so; in the others the whole
  stack runs each time, with the same result.
- The rows of a step are dealt out to the cores, which add their gradients up in a fixed order (``runtime.workers``).
- Rows are padded on the right and nothing looks to the right, so no mask is needed and the fast attention is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from ecology.breeder.adapted import NAME, Adapted, Pair
from ecology.breeder.curricula import Lesson, TrainOptions
from ecology.breeder.moments import restore, state_of
from ecology.breeder.parametrisation import adapt
from ecology.breeder.session import Row
from ecology.contracts.ports import Progress, Step
from ecology.errors import BackendError, ConfigError
from ecology.runtime.engine import TransformersEngine
from ecology.runtime.trunk import CUTTABLE, can_be_cut, stack_part
from ecology.runtime.workers import LockedStep, dealt, side_by_side

MAX_KEPT_BYTES = 2 << 30
"""Of what the frozen layers give; more is computed again each time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One row in tokens."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    """With the end token, if the row ends there."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


def tokenise(engine: TransformersEngine, rows: Sequence[Row], options: TrainOptions, where: str) -> tuple[Example, ...]:
    """Rows in the base's chat frame.

    Raises:
        ConfigError: A completion is empty, a row too long, or the base has no end token to teach.
    """
    end = engine.tokenizer.eos_token_id
    if end is None:
        raise ConfigError("the base's tokenizer has no end token", where=where)
    prompts = engine.encode_prompts([row[0] for row in rows])
    completions = engine.encode_texts([row[1] for row in rows])
    examples = []
    for number, (row, prompt, completion) in enumerate(zip(rows, prompts, completions, strict=True), 1):
        taught = (*completion, *(() if row[2] else (int(end),)))
        example = Example(tuple(prompt), taught[: options.completion_tokens or None])
        if not completion:
            raise ConfigError("the completion is empty", where=f"{where}: row {number}")
        if len(example) > min(options.max_length, engine.max_tokens):
            raise ConfigError(
                f"{len(example)} tokens, {options.max_length} are allowed",
                where=f"{where}: row {number}",
                todo="shorten the row or raise max_length",
            )
        examples.append(example)
    return tuple(examples)


class Trainer:
    """The base with an adapter in it, inside a ``with`` block; afterwards the base as it was."""

    def __init__(
        self,
        engine: TransformersEngine,
        examples: Sequence[Example],
        options: Lesson,
        seed: int,
        steps: int,
        progress: Progress,
        name: str,
        *,
        keep: Path | None = None,
        start: Mapping[str, Pair] | None = None,
    ) -> None:
        """Nothing happens before the block is entered.

        Args:
            engine: The base.
            examples: Rows in tokens.
            options: The recipe; says what is trained too.
            seed: Of what starts at random.
            steps: Planned.
            progress: Told about what takes long before the first step.
            name: For people.
            keep: Folder of cached decompositions.
            start: Factors to go on from, by module; of a LoRA alone. None starts at the base.
        """
        self._engine, self._examples, self._options = engine, examples, options
        self._seed, self._steps, self._progress, self._name = seed, steps, progress, name
        self._keep, self._start = keep, start
        self._model: Any = engine.model
        self._stack: Any = engine.model.base_model
        self._kept: list[torch.Tensor] | None = None
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Trainer:
        if self._engine.attached:
            raise BackendError("an adapter is attached to the base", todo="train on the bare base")
        with contextlib.ExitStack() as stack:
            torch.set_flush_denormal(True)
            stack.callback(torch.set_flush_denormal, False)
            kind, options = self._options.parametrisation
            self.adapted = adapt(
                self._model,
                kind,
                options,
                base_weights=self._engine.identity.base_weights,
                cache=self._keep,
                seed=self._seed,
            )
            stack.callback(self.adapted.unwrap)
            if self._start is not None:
                go_on(self.adapted, self._start)
            self._factors: Mapping[str, torch.nn.Parameter] = self.adapted.trained
            cut = self.adapted.first_layer
            self._optimiser = torch.optim.AdamW(
                list(self._factors.values()),
                lr=self._options.learning_rate,
                weight_decay=self._options.weight_decay,
                foreach=False,
            )
            if cut and self._options.epochs > 1 and self._keepable():
                self._kept = self._below(cut)
                self._stack = stack_part(self._model.base_model, slice(cut, None))
            # gradients of small factors become denormal, and those are slow; the switch is each thread's own
            self._pool = ThreadPoolExecutor(
                self._engine.threads, initializer=torch.set_flush_denormal, initargs=(True,)
            )
            stack.callback(self._pool.shutdown)
            self._undo = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def step(self, number: int, rows: Sequence[int]) -> float:
        """One gradient step.

        Args:
            number: Of the step, from 0; the learning rate follows from it.
            rows: Which examples.

        Returns:
            Loss before the step, nats: the mean over tokens, weighted as the options say.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = self._options.learning_rate * share(number, self._steps, self._options)
        workers = self._engine.threads
        order = sorted(rows, key=lambda i: -len(self._examples[i]))
        parts = [part for worker in range(workers) if (part := order[worker::workers])]
        total = sum(sum(self._weights(len(self._examples[i].completion))) for i in rows)
        found = list(self._pool.map(functools.partial(self._share, total=total), parts))
        for place, factor in enumerate(self._factors.values()):
            factor.grad = functools.reduce(torch.add, [gradients[place] for _, gradients in found])
        torch.nn.utils.clip_grad_norm_(list(self._factors.values()), self._options.clip_norm, foreach=False)
        self._optimiser.step()
        self.adapted.settle()
        return math.fsum(loss for loss, _ in found)

    def _share(self, rows: Sequence[int], total: float) -> tuple[float, tuple[torch.Tensor, ...]]:
        """What these rows add to the loss and to the gradient of each factor; ``total`` is the weight of all rows."""
        examples = [self._examples[i] for i in rows]
        width = max(map(len, examples))
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        counts = torch.zeros((len(rows), width), dtype=torch.bool)  # where the next token belongs to a completion
        for row, example in enumerate(examples):
            ids[row, : len(example)] = torch.tensor(example.prompt + example.completion)
            counts[row, len(example.prompt) - 1 : len(example) - 1] = True
        targets = torch.tensor([token for example in examples for token in example.completion])
        losses = torch.nn.functional.cross_entropy(self._logits(ids, counts, rows), targets, reduction="none")
        weights = torch.tensor([w for example in examples for w in self._weights(len(example.completion))])
        loss = (losses * weights).sum() / total
        return float(loss.detach()), torch.autograd.grad(loss, list(self._factors.values()))

    def _weights(self, length: int) -> list[float]:
        """What the tokens of one completion count."""
        first = 1.0 / length if self._options.loss_over == "rows" else 1.0
        return [first * self._options.token_decay**place for place in range(length)]

    def state(self) -> bytes:
        """What is trained and its moments, as safetensors."""
        return state_of(self.adapted, self._optimiser)

    def load(self, state: bytes) -> None:
        """Goes on from ``state``."""
        restore(self.adapted, self._optimiser, state)

    def _keepable(self) -> bool:
        """Whether what the frozen layers give can be kept: the family can be cut, and it fits."""
        config = self._model.config
        size = 4 * config.hidden_size * sum(map(len, self._examples))
        return can_be_cut(self._model) and size <= MAX_KEPT_BYTES

    def _below(self, cut: int) -> list[torch.Tensor]:
        """What the layers under ``cut`` make of each example, (tokens, width).

        The batches follow from the lengths alone, so that a resumed run rounds as the first one did.
        """
        kept: list[torch.Tensor] = [torch.empty(0)] * len(self._examples)
        stack = stack_part(self._model.base_model, slice(0, cut), norm=False)

        def read(rows: list[int], bar: Step) -> torch.Tensor:
            ids = torch.zeros((len(rows), len(self._examples[rows[0]])), dtype=torch.long)
            for row, i in enumerate(rows):
                ids[row, : len(self._examples[i])] = torch.tensor(
                    self._examples[i].prompt + self._examples[i].completion
                )
            states: torch.Tensor = stack(input_ids=ids, use_cache=False).last_hidden_state
            bar.advance(len(rows))
            return states

        batches = dealt([len(e) for e in self._examples], self._engine.batch_size, self._engine.threads)
        with self._progress.track(f"read corpus of {self._name}", len(self._examples), "rows") as bar:
            told = functools.partial(read, bar=LockedStep(bar))
            for rows, states in zip(batches, side_by_side(told, batches, self._engine.threads), strict=True):
                for row, i in enumerate(rows):
                    kept[i] = states[row, : len(self._examples[i])].clone()
        return kept

    def _logits(self, ids: torch.Tensor, counts: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Logits where a completion token is predicted, row by row."""
        if self._kept is not None:
            states = torch.nn.utils.rnn.pad_sequence([self._kept[i] for i in rows], batch_first=True)
            given: dict[str, torch.Tensor] = {"inputs_embeds": states}
        else:
            given = {"input_ids": ids}
        if self._model.config.model_type in CUTTABLE:
            states = self._stack(**given, use_cache=False).last_hidden_state[counts]
            found: torch.Tensor = self._model.get_output_embeddings()(states)
            return found
        logits: torch.Tensor = self._model(**given, use_cache=False).logits[counts]
        return logits


def go_on(adapted: Adapted, start: Mapping[str, Pair]) -> None:
    """Sets a fresh LoRA to these changes; further ranks keep their random A and a B of zero, so they change nothing.

    Raises:
        ConfigError: It is no LoRA, or a module or a rank has no place in it.
    """
    if adapted.kind != "lora":
        raise ConfigError(f"{adapted.kind} cannot go on from factors", where="adapter", todo="train a lora")
    if strange := sorted(set(start) - set(adapted.modules)):
        raise ConfigError(f"{strange[0]} is not among the modules that are trained", where="targets")
    with torch.no_grad():
        for name, (B, A) in start.items():  # noqa: N806
            layer = adapted.model.get_submodule(name)
            rank, room = A.shape[0], adapted.options.r
            if rank > room:
                raise ConfigError(f"{name} has rank {rank}, there is room for {room}", where="rank")
            layer.lora_A[NAME].weight[:rank] = torch.from_numpy(A)
            layer.lora_B[NAME].weight[:, :rank] = torch.from_numpy(B) / layer.scaling[NAME]


def share(step: int, steps: int, options: TrainOptions) -> float:
    """Learning rate of a step (from 0) over its peak."""
    rise = min(1.0, (step + 1) / options.warmup_steps) if options.warmup_steps else 1.0
    if options.schedule == "constant":
        return rise
    through = max(0, step - options.warmup_steps) / max(1, steps - options.warmup_steps)
    return rise * (options.final_share + (1 - options.final_share) * 0.5 * (1 + math.cos(math.pi * through)))
