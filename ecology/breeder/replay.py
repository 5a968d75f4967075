"""Making a child again from its birth certificate, to see that the same bytes come out.

The genome names operator, options, seed and the parents' digests; the parents' bytes are the only other input, with
the corpora where something was taught. So whoever holds those can check that an adapter is what its genome says,
without trusting who signed it. Equal environments give equal bytes; where versions, threads or CPU differ the last bits
may, and the answer names what differs: other bytes are then no proof of anything.

``replay`` breeds a child of the algebra; ``compared`` judges whatever was made again, trained adapters too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ecology.breeder.breed import Bred, Parent, breed
from ecology.breeder.operators import known
from ecology.contracts.artifact import Artifact
from ecology.contracts.genome import Genome
from ecology.errors import ConfigError
from ecology.store.adapters import read_config


@dataclasses.dataclass(frozen=True, slots=True)
class Replay:
    """A child bred again."""

    bred: Bred
    same_bytes: bool
    same_genome: bool
    """Whether the two genomes say the same, environments apart."""
    differing: tuple[str, ...]
    """Keys of the environment that differ between then and now."""


def replay(
    artifact: Artifact,
    genome: Genome,
    folder: Path,
    parents: Sequence[Parent],
    out: Path,
    environment: Mapping[str, str],
) -> Replay:
    """Breeds the child of ``genome`` again into ``out``.

    Args:
        artifact: The child's bytes by digest.
        genome: Its birth certificate.
        folder: Where the child is: its configuration says under which name its base was written down.
        parents: In any order; they are put into the genome's.
        out: New folder.
        environment: Versions, threads and CPU now.

    Raises:
        ConfigError: The child was not bred by an operator, or a parent is missing.
        IncompatibleParents: As ``breed``.
        IntegrityError: A parent's folder does not hold the bytes of its artifact.
    """
    lineage = genome.lineage
    if not lineage.parents or lineage.operator not in known():
        raise ConfigError(
            f"an adapter that was made by {lineage.operator!r} is not bred from parents alone", where=str(folder)
        )
    at_hand = {parent.artifact.digest: parent for parent in parents}
    if missing := [digest for digest in lineage.parents if digest not in at_hand]:
        raise ConfigError(f"parent {missing[0]} is missing", where=str(folder), todo="give its folder too")
    base = read_config(folder).get("base_model_name_or_path")
    bred = breed(
        lineage.operator,
        dict(lineage.parameters),
        [at_hand[digest] for digest in lineage.parents],
        out,
        lineage.seed,
        environment,
        base_id=base if isinstance(base, str) else None,
    )
    return compared(artifact, genome, bred, environment)


def compared(artifact: Artifact, genome: Genome, bred: Bred, environment: Mapping[str, str]) -> Replay:
    """What was made again beside what there is.

    Args:
        artifact: The adapter's bytes by digest.
        genome: Its birth certificate.
        bred: Made again by it.
        environment: Versions, threads and CPU now.
    """
    then = genome.lineage.environment
    differing = sorted(key for key in {*then, *environment} if then.get(key) != environment.get(key))
    placed = dataclasses.replace(bred.genome.lineage, environment=then)
    same_genome = dataclasses.replace(bred.genome, lineage=placed) == genome
    return Replay(bred, bred.artifact.digest == artifact.digest, same_genome, tuple(differing))
