"""From plan to signed members: founders trained or brought, children bred.

A member that was made before, by the same recipe on the same base in the same environment, is taken from the store:
the recipe's digest names it. So a repeated run trains nothing, and a killed one goes on where it was.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from ecology.breeder.breed import Bred, Parent, breed
from ecology.breeder.learners import LEARNERS
from ecology.breeder.operators import options_of
from ecology.breeder.schooling import SCHOOLS
from ecology.contracts.artifact import Artifact, SignedArtifact, Submission
from ecology.contracts.genome import Genome
from ecology.contracts.identity import Digest
from ecology.contracts.run import ChildPlan, FounderPlan, RunPlan
from ecology.errors import ConfigError, EcologyError, LearningRefused
from ecology.kernel import canonical
from ecology.pipeline.bench import Bench, fetch_base
from ecology.pipeline.boundaries import admit_child
from ecology.pipeline.corpora import corpora_of, corpus_of, marked
from ecology.pipeline.house import House
from ecology.pipeline.members import Member, submission_of
from ecology.pipeline.options import read_options
from ecology.pipeline.places import subject
from ecology.pipeline.teaching import Class, options_of_plan, session_on, taught_rows, teach
from ecology.signer.statements import genome_statement
from ecology.signer.verify import genome_of, verify_claims
from ecology.store.adapters import describe


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """What a recipe came to."""

    digest: Digest
    genome: Genome


def populate(plan: RunPlan, house: House, bench: Bench) -> tuple[Member, ...]:
    """Everybody in the plan, founders first, parents before children.

    Raises:
        IncompatibleParents: A plan that breeds what may not meet.
        BackendError: The engine that trains cannot start.
    """
    members: dict[str, Member] = {}
    for founder in plan.founders:
        at = _bench_of(founder, house, bench)
        member = _import(founder) if founder.operator == "import" else _train(founder, plan, house, at)
        members[founder.name] = member
    with house.progress.track("breeding children", len(plan.children), "child") as step:
        for child in plan.children:
            members[child.name] = _breed(child, plan, members, house, bench)
            step.advance(1, child.name)
    return tuple(members.values())


def _bench_of(founder: FounderPlan, house: House, bench: Bench) -> Bench:
    """The run's own, or that of another base on which a teacher is trained; its engine goes when nobody holds it."""
    if not founder.base:
        return bench
    return Bench(fetch_base(founder.base, house), bench.backend, house)


def sign(house: House, artifact: Artifact, genome: Genome) -> SignedArtifact:
    """The artifact with its birth certificate, signed by this home's key.

    Bytes have one genome: where this key signed one before, that one stays, whatever route led to the bytes again.
    """
    anchor = (house.signer.public_key,)
    claims = house.store.claims(artifact.digest)
    known = genome_of(verify_claims(claims, artifact.digest, anchor, ()))
    if known is None:
        envelope = house.signer.sign(genome_statement(artifact, genome, house.clock.now()))
        house.store.add_claims(artifact.digest, [envelope])
        claims = house.store.claims(artifact.digest)
    body = {"digest": artifact.digest, "keyid": house.signer.keyid, "development": house.signer.development}
    house.record("signed", body)
    return SignedArtifact(artifact, known or genome, claims)


def _train(founder: FounderPlan, plan: RunPlan, house: House, bench: Bench) -> Member:
    corpus, rows = corpus_of(founder)
    corpus, leaked = marked(corpus, rows, plan.policy.data.canaries)
    given = {key: value for key, value in founder.options.items() if key != "corpus_digest"}
    learner = LEARNERS[founder.operator]
    options = read_options(learner.options, given, f"population.founders.{founder.name}.options")
    seed = int(canonical.digest({"seed": plan.seed, "founder": founder.name})[7:20], 16)
    recipe = canonical.digest(
        {
            "operator": founder.operator,
            "options": founder.options,
            "capabilities": founder.capabilities,
            "seed": seed,
            "identity": bench.identity,
            "environment": bench.environment,
            **({"leaks": leaked} if leaked else {}),  # its certificate differs, so it is another recipe
        }
    )

    def make(out: Path) -> Bred:
        session = session_on(bench, seed, out, house.home / "work" / recipe.removeprefix("sha256:"), founder.name)
        return learner.function(session, corpus, taught_rows(rows), options, founder.capabilities)

    try:
        artifact, genome = _made(recipe, house, make)
    except LearningRefused as error:
        house.journal.tell("learning_refused", founder=founder.name, reason=error.reason, what=error.what)
        raise
    if learned := genome.lineage.learned:
        house.journal.tell("learned", founder=founder.name, steps=learned.get("steps"), ended=learned.get("ended"))
    return _member(founder.name, artifact, genome, founder.breeds, plan, house)


def _breed(child: ChildPlan, plan: RunPlan, members: Mapping[str, Member], house: House, bench: Bench) -> Member:
    parents = []
    for name in child.parents:
        member = members[name]
        if member.signed is None:
            raise ConfigError("a folder from outside does not breed", where=f"child {child.name}: parent {name}")
        parents.append(Parent(name, member.folder, member.signed.artifact, member.signed.genome))
    recipe = canonical.digest(
        {
            "operator": child.operator,
            "options": child.options,
            "parents": [parent.artifact.digest for parent in parents],
            "seed": child.seed,
            "environment": bench.environment,
            **({"identity": bench.identity} if child.operator in SCHOOLS else {}),
        }
    )
    taught = child.operator in SCHOOLS
    options = options_of_plan(child.operator, child.options) if taught else options_of(child.operator, child.options)
    admit = [parent.artifact.digest for parent in parents]
    if house.recall("recipe", recipe, Made) is None:  # what was bred before is not bred again
        admit_child(plan.policy.reproduction, child.operator, admit, house)
    else:
        admit_child(None, child.operator, admit, house)

    def make(out: Path) -> Bred:
        if taught:
            lesson = Class(child.operator, options, tuple(parents), child.seed, child.name, plan.policy.data.canaries)
            return teach(lesson, bench, corpora_of(plan, house), out)
        return breed(child.operator, options, parents, out, seed=child.seed, environment=bench.environment)

    artifact, genome = _made(recipe, house, make)
    return _member(child.name, artifact, genome, True, plan, house)


def _made(recipe: Digest, house: House, make: Callable[[Path], Bred]) -> tuple[Artifact, Genome]:
    """What the recipe made before, or makes now; of two processes with one recipe the second waits for the first."""
    with house.lock(f"recipe-{recipe.removeprefix('sha256:')[:16]}"):
        known = house.recall("recipe", recipe, Made)
        if known is not None:
            try:
                artifact = describe(house.store.folder(known.digest))
            except EcologyError:  # the store lost it: make it again, the bytes are the same
                artifact = None
            if artifact is not None and artifact.digest == known.digest:
                return artifact, known.genome
        scratch = house.home / "work" / f"bred-{recipe.removeprefix('sha256:')[:16]}"
        shutil.rmtree(scratch, ignore_errors=True)  # of a killed process: the lock is ours
        scratch.mkdir(parents=True)
        try:
            bred = make(scratch / "adapter")
            artifact = house.store.put(bred.folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        house.remember("recipe", recipe, Made(artifact.digest, bred.genome))
        return artifact, bred.genome


def _member(name: str, artifact: Artifact, genome: Genome, breeds: bool, plan: RunPlan, house: House) -> Member:
    house.record(
        "bred",
        {
            "digest": artifact.digest,
            "name": name,
            "operator": genome.lineage.operator,
            "parents": genome.lineage.parents,
            "generation": genome.lineage.generation,
            "run": plan.digest,
        },
    )
    signed = sign(house, artifact, genome)
    folder = str(house.store.folder(artifact.digest))
    return Member(name, Submission(name, folder, artifact, signed.claims), signed, breeds)


def _import(founder: FounderPlan) -> Member:
    folder = subject(str(founder.options["folder"]), "examples")
    return Member(founder.name, submission_of(founder.name, folder), None, False)
