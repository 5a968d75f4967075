"""Supervised learning, and the operator that makes founders by it: real gradient steps on a corpus, through PEFT.

``learn`` is what every operator shares that is taught by text (``sft``, ``distill``, ``recover``); it trains whatever
the options' parametrisation names. ``finetune`` is the one that makes LoRA founders.

1. Rows become tokens in the base's chat frame; the loss counts the completion and, unless the row says that its
   completion is cut short, the end token.
2. The base gets an adapter in the chosen modules of its last decoder layers; all else is frozen.
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
from ecology.breeder.parametrisation import LoraOptions
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
    from ecology.breeder.adapted import Pair
    from ecology.breeder.training import Trainer
    from ecology.runtime.engine import TransformersEngine

CHECKPOINT_FORMAT = 2
CHECKPOINT_FILE = "checkpoint.json"

Row = tuple[str, str, bool]
"""Prompt, completion, and whether the completion stops in mid-answer (then it is not taught to end there)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How rows are learned, whatever is trained and wherever the rows are from."""

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
        where = self.where
        check_range(self.learning_rate, 0.0, 1.0, f"{where}.learning_rate", open_low=True)
        check_range(self.final_share, 0.0, 1.0, f"{where}.final_share")
        check_range(self.weight_decay, 0.0, 1.0, f"{where}.weight_decay")
        check_range(self.clip_norm, 0.0, 1e6, f"{where}.clip_norm", open_low=True)
        check_range(self.warmup_steps, 0, 10**6, f"{where}.warmup_steps")
        check_range(self.token_decay, 0.0, 1.0, f"{where}.token_decay", open_low=True)
        check_range(self.completion_tokens, 0, 10**6, f"{where}.completion_tokens")
        for name in ("epochs", "batch_size", "bucket_batches", "max_length", "checkpoint_steps"):
            check_range(getattr(self, name), 1, 10**6, f"{where}.{name}")

    @property
    def where(self) -> str:
        """Name of the operator, for messages."""
        return type(self).__name__.removesuffix("Options").lower()

    @property
    def parametrisation(self) -> tuple[str, object]:
        """Row of the table of parametrisations, and its options: what is trained."""
        raise NotImplementedError  # every operator's options say their own; these are never used bare


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoraTraining(TrainOptions):
    """What is trained is a LoRA."""

    rank: int = 8
    """Of every module's factors."""
    alpha: float = 16.0
    """Scale is ``alpha / rank``; folded into the factors when they are written."""
    targets: tuple[str, ...] = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    """Last part of the names of the linear modules that are adapted."""
    layers: int = 15
    """How many of the last decoder layers are adapted; 0 is all of them. The backward pass ends at the first."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: A value is out of range.
        """
        TrainOptions.__post_init__(self)
        check_rank(self.rank, f"{self.where}.rank")
        check_range(self.alpha, 0.0, 1e4, f"{self.where}.alpha", open_low=True)
        check_range(self.layers, 0, 4096, f"{self.where}.layers")
        if not self.targets:
            raise ConfigError("no module is named", where=f"{self.where}.targets", todo="name at least one")

    @property
    def parametrisation(self) -> tuple[str, object]:
        """A LoRA of this rank in these modules."""
        return "lora", LoraOptions(r=self.rank, alpha=self.alpha, targets=self.targets, layers=self.layers)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneOptions(LoraTraining):
    """How a founder is trained."""

    corpus: str
    """Name or folder of the corpus."""


@dataclasses.dataclass(frozen=True, slots=True)
class Learned:
    """What training left."""

    factors: Mapping[str, Pair]
    """The exact LoRA, by module."""
    told: Mapping[str, Json]
    """For the lineage: numbers trained, their bytes, steps, loss at both ends."""


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
    """Trains one LoRA on the engine's base.

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
        keep: Folder of cached decompositions; None computes them.

    Raises:
        ConfigError: No rows, a row too long, or no module matches.
        IntegrityError: The base is not the base afterwards.
        BackendError: An adapter is attached.
    """
    learned = learn(
        engine,
        rows,
        options,
        what=corpus.id,
        seed=seed,
        work=work,
        environment=environment,
        progress=progress,
        name=name,
        keep=keep,
    )
    lineage = Lineage(
        parents=(),
        operator="finetune",
        parameters=plain(options),
        seed=seed,
        corpora=(corpus,),
        generation=0,
        environment=dict(sorted(environment.items())),
    )
    return born(engine, learned, lineage, out, capabilities)


def learn(
    engine: TransformersEngine,
    rows: Sequence[Row],
    options: TrainOptions,
    *,
    what: str,
    seed: int,
    work: Path,
    environment: Mapping[str, str],
    progress: Progress,
    name: str,
    keep: Path | None = None,
    start: Mapping[str, Pair] | None = None,
) -> Learned:
    """Gradient steps on rows, with checkpoints, in the adapter that the options name.

    Args:
        engine: With no adapter attached; the same base when it is done, which is proven.
        rows: What is learned.
        options: The recipe.
        what: The rows' name, for messages.
        seed: Of initial numbers and order of rows.
        work: Folder of checkpoints; emptied at the end.
        environment: A checkpoint of another one is not gone on from.
        progress: Told about steps.
        name: For people.
        keep: Folder of cached decompositions; None computes them.
        start: Factors to go on from; None starts at the base.

    Raises:
        ConfigError: No rows, a row too long, or no module matches.
        IntegrityError: The base is not the base afterwards.
        BackendError: An adapter is attached.
        UnsupportedAdapter: What was trained is no LoRA.
    """
    if not rows:
        raise ConfigError("there is nothing to train on", where=what)
    from ecology.breeder.training import Trainer, tokenise  # noqa: PLC0415  (torch and PEFT)

    examples = tokenise(engine, rows, options, what)
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
            "start": {}
            if start is None
            else {n: [digest_bytes(M.tobytes()) for M in pair] for n, pair in start.items()},
        }
    )
    work.mkdir(parents=True, exist_ok=True)
    with Trainer(engine, examples, options, seed, len(steps), progress, name, keep=keep, start=start) as trainer:
        losses = _resume(trainer, work, recipe)
        with progress.track(f"train {name}", len(steps), "steps") as bar:
            bar.advance(len(losses), "resumed" if losses else "")
            for step in range(len(losses), len(steps)):
                losses.append(trainer.step(step, steps[step]))
                bar.advance(1, f"loss {np.mean(losses[-10:]):.3f}")
                if (step + 1) % options.checkpoint_steps == 0 or step + 1 == len(steps):
                    _save(trainer, work, recipe, losses)
        factors = trainer.adapted.factors()
        told: dict[str, Json] = {
            "adapter": trainer.adapted.kind,
            "parameters": trainer.adapted.count,
            "bytes": trainer.adapted.bytes,
            "steps": len(steps),
            "rows": len(rows),
            **ends(losses),
        }
    engine.prove_base()
    _clear(work)
    return Learned(factors, told)


def ends(losses: Sequence[float]) -> dict[str, Json]:
    """Mean loss of the first and of the last steps, ten or a third of all, as a lineage tells it."""
    few = max(1, min(10, len(losses) // 3))
    first, last = losses[:few], losses[-few:]
    return {"loss_first": round(sum(first) / few, 6), "loss_last": round(sum(last) / few, 6)}


def born(
    engine: TransformersEngine, learned: Learned, lineage: Lineage, out: Path, capabilities: Sequence[str]
) -> Bred:
    """The adapter's folder and its genome.

    Args:
        engine: The base.
        learned: What training left.
        lineage: Where it comes from.
        out: New folder.
        capabilities: What it was taught.
    """
    artifact = write_adapter(out, learned.factors, engine.base.name, engine.identity.base_weights)
    resources = profile(LowRank.of(learned.factors), artifact)
    genome = Genome(engine.identity, INTERFACE_VERSION, tuple(sorted(capabilities)), lineage, resources)
    return Bred(artifact, genome, out)


def order(lengths: Sequence[int], options: TrainOptions, seed: int) -> tuple[tuple[int, ...], ...]:
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
