"""``ecology registry lineage``: from an adapter up to its founders, each link checked and not only drawn.

For every member: the store's bytes have the digest, somebody trusted signed a genome of exactly these bytes, the genome
names the parents that the registry names, its generation is one more than the largest of theirs, every corpus of a
parent is among its own with no ban on training taken off, and nothing is quarantined. A member without parents has to
say how it was trained. So what an adapter inherits is not what its own certificate says but what all of them say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ecology.contracts.genome import Genome
from ecology.contracts.identity import Digest
from ecology.contracts.policy import SignaturePolicy
from ecology.errors import EcologyError
from ecology.kernel.merging import inherited
from ecology.pipeline.house import House
from ecology.signer.refusal import ClaimRefused
from ecology.signer.verify import genome_of, verify_claims


@dataclasses.dataclass(frozen=True, slots=True)
class Descent:
    """A lineage and what is wrong with it."""

    picture: str
    problems: Mapping[str, tuple[str, ...]]
    """Digest -> sentences, for each member that does not hold."""
    taint: tuple[str, ...]
    """Corpora of the whole ancestry that must not be trained on, and each licence with its corpora."""

    @property
    def holds(self) -> bool:
        """Whether every link was verified down to the founders."""
        return not self.problems

    @property
    def text(self) -> str:
        """The tree, the inheritance, and what does not hold."""
        lines = [self.picture, *self.taint]
        lines += [f"NOT VERIFIED {digest[:19]}: {found}" for digest, all_ in self.problems.items() for found in all_]
        return "\n".join([*lines, "verified down to the founders" if self.holds else "this lineage does not hold"])


def verify_descent(house: House, digest: str, signatures: SignaturePolicy) -> Descent:
    """Walks the ancestry.

    Args:
        house: Store, claims and registry.
        digest: The adapter.
        signatures: Whose genomes count.

    Raises:
        ConfigError: The adapter is not known.
    """
    drawn = house.registry.lineage(digest)
    genomes: dict[str, Genome] = {}
    problems: dict[str, tuple[str, ...]] = {}
    for member in drawn.members.values():
        found = [f"quarantined: {member.quarantined}"] if member.quarantined else []
        try:
            genome = _genome(house, Digest(member.digest), signatures)
        except EcologyError as error:
            problems[member.digest] = (*found, error.what)
            continue
        genomes[member.digest] = genome
        if set(genome.lineage.parents) != set(member.parents):
            found.append("its signed genome names other parents than the registry")
        if found:
            problems[member.digest] = tuple(found)
    for one, genome in genomes.items():
        if found := _broken(genome, genomes):
            problems[one] = (*problems.get(one, ()), *found)
    return Descent(drawn.text, problems, _taint(list(genomes.values())))


def _genome(house: House, digest: Digest, signatures: SignaturePolicy) -> Genome:
    house.store.folder(digest)  # verifies the bytes
    development = house.development_keys if signatures.allow_development else ()
    read = verify_claims(house.store.claims(digest), digest, signatures.trusted, development, signatures.identities)
    found = genome_of(read)
    if found is None:
        why = read.refused[0] if read.refused else "there are no claims"
        raise ClaimRefused("untrusted", f"nobody trusted signed where it comes from ({why})")
    return found


def _broken(genome: Genome, genomes: Mapping[str, Genome]) -> list[str]:
    parents = [genomes[p] for p in genome.lineage.parents if p in genomes]
    if not genome.lineage.parents:
        return [] if genome.lineage.generation == 0 else [f"no parents, and generation {genome.lineage.generation}"]
    found = []
    if len(parents) == len(genome.lineage.parents):
        expected = 1 + max(parent.lineage.generation for parent in parents)
        if genome.lineage.generation != expected:
            found.append(f"generation {genome.lineage.generation}, and its parents make it {expected}")
    if lost := set(inherited(parents)) - set(inherited([genome])):
        found.append(f"corpora of its parents are not among its own: {', '.join(sorted(c.id for c in lost))}")
    return found


def _taint(genomes: list[Genome]) -> tuple[str, ...]:
    corpora = inherited(genomes)
    licences: dict[str, list[str]] = {}
    for corpus in corpora:
        licences.setdefault(corpus.licence, []).append(corpus.id)
    lines = [f"inherits {licence}: {', '.join(sorted(set(names)))}" for licence, names in sorted(licences.items())]
    banned = sorted({corpus.id for corpus in corpora if corpus.no_train})
    return (*lines, *([f"NO-TRAIN: {', '.join(banned)}"] if banned else []))
