"""Sigstore bundles, verified offline: by identity through ``sigstore``, by bare key without a certificate.

``sigstore.verify.Verifier`` does what is hardest to get right: the certificate's path at the time of signing, the SCT,
the RFC 3161 timestamps, the inclusion proof, the checkpoint and the promise. Around it stand here:

* a pinned root (``roots``) and never TUF, a network or a cache;
* windows that it does not look at: of the certificate authority and of the CT log;
* more of the log's word (``transparency``), and every kind of log entry that public bundles have (``entry``);
* bundles signed by a bare key, which sigstore-python does not read;
* what an envelope says: an in-toto statement of a known version about the very artifact that was asked about.

Time. A signature by a certificate needs a trusted time: a timestamp of an authority of the root, or the time that a
log signed. Each trusted time that is there must lie in every window, not only one of them. A bare key needs none; its
log entries, where it has some, must hold all the same.

Source: Sigstore client specification, section 4 (verification); RFC 6962 section 3.3; RFC 3161.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Sequence
from typing import Any, cast

from cryptography import x509

from ecology.signer import bundle as bundles
from ecology.signer import dsse, strict
from ecology.signer.bundle import Bundle, Message
from ecology.signer.entry import ALGORITHMS, Key, Signed, certified_key, check_entry, spki
from ecology.signer.intoto import STATEMENT
from ecology.signer.refusal import ClaimRefused, Reason
from ecology.signer.roots import Root
from ecology.signer.transparency import check_log, check_size, check_window, promised, with_blank_proof

STATEMENTS = (STATEMENT, "https://in-toto.io/Statement/v0.1")
_KINDS_WITH_TIME = {("hashedrekord", "0.0.1"), ("dsse", "0.0.1"), ("intoto", "0.0.2")}


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Who must have signed: exactly this name, vouched for by exactly this issuer. There are no patterns."""

    identity: str
    """Subject alternative name of the certificate: an e-mail address, or the URI of a CI workflow."""
    issuer: str
    """URL of the OpenID Connect issuer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Artifact:
    """What a bundle must be about."""

    sha256: bytes
    data: bytes | None
    """The bytes; None where only the digest is known, which is enough except for Ed25519."""

    @classmethod
    def of(cls, data: bytes) -> Artifact:
        """The artifact with these bytes."""
        return cls(hashlib.sha256(data).digest(), data)


def verify_bundle(text: str, root: Root | None, who: Identity | Key, artifact: Artifact) -> str:
    """That ``who`` signed ``artifact``; every doubt is a refusal.

    Args:
        text: The bundle's JSON.
        root: Pinned by the caller; None only where a bare key signed without a log.
        who: An identity, or a key where the bundle has no certificate.
        artifact: The file, by its bytes or its digest.

    Returns:
        What holds, in one sentence for people.

    Raises:
        ClaimRefused: With a reason. Anything unforeseen is ``unexpected``.
    """
    from ecology.signer.verify import nothing_but_refusals  # noqa: PLC0415  (that module imports this one when asked)

    with nothing_but_refusals():
        parts = bundles.read(text)
        if isinstance(parts.content, Message):
            _message(parts.content, artifact)
            signed = Signed(artifact.data, artifact.sha256)
        else:
            signed = Signed(parts.content.signed_bytes)
        verify_signature(parts, signed, root, who)
        if isinstance(parts.content, dsse.Envelope):
            _about(parts.content.payload, artifact)
            return "a signed statement about this artifact"
        return "a signature over this artifact"


def verify_statement(text: str, root: Root, who: Identity) -> bytes:
    """The in-toto payload of a bundle that ``who`` signed; what it says is the caller's to read.

    Raises:
        ClaimRefused: With a reason.
    """
    parts = bundles.read(text)
    if isinstance(parts.content, Message):
        raise ClaimRefused("bundle", "a signature over bytes, where a statement is asked for")
    verify_signature(parts, Signed(parts.content.signed_bytes), root, who)
    return parts.content.payload


def verify_signature(parts: Bundle, signed: Signed, root: Root | None, who: Identity | Key) -> None:
    """That ``who`` made the bundle's signature, with certificate, log and time as they apply.

    Args:
        parts: The bundle.
        signed: What the signature must be over.
        root: Pinned; None only where a bare key signed without a log.
        who: Identity or key.

    Raises:
        ClaimRefused: With a reason.
    """
    if root is None and (isinstance(who, Identity) or parts.entries):
        raise ClaimRefused("root", "no trusted root is given, and this needs one", todo="--trusted-root FILE")
    algorithm = parts.content.algorithm if isinstance(parts.content, Message) else ""
    if isinstance(who, Identity):
        if not parts.certificate:
            raise ClaimRefused("identity", "signed by a bare key, which has no identity; give the key")
        certificate = x509.load_der_x509_certificate(parts.certificate)
        key = certified_key(certificate)
        verifier = parts.certificate
        _certificate_and_log(parts, cast(Root, root), who, certificate)
    else:
        if parts.certificate:
            raise ClaimRefused("identity", "signed by a certificate and not by a bare key; give the identity")
        key, verifier = who, spki(who)
        for entry in parts.entries:
            check_log(entry, cast(Root, root))
    if not signed.verified_by(key, parts.signature, algorithm):
        raise ClaimRefused("signature", "the signature does not hold over this")
    for entry in parts.entries:
        check_entry(parts, entry, signed, verifier)


def _certificate_and_log(parts: Bundle, root: Root, who: Identity, certificate: x509.Certificate) -> None:
    """Steps 0 to 6 of sigstore's verifier, and the windows."""
    from sigstore.errors import CertValidationError, VerificationError  # noqa: PLC0415
    from sigstore.models import Bundle as SigstoreBundle  # noqa: PLC0415
    from sigstore.models import InvalidBundle  # noqa: PLC0415
    from sigstore.verify import policy  # noqa: PLC0415

    if len(parts.entries) != 1:
        raise ClaimRefused("log", f"{len(parts.entries)} log entries; a certificate's signature has one")
    (entry,) = parts.entries
    _no_foreign_root(parts, root)
    verifier = _verifier(root)
    try:
        read = SigstoreBundle.from_json(parts.text if entry.proven else with_blank_proof(parts.text))
        if not entry.proven:
            read._log_entry = promised(read.log_entry._inner)
        times = verifier._establish_time(read)
        verifier._verify_common_signing_cert(read, policy.Identity(identity=who.identity, issuer=who.issuer))
    except InvalidBundle as error:
        raise ClaimRefused("bundle", str(error)[:300]) from error
    except CertValidationError as error:
        raise ClaimRefused("certificate", str(error)[:300]) from error
    except VerificationError as error:
        raise ClaimRefused(_reason(str(error)), str(error)[:300]) from error
    check_size(entry)
    check_window(entry, root)
    _authority_window(certificate, [time.time for time in times], root)
    _sct_window(certificate, root)


def _no_foreign_root(parts: Bundle, root: Root) -> None:
    """A bundle may repeat its way to our authorities; a self-signed certificate of anybody else has no business there.

    Sigstore's common.proto leaves it to the verifier to ignore such a certificate, its conformance suite refuses it.
    """
    ours = {der for chain, _ in root.authorities for der in chain}
    for der in parts.chain:
        found = x509.load_der_x509_certificate(der)
        if der not in ours and found.subject == found.issuer:
            raise ClaimRefused("certificate", "the chain has a root certificate that is not of the trusted root")


def _verifier(root: Root) -> Any:
    """Sigstore's verifier with one step wider: a log's signed time also counts in entries of kind intoto 0.0.2."""
    from sigstore._internal.timestamp import TimestampSource, TimestampVerificationResult  # noqa: PLC0415
    from sigstore.errors import VerificationError  # noqa: PLC0415
    from sigstore.verify import Verifier  # noqa: PLC0415

    class Pinned(Verifier):
        def _establish_time(self, bundle: Any) -> list[TimestampVerificationResult]:
            times: list[TimestampVerificationResult] = []
            if bundle.verification_material.timestamp_verification_data:
                if not self._trusted_root.get_timestamp_authorities():
                    raise VerificationError("no timestamp authority is trusted, and the bundle has a signed timestamp")
                times += self._verify_timestamp_authority(bundle)
            inner = bundle.log_entry._inner
            if inner.integrated_time and inner.inclusion_promise:  # the promise itself is verified with the entry
                if (inner.kind_version.kind, inner.kind_version.version) not in _KINDS_WITH_TIME:
                    raise VerificationError("a log of this version has no clock, and the bundle gives its time")
                moment = datetime.datetime.fromtimestamp(inner.integrated_time, tz=datetime.UTC)
                times.append(TimestampVerificationResult(TimestampSource.TRANSPARENCY_SERVICE, moment))
            return times

    return Pinned(trusted_root=root.sigstore)


def _authority_window(certificate: x509.Certificate, times: Sequence[datetime.datetime], root: Root) -> None:
    """Of the authorities that issued the certificate, one must have been in use at every trusted time."""
    windows = []
    for chain, window in root.authorities:
        try:
            certificate.verify_directly_issued_by(x509.load_der_x509_certificate(chain[0]))
        except Exception:  # not this one: whatever is wrong with it, it vouches for nothing
            continue
        windows.append(window)
    if not any(all(moment in window for moment in times) for window in windows):
        raise ClaimRefused("time", "the certificate authority was not in use when this was signed")


def _sct_window(certificate: x509.Certificate, root: Root) -> None:
    extension = certificate.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps)
    for sct in extension.value:
        moment = sct.timestamp.replace(tzinfo=datetime.UTC)
        windows = root.ct_logs.get(sct.log_id)
        if windows is not None and not any(moment in window for window in windows):
            raise ClaimRefused("time", f"the certificate log's key was not in use at {moment.isoformat()}")


def _message(message: Message, artifact: Artifact) -> None:
    if not message.digest:
        return
    if message.algorithm not in ALGORITHMS:
        raise ClaimRefused("bundle", f"digest algorithm {message.algorithm!r:.30} is not known")
    found = Signed(artifact.data, artifact.sha256).digest(message.algorithm)
    if found is None:
        raise ClaimRefused("artifact", f"only a SHA-256 is given, and the bundle is over {message.algorithm}")
    if found != message.digest:
        raise ClaimRefused("artifact", "the bundle is about another artifact")


def _about(payload: bytes, artifact: Artifact) -> None:
    """That a statement of a known version names the artifact among its subjects."""
    value = strict.parse(payload, bundles.MAX_BUNDLE_BYTES)
    if not isinstance(value, dict) or value.get("_type") not in STATEMENTS:
        raise ClaimRefused("statement", "the signed payload is no in-toto statement of version 1 or 0.1")
    subjects = value.get("subject")
    for subject in subjects if isinstance(subjects, list) else ():
        digests = subject.get("digest") if isinstance(subject, dict) else None
        for name, wanted in (digests or {}).items() if isinstance(digests, dict) else ():
            found = Signed(artifact.data, artifact.sha256).digest(name)
            if found is not None and found.hex() == wanted:
                return
    raise ClaimRefused("artifact", "the statement is not about this artifact")


def _reason(text: str) -> Reason:
    """The word for a refusal of sigstore, which is a sentence; a new wording falls back to ``unexpected``."""
    for words, reason in _WORDS:
        if any(word in text for word in words):
            return reason
    return "unexpected"


_WORDS: tuple[tuple[tuple[str, ...], Reason], ...] = (
    (("SAN", "Certificate does not contain", "OIDC", "issuer"), "identity"),
    (("expired", "verified time", "imestamp", "clock"), "time"),
    (("log entry", "nclusion", "checkpoint", "transparency log"), "log"),
    (("SCT", "ertificate", "usage", "keyring"), "certificate"),
    (("ignature",), "signature"),
)
