"""``ecology sign`` and ``ecology verify``: claims, bundles and folder signatures, made and checked.

The anchor of trust comes from the policy or from the command line, never from the folder that is judged. Without one,
``verify`` says who signed and that nobody here trusts them, and refuses. Verification needs neither home nor network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ecology.contracts.artifact import CLAIMS_FILE, CONFIG_FILE, MAX_CLAIMS, WEIGHTS_FILE
from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import TrustedIdentity, TrustedKey
from ecology.contracts.ports import Signer
from ecology.errors import ConfigError
from ecology.kernel.canonical import digest, digest_bytes, is_digest
from ecology.pipeline.house import House
from ecology.pipeline.places import subject
from ecology.policy.reader import load_policy
from ecology.signer.bundle import is_bundle
from ecology.signer.entry import Key, load_key
from ecology.signer.intoto import artifact_subjects, statement
from ecology.signer.keys import LocalSigner, read_trusted
from ecology.signer.oms import key_bundle, oms_statement, verify_oms
from ecology.signer.refusal import ClaimRefused
from ecology.signer.roots import load_root
from ecology.signer.sigstore import Artifact, Identity, verify_bundle
from ecology.signer.verify import is_genome, verify_claims
from ecology.store.adapters import describe, read_claims
from ecology.store.files import write_atomic

SIGNATURE = "https://tiny-ecology.dev/signature/v1"
"""Predicate of a bare signature: these bytes, at that time, by this key; no word on how they were made."""
MAX_ARTIFACT_BYTES = 8 * 1024**3


@dataclasses.dataclass(frozen=True, slots=True)
class Anchors:
    """Whom the command line trusts."""

    policy: str | None = None
    key: Path | None = None
    trusted_root: Path | None = None
    identity: str | None = None
    issuer: str | None = None

    @property
    def none(self) -> bool:
        """Whether nobody is named."""
        return self.policy is None and self.key is None and self.identity is None

    def refuse_idle(self, *, bundle: bool) -> None:
        """That every anchor that is named decides something: one that is passed over would seem to have held.

        Args:
            bundle: Whether a bundle is verified; else the claims of a folder are.

        Raises:
            ConfigError: One of them would not be looked at.
        """
        of_identity = any(one is not None for one in (self.identity, self.issuer, self.trusted_root))
        if self.policy is not None and (self.key is not None or of_identity):
            raise _idle("--policy", "a policy names all whom it trusts", "leave the other anchors out, or the policy")
        if self.policy is not None and bundle:
            raise _idle("--policy", "a bundle is verified against one key or identity", "name that instead of a policy")
        if bundle or self.policy is not None:
            return  # with a key the root is that of the log; a key beside an identity refuses the bundle
        if self.key is not None and of_identity:
            raise _idle("--key", "who signs with a key has no identity and no issuer", "give the key or the identity")
        if self.identity is None and of_identity:
            raise _idle("--issuer, --trusted-root", "they say nothing without an identity", "add --identity ID")


def _idle(where: str, what: str, todo: str) -> ConfigError:
    return ConfigError(what, where=where, todo=todo)


def chosen_signer(
    house: House,
    *,
    key: str | None,
    public_key: Path | None,
    keyless: bool,
    trust_config: Path | None,
    token: str | None,
) -> Signer:
    """Who signs: this home's key, a key file, a key service, or an identity.

    Raises:
        ConfigError: The key, the service or the instance cannot be used, or something is given that it has no use for.
        BackendError: The instance does not answer.
    """
    service = key is not None and ":" in key and not Path(key).exists()
    if keyless and key is not None:
        raise _idle("--keyless", "an identity signs without a key", "give the key or the identity")
    if not keyless and (trust_config is not None or token is not None):
        raise _idle("--trust-config, --identity-token", "a key needs neither", "add --keyless, or leave them out")
    if public_key is not None and not service:
        raise _idle("--public-key", "only a key behind a URI needs its public half named", "leave it out")
    if keyless:
        from ecology.signer.keyless import keyless_signer  # noqa: PLC0415

        return keyless_signer(trust_config, token)
    if key is None:
        return house.signer
    if service:
        from ecology.signer.remote import remote_signer  # noqa: PLC0415

        return remote_signer(key, public_key)
    return LocalSigner.from_file(Path(key))


def sign_folder(folder: Path, signer: Signer, house: House, oms: Path | None = None) -> Digest:
    """Signs a folder's bytes and appends the envelope or bundle to its ``claims.jsonl``.

    A trusted genome of the folder, where there is one, is countersigned: the same predicate under this signer too, so
    that the gate finds a birth certificate by somebody the policy names. What this key says in the file already it does
    not say twice.

    Returns:
        The artifact's digest.

    Raises:
        MalformedArtifact: The folder cannot be read.
        ConfigError: The key cannot be used.
        BackendError: A service did not sign.
    """
    artifact = describe(folder)
    written = oms.resolve() if oms is not None else None
    if written in {(folder / name).resolve() for name in (CONFIG_FILE, WEIGHTS_FILE, CLAIMS_FILE)}:
        raise ConfigError("this file is what is signed", where=str(oms), todo="give the bundle a name of its own")
    lines = list(read_claims(folder))
    known = verify_claims(lines, artifact.digest, (), house.development_keys)
    births = [claim.statement for claim in known.verified if is_genome(claim.statement)]
    bare = statement(artifact_subjects(artifact), SIGNATURE, {"signedAt": house.clock.now()})
    said = _said(lines, artifact.digest, signer)
    wanted = [*(births[:1] if not signer.development else ()), bare]
    if new := [signer.sign(one) for one in wanted if _meaning(one) not in said]:
        if (count := len(lines) + len(new)) > MAX_CLAIMS:
            raise ConfigError(
                f"it would have {count} claims, and at most {MAX_CLAIMS} are read",
                where=str(folder / CLAIMS_FILE),
                todo="leave out what need not travel with it",
            )
        write_atomic(folder / CLAIMS_FILE, "".join(line + "\n" for line in (*lines, *new)).encode())
    if oms is not None:
        write_atomic(oms, (_oms(folder, oms, signer) + "\n").encode())
    house.record("signed", {"digest": artifact.digest, "keyid": signer.keyid, "development": signer.development})
    return artifact.digest


def _said(lines: Sequence[str], artifact: Digest, signer: Signer) -> frozenset[Digest]:
    """What this key says of the artifact already; of an identity it is not known: each bundle is a log entry."""
    key = getattr(signer, "public_key", None)
    if not isinstance(key, TrustedKey):
        return frozenset()
    return frozenset(_meaning(claim.statement) for claim in verify_claims(lines, artifact, (key,), ()).verified)


def _meaning(said: Mapping[str, Json]) -> Digest:
    """Digest of a statement without the time at which it was signed."""
    predicate: Json = said.get("predicate")
    if isinstance(predicate, Mapping):
        predicate = {name: value for name, value in predicate.items() if name != "signedAt"}
    return digest({**said, "predicate": predicate})


def _oms(folder: Path, out: Path, signer: Signer) -> str:
    outside = _outside(folder, out)
    files = [file for file in describe(folder).files if file.path not in outside]
    line = signer.sign(oms_statement(folder.name, files, outside))
    if is_bundle(line):
        return line
    key = getattr(signer, "public_key", None)
    if not isinstance(key, TrustedKey):
        raise ConfigError("this signer has no public key to hint at", where=str(out))
    return key_bundle(line, key)


def _outside(folder: Path, bundle: Path) -> tuple[str, ...]:
    """What may lie in the folder and cannot be inside its own signature."""
    within = bundle.resolve().is_relative_to(folder.resolve())
    return (CLAIMS_FILE, bundle.resolve().relative_to(folder.resolve()).as_posix()) if within else (CLAIMS_FILE,)


def verify_folder(folder: Path, anchors: Anchors, house: House) -> tuple[bool, list[str]]:
    """Whether somebody trusted signed exactly these bytes, and what to print.

    Raises:
        MalformedArtifact: The folder cannot be read.
        ConfigError: The anchor cannot be read, or more are named than are looked at.
    """
    anchors.refuse_idle(bundle=False)
    artifact = describe(folder)
    trusted: tuple[TrustedKey, ...] = ()
    development: tuple[TrustedKey, ...] = ()
    identities: tuple[TrustedIdentity, ...] = ()
    if anchors.key is not None:
        trusted = (read_trusted(anchors.key),)
    elif anchors.identity is not None:
        identities = (_identity(anchors),)
    elif anchors.policy is not None:
        rules = load_policy(subject(anchors.policy, "policies", ".yaml")).signatures
        trusted, identities = rules.trusted, rules.identities
        development = house.development_keys if rules.allow_development else ()
    claims = verify_claims(read_claims(folder), artifact.digest, trusted, development, identities)
    lines = [f"artifact   {artifact.digest}"]
    for claim in claims.verified:
        mark = "development key" if claim.development else "trusted"
        lines.append(f"verified   {claim.predicate_type}  by {claim.signer} ({mark})")
    lines += [f"refused    {reason}" for reason in claims.refused]
    if not claims.verified:
        why = "no claim is by somebody who is trusted" if claims.refused else "there are no claims"
        hint = "; name an anchor with --policy, --key or --identity" if anchors.none else ""
        lines.append(f"signer untrusted: {why}{hint}")
    return bool(claims.verified), lines


def verify_any(artifact: str, bundle: Path | None, oms: Path | None, anchors: Anchors) -> tuple[bool, list[str]]:
    """Any Sigstore bundle over any file, or an OMS bundle over any folder; offline.

    Args:
        artifact: A file, ``sha256:DIGEST``, or for ``oms`` a folder.
        bundle: A bundle with a message signature or an envelope.
        oms: A bundle over a whole folder; exactly one of the two is given.
        anchors: A key, or an identity with its issuer and the instance's trusted root.

    Raises:
        ConfigError: A file cannot be read, both bundles or none are given, or the anchors do not fit together.
    """
    if (bundle is None) == (oms is None):
        raise ConfigError("one bundle is verified at a time", where="--bundle, --oms", todo="give one of them")
    anchors.refuse_idle(bundle=True)
    if anchors.key is not None and (anchors.identity or anchors.issuer):
        return False, ["refused    identity: a key and an identity are given, and a bundle is signed by one of them"]
    if anchors.key is None and (anchors.identity is None or anchors.issuer is None):
        raise ConfigError(
            "a bundle is verified against a key, or against an identity and its issuer",
            where="--bundle",
            todo="give --identity ID --issuer URL --trusted-root FILE, or --key FILE",
        )
    try:
        root = None if anchors.trusted_root is None else load_root(_text(anchors.trusted_root))
        who: Identity | Key = Identity(str(anchors.identity), str(anchors.issuer))
        if anchors.key is not None:
            who = load_key(_text(anchors.key).encode())
        if oms is not None:
            folder = Path(artifact)
            files = describe(folder).files
            what = verify_oms(_text(oms), files, who, root, _outside(folder, oms))
        else:
            what = verify_bundle(_text(Path(str(bundle))), root, who, _artifact(artifact))
    except ClaimRefused as refusal:
        return False, [f"refused    {refusal.reason}: {refusal}"]
    by = f"key {anchors.key}" if anchors.key is not None else f"{anchors.identity}, vouched for by {anchors.issuer}"
    return True, [f"verified   {what}", f"signer     {by}"]


def _artifact(text: str) -> Artifact:
    path = Path(text)
    if is_digest(text.lower()) and not path.exists():
        return Artifact(bytes.fromhex(text.lower().removeprefix("sha256:")), None)
    if path.is_dir():  # a folder's digest is that of its list of files, as our own statements name it
        return Artifact(bytes.fromhex(describe(path).digest.removeprefix("sha256:")), None)
    return Artifact.of(_bytes(path, MAX_ARTIFACT_BYTES))


def _identity(anchors: Anchors) -> TrustedIdentity:
    if anchors.issuer is None or anchors.trusted_root is None:
        raise ConfigError("an identity needs --issuer and --trusted-root", where="--identity")
    text = _text(anchors.trusted_root)
    name = str(anchors.identity)
    return TrustedIdentity(
        name, name, anchors.issuer, anchors.trusted_root.name, digest_bytes(text.encode("utf-8")), text
    )


def _text(path: Path) -> str:
    try:
        return _bytes(path, 64 * 1024 * 1024).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ClaimRefused("json", "not UTF-8 text", where=str(path)) from error


def _bytes(path: Path, most: int) -> bytes:
    try:
        if path.stat().st_size > most:
            raise ClaimRefused("size", f"larger than the {most} bytes that are read", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
