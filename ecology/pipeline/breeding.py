"""``ecology breed``: one operator, adapters in, adapter out; a base model is loaded only by operators that teach.

It reads any well-formed PEFT folder. Trust is the gate's business, so a parent without a birth certificate may breed
here; its child's lineage names it by digest, and the gate will ask who vouches for it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ecology.breeder.breed import Bred, Parent, breed
from ecology.breeder.schooling import SCHOOLS, breeder_of
from ecology.contracts.artifact import CLAIMS_FILE
from ecology.contracts.identity import Json
from ecology.documents.source import parse_source
from ecology.errors import ConfigError
from ecology.pipeline.bench import Bench, environment_of, fetch_base, known_base
from ecology.pipeline.boundaries import admit_child
from ecology.pipeline.corpora import held_corpora
from ecology.pipeline.house import House
from ecology.pipeline.options import read_options
from ecology.pipeline.places import subject
from ecology.pipeline.settings import BackendSettings
from ecology.pipeline.teaching import Class, teach
from ecology.policy.reader import load_policy
from ecology.signer.statements import genome_statement
from ecology.signer.verify import genome_of, verify_claims
from ecology.store.adapters import describe, read_claims
from ecology.store.files import write_atomic

BACKEND = BackendSettings(kind="transformers", threads=1, batch_size=16)
"""For operators that teach: one core, so that the bytes do not depend on how many there are."""
LEAST = 5
"""Modules that are named for what projection took from them."""


def breed_folders(
    operator: str,
    folders: Sequence[Path],
    given: Sequence[str],
    *,
    out: Path,
    base: str,
    seed: int,
    house: House,
    policy: str | None = None,
) -> Bred:
    """Applies one operator to adapter folders and writes the child with its signed genome.

    Args:
        operator: Name in the table of operators.
        folders: Parents, in the operator's order.
        given: Options as ``key=value``, values in YAML.
        out: Folder to make; must not hold anything yet.
        base: Preset of ``conf/base`` that the parents were made for.
        seed: Of the operator's own randomness.
        house: Where keys and facts are.
        policy: Whose limits of reproduction apply; None asks only that no parent is quarantined.

    Raises:
        ConfigError: Unknown operator or option, ``out`` is not empty, or the limits of reproduction do not allow it.
        Stopped: The home was stopped.
        IncompatibleParents: They may not meet.
        MalformedArtifact: A parent cannot be read or is of a kind that has no exact algebra here.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError("this folder is not empty", where=str(out), todo="name a new one with --out")
    bred = _bred(operator, folders, given, out, base, seed, house, policy)
    envelope = house.signer.sign(genome_statement(bred.artifact, bred.genome, house.clock.now()))
    write_atomic(out / CLAIMS_FILE, (envelope + "\n").encode())
    return bred


def rehearse(
    operator: str,
    folders: Sequence[Path],
    given: Sequence[str],
    *,
    base: str,
    seed: int,
    house: House,
    policy: str | None = None,
) -> Bred:
    """What ``breed_folders`` would make, to the digest: it is made in a temporary folder, and nothing is left of it.

    Raises:
        ConfigError: As ``breed_folders``.
        IncompatibleParents: They may not meet.
        MalformedArtifact: A parent cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as scratch:
        return _bred(operator, folders, given, Path(scratch) / "child", base, seed, house, policy)


def told(bred: Bred, operator: str) -> list[str]:
    """What a child is, in lines for people: recipe, size, and what projection kept."""
    profile, lineage = bred.genome.resource_profile, bred.genome.lineage
    options = ", ".join(f"{key}={json.dumps(value)}" for key, value in lineage.parameters.items())
    lines = [
        f"{operator}({options}), seed {lineage.seed}, {len(lineage.parents)} parents",
        f"retained energy {profile.retained_energy:.4f}, rank {profile.max_rank}, {profile.modules} modules, "
        f"{profile.size_bytes / 1e6:.1f} MB",
    ]
    least = sorted((profile.retained or {}).items(), key=lambda item: (item[1], item[0]))[:LEAST]
    lines += [f"  {share:.4f} of {name}" for name, share in least if share < 1]
    lines += [f"  {key} {json.dumps(value)}" for key, value in sorted((lineage.learned or {}).items())]
    return lines


def _bred(
    operator: str,
    folders: Sequence[Path],
    given: Sequence[str],
    out: Path,
    base: str,
    seed: int,
    house: House,
    policy: str | None,
) -> Bred:
    school = SCHOOLS.get(operator)
    options = read_options(breeder_of(operator).options, _parse(given), operator)
    model = known_base(base, house)
    parents = []
    with house.progress.track("checking parents", len(folders), "parent") as step:
        for folder in folders:
            artifact = describe(folder)
            claims = verify_claims(read_claims(folder), artifact.digest, (), house.development_keys)
            genome = genome_of(claims)
            parents.append(Parent(folder.name, folder, artifact, genome, model.identity, model.tensor_schema))
            step.advance()
    limits = None if policy is None else load_policy(subject(policy, "policies", ".yaml")).reproduction
    if policy is not None or (house.home / "registry.sqlite3").exists():
        genomes = {parent.artifact.digest: parent.genome for parent in parents if parent.genome is not None}
        admit_child(limits, operator, [parent.artifact.digest for parent in parents], house, genomes)
    house.stop_check()
    if school is not None:
        taught = [
            dataclasses.replace(parent, identity=None) for parent in parents
        ]  # a genome says what it was made for
        bench = Bench(fetch_base(base, house), BACKEND, house)
        most = len(parents) if school.parents_max is None else school.parents_max
        if not school.parents_min <= len(parents) <= most:
            raise ConfigError(f"{operator} takes {school.parents_min} to {most} parents", where=operator)
        lesson = Class(operator, options, tuple(taught), seed, out.name)
        return teach(lesson, bench, held_corpora(house), out)
    environment = environment_of(threads=1)
    return breed(operator, options, parents, out, seed=seed, environment=environment, progress=house.progress)


def _parse(given: Sequence[str]) -> dict[str, Json]:
    options = {}
    for text in given:
        key, _, value = text.partition("=")
        options[key] = parse_source(os.fsencode(value), text, ConfigError).plain("the value")
    return options
