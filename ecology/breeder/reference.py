"""The reference trainer: ``trl.GRPOTrainer`` itself, on the same adapter, rows and rewards.

It is here for two ends. What ``policy_gradient`` computes is held to its loss, so that the fast step may be believed;
and on an accelerator with vLLM it is the way to train a large base: replies are drawn by vLLM from merged weights, and
how those differ from the weights that are trained is corrected by importance weights, one a token, cut off at
``CLIP`` (arXiv:2602.04118, section 5, after Ionides 2008). TRL's own default weighs whole replies, which leaves next to
nothing of long ones. The training itself is in ``grpo_by_trl``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecology.breeder.grpo import GrpoOptions
from ecology.breeder.rewards import check_columns, reward, score
from ecology.errors import BackendError, ConfigError

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


def _text(reply: Any) -> str:
    """A completion as TRL hands it over: text, or messages."""
    return str(reply) if isinstance(reply, str) else "".join(str(turn.get("content", "")) for turn in reply)
