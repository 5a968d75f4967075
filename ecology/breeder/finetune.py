"""Supervised learning, and the operators that make founders by it: real gradient steps on a corpus, through PEFT.

``learn`` is what every operator shares that is taught by text (``finetune``, ``sft``, ``distill``, ``recover``); it
trains whatever the options' parametrisation names. ``supervise`` is ``finetune`` and ``sft``: which of the two follows
from the options.

1. Rows become tokens in the base's chat frame; the loss counts the completion and, unless the row says that its
   completion is cut short, the end token.
2. The base gets an adapter in the chosen modules of its last decoder layers; all else is frozen.
3. Steps of AdamW, in an order that follows from the seed; every few steps a checkpoint, so that a killed run goes on
   and ends at the same bytes.
4. The factors are written with scale 1, the base is unwrapped and proven to be the base.

Equal engine, rows, options and seed give equal bytes on equal machines: kind of CPU, versions and thread count are in
the environment, which is part of the lineage and of a checkpoint's name.

Source: AdamW, arXiv:1711.05101; schedule: linear warm-up and cosine, arXiv:1608.03983.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ecology.breeder.breed import Bred
from ecology.breeder.checkpoints import Checkpoints
from ecology.breeder.curricula import FinetuneOptions, Lesson, SftOptions, TrainOptions
from ecology.breeder.session import Learned, Row, Session
from ecology.contracts.artifact import Corpus
from ecology.contracts.identity import Json
from ecology.errors import ConfigError
from ecology.kernel.canonical import digest_bytes, plain

if TYPE_CHECKING:  # torch and PEFT are imported when there is something to train
    from ecology.breeder.adapted import Pair


def supervise(
    session: Session,
    corpus: Corpus,
    rows: Sequence[Row],
    options: FinetuneOptions | SftOptions,
    capabilities: Sequence[str],
) -> Bred:
    """Trains one adapter on the session's base.

    Args:
        session: Base, seed and folders.
        corpus: For the lineage.
        rows: Of the corpus, in file order.
        options: The recipe; its kind says which operator this is.
        capabilities: What it is trained for.

    Raises:
        ConfigError: No rows, a row too long, no module matches, or groups that cannot be cut evenly.
        UnsupportedAdapter: The parametrisation has no exact LoRA.
        IntegrityError: The base is not the base afterwards, or a cached decomposition is damaged.
        BackendError: An adapter is attached.
    """
    learned = learn(session, rows, options, what=corpus.id)
    lineage = session.lineage(options.where, options, (corpus,), learned=learned.told if options.tells else None)
    return session.born(learned.factors, lineage, capabilities)


def learn(
    session: Session,
    rows: Sequence[Row],
    options: Lesson,
    *,
    what: str,
    start: Mapping[str, Pair] | None = None,
) -> Learned:
    """Gradient steps on rows, with checkpoints, in the adapter that the options name.

    Args:
        session: Base, seed and folders; nothing is written to ``out``.
        rows: What is learned.
        options: The recipe.
        what: The rows' name, for messages.
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

    engine, seed, progress = session.engine, session.seed, session.progress
    examples = tokenise(engine, rows, options, what)
    steps = order(tuple(map(len, examples)), options, seed)
    going = {} if start is None else {n: [digest_bytes(M.tobytes()) for M in pair] for n, pair in start.items()}
    kept = Checkpoints(
        session.work,
        plain(
            {
                "identity": engine.identity,
                "rows": rows,
                "options": options,
                "seed": seed,
                "environment": session.environment,
                "threads": engine.threads,
                "start": going,
            }
        ),
    )
    cache = session.decompositions
    with Trainer(
        engine, examples, options, seed, len(steps), progress, session.name, keep=cache, start=start
    ) as trainer:
        losses: list[float] = []
        if (last := kept.last()) is not None:
            trainer.load(last[0])
            losses = [float(loss) for loss in last[1]]
        with progress.track(f"train {session.name}", len(steps), "steps") as bar:
            bar.advance(len(losses), "resumed" if losses else "")
            for step in range(len(losses), len(steps)):
                losses.append(trainer.step(step, steps[step]))
                bar.advance(1, f"loss {np.mean(losses[-10:]):.3f}")
                if (step + 1) % options.checkpoint_steps == 0 or step + 1 == len(steps):
                    kept.save(trainer.state(), losses)
        factors = trainer.adapted.factors()
        told: dict[str, Any] = {
            "adapter": trainer.adapted.kind,
            "parameters": trainer.adapted.count,
            "bytes": trainer.adapted.bytes,
            "steps": len(steps),
            "rows": len(rows),
            **ends(losses),
        }
    engine.prove_base()
    kept.clear()
    return Learned(factors, told)


def ends(losses: Sequence[float]) -> dict[str, Json]:
    """Mean loss of the first and of the last steps, ten or a third of all, as a lineage tells it."""
    few = max(1, min(10, len(losses) // 3))
    first, last = losses[:few], losses[-few:]
    return {"loss_first": round(sum(first) / few, 6), "loss_last": round(sum(last) / few, 6)}


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
