"""The operator that learns from a checkable reward: GRPO on a handful of numbers.

1. A step takes some prompts of the corpus, in an order that follows from the seed, and draws a group of replies to
   each.
2. Each reply earns 1 or 0 (``rewards``); its advantage is how much better than its group it is.
3. One gradient step on the trained numbers (``policy_gradient``), with Adam.
4. Every few steps a checkpoint, so that a killed run loses at most so many steps and ends at the same bytes.
5. What was trained is written as the LoRA that is exactly the same function: that is what is stored, signed, gated and
   bred. Beside it, under ``keep``, lie the numbers themselves, PEFT's folder where there is one, and the history.

It refuses to go on where going on would train nothing or damage the policy (``verdict``): every group uniform for many
steps, a gradient of exactly zero although groups differ, replies that are all cut off, a divergence from the base
beyond what was allowed, a number that is not finite. Only one kind of stop is a success: every reply of many steps was
right, so there is nothing left to learn.

Defaults are the paper's where the paper has one: r = 2, one number a group, no divergence term, temperature 1. The
learning rate is not its 2e-4 for 350 to 1,400 steps but what moves as far in tens of steps: Adam moves each number by
at most the rate a step.

Source: arXiv:2602.04118; arXiv:2402.03300; trl 1.16.0 for names and semantics of the options.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ecology.breeder.breed import Bred
from ecology.breeder.checkpoints import Checkpoints
from ecology.breeder.options import check_range
from ecology.breeder.parametrisation import Parametrisation, adapt, parametrisation
from ecology.breeder.rewards import check_columns, reward
from ecology.breeder.session import Row, Session
from ecology.contracts.artifact import Corpus
from ecology.contracts.identity import Json
from ecology.errors import ConfigError, LearningRefused
from ecology.kernel.canonical import canonical, plain
from ecology.store.files import write_atomic
from ecology.store.writer import write_tinylora

if TYPE_CHECKING:  # torch and PEFT are imported when there is something to train
    from ecology.breeder.adapted import Adapted
    from ecology.breeder.grpo_steps import Steps
    from ecology.runtime.engine import TransformersEngine

WINDOW = 10
"""Steps over which a reward is averaged, at both ends, for the record."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GrpoOptions:
    """How an adapter is trained by reward."""

    corpus: str
    """Name or folder of the corpus: prompts, and what the reward compares with."""
    adapter: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"kind": "tinylora", "u": 1, "n_tie": 16})
    """``kind`` of ``PARAMETRISATIONS`` and its options."""
    reward: str = "number_in_first_line"
    """A row of ``REWARDS``."""
    control: Literal["none", "shuffled"] = "none"
    """``shuffled`` deals the rewards of a step out at random: the control that a real gain has to beat."""
    steps: int = 60
    prompts: int = 6
    """A step."""
    group: int = 8
    """Replies to each prompt."""
    max_new_tokens: int = 10
    stop: str = "\n"
    """A token that holds this text ends a reply; empty: only the base's end tokens do."""
    temperature: float = 1.0
    learning_rate: float = 0.03
    """Constant."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of Adam."""
    clip_norm: float = 1.0
    """Largest gradient norm of a step."""
    loss: Literal["dr_grpo", "grpo", "dapo", "bnpo"] = "dr_grpo"
    scale_rewards: bool = True
    """Whether advantages are divided by the group's standard deviation."""
    beta: float = 0.0
    """Weight of the divergence from the base."""
    trainer: Literal["fast", "trl"] = "fast"
    """``trl`` runs ``trl.GRPOTrainer``: slower, and what ``fast`` is held to."""
    vllm: bool = False
    """Draw replies with vLLM, corrected token by token; needs ``trainer: trl``, an accelerator and vLLM."""
    patience: int = 10
    """Steps in a row of one trouble before it ends the training."""
    max_clipped: float = 1.0
    """Share of replies that may be cut off at ``max_new_tokens``, step after step; 1 allows all."""
    max_divergence: float = 1.0
    """Nats a token by which the policy may be away from the base."""
    divergence_steps: int = 5
    """The divergence is looked at every so many steps (and at each where ``beta`` is not 0)."""
    checkpoint_steps: int = 5

    def __post_init__(self) -> None:
        """Checks ranges and names.

        Raises:
            ConfigError: A value is out of range, or a name is unknown.
        """
        for name in ("steps", "prompts", "max_new_tokens", "patience", "divergence_steps", "checkpoint_steps"):
            check_range(getattr(self, name), 1, 10**6, f"tinylora_grpo.{name}")
        check_range(self.group, 2, 4096, "tinylora_grpo.group")
        check_range(self.temperature, 0.0, 10.0, "tinylora_grpo.temperature", open_low=True)
        check_range(self.learning_rate, 0.0, 10.0, "tinylora_grpo.learning_rate", open_low=True)
        check_range(self.clip_norm, 0.0, 1e6, "tinylora_grpo.clip_norm", open_low=True)
        check_range(self.beta, 0.0, 10.0, "tinylora_grpo.beta")
        check_range(self.max_clipped, 0.0, 1.0, "tinylora_grpo.max_clipped")
        check_range(self.max_divergence, 0.0, 1e6, "tinylora_grpo.max_divergence", open_low=True)
        for beta in self.betas:
            check_range(beta, 0.0, 1.0, "tinylora_grpo.betas")
        if self.vllm and self.trainer != "trl":
            raise ConfigError("vLLM draws for TRL's trainer only", where="tinylora_grpo.vllm", todo="add trainer: trl")
        reward(self.reward)
        self.parametrisation()

    def parametrisation(self) -> tuple[str, Parametrisation, Any]:
        """Kind, row and options of the adapter.

        Raises:
            ConfigError: Unknown kind or option, or a value out of range.
        """
        given = dict(self.adapter)
        kind = str(given.pop("kind", ""))
        row = parametrisation(kind)
        return kind, row, row.of(given, f"adapter.{kind}")


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What one step saw."""

    reward: float
    """Mean over replies, before any control dealt rewards out again."""
    uniform: float
    """Share of groups in which every reply earned the same."""
    length: float
    """Tokens a reply, mean."""
    clipped: float
    """Share of replies that were cut off."""
    loss: float
    gradient: float
    """Norm before clipping."""
    divergence: float | None
    """Nats a token from the base, by the estimator k3; None where it was not looked at."""


def tinylora_grpo(
    session: Session, corpus: Corpus, rows: Sequence[Row], options: GrpoOptions, capabilities: Sequence[str]
) -> Bred:
    """Trains one adapter by reward, as ``learners.Learn`` says.

    Raises:
        ConfigError: No rows, a row without an answer that the reward can read, or an adapter that is no LoRA.
        LearningRefused: There is nothing to learn from, or it went wrong.
        IntegrityError: The base is not the base afterwards, or a kept SVD is damaged.
        BackendError: An adapter is attached, or the trainer asked for cannot run here.
    """
    columns = [{"prompt": row[0], "completion": row[1]} for row in rows]
    if not columns:
        raise ConfigError("there is nothing to train on", where=corpus.id)
    check_columns(options.reward, columns, corpus.id)
    kind, row, chosen = options.parametrisation()
    if not row.exact_lora:
        raise ConfigError(f"what {kind} trains cannot be stored as a LoRA", where=f"{session.name}: adapter.kind")
    engine, seed = session.engine, session.seed
    kept = Checkpoints(
        session.work,
        plain(
            {
                "identity": engine.identity,
                "columns": columns,
                "options": options,
                "seed": seed,
                "environment": session.environment,
                "threads": engine.threads,
            }
        ),
    )
    base, cache = engine.identity.base_weights, session.decompositions
    with adapt(engine.model, kind, chosen, base_weights=base, cache=cache, seed=seed % 2**32) as adapted:
        if options.trainer == "trl":
            from ecology.breeder.grpo_by_trl import train_with_trl  # noqa: PLC0415

            history, ended = train_with_trl(session, adapted, columns, options, kept)
        else:
            from ecology.breeder.grpo_steps import steps_on  # noqa: PLC0415  (torch and PEFT)

            with steps_on(engine, adapted, columns, options, seed) as steps:
                history, ended = _train(session, steps, options, kept)
        factors = adapted.factors()
        beside = None if session.keep is None else session.keep / "learned" / kept.recipe[7:23]
        if beside is not None:
            _lay_beside(beside, adapted, engine, history)
        record = _record(adapted, history, ended, beside)
    engine.prove_base()
    bred = session.born(factors, session.lineage("tinylora_grpo", options, (corpus,), learned=record), capabilities)
    kept.clear()
    return bred


def order(count: int, options: GrpoOptions, seed: int) -> tuple[tuple[int, ...], ...]:
    """Which rows each step takes: every row once before any comes again, in an order of its own each time."""
    steps: list[tuple[int, ...]] = []
    waiting: list[int] = []
    turn = 0
    while len(steps) < options.steps:
        while len(waiting) < options.prompts:
            waiting += [int(i) for i in np.random.Generator(np.random.PCG64([seed, turn])).permutation(count)]
            turn += 1
        steps.append(tuple(waiting[: options.prompts]))
        waiting = waiting[options.prompts :]
    return tuple(steps)


def verdict(history: Sequence[Told], options: GrpoOptions, name: str) -> str:
    """Why training ends now; empty where it goes on.

    Args:
        history: All steps so far, at least one.
        options: What is allowed.
        name: Who is trained.

    Raises:
        LearningRefused: It must not go on.
    """
    last, recent = history[-1], history[-options.patience :]
    if not np.isfinite([last.loss, last.gradient, last.divergence or 0.0]).all():
        raise LearningRefused(
            f"the loss is {last.loss}, its gradient {last.gradient}",
            reason="not_finite",
            where=name,
            todo="lower the learning rate",
        )
    if last.uniform < 1 and last.gradient == 0.0 and options.control == "none":
        raise LearningRefused(
            "groups differ in reward and the gradient is exactly zero: no trained number reaches the replies",
            reason="zero_gradient",
            where=name,
            todo="check the adapter's targets and layers",
        )
    if last.divergence is not None and last.divergence > options.max_divergence:
        raise LearningRefused(
            f"the policy is {last.divergence:.3g} nats a token away from the base, {options.max_divergence:g} allowed",
            reason="divergence",
            where=name,
            todo="lower the learning rate, or set beta",
        )
    if len(recent) < options.patience:
        return ""
    if all(step.uniform == 1 for step in recent):
        if min(step.reward for step in recent) == 1:
            return "solved"
        raise LearningRefused(
            f"in {len(recent)} steps no group had two different rewards (mean {recent[-1].reward:.2f})",
            reason="uniform",
            where=name,
            todo="choose a task that is solved now and then, a larger group, or a kinder reward",
        )
    if options.max_clipped < 1 and all(step.clipped > options.max_clipped for step in recent):
        raise LearningRefused(
            f"{last.clipped:.0%} of replies are cut off at {options.max_new_tokens} tokens",
            reason="clipped",
            where=name,
            todo="raise max_new_tokens",
        )
    return ""


def told_before(state: tuple[bytes, Sequence[Json]] | None) -> list[Told]:
    """The history of a checkpoint; empty where there is none."""
    return [] if state is None else [Told(**step) for step in state[1]]


def _train(session: Session, steps: Steps, options: GrpoOptions, kept: Checkpoints) -> tuple[list[Told], str]:
    """History of all steps, and why the last was the last."""
    history = told_before(last := kept.last())
    if last is not None:
        steps.load(last[0])
    ended = verdict(history, options, session.name) if history else ""
    with session.progress.track(f"train {session.name}", options.steps, "steps") as bar:
        bar.advance(len(history), "resumed" if history else "")
        while len(history) < options.steps and not ended:
            history.append(steps.step(len(history)))
            recent = history[-WINDOW:]
            bar.advance(
                1, f"reward {np.mean([s.reward for s in recent]):.2f}, length {np.mean([s.length for s in recent]):.1f}"
            )
            ended = verdict(history, options, session.name)
            if len(history) % options.checkpoint_steps == 0 or len(history) == options.steps or ended:
                kept.save(steps.state(), [plain(step) for step in history])
    return history, ended or "all steps"


def _record(adapted: Adapted, history: Sequence[Told], ended: str, beside: Path | None) -> Mapping[str, Json]:
    first, last = history[:WINDOW], history[-WINDOW:]
    return {
        "adapter": adapted.kind,
        "trained": adapted.count,
        "trained_bytes": adapted.bytes,
        "file_bytes": 0 if beside is None else (beside / "v.safetensors").stat().st_size,
        "steps": len(history),
        "ended": ended,
        "reward_first": round(float(np.mean([step.reward for step in first])), 6) if first else None,
        "reward_last": round(float(np.mean([step.reward for step in last])), 6) if last else None,
    }


def _lay_beside(folder: Path, adapted: Adapted, engine: TransformersEngine, history: Sequence[Told]) -> None:
    """The numbers alone, PEFT's own folder where the adapter is a TinyLoRA, and what each step saw."""
    from safetensors.torch import save  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    base = engine.identity.base_weights
    numbers = {
        key: tensor.bfloat16() if adapted.bytes < 4 * adapted.count else tensor
        for key, tensor in adapted.numbers().items()
    }
    write_atomic(folder / "v.safetensors", save(numbers, {"base": base, "adapter": adapted.kind}))
    write_atomic(folder / "history.json", canonical([plain(step) for step in history]))
    if adapted.kind == "tinylora":
        tiny = adapted.tiny()
        write_atomic(folder / "basis.digest", tiny.basis.encode())
        write_tinylora(folder / "peft", tiny, engine.base.name, base)
