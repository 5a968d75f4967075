"""``ecology sign`` and ``ecology verify``: an adapter's claims, made and checked.

The anchor of trust comes from the policy or from the command line, never from the folder that is judged. Without one,
``verify`` says who signed and that nobody here trusts them, and refuses.
"""

from __future__ import annotations

from pathlib import Path

from ecology.contracts.artifact import CLAIMS_FILE
from ecology.contracts.identity import Digest
from ecology.contracts.policy import TrustedKey
from ecology.pipeline.house import House
from ecology.pipeline.places import subject
from ecology.policy.reader import load_policy
from ecology.signer.intoto import artifact_subjects, statement
from ecology.signer.keys import LocalSigner, read_trusted
from ecology.signer.verify import verify_claims
from ecology.store.adapters import describe, read_claims
from ecology.store.files import write_atomic

SIGNATURE = "https://tiny-ecology.dev/signature/v1"
"""Predicate of a bare signature: these bytes, at that time, by this key; no word on how they were made."""


def sign_folder(folder: Path, key: Path | None, house: House) -> tuple[Digest, str, bool]:
    """Signs a folder's bytes and appends the envelope to its ``claims.jsonl``.

    Returns:
        Artifact digest, key id, and whether it is a development key.

    Raises:
        MalformedArtifact: The folder cannot be read.
        ConfigError: The key cannot be used.
    """
    signer = house.signer if key is None else LocalSigner.from_file(key)
    artifact = describe(folder)
    envelope = signer.sign(statement(artifact_subjects(artifact), SIGNATURE, {"signedAt": house.clock.now()}))
    lines = [*read_claims(folder), envelope]
    write_atomic(folder / CLAIMS_FILE, "".join(line + "\n" for line in lines).encode())
    house.record("signed", {"digest": artifact.digest, "keyid": signer.keyid, "development": signer.development})
    return artifact.digest, signer.keyid, signer.development


def verify_folder(folder: Path, policy: str | None, key: Path | None, house: House) -> tuple[bool, list[str]]:
    """Whether a trusted key signed exactly these bytes, and what to print.

    Raises:
        MalformedArtifact: The folder cannot be read.
        ConfigError: The anchor cannot be read.
    """
    artifact = describe(folder)
    trusted: tuple[TrustedKey, ...] = ()
    development: tuple[TrustedKey, ...] = ()
    if key is not None:
        trusted = (read_trusted(key),)
    elif policy is not None:
        rules = load_policy(subject(policy, "policies", ".yaml")).signatures
        trusted = rules.trusted
        development = house.development_keys if rules.allow_development else ()
    claims = verify_claims(read_claims(folder), artifact.digest, trusted, development)
    lines = [f"artifact   {artifact.digest}"]
    for claim in claims.verified:
        mark = "development key" if claim.development else "trusted"
        lines.append(f"verified   {claim.predicate_type}  by {claim.signer} ({mark})")
    lines += [f"refused    {reason}" for reason in claims.refused]
    if not claims.verified:
        why = "no claim is by a key that is trusted" if claims.refused else "there are no claims"
        lines.append(f"signer untrusted: {why}" + ("" if key or policy else "; name an anchor with --policy or --key"))
    return bool(claims.verified), lines
