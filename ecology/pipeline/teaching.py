"""Children that are taught: teachers opened on their own bases, rows brought together, what was made kept.

A teacher's base is looked up by what its genome says and not by a name: of all presets whose identity is known here,
the one that has the teacher's. The corpus that a distillation makes is kept in this home (``corpora``), because whoever
judges the child has to see that it shares nothing with the suites.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecology.backend.bases import BaseSpec, ensure, known
from ecology.breeder.breed import Bred, Parent
from ecology.breeder.distill import DistillOptions, Teacher, distill
from ecology.breeder.recover import RecoverOptions, recover
from ecology.breeder.schooling import SCHOOLS
from ecology.breeder.session import Session
from ecology.contracts.genome import Genome
from ecology.contracts.identity import CompatibilityIdentity, Digest, Json
from ecology.errors import ConfigError, IncompatibleParents
from ecology.evaluator.corpora import Row, load_corpus
from ecology.kernel import canonical
from ecology.kernel.codec import structure
from ecology.pipeline.bench import Bench, whole_presets
from ecology.pipeline.corpora import keep_corpus, marked
from ecology.pipeline.house import House
from ecology.pipeline.options import read_options
from ecology.pipeline.places import subject

if TYPE_CHECKING:
    from ecology.runtime.engine import TransformersEngine

CORPUS_DIGEST = "corpus_digest"
"""Key of a plan's options: which corpus was planned."""


@dataclasses.dataclass(frozen=True)
class Class:
    """One lesson, before it is given."""

    operator: str
    options: Any
    parents: tuple[Parent, ...]
    seed: int
    name: str
    canaries: tuple[str, ...] = ()
    """Of the policy: strings that mark data which must not be trained on."""
    again: Genome | None = None
    """The certificate of a child that is made again; nothing is kept of that but its bytes."""


def planned_options(operator: str, given: Mapping[str, Json], where: str) -> Mapping[str, Json]:
    """Options of a school, complete and plain, with the digest of the corpus that they name.

    Raises:
        ConfigError: An unknown key, a value out of range, or no such corpus.
    """
    plain: dict[str, Json] = dict(canonical.plain(read_options(SCHOOLS[operator].options, given, where)))
    if "corpus" in plain:
        corpus, _ = load_corpus(subject(str(plain["corpus"]), "corpora"))
        plain[CORPUS_DIGEST] = corpus.digest
    return plain


def options_of_plan(operator: str, planned: Mapping[str, Json]) -> Any:
    """What ``planned_options`` said, as the school's dataclass.

    Raises:
        ConfigError: The corpus is no longer the one that was planned.
    """
    given = {key: value for key, value in planned.items() if key != CORPUS_DIGEST}
    options: Any = structure(SCHOOLS[operator].options, given, operator)
    if CORPUS_DIGEST in planned:
        corpus, _ = load_corpus(subject(str(given["corpus"]), "corpora"))
        if corpus.digest != planned[CORPUS_DIGEST]:
            raise ConfigError(
                "the corpus changed after the run was planned", where=str(given["corpus"]), todo="start the run again"
            )
    return options


def teach(lesson: Class, bench: Bench, corpora: Mapping[Digest, Sequence[Row]], out: Path) -> Bred:
    """Breeds one child by teaching it on the bench's base.

    Args:
        lesson: Operator, options and parents.
        bench: The base that learns.
        corpora: Rows of the corpora at hand.
        out: New folder.

    Raises:
        ConfigError: Nothing to teach, or a teacher's base is not known here.
        IncompatibleParents: The parents may not meet, even to teach.
        IntegrityError: A base or a parent is damaged.
        BackendError: An engine cannot start.
    """
    house = bench.house
    recipe = _recipe(lesson, bench).removeprefix("sha256:")
    again = lesson.again
    work = house.home / "work" / (recipe if again is None else f"again-{recipe}")
    session = session_on(bench, lesson.seed, out, work, lesson.name)
    if lesson.operator == "recover":
        options: RecoverOptions = lesson.options
        (parent,) = lesson.parents
        rows = {digest: taught_rows(found) for digest, found in corpora.items()}
        return recover(session, parent, rows, options)
    asked: DistillOptions = lesson.options
    corpus, found = load_corpus(subject(asked.corpus, "corpora"))
    if again is None:
        corpus, _ = marked(corpus, found, lesson.canaries)
    else:  # marked as it was then, by a policy that is not here
        corpus = next((c for c in again.lineage.corpora if c.digest == corpus.digest), corpus)
    with _teachers(lesson.parents, bench) as teachers:
        bred, data = distill(session, teachers, corpus, taught_rows(found), asked)
    if again is None:
        made = next(c for c in bred.genome.lineage.corpora if c.digest == canonical.digest_bytes(data))
        keep_corpus(house, made, data)
    return bred


def session_on(bench: Bench, seed: int, out: Path, work: Path, name: str) -> Session:
    """A training on a bench's base.

    Args:
        bench: Base, environment and home.
        seed: Of all draws.
        out: New folder of the adapter.
        work: Folder of checkpoints.
        name: For people.
    """
    return Session(
        engine=bench.engine,
        seed=seed,
        out=out,
        work=work,
        environment=bench.environment,
        progress=bench.house.progress,
        name=name,
        keep=bench.house.home / "kept",
    )


def taught_rows(rows: Sequence[Row]) -> list[tuple[str, str, bool]]:
    """Rows of a corpus as what learns takes them."""
    return [(row.prompt, row.completion, row.cut) for row in rows]


def base_of(identity: CompatibilityIdentity, house: House, who: str) -> BaseSpec:
    """The preset whose base has this identity.

    Args:
        identity: As a genome says.
        house: Where bases are cached.
        who: Whose, for the message.

    Raises:
        ConfigError: None of the presets that are known here has it.
    """
    names = []
    for name, spec in whole_presets():
        found = known(spec, house.home)
        if found is not None and found.identity == identity:
            return spec
        names.append(f"{name}{'' if found else ' (not fetched)'}")
    raise ConfigError(
        f"no base that is known here is the one that {who} was made for ({identity.base_weights})",
        where=who,
        todo=f"`ecology base fetch NAME` brings one here; looked at {', '.join(names)}",
    )


@contextlib.contextmanager
def _teachers(parents: Sequence[Parent], bench: Bench) -> Iterator[tuple[Teacher, ...]]:
    """Every parent with an engine of its own base; parents of one base share one, and those of ours have ours."""
    engines: dict[Digest, TransformersEngine] = {bench.identity.base_weights: bench.engine}
    teachers = []
    for parent in parents:
        identity = parent.genome.identity if parent.genome else parent.identity
        if identity is None:
            raise IncompatibleParents(
                "nobody says which base it was made for", fields=("base_weights",), where=parent.name
            )
        if identity.base_weights not in engines:
            base = ensure(base_of(identity, bench.house, parent.name), bench.house.home, bench.house.progress)
            engines[identity.base_weights] = Bench(base, bench.backend, bench.house).engine
        teachers.append(Teacher(parent, engines[identity.base_weights]))
    yield tuple(teachers)
    engines.clear()  # a second base is as large as the first: it is let go as soon as its answers are in


def _recipe(lesson: Class, bench: Bench) -> Digest:
    """Names the folder of checkpoints."""
    return canonical.digest(
        {
            "operator": lesson.operator,
            "options": lesson.options,
            "parents": [parent.artifact.digest for parent in lesson.parents],
            "seed": lesson.seed,
            "identity": bench.identity,
            "environment": bench.environment,
        }
    )
