"""Who vouches for the bytes, and what the birth certificate that they vouch for says.

Everything here rests on claims whose signature has been verified under a key from the policy (``signer.verify``). Of
claims that nobody trusted has signed nothing is read: where there is no verified genome, the questions about base, data
and overlap have no answer, which is missing evidence and not a pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ecology.contracts.artifact import Artifact
from ecology.contracts.genome import INTERFACE_VERSION, Genome
from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.contracts.policy import DataPolicy, TrustedIdentity, TrustedKey
from ecology.errors import EcologyError
from ecology.signer.intoto import artifact_subjects
from ecology.signer.statements import subjects
from ecology.signer.verify import Claims, VerifiedClaim, genome_of, is_genome, verify_claims
from ecology.store.adapters import BASE_KEY


@dataclasses.dataclass(frozen=True, slots=True)
class Vouched:
    """What trusted keys say about an artifact."""

    genome: Genome | None
    """None where nothing trusted says where it comes from."""
    development: bool
    """Whether only a development key vouches for the genome."""
    problems: tuple[str, ...]
    """Why the artifact counts as unsigned; empty when it does not."""


def vouched_for(
    artifact: Artifact,
    claims: tuple[str, ...],
    trusted: tuple[TrustedKey, ...],
    development: tuple[TrustedKey, ...],
    identities: tuple[TrustedIdentity, ...] = (),
    threshold: int = 1,
) -> Vouched:
    """Reads the claims about an artifact.

    Args:
        artifact: As computed from the bytes that are judged.
        claims: Lines of ``claims.jsonl``.
        trusted: Keys that the policy names.
        development: Keys that count as development keys; none where the policy does not allow them.
        identities: Signers without a key that the policy names.
        threshold: How many distinct signers must vouch for the genome; a development key counts as one.

    Raises:
        PolicyError: A key of the policy is not an Ed25519 public key.
    """
    read = verify_claims(claims, artifact.digest, trusted, development, identities)
    births = [claim for claim in read.verified if is_genome(claim.statement)]
    whole = [claim for claim in births if not _uncovered(claim, artifact)]
    if not whole:
        return Vouched(None, False, _unsigned(artifact, claims, read, births))
    signers = {claim.keyid: claim.signer for claim in whole}
    if (count := min(len(signers), len(set(signers.values())))) < threshold:
        names = ", ".join(sorted(set(signers.values())))
        return Vouched(None, False, (f"claims.jsonl: {count} of {threshold} signers vouch for the genome: {names}",))
    try:
        genome = genome_of(Claims(tuple(whole), ()))
    except EcologyError as error:
        return Vouched(None, False, (f"claims.jsonl: {error.what}",))
    return Vouched(genome, all(claim.development for claim in whole), ())


def check_signature(vouched: Vouched, subject: Digest, revoked: Mapping[str, str]) -> list[str]:
    """Why nobody trusted vouches for the artifact, or no longer; one sentence each.

    Args:
        vouched: Result of ``vouched_for``.
        subject: The artifact's digest.
        revoked: Quarantined digests with the reason.
    """
    found = list(vouched.problems)
    if subject in revoked:
        found.append(f"{subject} is revoked: {revoked[subject]}")
    if vouched.genome is not None:
        for parent in vouched.genome.lineage.parents:
            if parent in revoked:
                found.append(f"its parent {parent} is revoked: {revoked[parent]}")
    return found


def check_base(
    genome: Genome | None,
    metadata: Mapping[str, str],
    revision: str | None,
    identity: CompatibilityIdentity,
) -> list[str] | None:
    """Signs that the adapter was made for another base; None where nothing trusted says for which.

    Args:
        genome: The verified one.
        metadata: Of the weights file.
        revision: Of the configuration; a loader would follow it.
        identity: Of the base that is served.
    """
    found = []
    if BASE_KEY in metadata and metadata[BASE_KEY] != identity.base_weights:
        found.append(
            f"metadata {BASE_KEY} names {ascii(metadata[BASE_KEY])[:80]}, the base here is {identity.base_weights}"
        )
    if revision is not None and revision != identity.base_weights:
        found.append(f"revision is {ascii(revision)[:80]}, allowed: null or the base's digest {identity.base_weights}")
    if genome is None:
        return found or None
    for field in genome.identity.differences(identity):
        ours, theirs = getattr(identity, field), getattr(genome.identity, field)
        found.append(f"its genome says {field} {theirs!r:.80}, the base here has {ours!r:.80}")
    if genome.interface_version != INTERFACE_VERSION:
        found.append(f"it speaks {genome.interface_version!r:.80}, only {INTERFACE_VERSION!r} is known here")
    return found


def check_taint(genome: Genome | None, data: DataPolicy) -> list[str] | None:
    """Corpora of the lineage that the policy does not allow; None where nothing trusted tells of any.

    Args:
        genome: The verified one.
        data: The policy's demands; no licence listed allows every one.
    """
    if genome is None:
        return None
    found = []
    for corpus in genome.lineage.corpora:
        if corpus.no_train and data.forbid_no_train:
            found.append(f"corpus {corpus.id!r:.80} ({corpus.digest}) is marked no-train")
        if data.licences and corpus.licence not in data.licences:
            allowed = ", ".join(data.licences)
            found.append(f"corpus {corpus.id!r:.80} is licensed {corpus.licence!r:.80}, allowed: {allowed}")
    return found


def check_overlap(genome: Genome | None, shares: Mapping[Digest, float], data: DataPolicy) -> list[str] | None:
    """Corpora of the lineage that share too many prompts with the suites; None where nothing trusted tells of any.

    Args:
        genome: The verified one.
        shares: By corpus, the share of its prompts (0 to 1) that are items of a suite.
        data: The policy's demands.
    """
    if genome is None:
        return None
    found = []
    for corpus in genome.lineage.corpora:
        if corpus.digest not in shares:
            found.append(f"corpus {corpus.id!r:.80} ({corpus.digest}) is not known here, so its overlap is not either")
        elif not shares[corpus.digest] <= data.max_overlap:
            share = shares[corpus.digest]
            found.append(
                f"{share:.2%} of corpus {corpus.id!r:.80} are items of a suite, allowed: {data.max_overlap:.2%}"
            )
    return found


def _uncovered(claim: VerifiedClaim, artifact: Artifact) -> list[str]:
    """Names in which what was signed is not exactly the artifact: every file has to be covered, and no other."""
    signed = subjects(claim.statement)
    wanted = subjects({"subject": artifact_subjects(artifact)})
    return sorted(name for name in {*signed, *wanted} if signed.get(name) != wanted.get(name))


def _unsigned(
    artifact: Artifact, claims: tuple[str, ...], read: Claims, births: list[VerifiedClaim]
) -> tuple[str, ...]:
    if births:
        names = ", ".join(ascii(name)[:80] for name in _uncovered(births[0], artifact)[:5])
        return (f"claims.jsonl: the genome signed by {births[0].signer!r:.80} does not cover the folder: {names}",)
    if not claims:
        return ("there are no claims: the folder is unsigned",)
    if read.verified:
        return ("claims.jsonl: no genome of these bytes is among what trusted keys signed",)
    why = "; ".join(refused[:200] for refused in read.refused[:3])
    return (f"claims.jsonl: nothing in it is signed by a trusted key: {why}",)
