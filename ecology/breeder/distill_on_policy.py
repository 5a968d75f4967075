"""On-policy distillation where the vocabularies are one: the student writes, the teacher's whole distribution corrects.

TRL's ``DistillationTrainer`` (1.16) does the step: it lets the student sample, runs both models over what was written
and takes the generalised Jensen-Shannon divergence of the two distributions at each written token. Around it is what it
lacks for us:

- The order of prompts, the learning rate and the random numbers of a step follow from the seed and the step's number
  alone, so that a resumed run ends at the bytes of one that was never killed.
- Checkpoints are our own (``checkpoints``): numbers and moments in safetensors. TRL's would be pickles.
- Student and teacher are copies of their bases, so the resident ones are not touched.

Source: Agarwal et al., arXiv:2306.13649; trl 1.16.0, ``trainer/distillation_trainer.py``.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ecology.backend.quiet import quiet
from ecology.breeder.checkpoints import Checkpoints
from ecology.breeder.distill import DistillOptions, Teacher
from ecology.breeder.finetune import ends, order
from ecology.breeder.moments import inner, restore, state_of
from ecology.breeder.parametrisation import adapt
from ecology.breeder.session import Learned, Row, Session
from ecology.breeder.training import share
from ecology.contracts.identity import Json
from ecology.contracts.ports import Step
from ecology.errors import BackendError, ConfigError, IncompatibleParents
from ecology.kernel.canonical import plain
from ecology.runtime.attachment import read_deltas

if TYPE_CHECKING:
    from ecology.breeder.adapted import Adapted
    from ecology.runtime.engine import TransformersEngine


def learn_on_policy(session: Session, teacher: Teacher, rows: Sequence[Row], options: DistillOptions) -> Learned:
    """Steps on what the student writes itself.

    Args:
        session: The student's base, which is not touched, seed and folders.
        teacher: One adapter on a base with the student's vocabulary.
        rows: Whose prompts are asked; their completions are not looked at.
        options: The recipe.

    Raises:
        ConfigError: No rows.
        IncompatibleParents: The vocabularies differ.
        BackendError: TRL is not installed.
    """
    if not rows:
        raise ConfigError("there is nothing to train on", where=session.name)
    student = session.engine
    _one_vocabulary(student, teacher)
    batches = order([len(row[0]) for row in rows], options, session.seed)
    flat = [i for batch in batches for i in batch]
    total = math.ceil(len(flat) / options.batch_size)
    frame = student.frame
    prompts = [f"{frame.head}{rows[i][0]}{frame.tail}" for i in flat]
    kept = Checkpoints(
        session.work,
        plain(
            {
                "identity": student.identity,
                "teacher": [teacher.parent.artifact.digest, teacher.engine.identity],
                "prompts": prompts,
                "options": options,
                "seed": session.seed,
                "environment": session.environment,
            }
        ),
    )
    kind, chosen = options.parametrisation
    with quiet():
        guide, own = _wise(teacher), _copy(student)
    with adapt(own, kind, chosen, base_weights=student.identity.base_weights, seed=session.seed) as adapted:
        book = _Book(adapted, kept, options, session.seed, total)
        with session.progress.track(f"train {session.name}", total, "steps") as bar:
            bar.advance(book.done, "resumed" if book.done else "")
            if book.done < total:
                _train(book, bar, guide, student, prompts[book.done * options.batch_size :], session.work)
        factors = adapted.factors()
        told: dict[str, Json] = {
            "adapter": kind,
            "parameters": adapted.count,
            "bytes": adapted.bytes,
            "steps": total,
            "rows": len(rows),
            **ends(book.losses),
        }
    kept.clear()
    return Learned(factors, told)


class _Book:
    """What a run has behind it, in memory and on disk."""

    def __init__(self, adapted: Adapted, kept: Checkpoints, options: DistillOptions, seed: int, total: int) -> None:
        """Goes on from a sound checkpoint of this very recipe, if there is one."""
        self.adapted, self.kept, self.options, self.seed, self.total = adapted, kept, options, seed, total
        self.losses: list[float] = []
        self._state: bytes | None = None
        if (last := kept.last()) is not None:
            self._state, self.losses = last[0], [float(loss) for loss in last[1]]
            restore(adapted, None, self._state)

    @property
    def done(self) -> int:
        """Steps."""
        return len(self.losses)

    def save(self, optimiser: Any) -> None:
        """Keeps where the run is."""
        self.kept.save(state_of(self.adapted, optimiser), self.losses)

    def restore(self, optimiser: Any) -> None:
        """The moments of a resumed run."""
        if self._state is not None:
            restore(self.adapted, optimiser, self._state)


def _train(book: _Book, bar: Step, guide: Any, student: TransformersEngine, prompts: Sequence[str], work: Path) -> None:
    """TRL's loop over the prompts that are left."""
    try:
        from datasets import Dataset  # noqa: PLC0415  (of the extra `learn`)
        from transformers import PrinterCallback, TrainerCallback  # noqa: PLC0415
        from trl.trainer.distillation_config import DistillationConfig  # noqa: PLC0415
        from trl.trainer.distillation_trainer import DistillationTrainer  # noqa: PLC0415
    except ImportError as error:
        raise BackendError(
            f"on-policy distillation needs TRL: {error}", todo="pip install 'tiny-ecology[learn]'"
        ) from error
    options = book.options

    class Noting(DistillationTrainer):
        """Keeps the loss of each step."""

        def training_step(self, *arguments: Any, **named: Any) -> Any:
            loss = super().training_step(*arguments, **named)  # type: ignore[no-untyped-call]  # TRL has none
            book.losses.append(float(loss.detach()))
            return loss

    class Keeping(TrainerCallback):
        """Makes a step a function of its number, and keeps what it leaves."""

        def on_train_begin(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
            book.restore(inner(optimizer))

        def on_step_begin(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
            torch.manual_seed((book.seed + 1_000_003 * book.done) % 2**63)
            for group in inner(optimizer).param_groups:
                group["lr"] = options.learning_rate * share(book.done, book.total, options)

        def on_step_end(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
            book.adapted.settle()
            if book.done % options.checkpoint_steps == 0 or book.done == book.total:
                book.save(inner(optimizer))
            bar.advance(1, f"divergence {sum(book.losses[-10:]) / len(book.losses[-10:]):.4f}")

    scratch = tempfile.mkdtemp(prefix="trl-", dir=work)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            settings = DistillationConfig(
                output_dir=scratch,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                per_device_train_batch_size=options.batch_size,
                max_steps=book.total - book.done,
                learning_rate=options.learning_rate,
                lr_scheduler_type="constant",
                weight_decay=options.weight_decay,
                max_grad_norm=options.clip_norm,
                optim="adamw_torch",
                beta=options.beta,
                temperature=options.temperature,
                max_completion_length=options.max_new_tokens,
                shuffle_dataset=False,
                seed=book.seed % 2**32,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            )
            trainer = Noting(
                model=book.adapted.peft,
                teacher_model=guide,
                args=settings,
                train_dataset=Dataset.from_dict({"prompt": list(prompts)}),
                processing_class=student.tokenizer,
                callbacks=[Keeping()],
            )
            trainer.remove_callback(PrinterCallback)  # it writes to stdout, which is ours
            trainer.train()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _one_vocabulary(student: TransformersEngine, teacher: Teacher) -> None:
    ours, theirs = student.tokenizer.get_vocab(), teacher.engine.tokenizer.get_vocab()
    sizes = [engine.model.config.vocab_size for engine in (student, teacher.engine)]
    if ours != theirs or sizes[0] != sizes[1]:
        raise IncompatibleParents(
            f"{teacher.parent.name} has a vocabulary of {len(theirs)} tokens that is not the student's of {len(ours)}",
            fields=("tokenizer",),
            where="distill.method",
            todo="teach by text: method=sequence",
        )


def _copy(engine: TransformersEngine) -> Any:
    """A base of its own, in fp32, on which transformers' own attention is used."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model: Any = AutoModelForCausalLM.from_pretrained(engine.base.folder, dtype=torch.float32, local_files_only=True)
    return model.requires_grad_(False).eval()


def _wise(teacher: Teacher) -> Any:
    """A copy of the teacher's base with its change added to the weights."""
    model = _copy(teacher.engine)
    with torch.no_grad():
        for delta in read_deltas(model, teacher.parent.folder).values():
            delta.layer.weight.addmm_(delta.B, delta.A, alpha=delta.scale)
    return model
