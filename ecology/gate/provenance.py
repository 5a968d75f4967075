"""Who vouches for the bytes, and what the birth certificate that they vouch for says.

Everything here rests on claims whose signature has been verified under a key from the policy (``signer.verify``). Of
claims that nobody trusted has signed nothing is read: where there is no verified genome, the questions about base, data
and overlap have no answer, which is missing evidence and not a pass.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from ecology.contracts.artifact import BASE_KEY, CLAIMS_FILE, CONFIG_FILE, WEIGHTS_FILE, Artifact
from ecology.contracts.genome import INTERFACE_VERSION, Genome
from ecology.contracts.identity import CompatibilityIdentity, Digest, Json
from ecology.contracts.policy import DataPolicy, TrustedIdentity, TrustedKey
from ecology.errors import EcologyError
from ecology.gate.violation import Violation, show
from ecology.signer.intoto import artifact_subjects
from ecology.signer.statements import subjects
from ecology.signer.verify import Claims, VerifiedClaim, genome_of, is_genome, verify_claims
from ecology.store.header import Header


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
        return Vouched(None, False, (f"{count} of {threshold} signers vouch for the genome: {names}",))
    try:
        genome = genome_of(Claims(tuple(whole), ()))
    except EcologyError as error:
        return Vouched(None, False, (f"{error.what}",))
    return Vouched(genome, all(claim.development for claim in whole), ())


def check_signature(vouched: Vouched, subject: Digest, revoked: Mapping[str, str]) -> list[Violation]:
    """Why nobody trusted vouches for the artifact, or no longer.

    Args:
        vouched: Result of ``vouched_for``.
        subject: The artifact's digest.
        revoked: Quarantined digests with the reason.
    """
    allowed = "a genome of exactly these bytes, signed by a key that the policy trusts"
    found = [_of("signature", "", problem, allowed) for problem in vouched.problems]
    if subject in revoked:
        found.append(_of("signature", subject, f"revoked: {revoked[subject]}", "no revoked artifact"))
    if vouched.genome is not None:
        for parent in vouched.genome.lineage.parents:
            if parent in revoked:
                found.append(_of("signature", f"parent {parent}", f"revoked: {revoked[parent]}", "no revoked parent"))
    return found


def check_base(
    genome: Genome | None,
    metadata: Mapping[str, str],
    config: Mapping[str, Json],
    identity: CompatibilityIdentity,
    names: frozenset[str],
) -> list[Violation] | None:
    """Signs that the adapter was made for another base; None where nothing trusted says for which.

    Args:
        genome: The verified one.
        metadata: Of the weights file.
        config: Loaders follow its ``base_model_name_or_path`` and ``revision``.
        identity: Of the base that is served.
        names: What the base is called, in lower case; empty where that is not known, and then any name will do.
    """
    found = []
    if BASE_KEY in metadata and metadata[BASE_KEY] != identity.base_weights:
        said = show(metadata[BASE_KEY])
        found.append(Violation("base identity", WEIGHTS_FILE, f"__metadata__: {BASE_KEY}", said, identity.base_weights))
    revision, path = config.get("revision"), config.get("base_model_name_or_path")
    if isinstance(revision, str) and revision != identity.base_weights:
        allowed = f"null or the base's digest {identity.base_weights}"
        found.append(Violation("base identity", CONFIG_FILE, "revision", show(revision), allowed))
    if isinstance(path, str) and path and not _names_base(path, names):
        allowed = f"null, {', '.join(sorted(names)) or 'a plain name'}, or the path of a folder of that name"
        found.append(Violation("base identity", CONFIG_FILE, "base_model_name_or_path", show(path, 200), allowed))
    if genome is None:
        return found or None
    for field in genome.identity.differences(identity):
        ours, theirs = getattr(identity, field), getattr(genome.identity, field)
        found.append(_of("base identity", f"genome: {field}", show(theirs), show(ours)))
    if genome.interface_version != INTERFACE_VERSION:
        said = show(genome.interface_version)
        found.append(_of("base identity", "genome: interface_version", said, INTERFACE_VERSION))
    return found


def _names_base(path: str, names: frozenset[str]) -> bool:
    """Whether a name or path means the base and nothing that a loader would fetch from elsewhere."""
    parts = path.lower().split("/")
    if "://" in path or "\\" in path or path.startswith("~") or ".." in parts:
        return False
    if not names or path.lower() in names:
        return True
    local = path.startswith(("/", "./"))  # owner/name without either would be fetched from a hub
    return local and next((part for part in reversed(parts) if part), "") in {name.rsplit("/", 1)[-1] for name in names}


def check_profile(genome: Genome | None, header: Header, artifact: Artifact) -> list[Violation]:
    """Numbers in the genome that the files contradict.

    Args:
        genome: The verified one.
        header: Of the weights file.
        artifact: The files that are judged.
    """
    if genome is None:
        return []
    sizes = {name: math.prod(info.shape) for name, info in header.tensors.items()}
    trained = {name: size for name, size in sizes.items() if ".tinylora_v." in name}
    claimed = genome.resource_profile
    found = []
    held = {sum(sizes.values()), *([sum(trained.values())] if trained else [])}  # of a TinyLoRA the vectors may count
    if claimed.parameters not in held:
        said, allowed = f"{claimed.parameters}", f"{' or '.join(map(str, sorted(held)))}, as the tensors have"
        found.append(_of("claim", "genome: resource_profile.parameters", said, allowed))
    if claimed.size_bytes != artifact.size_bytes:
        said, allowed = f"{claimed.size_bytes}", f"{artifact.size_bytes}, as the files have"
        found.append(_of("claim", "genome: resource_profile.size_bytes", said, allowed))
    return found


def check_taint(genome: Genome | None, data: DataPolicy) -> list[Violation] | None:
    """Corpora of the lineage that the policy does not allow; None where nothing trusted tells of any.

    Args:
        genome: The verified one.
        data: The policy's demands; no licence listed allows every one.
    """
    if genome is None:
        return None
    found = []
    for corpus in genome.lineage.corpora:
        key = f"corpus {show(corpus.id)} ({corpus.digest})"
        if corpus.no_train and data.forbid_no_train:
            found.append(_of("data", key, "marked no-train", "corpora that may be trained on"))
        if data.licences and corpus.licence not in data.licences:
            found.append(_of("data", key, f"licence {show(corpus.licence)}", ", ".join(data.licences)))
    return found


def check_overlap(genome: Genome | None, shares: Mapping[Digest, float], data: DataPolicy) -> list[Violation] | None:
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
        key = f"corpus {show(corpus.id)} ({corpus.digest})"
        if corpus.digest not in shares:
            found.append(_of("data", key, "a corpus that is not known here", "one whose overlap can be computed"))
        elif not shares[corpus.digest] <= data.max_overlap:
            said = f"{shares[corpus.digest]:.2%} of it are items of a suite"
            found.append(_of("data", key, said, f"at most {data.max_overlap:.2%}"))
    return found


def _of(threat: str, key: str, found: str, allowed: str) -> Violation:
    return Violation(threat, CLAIMS_FILE, key, found, allowed)


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
        return (f"the genome signed by {births[0].signer!r:.80} does not cover the folder: {names}",)
    if not claims:
        return ("there are no claims: the folder is unsigned",)
    if read.verified:
        return ("no genome of these bytes is among what trusted keys signed",)
    why = "; ".join(refused[:200] for refused in read.refused[:3])
    return (f"nothing in it is signed by a trusted key: {why}",)
