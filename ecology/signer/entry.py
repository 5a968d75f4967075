"""Does the log entry speak of this very signature? Step 8 of verification, for every kind of entry.

An inclusion proof shows that a log holds *an* entry. Without the comparison here it may be an entry about another
signature, and its time may make an expired certificate look valid (CVE-2022-36056). Compared are: the digest of what
was signed, the signature, and the certificate or key. Fields beyond these are the log's own business.

    hashedrekord 0.0.1   message; DSSE, then the digest is of the PAE        Rekor v1
    dsse 0.0.1           payload hash, signatures with verifiers             Rekor v1
    intoto 0.0.2         payload hash, signatures (base64 twice) with keys   Rekor v1, npm and older attestations
    hashedrekord 0.0.2   message; DSSE, then the digest is of the PAE        Rekor v2
    dsse 0.0.2           payload hash, signatures with verifiers             Rekor v2 before its release

``sigstore.verify`` knows fewer kinds and only certificates; this module serves bare keys too, so that there is one
comparison and not two. Source: Rekor's type schemas (pkg/types/*), Sigstore client specification, rekor-v2-spec 6.1.4.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import PublicKeyAlgorithmOID

from ecology.contracts.identity import Json
from ecology.signer import strict
from ecology.signer.bundle import MAX_PARTS, Bundle, LogEntry, Message, unbase64
from ecology.signer.refusal import ClaimRefused

Key = Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
ALGORITHMS = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "SHA2_256": hashes.SHA256(),
    "SHA2_384": hashes.SHA384(),
    "SHA2_512": hashes.SHA512(),
}
_PSS = bytes.fromhex("06092a864886f70d01010a")
"""DER of id-RSASSA-PSS, which stands at the beginning of a SubjectPublicKeyInfo."""
_CURVES = {"secp256r1": "sha256", "secp384r1": "sha384", "secp521r1": "sha512"}


class Signed:
    """What a signature in a bundle is over: bytes, or only their SHA-256 where the caller has no more.

    Args:
        data: The artifact, or the PAE of an envelope; None where only the digest is known.
        digest: SHA-256 of the artifact; computed from ``data`` where that is given.
    """

    def __init__(self, data: bytes | None, digest: bytes = b"") -> None:
        """Keeps the bytes; digests are computed when they are asked for."""
        self._data = data
        self._sha256 = digest if data is None else hashlib.sha256(data).digest()

    def digest(self, algorithm: str) -> bytes | None:
        """Under a hash named as Rekor or a bundle names it; None where it cannot be known."""
        name = ALGORITHMS[algorithm].name if algorithm in ALGORITHMS else ""
        if name == "sha256":
            return self._sha256
        return hashlib.new(name, self._data).digest() if name and self._data is not None else None

    def verified_by(self, key: Key, signature: bytes, algorithm: str = "") -> bool:
        """Whether ``key`` made ``signature``.

        Args:
            key: From a certificate, or given by the caller.
            signature: DER for ECDSA, 64 bytes for Ed25519, PKCS #1 v1.5 for RSA.
            algorithm: Hash that the bundle names; by default the curve's own, or SHA-256, which Sigstore clients use
                for every curve.
        """
        if isinstance(key, Ed25519PublicKey):
            return self._data is not None and _holds(lambda data: key.verify(signature, data), self._data)
        names = [algorithm] if algorithm else list(dict.fromkeys((_CURVES.get(_curve(key), "sha256"), "sha256")))
        for name in names:
            digest = self.digest(name)
            if digest is None:
                continue
            prehashed = utils.Prehashed(ALGORITHMS[name])
            if isinstance(key, rsa.RSAPublicKey):
                if _holds(lambda d, p=prehashed: key.verify(signature, d, padding.PKCS1v15(), p), digest):
                    return True
            elif _holds(lambda d, p=prehashed: key.verify(signature, d, ec.ECDSA(p)), digest):
                return True
        return False


def load_key(pem: bytes) -> Key:
    """A public key in PEM, of the kinds that Sigstore signs with.

    Raises:
        ClaimRefused: ``signature``.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ClaimRefused("signature", "not a public key in PEM") from None
    if not isinstance(key, (Ed25519PublicKey, ec.EllipticCurvePublicKey, rsa.RSAPublicKey)) or _for_pss(key, pem):
        raise ClaimRefused("signature", "a public key of a kind that is not verified")
    return key


def certified_key(certificate: x509.Certificate) -> Key:
    """The key that a certificate is about.

    A key may be marked as one for RSA-PSS alone (RFC 4055, section 1.2). It would verify PKCS #1 v1.5 all the same, and
    Sigstore signs with nothing else, so such a key is refused.

    Raises:
        ClaimRefused: ``certificate``.
    """
    key = certificate.public_key()
    known = isinstance(key, (Ed25519PublicKey, ec.EllipticCurvePublicKey, rsa.RSAPublicKey))
    if not known or certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        raise ClaimRefused("certificate", "its key is of a kind that is not verified")
    return cast(Key, key)


def _for_pss(key: Key, pem: bytes) -> bool:
    """Whether a key in PEM is one for RSA-PSS alone: what it was read from is not what it is written as."""
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    body = b"".join(line for line in pem.splitlines() if b"-----" not in line)
    try:
        return _PSS in base64.b64decode(body)[:32]
    except binascii.Error:
        return True


def check_entry(bundle: Bundle, entry: LogEntry, signed: Signed, verifier: bytes) -> None:
    """That the entry is about this signature by this key over these bytes.

    Args:
        bundle: The parts.
        entry: One of its entries.
        signed: What the signature is over: the artifact or the PAE.
        verifier: DER of the certificate, or of the bare key's SubjectPublicKeyInfo.

    Raises:
        ClaimRefused: ``log``.
    """
    body = strict.parse(entry.body, max_parts=MAX_PARTS)
    spec = body.get("spec") if isinstance(body, dict) else None
    if not isinstance(spec, dict) or (body["kind"], body["apiVersion"]) != (entry.kind, entry.version):
        raise ClaimRefused(
            "log", f"the log entry's body is not of the kind {entry.kind} {entry.version} it is said to be"
        )
    check = _CHECKS.get((entry.kind, entry.version))
    if check is None:
        raise ClaimRefused("log", f"a log entry of kind {entry.kind!r:.30} {entry.version!r:.10} is not known")
    if isinstance(bundle.content, Message) and entry.kind != "hashedrekord":
        raise ClaimRefused("log", f"a log entry of kind {entry.kind} for a message signature")
    try:
        problem = check(spec, bundle, signed, verifier)
    except (KeyError, TypeError, IndexError, AttributeError):
        problem = "lacks what its kind must have"
    if problem:
        raise ClaimRefused("log", f"the log entry {problem}")


def _hashedrekord1(spec: Json, bundle: Bundle, signed: Signed, verifier: bytes) -> str:
    hashed, signature = spec["data"]["hash"], spec["signature"]
    if _unhex(hashed["value"]) != signed.digest(hashed["algorithm"]):
        return "is about other bytes"
    if unbase64(signature["content"], "signature") != bundle.signature:
        return "holds another signature"
    return _other_key(signature["publicKey"]["content"], verifier)


def _hashedrekord2(spec: Json, bundle: Bundle, signed: Signed, verifier: bytes) -> str:
    inner = spec["hashedRekordV002"]
    if unbase64(inner["data"]["digest"], "digest") != signed.digest(inner["data"]["algorithm"]):
        return "is about other bytes"
    if unbase64(inner["signature"]["content"], "signature") != bundle.signature:
        return "holds another signature"
    return _other_verifier(inner["signature"]["verifier"], verifier)


def _dsse1(spec: Json, bundle: Bundle, signed: Signed, verifier: bytes) -> str:
    del signed
    if _unhex(spec["payloadHash"]["value"]) != _payload_digest(bundle, spec["payloadHash"]["algorithm"]):
        return "is about another payload"
    (only,) = _one(spec["signatures"])
    if unbase64(only["signature"], "signature") != bundle.signature:
        return "holds another signature"
    return _other_key(only["verifier"], verifier)


def _dsse2(spec: Json, bundle: Bundle, signed: Signed, verifier: bytes) -> str:
    del signed
    inner = spec["dsseV002"]
    if unbase64(inner["payloadHash"]["digest"], "digest") != _payload_digest(bundle, inner["payloadHash"]["algorithm"]):
        return "is about another payload"
    (only,) = _one(inner["signatures"])
    if unbase64(only["content"], "signature") != bundle.signature:
        return "holds another signature"
    return _other_verifier(only["verifier"], verifier)


def _intoto2(spec: Json, bundle: Bundle, signed: Signed, verifier: bytes) -> str:
    del signed
    content = spec["content"]
    if _unhex(content["payloadHash"]["value"]) != _payload_digest(bundle, content["payloadHash"]["algorithm"]):
        return "is about another payload"
    envelope = content["envelope"]
    if not isinstance(bundle.content, Message) and envelope["payloadType"] != bundle.content.payload_type:
        return "is about another type of payload"
    (only,) = _one(envelope["signatures"])
    if unbase64(unbase64(only["sig"], "sig").decode("ascii", "replace"), "sig") != bundle.signature:
        return "holds another signature"
    return _other_key(only["publicKey"], verifier)


_CHECKS = {
    ("hashedrekord", "0.0.1"): _hashedrekord1,
    ("hashedrekord", "0.0.2"): _hashedrekord2,
    ("dsse", "0.0.1"): _dsse1,
    ("dsse", "0.0.2"): _dsse2,
    ("intoto", "0.0.2"): _intoto2,
}


def _payload_digest(bundle: Bundle, algorithm: str) -> bytes | None:
    return None if isinstance(bundle.content, Message) else Signed(bundle.content.payload).digest(algorithm)


def _one(values: Json) -> list[Mapping[str, Json]]:
    if not isinstance(values, list) or len(values) != 1:
        raise ClaimRefused("log", "the log entry has not exactly one signature")
    return values


def _other_key(content: Json, verifier: bytes) -> str:
    """Rekor v1 keeps a PEM certificate or key in base64."""
    pem = unbase64(content, "publicKey")
    try:
        if b"CERTIFICATE" in pem:
            der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
        else:
            der = spki(load_key(pem))
    except ValueError:
        return "holds something that is neither a certificate nor a key"
    return "" if der == verifier else "names another key"


def _other_verifier(found: Mapping[str, Json], verifier: bytes) -> str:
    """Rekor v2 keeps DER."""
    holder = found.get("x509Certificate") or found.get("publicKey") or {}
    return "" if unbase64(holder.get("rawBytes"), "verifier") == verifier else "names another key"


def spki(key: Key) -> bytes:
    """DER SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _curve(key: Key) -> str:
    return key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else ""


def _unhex(text: Json) -> bytes:
    try:
        return bytes.fromhex(text)
    except (ValueError, TypeError):
        raise ClaimRefused("log", "a digest of the log entry is not hex") from None


def _holds(verify: object, data: bytes) -> bool:
    try:
        verify(data)  # type: ignore[operator]
    except InvalidSignature:
        return False
    return True
