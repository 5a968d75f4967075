"""The reference engine: transformers on the CPU, one base in fp32, adapters put on and taken off.

Why fp32 unless bfloat16 is asked for: products in bf16 are twice as fast on new CPUs and slower on old ones, and their
rounding moves a log-likelihood by tenths of a nat, and lets a reply depend on who shares its batch; a judge should
not. Who asks for it finds it in the engine's fingerprint, which is in every key of the cache of answers, and in the
report; liveness and training stay in fp32. The base is loaded once, from safetensors, without remote code and without
the network.

What it proves. When the engine loads, the digest of each tensor is compared with that of the bytes in the file, and the
weights that are laid out for the kernels are laid back and compared bit by bit, so the chain from file to memory has no
gap. ``prove_base`` digests what is computed with, layout and all (two threads, half a second for half a gigabyte), and
compares it with what was loaded. A base that any adapter has left a trace in is an ``IntegrityError``.

An adapter that is put on stands beside the weights at first, which costs nothing, and is merged into copies of them by
the first call that is long enough to pay for it. One that is put on again, byte for byte the last one, finds its merged
weights and what was computed of the beginnings of its prompts: a race asks the same candidate a few items at a time.

``threads`` is how many batches are computed side by side, each by one core (``runtime.workers``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from ecology.backend.bases import BaseModel
from ecology.contracts.evidence import Turn
from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.contracts.ports import Clock, Step
from ecology.errors import BackendError, ConfigError, IntegrityError, MalformedArtifact
from ecology.runtime.attachment import Delta, Standing, alike, merge, merged, read_deltas, unmerged
from ecology.runtime.beginnings import Beginnings
from ecology.runtime.chat import chat_format, encode_plain, encode_prompts, encode_texts
from ecology.runtime.decoding import causal, greedy, left_padded
from ecology.runtime.kernels import bfloat16_helps
from ecology.runtime.mixing import Gates, stacked
from ecology.runtime.packing import Question
from ecology.runtime.proof import check_files, computed_with, digests
from ecology.runtime.resident import load
from ecology.runtime.scoring import Score, score
from ecology.runtime.timing import take_turns
from ecology.runtime.trunk import Trunk, lowest_layer
from ecology.runtime.workers import LockedStep, side_by_side
from ecology.telemetry.clock import SystemClock
from ecology.telemetry.memory import give_back_memory

POLICY = "greedy/left-padded/token-trees/piped-prefix/shared-trunk/merged-from-1000-tokens-or-mixed/frozen-products/v5"
"""How answers are computed; part of every cache key, changed whenever answers may change in their last digits."""

ALIVE = 1e-4
"""Nats by which some log-probability must move for an adapter to count as applied."""
EXACT = 1e-2
"""Nats by which merged and unmerged may differ: two ways to round the same sum."""
MERGED_FROM = 1000
"""Tokens of a call from which merging pays: beside the weights a token costs a sixth more, and merging costs what a
thousand of these sixths do, however many layers are adapted (measured)."""
DTYPES = ("float32", "bfloat16")


class TransformersEngine:
    """``ports.ModelEngine`` on transformers. Not safe for threads: one call at a time."""

    def __init__(
        self,
        base: BaseModel,
        threads: int = 2,
        batch_size: int = 64,
        clock: Clock | None = None,
        dtype: str = "float32",
    ) -> None:
        """Loads the base and proves that what was loaded is what the files hold.

        Args:
            base: What ``backend.bases.ensure`` returned.
            threads: Batches computed side by side; the last digits of answers depend on who shares a batch.
            batch_size: Rows decoded together, at least 1; the last digits depend on it too.
            clock: For ``time_turns`` and ``serve``; the machine's where none is given.
            dtype: Of the products with the base's weights when something is asked: ``float32`` or ``bfloat16``.

        Raises:
            ConfigError: A number or the dtype cannot be.
            BackendError: The base cannot be loaded.
            IntegrityError: The loaded weights are not those of ``base.identity``.
        """
        if threads < 1 or batch_size < 1:
            raise ConfigError(f"threads={threads} and batch_size={batch_size} must be at least 1", where="backend")
        if dtype not in DTYPES:
            raise ConfigError(f"dtype={dtype!r}", where="backend", todo=f"choose one of {', '.join(DTYPES)}")
        if dtype == "bfloat16" and not bfloat16_helps():
            raise BackendError("this CPU has no bfloat16 products", todo="use backend.dtype=float32")
        self.base = base
        self.threads = threads
        self.batch_size = batch_size
        self.dtype = dtype
        self._clock = clock or SystemClock()
        self._attached: Path | None = None
        resident = load(base.folder, reduced=dtype == "bfloat16", check=functools.partial(check_files, base, threads))
        self.tokenizer: Any = resident.tokenizer
        self.model: Any = resident.model
        self._precision, self._products = resident.precision, resident.products
        self._worn: dict[bool, _Worn] = {}
        self._merge: Callable[[], None] | None = None
        self._trunk = Trunk(self.model)
        self._above: Trunk | None = None
        self._beginnings = self._begin()
        self.frame = chat_format(self.tokenizer)
        self.ends = _end_tokens(self.tokenizer, self.model)
        self._resident = digests(computed_with(self.model, self._products), self.threads)

    @property
    def identity(self) -> CompatibilityIdentity:
        """Computed from the base's files."""
        return self.base.identity

    @property
    def fingerprint(self) -> str:
        """Engine, versions, dtype, kind of CPU, threads and batch policy."""
        return (
            f"transformers {transformers.__version__}; torch {torch.__version__}; {self.dtype}; "
            f"{torch.backends.cpu.get_cpu_capability()}; threads {self.threads}; batch {self.batch_size}; {POLICY}"
        )

    @property
    def max_tokens(self) -> int:
        """Tokens of prompt and reply together that the base can hold."""
        return int(getattr(self.model.config, "max_position_embeddings", 0) or 2048)

    @property
    def attached(self) -> Path | None:
        """Folder of the adapter that is on; None for the bare base."""
        return self._attached

    def prove_base(self) -> Digest:
        """Digests the resident weights, compares them with what was loaded, and sees that no layer uses another weight.

        Raises:
            IntegrityError: They differ, or an adapter was left on; the message names the first tensor.
        """
        if self._attached is None and not all(product.is_own for product in self._products.values()):
            raise IntegrityError("a layer still computes with an adapter", where=str(self.base.folder))
        now = digests(computed_with(self.model, self._products), self.threads)
        if changed := sorted(
            name for name in self._resident.keys() | now.keys() if self._resident.get(name) != now.get(name)
        ):
            raise IntegrityError(
                f"{len(changed)} of the base's resident tensors have changed",
                where=changed[0],
                todo="start again: an adapter has left traces",
            )
        return self.identity.base_weights

    @contextlib.contextmanager
    def attach(self, folder: Path | None) -> Iterator[None]:
        """Answers come from base plus this adapter inside the context; None is the bare base.

        Raises:
            BackendError: Another adapter is attached.
            MalformedArtifact: A key is missing, superfluous or of the wrong shape.
        """
        if self._attached is not None:
            raise BackendError("an adapter is already attached", where=str(self._attached))
        deltas = read_deltas(self.model, folder) if folder is not None else {}
        lowest = lowest_layer(self.model, [delta.layer for delta in deltas.values()]) if deltas else None
        self._attached = folder
        self._above = self._trunk if self._trunk.serves(lowest) else None
        worn = self._worn.get(bool(deltas))
        if worn is None or not alike(worn.deltas, deltas) or worn.above is not self._above:
            self._worn.pop(bool(deltas), None)  # before there is another, so that there are never two
            give_back_memory()
            worn = self._worn[bool(deltas)] = _Worn(deltas, self._above, self._begin())
        self._beginnings = worn.beginnings
        standing = Standing()
        with contextlib.ExitStack() as stack:
            stack.callback(self._take_off)
            stack.enter_context(unmerged(deltas, standing))
            self._merge = functools.partial(self._merge_worn, worn, standing, stack)
            if worn.weights:
                self._merge()
            yield

    def _merge_worn(self, worn: _Worn, standing: Standing, stack: contextlib.ExitStack) -> None:
        """Puts the adapter that stands beside the weights into copies of them."""
        if standing.on and worn.deltas:
            if not worn.weights:
                worn.weights.update(merge(worn.deltas, self.threads))
            stack.enter_context(merged(worn.deltas, worn.weights))
            standing.on = False

    def _take_off(self) -> None:
        self._attached = self._above = self._merge = None
        self._beginnings = self._begin()

    def _begin(self) -> Beginnings:
        """What prompts have in common is computed anew for each adapter."""
        return Beginnings(self.model, self._above, self.threads)

    @contextlib.contextmanager
    def _asking(self, tokens: int = 0) -> Iterator[None]:
        """The adapter put on, products in the dtype that was asked for, "out of memory" as an error of ours.

        Args:
            tokens: That will be computed at most: for many the adapter is merged. Never in bfloat16, where a small dW
                would be lost in the sum.
        """
        if self._merge is not None and tokens >= MERGED_FROM and self.dtype == "float32":
            with _memory():
                self._merge()
        self._precision.reduced = self.dtype == "bfloat16"
        try:
            with _memory():
                yield
        finally:
            self._precision.reduced = False

    def generate(self, prompts: Sequence[str], max_new_tokens: int, progress: Step | None = None) -> tuple[str, ...]:
        """Greedy replies to single user messages, special tokens left out.

        Raises:
            BackendError: Out of memory.
            ConfigError: A prompt and its reply are longer than the base can hold.
        """
        replies = self.continue_tokens(self.encode_prompts(prompts), max_new_tokens, progress)
        return tuple(self.decode(reply) for reply in replies)

    def generate_mixtures(
        self,
        parents: Sequence[Path],
        weights: Sequence[Sequence[float]],
        prompts: Sequence[str],
        max_new_tokens: int,
        progress: Step | None = None,
    ) -> tuple[tuple[str, ...], ...]:
        """Greedy replies of many linear children of the same parents to the same messages, in the same batches.

        Args:
            parents: Folders of adapters.
            weights: Of each child, one for each parent.
            prompts: Single user messages.
            max_new_tokens: Longest reply.
            progress: Advanced by one for each reply.

        Returns:
            Replies of each child.

        Raises:
            BackendError: An adapter is attached, or out of memory.
            ConfigError: There are no parents, a child has not a weight for each, or a prompt is too long.
            MalformedArtifact: A parent does not fit the base.
        """
        if self._attached is not None:
            raise BackendError("an adapter is already attached", where=str(self._attached))
        if any(len(child) != len(parents) for child in weights):
            raise ConfigError(f"each child needs {len(parents)} weights, one for each parent")
        deltas = [read_deltas(self.model, folder) for folder in parents]
        lowest = lowest_layer(self.model, [delta.layer for parent in deltas for delta in parent.values()])
        sequences = self.encode_prompts(prompts)
        self._check_length(max(map(len, sequences), default=0) + max_new_tokens)
        # prompt by prompt, so that the children of one prompt share a batch and what lower layers make of it
        gates = Gates(weights, [child for _ in sequences for child in range(len(weights))])
        every = [sequence for sequence in sequences for _ in weights]
        trunk = self._trunk if self._trunk.serves(lowest) else None
        with stacked(deltas, gates), self._asking():
            said = greedy(
                self.model,
                every,
                max_new_tokens,
                self.ends,
                self.batch_size,
                progress,
                trunk=trunk,
                workers=self.threads,
                gates=gates,
            )
        replies = [self.decode(reply) for reply in said]
        return tuple(tuple(replies[child :: len(weights)]) for child in range(len(weights)))

    def loglikelihoods(
        self, prompts: Sequence[str], choices: Sequence[Sequence[str]], progress: Step | None = None
    ) -> tuple[tuple[float, ...], ...]:
        """Sum of log-probabilities of each choice as a reply to its prompt, in nats; the end token is not counted."""
        questions = [
            Question(tuple(context), tuple(tuple(ids) for ids in encode_texts(self.tokenizer, list(options))))
            for context, options in zip(self.encode_prompts(prompts), choices, strict=True)
        ]
        return tuple(tuple(s.logprob for s in scores) for scores in self.score_tokens(questions, progress))

    def time_turns(
        self,
        folders: Sequence[Path | None],
        prompts: Sequence[str],
        max_new_tokens: int,
        progress: Step | None = None,
    ) -> tuple[tuple[Turn, ...], ...]:
        """Seconds that each of these adapters, unmerged, and None the bare base, takes for each prompt alone.

        Every reply is ``max_new_tokens`` long. How: ``runtime.timing``.
        """
        deltas = [read_deltas(self.model, folder) if folder is not None else {} for folder in folders]
        sequences = self.encode_prompts(prompts)
        with self._asking():
            return take_turns(self.model, deltas, sequences, max_new_tokens, self._clock, self.threads, progress)

    def serve(
        self, prompts: Sequence[str], max_new_tokens: Sequence[int], progress: Step | None = None
    ) -> tuple[tuple[str, float], ...]:
        """Greedy reply and seconds of each request, every request by itself, as many at a time as there are cores.

        Raises:
            BackendError: Out of memory.
            ConfigError: A prompt and its reply are longer than the base can hold.
        """
        sequences = self.encode_prompts(prompts)
        self._check_length(max((len(s) + n for s, n in zip(sequences, max_new_tokens, strict=True)), default=0))
        bar = LockedStep(progress)

        def one(places: list[int]) -> tuple[str, float]:
            (place,) = places
            start = self._clock.monotonic()
            (reply,) = greedy(
                self.model, [sequences[place]], max_new_tokens[place], self.ends, batch_size=1
            )  # no trunk: whoever is asked second would look faster
            text = self.decode(reply)
            seconds = self._clock.monotonic() - start
            bar.advance()
            return text, seconds

        with self._asking(sum(len(s) + n for s, n in zip(sequences, max_new_tokens, strict=True))):
            return tuple(side_by_side(one, [[place] for place in range(len(sequences))], self.threads))

    def liveness(self, folder: Path, prompts: Sequence[str]) -> tuple[str, ...]:
        """What is wrong with the adapter at run time, one sentence each; empty when it is alive and exact.

        1. It fits the base (strict keys and shapes).
        2. Each module changes something.
        3. Log-probabilities of the next token move on some probe, and stay finite.
        4. Merged and unmerged agree.
        5. Taken off, the base answers as before, bit by bit, and its digest is the same.
        """
        try:
            deltas = read_deltas(self.model, folder)  # 1
        except MalformedArtifact as error:
            return (str(error),)
        wrong = [f"{name} changes nothing: dW is zero" for name, d in deltas.items() if d.norm == 0.0]  # 2
        bare = self._probe(prompts)
        with merged(deltas, merge(deltas, self.threads)):
            inside = self._probe(prompts)
        with unmerged(deltas):
            beside = self._probe(prompts)
        if not (torch.isfinite(inside).all() and torch.isfinite(beside).all()):
            return (*wrong, "log-probabilities of the next token are not finite with the adapter on")
        moved, apart = float((inside - bare).abs().max()), float((inside - beside).abs().max())
        if moved <= ALIVE:  # 3
            wrong.append(f"no log-probability of the next token moves by more than {ALIVE:g} nats on any probe")
        if apart > EXACT:  # 4
            wrong.append(f"merged and unmerged differ by {apart:.3g} nats, {EXACT:g} is allowed")
        if not torch.equal(self._probe(prompts), bare):  # 5
            wrong.append("with the adapter taken off the base does not answer as before")
        try:
            self.prove_base()
        except IntegrityError as error:
            wrong.append(f"the base has changed: {error}")
        return tuple(wrong)

    # What lm-eval and training need: the same, in tokens.

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each user message in its frame, up to where the reply begins."""
        return encode_prompts(self.tokenizer, self.frame, prompts)

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of replies and other text from outside, in which nothing is a special token."""
        return encode_texts(self.tokenizer, texts)

    def encode_raw(self, text: str) -> list[int]:
        """Token ids of a text as it is, special tokens read as such."""
        return encode_plain(self.tokenizer, text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def continue_tokens(
        self,
        sequences: Sequence[Sequence[int]],
        max_new_tokens: int,
        progress: Step | None = None,
        stops: Sequence[str] = (),
    ) -> tuple[tuple[int, ...], ...]:
        """Greedy continuations up to an end token, a text that holds one of ``stops``, or ``max_new_tokens``."""

        def done(tokens: Sequence[int]) -> bool:
            text = self.decode(tokens)
            return any(stop in text for stop in stops)

        self._check_length(max(map(len, sequences), default=0) + max_new_tokens)
        with self._asking(sum(map(len, sequences)) + len(sequences) * max_new_tokens):
            return greedy(
                self.model,
                sequences,
                max_new_tokens,
                self.ends,
                self.batch_size,
                progress,
                done if stops else None,
                self._above,
                self.threads,
                self._beginnings,
            )

    def score_tokens(
        self, questions: Sequence[Question], progress: Step | None = None
    ) -> tuple[tuple[Score, ...], ...]:
        """Log-likelihood of each answer behind its context."""
        longest = (len(q.context) + max(map(len, q.answers), default=0) for q in questions)
        self._check_length(max(longest, default=0))
        with self._asking(sum(len(q.context) + sum(map(len, q.answers)) for q in questions)):
            return score(self.model, questions, self.batch_size, progress, self._above, self.threads, self._beginnings)

    @torch.inference_mode()
    def _probe(self, prompts: Sequence[str]) -> torch.Tensor:
        """Log-probabilities of the next token, (prompts, vocabulary)."""
        ids, real = left_padded(self.encode_prompts(prompts))
        positions = (real.cumsum(1) - 1).clamp(min=0)
        with _memory():
            output = self.model(input_ids=ids, attention_mask=causal(real), position_ids=positions, logits_to_keep=1)
        logits: torch.Tensor = output.logits[:, -1]
        return logits.log_softmax(-1)

    def _check_length(self, tokens: int) -> None:
        if tokens > self.max_tokens:
            raise ConfigError(f"prompt and reply are {tokens} tokens, the base holds {self.max_tokens}")


@dataclasses.dataclass(frozen=True)
class _Worn:
    """The adapter that was put on last, or none, and what was made for it."""

    deltas: Mapping[str, Delta]
    above: Trunk | None
    beginnings: Beginnings
    weights: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    """Merged; empty until they are needed."""


def _end_tokens(tokenizer: Any, model: Any) -> frozenset[int]:
    """What ends a reply, by the tokenizer and by the base's generation settings."""
    settings = getattr(model.generation_config, "eos_token_id", None)
    found = [tokenizer.eos_token_id, *(settings if isinstance(settings, (list, tuple)) else [settings])]
    return frozenset(int(token) for token in found if token is not None)


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    """Says "out of memory" as an error of ours."""
    try:
        yield
    except MemoryError as error:
        raise BackendError("out of memory", todo="make backend.batch_size smaller") from error
    except RuntimeError as error:
        if "allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        raise BackendError(f"out of memory: {error}", todo="make backend.batch_size smaller") from error
