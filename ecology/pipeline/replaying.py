"""``ecology registry replay``: an adapter made again from its genome, to see that the same bytes come out.

A child of the algebra is bred again from its parents in seconds. What was taught is trained again, on its base and from
its corpora: that takes as long as it took, so it is not done without being asked for twice (``agreed``), and it goes on
where it was when it was interrupted. The number of threads is the one that the genome records, whatever this machine
has; what else of the environment differs is named, since other bytes then prove nothing.

Nothing is registered. In the home stay decompositions of the base's weights, and the numbers that a training by reward
lays beside what it makes.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from ecology.backend.bases import BaseSpec, ensure
from ecology.breeder.breed import Bred, Parent
from ecology.breeder.cost import MACHINES, SHAPES, cost
from ecology.breeder.grpo import GrpoOptions
from ecology.breeder.learners import LEARNERS
from ecology.breeder.operators import known
from ecology.breeder.replay import Replay, compared, replay
from ecology.breeder.schooling import SCHOOLS
from ecology.contracts.artifact import Corpus
from ecology.contracts.genome import Genome, Lineage
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError
from ecology.evaluator.corpora import Row, load_corpus
from ecology.kernel.codec import structure
from ecology.pipeline.bench import Bench, environment_of
from ecology.pipeline.corpora import held_corpora
from ecology.pipeline.house import House
from ecology.pipeline.places import subject
from ecology.pipeline.settings import BackendSettings
from ecology.pipeline.teaching import Class, base_of, session_on, taught_rows, teach
from ecology.signer.verify import genome_of, verify_claims
from ecology.store.adapters import describe


def replayed(text: str, house: House, *, agreed: bool = False, batch_size: int = 64) -> Replay:
    """Makes an adapter of this home's store again, from its genome.

    Args:
        text: A digest, the beginning of one, a name or an alias.
        house: Where it is.
        agreed: Whether it may train.
        batch_size: Rows that the base reads at once while it trains; no genome records it, and another may round
            otherwise.

    Raises:
        ConfigError: Nothing or more than one thing is meant, it was brought from outside, nobody vouches for a genome,
            a corpus or base is not at hand, or it would have to train and that was not agreed to.
        IntegrityError: It or a parent is not held, or damaged.
        LearningRefused: Training it again is refused.
        Stopped: The home was stopped.
    """
    digest = Digest(house.registry.resolve(text))
    genome, folder = _held(digest, house)
    lineage = genome.lineage
    names = house.registry.names()
    parents = []
    for one in lineage.parents:
        certificate, place = _held(one, house)
        parents.append(Parent(names.get(one, one[7:19]), place, describe(place), certificate))
    threads = int(lineage.environment.get("threads", "1"))
    with tempfile.TemporaryDirectory(prefix="replay-") as scratch:
        out = Path(scratch) / "child"
        if lineage.parents and lineage.operator in known():
            return replay(describe(folder), genome, folder, parents, out, environment_of(threads))
        if lineage.operator not in LEARNERS and lineage.operator not in SCHOOLS:
            raise ConfigError(
                f"an adapter that was made by {lineage.operator!r} was not made here",
                where=digest,
                todo="replay what was bred or trained",
            )
        spec = base_of(genome.identity, house, text)
        if not agreed:
            raise ConfigError(
                f"{lineage.operator} has to be trained again, which takes as long as it took: "
                f"{cost_of(lineage, spec)}, on {spec.name} in {threads} threads",
                where=names.get(digest) or digest,
                todo="add --yes; progress tells the time left, and when interrupted the same command goes on",
            )
        house.stop_check()
        base = ensure(spec, house.home, house.progress)
        bench = Bench(base, BackendSettings(kind="transformers", threads=threads, batch_size=batch_size), house)
        with house.lock(f"replay-{digest[7:23]}"):
            bred = _trained(digest, genome, parents, bench, out, names.get(digest) or digest[7:19])
        return compared(describe(folder), genome, bred, bench.environment)


def cost_of(lineage: Lineage, base: BaseSpec) -> str:
    """What training it again takes, in words.

    Args:
        lineage: Operator, options, and what was told then.
        base: On which it learns.
    """
    given, told = lineage.parameters, lineage.learned or {}
    if lineage.operator == "tinylora_grpo":
        steps = told.get("steps", given["steps"])
        words = f"{steps} steps of {given['prompts']} prompts, {given['group']} replies to each"
        if (shape := SHAPES.get(base.name)) is None:
            return words
        machine = MACHINES["two cores" if shape.parameters < 1e9 else "one H100"]
        seconds = cost(structure(GrpoOptions, {**given, "steps": steps}, lineage.operator), shape, machine).seconds
        return f"{words} (some {math.ceil(seconds / 60)} minutes on {machine.name})"
    if "steps" in told:
        return f"{told['steps']} steps of up to {given['batch_size']} rows"
    return f"{given['epochs']} epochs of {sum(corpus.rows for corpus in lineage.corpora)} rows"


def _trained(digest: Digest, genome: Genome, parents: list[Parent], bench: Bench, out: Path, name: str) -> Bred:
    lineage, house = genome.lineage, bench.house
    held = held_corpora(house)
    given = dict(lineage.parameters)
    if lineage.operator in SCHOOLS:
        options: Any = structure(SCHOOLS[lineage.operator].options, given, lineage.operator)
        if lineage.operator == "recover":
            taught = set((lineage.learned or {}).get("corpora", []))
            wanted = [corpus for corpus in lineage.corpora if corpus.id in taught]
        else:
            wanted = [_named(lineage, str(given["corpus"]))]
        corpora = {corpus.digest: _rows(corpus, held, str(given.get("corpus", corpus.id))) for corpus in wanted}
        lesson = Class(lineage.operator, options, tuple(parents), lineage.seed, name, again=genome)
        return teach(lesson, bench, corpora, out)
    learner = LEARNERS[lineage.operator]
    (corpus,) = lineage.corpora
    rows = _rows(corpus, held, str(given["corpus"]))
    session = session_on(bench, lineage.seed, out, house.home / "work" / f"again-{digest[7:]}", name)
    return learner.function(
        session, corpus, taught_rows(rows), structure(learner.options, given, lineage.operator), genome.capabilities
    )


def _named(lineage: Lineage, name: str) -> Corpus:
    """The corpus of that name in a lineage, as it is here now."""
    corpus, _ = load_corpus(subject(name, "corpora"))
    found = next((one for one in lineage.corpora if one.digest == corpus.digest), None)
    if found is None:
        raise ConfigError(
            "the corpus is not the one that it was taught", where=name, todo="bring back the rows of then"
        )
    return found


def _rows(corpus: Corpus, held: Any, name: str) -> tuple[Row, ...]:
    """Its rows, by digest: of this home, or of the folder that the recipe names."""
    if corpus.digest in held:
        rows: tuple[Row, ...] = held[corpus.digest]
        return rows
    found, rows = load_corpus(subject(name, "corpora"))
    if found.digest != corpus.digest:
        raise ConfigError(
            f"the corpus {corpus.id} ({corpus.digest[7:19]}) is not at hand",
            where=name,
            todo="bring back the rows of then",
        )
    return rows


def _held(digest: Digest, house: House) -> tuple[Genome, Path]:
    folder = house.store.folder(digest)
    genome = genome_of(verify_claims(house.store.claims(digest), digest, (), house.development_keys))
    if genome is None:
        raise ConfigError("nobody vouches for a genome of it", where=digest, todo="replay what this home has bred")
    return genome, folder
