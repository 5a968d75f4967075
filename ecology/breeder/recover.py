"""Recovery: what a merge or a cut took, a short lesson gives back. Merge, add noise, fine-tune, gate.

The parent is the child of a merge or of pruning. Noise first moves it off the point where its parents pull in
opposite directions (``mutate``); then it goes on learning, in its own factors, from a mixture of the corpora that its
ancestors were trained on, in equal parts, and from rows that it gets wrong now. The result is a child with one parent,
of the next generation, and nothing in it is new: no corpus is added to the lineage.

A corpus that must not be trained on is left out of the mixture, whoever was trained on it before. The mark stays in the
lineage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ecology.breeder.breed import Bred, Parent
from ecology.breeder.curricula import Lesson, TrainOptions
from ecology.breeder.finetune import learn
from ecology.breeder.lessons import hardest, mixture
from ecology.breeder.mutate import MutateOptions, mutate
from ecology.breeder.options import check_range, check_rank
from ecology.breeder.parametrisation import LoraOptions
from ecology.breeder.session import Row, Session
from ecology.contracts.genome import Genome
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError, IncompatibleParents, IntegrityError
from ecology.kernel.merging import inherited, objections
from ecology.lowrank.lowrank import LowRank, Stored
from ecology.store.adapters import describe, read_adapter
from ecology.verifier.reference import agrees

if TYPE_CHECKING:
    from ecology.breeder.adapted import Pair
    from ecology.runtime.engine import TransformersEngine


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecoverOptions(TrainOptions):
    """How a child recovers."""

    rows: int = 128
    """Of the mixture and the hard examples together."""
    hard_share: float = 0.5
    """Of the rows that are taken because it gets them wrong, 0 to 1."""
    probe: int = 256
    """Rows of the mixture that it is asked to find those."""
    max_new_tokens: int = 64
    """Of its answers."""
    spectrum: float = 0.0
    """Noise on the singular values (``mutate``), 0 to 1."""
    noise: float = 0.02
    """Norm of the noise out of its span over that of the module (``mutate``), 0 to 1."""
    rank: int | None = None
    """Of the child, at least the parent's; None: the parent's, and one for the noise."""
    epochs: int = 1
    learning_rate: float = 3e-4

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: A value is out of range.
        """
        TrainOptions.__post_init__(self)
        check_range(self.hard_share, 0.0, 1.0, "recover.hard_share")
        check_range(self.spectrum, 0.0, 1.0, "recover.spectrum")
        check_range(self.noise, 0.0, 1.0, "recover.noise")
        check_rank(self.rank, "recover.rank")
        for name in ("rows", "probe", "max_new_tokens"):
            check_range(getattr(self, name), 1, 10**6, f"recover.{name}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Going(Lesson):
    """The training part of the options, in the modules of the parent."""

    rank: int
    targets: tuple[str, ...]
    layers: int

    @property
    def parametrisation(self) -> tuple[str, object]:
        """A LoRA of scale 1 in the parent's own modules."""
        return "lora", LoraOptions(r=self.rank, alpha=float(self.rank), targets=self.targets, layers=self.layers)


def recover(session: Session, parent: Parent, corpora: Mapping[Digest, Sequence[Row]], options: RecoverOptions) -> Bred:
    """Lets one adapter recover on its own base.

    Args:
        session: Base, seed and folders.
        parent: The merged or pruned adapter.
        corpora: Rows by digest, of at least one corpus of its lineage.
        options: The recipe.

    Raises:
        ConfigError: No corpus of the lineage is at hand and may be trained on, or a rank too small.
        IncompatibleParents: It has no genome, or was made for another base.
        IntegrityError: Its folder does not hold its bytes, or the base is not the base afterwards.
    """
    genome = _genome(parent, session.engine)
    taught = [corpus for corpus in genome.lineage.corpora if corpus.digest in corpora and not corpus.no_train]
    if not taught:
        raise ConfigError(
            "no corpus of its lineage is at hand and may be trained on",
            where=parent.name,
            todo="have the corpora of its founders here",
        )
    adapter = read_adapter(parent.folder)
    before = LowRank.of({n: Stored(f.B, f.A, f.scale) for n, f in adapter.modules.items()})
    noisy = mutate([before], MutateOptions(spectrum=options.spectrum, noise=options.noise), session.seed)
    start: dict[str, Pair] = {
        n: (np.ascontiguousarray(f.B, np.float32), np.ascontiguousarray(f.A, np.float32))
        for n, f in noisy.modules.items()
        if f.rank
    }
    going = _going(options, start, session.engine)
    rows, hard = _lesson(session, parent, [corpora[corpus.digest] for corpus in taught], options)
    learned = learn(session, rows, going, what=f"recovery of {parent.name}", start=start)
    lineage = session.lineage(
        "recover",
        options,
        inherited([genome]),
        parents=(parent.artifact.digest,),
        generation=1 + genome.lineage.generation,
        learned={**learned.told, "hard_rows": hard, "corpora": sorted(corpus.id for corpus in taught)},
    )
    return session.born(learned.factors, lineage, genome.capabilities)


def _genome(parent: Parent, engine: TransformersEngine) -> Genome:
    genome = parent.genome
    if genome is None:
        raise IncompatibleParents(
            "without a genome nobody knows what it was trained on", fields=("lineage",), where=parent.name
        )
    if fields := genome.identity.differences(engine.identity):
        raise IncompatibleParents(
            f"{parent.name} was made for another base", fields=fields, where=parent.name, todo="name its own base"
        )
    if found := objections([(parent.artifact.digest, genome)]):
        raise IncompatibleParents(found[0].reason, fields=found[0].fields, where=parent.name)
    if (held := describe(parent.folder).digest) != parent.artifact.digest:
        raise IntegrityError(
            f"parent {parent.name} should be {parent.artifact.digest} and is {held}",
            where=str(parent.folder),
            todo="take it from the store again",
        )
    return genome


def _going(options: RecoverOptions, start: Mapping[str, Pair], engine: TransformersEngine) -> _Going:
    """Training in exactly the layers and kinds of module that the parent changes."""
    layers = engine.model.base_model.layers
    names = {id(module): name for name, module in engine.model.named_modules()}
    prefixes = [f"{names[id(layer)]}." for layer in layers]
    if strange := sorted(n for n in start if not any(n.startswith(prefix) for prefix in prefixes)):
        raise ConfigError(f"{strange[0]} lies in no decoder layer", where="recover", todo="recover a LoRA of layers")
    if not start:
        raise ConfigError("it changes nothing, so there is nothing to recover", where="recover")
    first = min(i for i, prefix in enumerate(prefixes) if any(n.startswith(prefix) for n in start))
    most = max(A.shape[0] for _, A in start.values())
    if options.rank is not None and options.rank < most:
        raise ConfigError(f"rank {options.rank} has no room for {most}", where="recover.rank")
    shared = {f.name: getattr(options, f.name) for f in dataclasses.fields(TrainOptions)}
    return _Going(
        **shared,
        rank=options.rank or most,
        targets=tuple(sorted({name.rpartition(".")[2] for name in start})),
        layers=len(layers) - first,
    )


def _lesson(
    session: Session, parent: Parent, parts: Sequence[Sequence[Row]], options: RecoverOptions
) -> tuple[list[Row], int]:
    """Rows to learn, and how many of them it gets wrong now."""
    engine, seed, progress = session.engine, session.seed, session.progress
    drawn = [parts[corpus][row] for corpus, row in mixture(parts, max(options.probe, options.rows), seed)]
    asked = drawn[: options.probe] if options.hard_share else []
    wrong: dict[int, float] = dict.fromkeys(range(len(drawn)), 0.0)
    if asked:
        engine.prove_base()
        encoded = engine.encode_prompts([row[0] for row in asked])
        with engine.attach(parent.folder), progress.track(f"{parent.name} answers", len(asked), "prompts") as bar:
            said = [engine.decode(reply) for reply in engine.continue_tokens(encoded, options.max_new_tokens, bar)]
        wrong |= {i: float(not _right(reply, row)) for i, (reply, row) in enumerate(zip(said, asked, strict=True))}
    chosen = hardest(wrong, options.rows, options.hard_share, seed)
    return [drawn[i] for i in chosen], sum(wrong[i] > 0 for i in chosen)


def _right(reply: str, row: Row) -> bool:
    """Whether it says what the row has; of a row that is cut short, whether it begins so."""
    _, reference, cut = row
    return reply.strip().startswith(reference.strip()) if cut else agrees(reply, reference)
