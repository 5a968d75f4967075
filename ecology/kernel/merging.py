"""Who may meet whom, decided from birth certificates alone, before a single weight is read.

The rules, each an ``Objection`` of its own so that a reader learns all of them at once:

1. There is at least one parent and none of them is revoked, nor descends from one that is.
2. All parents have the same ``CompatibilityIdentity``: the same base, tokenizer and tensor shapes.
3. All parents speak the same interface version, and one that is known here.
4. No parent is among its own ancestors, and the child is not among its parents' ancestors: a lineage is a graph without
   loops.

Taint is not an objection. A corpus that must not be trained on may be bred for research; ``inherited`` hands it on to
every descendant, and the policy refuses the child at the gate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ecology.contracts.artifact import Corpus
from ecology.contracts.genome import INTERFACE_VERSION, Genome
from ecology.contracts.identity import Digest


@dataclasses.dataclass(frozen=True, slots=True)
class Objection:
    """One reason why parents may not meet."""

    reason: str
    """One sentence for people."""
    fields: tuple[str, ...]
    """Differing fields of the identity, or the field of the genome that is objected to."""
    parents: tuple[Digest, ...]
    """The parents it is about, in the order given."""


def objections(
    parents: Sequence[tuple[Digest, Genome]],
    ancestry: Mapping[Digest, tuple[Digest, ...]] | None = None,
    revoked: Mapping[str, str] | None = None,
    child: Digest | None = None,
    *,
    same_base: bool = True,
) -> tuple[Objection, ...]:
    """Every reason why these parents may not meet; empty when they may.

    Law: adding a revocation never removes an objection.

    Args:
        parents: Artifact digest and genome of each, in the order the operator takes them; a parent may stand twice.
        ancestry: Parents of every artifact that is known; those of ``parents`` are taken from their genomes.
        revoked: Quarantined digests with the reason.
        child: The child's digest where it is known already, to see that it is not its own ancestor.
        same_base: Whether weights are to meet; False where parents only teach, by text, and rule 2 has no object.
    """
    if not parents:
        return (Objection("there is no parent", ("parents",), ()),)
    known = {**(ancestry or {}), **{digest: genome.lineage.parents for digest, genome in parents}}
    found: list[Objection] = []
    for digest in dict.fromkeys(digest for digest, _ in parents):
        found += _revoked(digest, known, revoked or {})
    found += _differing(parents) if same_base else []
    found += _versions(parents)
    found += _loops(dict.fromkeys(digest for digest, _ in parents), known, child)
    return tuple(found)


def inherited(parents: Sequence[Genome], own: Sequence[Corpus] = ()) -> tuple[Corpus, ...]:
    """Corpora of the whole ancestry, sorted by digest: what the child's lineage has to say.

    Two certificates that disagree about one corpus are united to the stricter: marked ``no_train`` by one is marked.
    Where they disagree about the rest, both records stay.
    """
    union = {corpus for genome in parents for corpus in genome.lineage.corpora} | set(own)
    banned = {corpus.digest for corpus in union if corpus.no_train}
    strict = {dataclasses.replace(corpus, no_train=corpus.digest in banned) for corpus in union}
    return tuple(
        sorted(strict, key=lambda corpus: (corpus.digest, corpus.id, corpus.licence, corpus.split, corpus.rows))
    )


def ancestors(digest: Digest, known: Mapping[Digest, tuple[Digest, ...]]) -> frozenset[Digest]:
    """Every ancestor of ``digest`` that ``known`` tells of, itself included only where the lineage has a loop."""
    seen: set[Digest] = set()
    waiting = list(known.get(digest, ()))
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting.extend(known.get(one, ()))
    return frozenset(seen)


def _revoked(digest: Digest, known: Mapping[Digest, tuple[Digest, ...]], revoked: Mapping[str, str]) -> list[Objection]:
    if digest in revoked:
        return [Objection(f"{digest} is revoked: {revoked[digest]}", ("revoked",), (digest,))]
    return [
        Objection(f"{digest} descends from {one}, which is revoked: {revoked[one]}", ("revoked",), (digest,))
        for one in sorted(ancestors(digest, known) & revoked.keys())
    ]


def _differing(parents: Sequence[tuple[Digest, Genome]]) -> list[Objection]:
    (first, reference), *others = parents
    found = []
    for digest, genome in others:
        if fields := reference.identity.differences(genome.identity):
            reason = f"{first} and {digest} were made for different bases: they differ in {', '.join(fields)}"
            found.append(Objection(reason, fields, (first, digest)))
    return found


def _versions(parents: Sequence[tuple[Digest, Genome]]) -> list[Objection]:
    return [
        Objection(
            f"{digest} speaks {genome.interface_version!r}, only {INTERFACE_VERSION!r} is known here",
            ("interface_version",),
            (digest,),
        )
        for digest, genome in dict(parents).items()
        if genome.interface_version != INTERFACE_VERSION
    ]


def _loops(
    parents: Mapping[Digest, None], known: Mapping[Digest, tuple[Digest, ...]], child: Digest | None
) -> list[Objection]:
    found = []
    for digest in parents:
        above = ancestors(digest, known)
        if digest in above:
            found.append(Objection(f"{digest} is its own ancestor", ("lineage",), (digest,)))
        elif child is not None and child in above:
            found.append(Objection(f"the child {child} is an ancestor of its parent {digest}", ("lineage",), (digest,)))
    return found
