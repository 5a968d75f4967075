"""The reference trainer: ``trl.GRPOTrainer`` itself, on the same adapter, rows and rewards.

It is here for two ends. What ``policy_gradient`` computes is held to its loss, so that the fast step may be believed;
and on an accelerator with vLLM it is the way to train a large base: replies are drawn by vLLM from merged weights, and
how those differ from the weights that are trained is corrected by importance weights, one a token, cut off at
``CLIP`` (arXiv:2602.04118, section 5, after Ionides 2008). TRL's own default weighs whole replies, which leaves next to
nothing of long ones.

TRL's own checkpoints are pickles, and what is loaded here never is. So a step is made a function of its number
instead: the prompts of the steps that are left are handed over in their order, and TRL's random numbers are set anew at
each step. Numbers and moments are then all the state there is, and it is kept as that of the fast trainer is
(``checkpoints``): a killed run loses at most ``checkpoint_steps`` steps and ends at the same bytes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecology.breeder.checkpoints import Checkpoints
from ecology.breeder.grpo import GrpoOptions, Told, order, told_before, verdict
from ecology.breeder.moments import inner, restore, state_of
from ecology.breeder.rewards import check_columns, dealt, reward, score
from ecology.breeder.session import Session
from ecology.contracts.ports import Step
from ecology.errors import BackendError, ConfigError
from ecology.kernel.canonical import plain

if TYPE_CHECKING:
    from ecology.breeder.adapted import Adapted

CLIP = 2.0
"""Largest importance weight of a token."""


def absent(options: GrpoOptions) -> str:
    """Why the reference trainer cannot run here as it is asked to; empty where it can."""
    if importlib.util.find_spec("trl") is None:
        return "TRL is not installed: pip install 'tiny-ecology[learn]'"
    if not options.vllm:
        return ""
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        return "vLLM draws replies on an accelerator, and there is none"
    if importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed"
    return ""


def settings_of(options: GrpoOptions, seed: int, work: Path, *, cpu: bool) -> dict[str, Any]:
    """Our options in TRL's words: arguments of ``trl.GRPOConfig``.

    Args:
        options: The recipe.
        seed: Of TRL's draws.
        work: Where TRL may write.
        cpu: Whether there is no accelerator.
    """
    found: dict[str, Any] = {
        "output_dir": str(work / "trl"),
        "seed": seed % 2**31,
        "max_steps": options.steps,
        "per_device_train_batch_size": options.prompts * options.group,
        "steps_per_generation": 1,
        "shuffle_dataset": False,  # rows come in the order of the steps
        "num_generations": options.group,
        "max_completion_length": options.max_new_tokens,
        "temperature": options.temperature,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "constant",
        "adam_beta1": options.betas[0],
        "adam_beta2": options.betas[1],
        "weight_decay": 0.0,
        "max_grad_norm": options.clip_norm,
        "beta": options.beta,
        "loss_type": options.loss,
        "scale_rewards": "group" if options.scale_rewards else "none",
        "remove_unused_columns": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "bf16": False,
        "use_cpu": cpu,
        "gradient_checkpointing": not cpu,
        "dataloader_pin_memory": not cpu,
    }
    if options.stop:
        found["generation_kwargs"] = {"stop_strings": [options.stop]} if not options.vllm else {"stop": [options.stop]}
    if options.vllm:
        found |= {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_importance_sampling_correction": True,
            "vllm_importance_sampling_mode": "token_truncate",
            "vllm_importance_sampling_clip_max": CLIP,
        }
    return found


def reward_function(
    name: str, deal: Callable[[Sequence[float]], Sequence[float]] = list
) -> Callable[..., list[float | None]]:
    """A reward as TRL calls it. A column that the trainer has dropped is an error, not a reward of 0.

    Args:
        name: Of ``REWARDS``.
        deal: What becomes of the rewards of one step: they stay, or the control deals them out again.
    """

    def function(prompts: Sequence[Any], completions: Sequence[Any], **given: Any) -> list[float | None]:
        columns = reward(name).columns
        if missing := [column for column in columns if f"row_{column}" not in given]:
            raise ConfigError(
                f"the reward {name} reads the column {missing[0]!r}, and the trainer did not hand it over",
                where="trl.GRPOTrainer",
                todo="keep remove_unused_columns False",
            )
        rows = [{c: str(given[f"row_{c}"][i]) for c in columns} for i in range(len(completions))]
        return list(deal(score(name, [_text(reply) for reply in completions], rows)))

    function.__name__ = f"reward_{name}"
    return function


def build(
    model: Any,
    tokenizer: Any,
    encode: Callable[[Sequence[str]], Sequence[Sequence[int]]],
    rows: Sequence[Mapping[str, str]],
    options: GrpoOptions,
    seed: int,
    work: Path,
    *,
    change: Mapping[str, Any] | None = None,
) -> Any:
    """A ``trl.GRPOTrainer`` on a model that PEFT has wrapped.

    Args:
        model: A ``PeftModel``.
        tokenizer: Of the base.
        encode: Messages to token ids in the base's frame.
        rows: Of the corpus.
        options: The recipe.
        seed: Of its draws.
        work: Where it may write.
        change: Arguments of ``trl.GRPOConfig`` that are to differ.

    Raises:
        BackendError: It cannot run here; says why.
        ConfigError: A row lacks what the reward reads.
    """
    if why := absent(options):
        raise BackendError(why, where="trainer: trl")
    check_columns(options.reward, rows, "corpus")
    import torch  # noqa: PLC0415
    from datasets import Dataset  # noqa: PLC0415
    from transformers import PrinterCallback  # noqa: PLC0415
    from trl.trainer.grpo_config import GRPOConfig  # noqa: PLC0415
    from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: PLC0415

    logging.getLogger("trl").setLevel(logging.ERROR)
    columns = reward(options.reward).columns
    prompts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in encode([row["prompt"] for row in rows])]
    data = Dataset.from_list(
        [{"prompt": p, **{f"row_{c}": row[c] for c in columns}} for p, row in zip(prompts, rows, strict=True)]
    )
    given = {**settings_of(options, seed, work, cpu=not torch.cuda.is_available()), **(change or {})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = GRPOTrainer(
            model=model,
            args=GRPOConfig(**given),
            reward_funcs=reward_function(options.reward),
            train_dataset=data,
            processing_class=tokenizer,
        )
    trainer.remove_callback(PrinterCallback)  # stdout is for results
    return trainer


@contextlib.contextmanager
def unpatched(model: Any) -> Iterator[None]:
    """What TRL and accelerate hang onto a model's modules inside the context is taken off again behind it.

    TRL gives the model instance a ``forward`` of its own, which would go on answering for every later user.

    Args:
        model: The base, as transformers made it.
    """
    kept = {id(module): (module, dict(module.__dict__)) for module in model.modules()}
    training = model.training
    try:
        yield
    finally:
        for module, own in kept.values():
            for name in [name for name in module.__dict__ if name not in own]:
                del module.__dict__[name]
            for name in ("forward", "config", "generation_config"):
                if name in own:
                    module.__dict__[name] = own[name]
        model.to("cpu")  # where the engine computes; TRL moves it to the accelerator if there is one
        model.train(training)


def train_with_trl(
    session: Session, adapted: Adapted, rows: Sequence[Mapping[str, str]], options: GrpoOptions, kept: Checkpoints
) -> tuple[list[Told], str]:
    """All steps by TRL's trainer; what ``adapted`` holds is trained in place.

    Args:
        session: Base, seed and folders.
        adapted: What is trained.
        rows: Of the corpus.
        options: The recipe.
        kept: Its checkpoints.

    Returns:
        The history of all steps, and why the last was the last.

    Raises:
        BackendError: It cannot run here; says why.
        LearningRefused: As in ``grpo.verdict``.
    """
    history = told_before(last := kept.last())
    ended = verdict(history, options, session.name) if history else ""
    if last is not None:
        restore(adapted, None, last[0])
    shutil.rmtree(session.work / "trl", ignore_errors=True)  # of a killed run
    if ended or len(history) == options.steps:
        return history, ended or "all steps"
    engine = session.engine
    left = [rows[i] for step in order(len(rows), options, session.seed)[len(history) :] for i in step]
    with (
        unpatched(engine.model),
        session.progress.track(f"train {session.name} by TRL", options.steps, "steps") as bar,
    ):
        import torch  # noqa: PLC0415

        bar.advance(len(history), "resumed" if history else "")
        if torch.cuda.is_available():  # products that were laid out for the CPU's kernels are not for this
            for module in engine.model.modules():
                module.__dict__.pop("forward", None)
        more = {"max_steps": options.steps - len(history)}
        trainer = build(
            adapted.peft,
            engine.tokenizer,
            engine.encode_prompts,
            left,
            options,
            session.seed,
            session.work,
            change=more,
        )
        if options.control == "shuffled":
            trainer.reward_funcs = [reward_function(options.reward, lambda r: dealt(r, session.seed, len(history)))]
        listener = _listener(session, adapted, options, kept, history, bar, None if last is None else last[0])
        trainer.add_callback(listener)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.train()
    shutil.rmtree(session.work / "trl", ignore_errors=True)
    return history, verdict(history, options, session.name) or "all steps"


def _listener(
    session: Session,
    adapted: Adapted,
    options: GrpoOptions,
    kept: Checkpoints,
    history: list[Told],
    bar: Step,
    before: bytes | None,
) -> Any:
    """Makes TRL's step a function of its number, turns each of its logs into ours, and keeps what a step leaves."""
    import torch  # noqa: PLC0415
    from transformers import TrainerCallback  # noqa: PLC0415

    class Listen(TrainerCallback):
        """Of TRL's trainer."""

        def on_train_begin(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
            """The moments of a resumed run."""
            if before is not None:
                restore(adapted, inner(optimizer), before)

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            """The draws of this step."""
            torch.manual_seed((session.seed + 1_000_003 * len(history)) % 2**63)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, optimizer: Any = None, **_: Any
        ) -> None:
            """One step is done."""
            del args, state
            if not logs or "reward" not in logs:
                return
            history.append(
                Told(
                    reward=float(logs["reward"]),
                    uniform=float(logs.get("frac_reward_zero_std", 0.0)),
                    length=float(logs.get("completions/mean_length", 0.0)),
                    clipped=float(logs.get("completions/clipped_ratio", 0.0)),
                    loss=float(logs.get("loss", 0.0)),
                    gradient=float(logs.get("grad_norm", 0.0)),
                    divergence=float(logs["kl"]) if "kl" in logs else None,
                )
            )
            adapted.settle()
            bar.advance(1, f"reward {history[-1].reward:.2f}, length {history[-1].length:.1f}")
            ended = bool(verdict(history, options, session.name))
            if len(history) % options.checkpoint_steps == 0 or len(history) == options.steps or ended:
                kept.save(state_of(adapted, inner(optimizer)), [plain(step) for step in history])
            control.should_training_stop = control.should_training_stop or ended

    return Listen()


def _text(reply: Any) -> str:
    """A completion as TRL hands it over: text, or messages."""
    return str(reply) if isinstance(reply, str) else "".join(str(turn.get("content", "")) for turn in reply)
