"""The operator that makes founders: real gradient steps on a corpus, LoRA through PEFT, on the resident base.

1. Rows become tokens in the base's chat frame; the loss counts the completion and, unless the row says that its
   completion is cut short, the end token.
2. The base gets LoRA layers in the chosen modules of its last decoder layers; all else is frozen.
3. Steps of AdamW, in an order that follows from the seed; every few steps a checkpoint, so that a killed run goes on
   and ends at the same bytes.
4. The factors are written with scale 1, the base is unwrapped and proven to be the base.

Equal engine, rows, options and seed give equal bytes on equal machines: kind of CPU, versions and thread count are in
the environment, which is part of the lineage and of a checkpoint's name.

Source: LoRA, arXiv:2106.09685; AdamW, arXiv:1711.05101; schedule: linear warm-up and cosine, arXiv:1608.03983.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ecology.breeder.breed import Bred, profile
from ecology.breeder.options import check_range, check_rank
from ecology.contracts.artifact import Corpus
from ecology.contracts.genome import INTERFACE_VERSION, Genome, Lineage
from ecology.contracts.identity import Digest, Json
from ecology.contracts.ports import Progress
from ecology.errors import ConfigError
from ecology.kernel.canonical import canonical, digest, digest_bytes, plain
from ecology.lowrank.lowrank import LowRank
from ecology.store.adapters import write_adapter
from ecology.store.files import write_atomic

if TYPE_CHECKING:  # torch and PEFT are imported when there is something to train
    from ecology.breeder.training import Trainer
    from ecology.runtime.engine import TransformersEngine

CHECKPOINT_FORMAT = 1
CHECKPOINT_FILE = "checkpoint.json"

Row = tuple[str, str, bool]
"""Prompt, completion, and whether the completion stops in mid-answer (then it is not taught to end there)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneOptions:
    """How a founder is trained."""

    corpus: str
    """Name or folder of the corpus."""
    rank: int = 8
    """Of every module's factors."""
    alpha: float = 16.0
    """Scale is ``alpha / rank``; folded into the factors when they are written."""
    targets: tuple[str, ...] = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    """Last part of the names of the linear modules that are adapted."""
    layers: int = 15
    """How many of the last decoder layers are adapted; 0 is all of them. The backward pass ends at the first."""
    epochs: int = 1
    batch_size: int = 8
    """Rows a step."""
    learning_rate: float = 1e-3
    """At its peak."""
    warmup_steps: int = 10
    """Steps of linear rise from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the rise: half a cosine down to ``final_share`` of the peak, or level."""
    final_share: float = 0.1
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    """Largest gradient norm of a step."""
    bucket_batches: int = 8
    """Rows are sorted by length inside windows of this many batches, which saves padding; 1 does not sort."""
    loss_over: Literal["tokens", "rows"] = "tokens"
    """What counts alike in a step: every completion token, or every row however long its completion is."""
    token_decay: float = 1.0
    """Each further token of a completion counts this much less, above 0 to 1; below 1 the opening matters most."""
    completion_tokens: int = 0
    """Only so many tokens of a completion are taught, and its end is not when it is longer; 0 is all of them."""
    max_length: int = 256
    """Tokens of a row, frame and completion together; a longer row is an error."""
    checkpoint_steps: int = 25

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: A value is out of range.
        """
        check_rank(self.rank, "finetune.rank")
        check_range(self.alpha, 0.0, 1e4, "finetune.alpha", open_low=True)
        check_range(self.layers, 0, 4096, "finetune.layers")
        check_range(self.learning_rate, 0.0, 1.0, "finetune.learning_rate", open_low=True)
        check_range(self.final_share, 0.0, 1.0, "finetune.final_share")
        check_range(self.weight_decay, 0.0, 1.0, "finetune.weight_decay")
        check_range(self.clip_norm, 0.0, 1e6, "finetune.clip_norm", open_low=True)
        check_range(self.warmup_steps, 0, 10**6, "finetune.warmup_steps")
        check_range(self.token_decay, 0.0, 1.0, "finetune.token_decay", open_low=True)
        check_range(self.completion_tokens, 0, 10**6, "finetune.completion_tokens")
        for name in ("epochs", "batch_size", "bucket_batches", "max_length", "checkpoint_steps"):
            check_range(getattr(self, name), 1, 10**6, f"finetune.{name}")
        if not self.targets:
            raise ConfigError("no module is named", where="finetune.targets", todo="name at least one")


def finetune(
    engine: TransformersEngine,
    corpus: Corpus,
    rows: Sequence[Row],
    options: FinetuneOptions,
    *,
    seed: int,
    out: Path,
    work: Path,
    environment: Mapping[str, str],
    capabilities: Sequence[str],
    progress: Progress,
    name: str = "founder",
    keep: Path | None = None,
) -> Bred:
    """Trains one adapter on the engine's base.

    Args:
        engine: With no adapter attached; the same base when it is done, which is proven.
        corpus: For the lineage.
        rows: Of the corpus, in file order.
        options: The recipe.
        seed: Of initial factors and order of rows, 0 to 2**53 - 1.
        out: New folder of the adapter.
        work: Folder of checkpoints; emptied at the end.
        environment: For the lineage.
        capabilities: What it is trained for.
        progress: Told about steps.
        name: For people.
        keep: Nothing outlives this training but the adapter.

    Raises:
        ConfigError: No rows, a row too long, or no module matches.
        IntegrityError: The base is not the base afterwards.
        BackendError: An adapter is attached.
    """
    del keep
    if not rows:
        raise ConfigError("there is nothing to train on", where=corpus.id)
    from ecology.breeder.training import Trainer, tokenise  # noqa: PLC0415  (torch and PEFT)

    examples = tokenise(engine, rows, options, corpus.id)
    steps = order(tuple(map(len, examples)), options, seed)
    recipe = digest(
        {
            "format": CHECKPOINT_FORMAT,
            "identity": engine.identity,
            "rows": rows,
            "options": options,
            "seed": seed,
            "environment": environment,
            "threads": engine.threads,
        }
    )
    work.mkdir(parents=True, exist_ok=True)
    with Trainer(engine, examples, options, seed, len(steps), progress, name) as trainer:
        losses = _resume(trainer, work, recipe)
        with progress.track(f"train {name}", len(steps), "steps") as bar:
            bar.advance(len(losses), "resumed" if losses else "")
            for step in range(len(losses), len(steps)):
                losses.append(trainer.step(step, steps[step]))
                bar.advance(1, f"loss {np.mean(losses[-10:]):.3f}")
                if (step + 1) % options.checkpoint_steps == 0 or step + 1 == len(steps):
                    _save(trainer, work, recipe, losses)
        factors = trainer.factors()
    engine.prove_base()
    artifact = write_adapter(out, factors, engine.base.name, engine.identity.base_weights)
    lineage = Lineage(
        parents=(),
        operator="finetune",
        parameters=plain(options),
        seed=seed,
        corpora=(corpus,),
        generation=0,
        environment=dict(sorted(environment.items())),
    )
    resources = profile(LowRank.of(factors), artifact)
    genome = Genome(engine.identity, INTERFACE_VERSION, tuple(sorted(capabilities)), lineage, resources)
    _clear(work)
    return Bred(artifact, genome, out)


def order(lengths: Sequence[int], options: FinetuneOptions, seed: int) -> tuple[tuple[int, ...], ...]:
    """Which rows each step takes.

    Each epoch shuffles all rows, sorts by length inside windows of ``bucket_batches`` batches, cuts into batches and
    shuffles those; so rows of a batch are about as long, and each row is seen once an epoch.

    Args:
        lengths: Tokens of each row.
        options: Epochs, batch size and window.
        seed: With the epoch, of the shuffles.
    """
    steps: list[tuple[int, ...]] = []
    window = options.batch_size * options.bucket_batches
    for epoch in range(options.epochs):
        random = np.random.Generator(np.random.PCG64([seed, epoch]))
        rows = [int(i) for i in random.permutation(len(lengths))]
        batches: list[tuple[int, ...]] = []
        for start in range(0, len(rows), window):
            part = rows[start : start + window]
            if options.bucket_batches > 1:
                part = sorted(part, key=lambda i: lengths[i])
            batches += [tuple(part[i : i + options.batch_size]) for i in range(0, len(part), options.batch_size)]
        steps += [batches[int(i)] for i in random.permutation(len(batches))]
    return tuple(steps)


def _save(trainer: Trainer, work: Path, recipe: Digest, losses: Sequence[float]) -> None:
    """State first, then the note that names it, so that a note always has its state."""
    data = trainer.state()
    file = f"step-{len(losses):06d}.safetensors"
    write_atomic(work / file, data)
    note = {"recipe": recipe, "file": file, "digest": digest_bytes(data), "losses": list(losses)}
    write_atomic(work / CHECKPOINT_FILE, canonical(note))
    for old in work.glob("step-*.safetensors"):
        if old.name != file:
            old.unlink()


def _resume(trainer: Trainer, work: Path, recipe: Digest) -> list[float]:
    """Losses of the steps that a checkpoint of this very recipe has behind it; none where there is no sound one."""
    try:
        note: dict[str, Json] = json.loads((work / CHECKPOINT_FILE).read_bytes())
        if note["recipe"] != recipe:
            return []
        data = (work / Path(note["file"]).name).read_bytes()
        if digest_bytes(data) != note["digest"]:
            return []
        losses = [float(loss) for loss in note["losses"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # damaged or absent: training from the start gives the same bytes
    trainer.load(data, len(losses))
    return losses


def _clear(work: Path) -> None:
    for file in [*work.glob("step-*.safetensors"), work / CHECKPOINT_FILE]:
        file.unlink(missing_ok=True)
    if not any(work.iterdir()):
        work.rmdir()
