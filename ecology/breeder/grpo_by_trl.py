"""Training by reward with TRL's own trainer (``reference``), with our checkpoints, refusals and history.

TRL's own checkpoints are pickles, and what is loaded here never is. So a step is made a function of its number
instead: the prompts of the steps that are left are handed over in their order, and TRL's random numbers are set anew at
each step. Numbers and moments are then all the state there is, and it is kept as that of the fast trainer is
(``checkpoints``): a killed run loses at most ``checkpoint_steps`` steps and ends at the same bytes.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ecology.breeder.checkpoints import Checkpoints
from ecology.breeder.grpo import GrpoOptions, Told, order, told_before, verdict
from ecology.breeder.moments import inner, restore, state_of
from ecology.breeder.reference import build, reward_function, unpatched
from ecology.breeder.rewards import dealt
from ecology.breeder.session import Session
from ecology.contracts.ports import Step
from ecology.kernel.canonical import plain

if TYPE_CHECKING:
    from ecology.breeder.adapted import Adapted


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
