"""Distillation: what weights of different bases cannot do, text can.

Parents whose ``CompatibilityIdentity`` differs have no sum. So each answers the same prompts on its own base, an
ensemble of the answers is chosen by a verifier, and an adapter of the one chosen base learns them. The child's lineage
has all teachers as parents and all their corpora as its own, with the ban on training where one of them had it.

1. Prompts are those of a corpus, its completions the references of the verifier. Every teacher answers all that are
   asked (``probe``), once, greedily.
2. Hard ones first: ``hard_share`` of the lessons are prompts that somebody in the population answers wrongly, the
   hardest first; the others are drawn by lot.
3. ``ensemble`` chooses a reply for each prompt (``lessons``); where none is right the corpus' own completion is taught
   (``unverified: reference``) or the prompt is left out (``drop``).
4. The student learns the rows as it would learn any corpus (``finetune.learn``): checkpoints, equal bytes again.

Any teacher that answers in text will do, which is why this is sequence-level: it needs no shared vocabulary (Kim and
Rush, arXiv:1606.07947). Where the vocabularies are one, ``method: on_policy`` lets the student write and the teacher's
whole distribution correct it (``distill_on_policy``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from ecology.breeder.breed import Bred, Parent
from ecology.breeder.curricula import LoraTraining
from ecology.breeder.finetune import learn
from ecology.breeder.lessons import Choice, ensemble, hardest, made_corpus
from ecology.breeder.options import check_range
from ecology.breeder.session import Row, Session
from ecology.contracts.artifact import Corpus
from ecology.contracts.genome import Genome
from ecology.contracts.ports import Progress
from ecology.errors import ConfigError, IncompatibleParents
from ecology.kernel.merging import inherited, objections
from ecology.verifier.reference import agrees, gist

if TYPE_CHECKING:
    from ecology.runtime.engine import TransformersEngine


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions(LoraTraining):
    """How a student is taught by others."""

    corpus: str
    """Name or folder of the corpus whose prompts the teachers answer."""
    probe: int = 256
    """Prompts that teachers and population answer; at most so many as the corpus has."""
    lessons: int = 128
    """Rows that are taught, at most."""
    hard_share: float = 0.5
    """Of the lessons that are prompts which somebody answers wrongly, 0 to 1."""
    ensemble: Choice = "verified_majority"
    unverified: Literal["reference", "drop"] = "reference"
    """What is taught where no teacher is right: the corpus' own completion, or nothing."""
    max_new_tokens: int = 64
    """Of a teacher's answer; one that is not finished by then is taught as cut short."""
    method: Literal["sequence", "on_policy"] = "sequence"
    beta: float = 0.5
    """Of ``on_policy``: generalised Jensen-Shannon, 0 is forward and 1 reverse Kullback-Leibler divergence."""
    temperature: float = 1.0
    """Of ``on_policy``: at which the student writes."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: A value is out of range.
        """
        LoraTraining.__post_init__(self)
        check_range(self.hard_share, 0.0, 1.0, "distill.hard_share")
        check_range(self.beta, 0.0, 1.0, "distill.beta")
        check_range(self.temperature, 0.0, 10.0, "distill.temperature", open_low=True)
        for name in ("probe", "lessons", "max_new_tokens"):
            check_range(getattr(self, name), 1, 10**6, f"distill.{name}")


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A parent on the base that it was made for."""

    parent: Parent
    engine: TransformersEngine

    @property
    def genome(self) -> Genome:
        """Its birth certificate.

        Raises:
            IncompatibleParents: It has none, so nobody says what it learned from.
        """
        if self.parent.genome is None:
            raise IncompatibleParents(
                "a teacher without a genome says nothing of what it was trained on",
                fields=("lineage",),
                where=self.parent.name,
                todo="sign it with a genome first",
            )
        return self.parent.genome


@dataclasses.dataclass(frozen=True, slots=True)
class Lessons:
    """What is taught, and how it came about."""

    rows: tuple[Row, ...]
    hard: int
    """Rows among them that somebody in the population answered wrongly."""
    own: int
    """Rows that are the corpus' own completion, since no teacher was right."""
    right: Mapping[str, float]
    """Teacher -> share of the probed prompts that it answers rightly."""


def distill(
    session: Session, teachers: Sequence[Teacher], corpus: Corpus, rows: Sequence[Row], options: DistillOptions
) -> tuple[Bred, bytes]:
    """Teaches one adapter on the student's base.

    Args:
        session: The student's base, seed and folders.
        teachers: At least one, in the order of the parents; each engine with no adapter attached.
        corpus: Whose prompts are asked.
        rows: Its rows: prompt and reference.
        options: The recipe.

    Returns:
        The child, and the file of the corpus that was made for it: whoever judges the child needs its rows.

    Raises:
        ConfigError: No row is left to teach, a row is too long, or on-policy teaching across vocabularies.
        IncompatibleParents: A teacher has no genome, speaks another interface version, or descends from itself.
        IntegrityError: A base is not the base afterwards.
    """
    genomes = meet(teachers)
    lessons = prepare(teachers, rows, options, session.seed, session.progress)
    sources = (corpus, *inherited(genomes))
    made, data = made_corpus(f"distilled-{corpus.id}", lessons.rows, sources)
    if options.method == "on_policy":
        from ecology.breeder.distill_on_policy import learn_on_policy  # noqa: PLC0415  (torch and TRL)

        learned = learn_on_policy(session, teachers[0], lessons.rows, options)
    else:
        learned = learn(session, lessons.rows, options, what=made.id)
    lineage = session.lineage(
        "distill",
        options,
        inherited(genomes, (corpus, made)),
        parents=tuple(teacher.parent.artifact.digest for teacher in teachers),
        generation=1 + max(genome.lineage.generation for genome in genomes),
        learned={
            **learned.told,
            "hard_rows": lessons.hard,
            "reference_rows": lessons.own,
            "teachers_right": {name: round(share, 6) for name, share in lessons.right.items()},
        },
    )
    capabilities = sorted({capability for genome in genomes for capability in genome.capabilities})
    return session.born(learned.factors, lineage, capabilities), data


def meet(teachers: Sequence[Teacher]) -> tuple[Genome, ...]:
    """The teachers' genomes, if they may teach together: any bases, but known interfaces and no loops.

    Raises:
        ConfigError: Nobody teaches.
        IncompatibleParents: They may not meet.
    """
    if not teachers:
        raise ConfigError("nobody teaches", where="distill", todo="name one parent at least")
    genomes = tuple(teacher.genome for teacher in teachers)
    pairs = [(teacher.parent.artifact.digest, genome) for teacher, genome in zip(teachers, genomes, strict=True)]
    found = objections(pairs, same_base=False)
    for teacher, genome in zip(teachers, genomes, strict=True):
        if fields := genome.identity.differences(teacher.engine.identity):
            raise IncompatibleParents(
                f"{teacher.parent.name} was made for another base than the one it is to answer on",
                fields=fields,
                where=teacher.parent.name,
                todo="name its own base",
            )
    if found:
        raise IncompatibleParents(
            "; ".join(objection.reason for objection in found),
            fields=tuple(dict.fromkeys(field for objection in found for field in objection.fields)),
            where=", ".join(teacher.parent.name for teacher in teachers),
        )
    return genomes


def prepare(
    teachers: Sequence[Teacher], rows: Sequence[Row], options: DistillOptions, seed: int, progress: Progress
) -> Lessons:
    """Asks every teacher, and chooses what is taught.

    Args:
        teachers: In order.
        rows: Prompt, reference, and whether the reference is cut short.
        options: The recipe.
        seed: Of the lots.
        progress: Told about answers.

    Raises:
        ConfigError: No prompts.
    """
    if not rows:
        raise ConfigError("there are no prompts", where=options.corpus)
    asked = hardest(dict.fromkeys(range(len(rows)), 0.0), options.probe, 0.0, seed)
    said = [_answers(teacher, [rows[i][0] for i in asked], options.max_new_tokens, progress) for teacher in teachers]
    right = [[agrees(reply, rows[i][1]) for i, (reply, _) in zip(asked, replies, strict=True)] for replies in said]
    wrong = {i: sum(not one[place] for one in right) / len(right) for place, i in enumerate(asked)}
    places = {i: place for place, i in enumerate(asked)}
    taught: list[Row] = []
    own = hard = 0
    for i in hardest(wrong, options.lessons, options.hard_share, seed + 1):
        prompt, reference, cut = rows[i]
        replies = [replies[places[i]] for replies in said]
        reply = ensemble([text for text, _ in replies], reference, options.ensemble, agrees, gist)
        if reply is not None:
            unfinished = next(short for text, short in replies if text.strip() == reply)
            taught.append((prompt, reply, unfinished))
        elif options.unverified == "reference":
            taught.append((prompt, reference, cut))
            own += 1
        else:
            continue
        hard += wrong[i] > 0
    shares = {teacher.parent.name: sum(one) / len(one) for teacher, one in zip(teachers, right, strict=True)}
    return Lessons(tuple(taught), hard, own, shares)


def _answers(
    teacher: Teacher, prompts: Sequence[str], max_new_tokens: int, progress: Progress
) -> list[tuple[str, bool]]:
    """Greedy replies, each with whether it was cut short."""
    engine = teacher.engine
    engine.prove_base()
    encoded = engine.encode_prompts(prompts)
    label = f"{teacher.parent.name} answers"
    with engine.attach(teacher.parent.folder), progress.track(label, len(prompts), "prompts") as bar:
        replies = engine.continue_tokens(encoded, max_new_tokens, bar)
    engine.prove_base()
    return [(engine.decode(reply), len(reply) >= max_new_tokens) for reply in replies]
