"""A Sigstore bundle, taken apart: what was signed, by what, and what a log and a clock say of it.

Nothing here decides; it only says what stands where, in one shape for all versions (0.1 to 0.3), and refuses what has
no meaning. Whether the parts hold together is asked in ``entry`` (log entry against signature) and ``sigstore``
(certificate, log, time).

Of a log entry, bundles 0.1 must have the promise (SET) and may lack the inclusion proof or its checkpoint; later ones
must have both and may lack the promise.

Source: sigstore protobuf-specs, sigstore_bundle.proto, sigstore_common.proto, sigstore_rekor.proto (JSON form).
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Mapping

from ecology.contracts.identity import Json
from ecology.signer import dsse, strict
from ecology.signer.refusal import ClaimRefused

MEDIA_TYPES = (
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
)
MAX_BUNDLE_BYTES = 16 * 1024 * 1024
MAX_PARTS = 4096
"""Commas, colons and brackets of a bundle: some fifty for each log entry, and one for each hash of its proof."""


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A signature over an artifact's bytes."""

    signature: bytes
    algorithm: str
    """``SHA2_256``, ... as the bundle says; empty where it says nothing."""
    digest: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class LogEntry:
    """What a transparency log is said to hold."""

    kind: str
    version: str
    body: bytes
    """Canonical JSON, as it was hashed into the tree."""
    integrated_at: int
    """Unix seconds; 0 where there is none (Rekor v2 has no clock)."""
    promised: bool
    """Whether the log signed the time (SET)."""
    log_id: bytes
    proven: bool
    """Whether there is an inclusion proof with a checkpoint; only bundles 0.1 may go without, on a promise alone."""
    tree_size: int
    """Of the proof; 0 without one."""
    checkpoint: str
    """A signed note; empty without a proof."""
    raw: Mapping[str, Json]


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """The parts."""

    media_type: str
    content: Message | dsse.Envelope
    certificate: bytes
    """DER of the signing certificate; empty for a bundle that is signed by a bare key."""
    chain: tuple[bytes, ...]
    """DER of what bundles 0.1 and 0.2 may carry besides. Nothing is ever built on it."""
    entries: tuple[LogEntry, ...]
    text: str

    @property
    def signature(self) -> bytes:
        """The one signature that certificate, log and time are about."""
        return self.content.signature if isinstance(self.content, Message) else self.content.signatures[0].sig


def is_bundle(line: str) -> bool:
    """Whether a line of claims is a bundle and not a bare envelope; a cheap look, which decides who reads it."""
    return '"application/vnd.dev.sigstore.bundle' in line


def read(text: str) -> Bundle:
    """The parts of a bundle.

    Raises:
        ClaimRefused: ``size``, ``json`` or ``bundle``.
    """
    if len(text) > MAX_BUNDLE_BYTES:
        raise ClaimRefused("size", f"longer than the {MAX_BUNDLE_BYTES} bytes that are read")
    try:
        value = strict.parse(text.encode("utf-8"), MAX_BUNDLE_BYTES, max_parts=MAX_PARTS)
    except UnicodeEncodeError:
        raise ClaimRefused("json", "not UTF-8 text") from None
    if not isinstance(value, dict):
        raise ClaimRefused("bundle", "not a JSON object")
    media_type = value.get("mediaType")
    if media_type not in MEDIA_TYPES:
        raise ClaimRefused("bundle", f"media type {media_type!r:.80} is not one of bundles 0.1 to 0.3")
    material = _object(value, "verificationMaterial")
    entries = material.get("tlogEntries", [])
    if not isinstance(entries, list):
        raise ClaimRefused("bundle", "tlogEntries is no list")
    certificate, chain = _certificates(material)
    promise_is_enough = media_type == MEDIA_TYPES[0]
    found = tuple(_entry(entry, promise_is_enough) for entry in entries)
    return Bundle(media_type, _content(value), certificate, chain, found, text)


def _content(value: Mapping[str, Json]) -> Message | dsse.Envelope:
    if ("messageSignature" in value) == ("dsseEnvelope" in value):
        raise ClaimRefused("bundle", "it needs one of messageSignature and dsseEnvelope")
    if "messageSignature" in value:
        message = _object(value, "messageSignature")
        digest = message.get("messageDigest") or {}
        if not isinstance(digest, Mapping):
            raise ClaimRefused("bundle", "messageDigest is no object")
        found = unbase64(digest.get("digest", ""), "messageDigest")
        return Message(unbase64(message.get("signature"), "signature"), str(digest.get("algorithm", "")), found)
    envelope = _object(value, "dsseEnvelope")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], Mapping):
        raise ClaimRefused("bundle", "an envelope in a bundle has one signature")
    payload_type = envelope.get("payloadType")
    if payload_type != dsse.PAYLOAD_TYPE:
        raise ClaimRefused("payload-type", f"an envelope around {payload_type!r:.80}, not around {dsse.PAYLOAD_TYPE}")
    signature = dsse.Signature(str(signatures[0].get("keyid", "")), unbase64(signatures[0].get("sig"), "sig"))
    return dsse.Envelope(unbase64(envelope.get("payload"), "payload"), payload_type, (signature,))


def _certificates(material: Mapping[str, Json]) -> tuple[bytes, tuple[bytes, ...]]:
    """The signing certificate, and what came with it."""
    found = [name for name in ("certificate", "x509CertificateChain", "publicKey") if material.get(name) is not None]
    if len(found) != 1:
        raise ClaimRefused("bundle", "it needs one of certificate, x509CertificateChain and publicKey")
    if found[0] == "publicKey":
        return b"", ()
    if found[0] == "certificate":
        return unbase64(_object(material, "certificate").get("rawBytes"), "certificate.rawBytes"), ()
    chain: Json = _object(material, "x509CertificateChain").get("certificates")
    if not isinstance(chain, list) or not chain or not all(isinstance(one, Mapping) for one in chain):
        raise ClaimRefused("bundle", "x509CertificateChain is empty")
    leaf, *others = (unbase64(one.get("rawBytes"), f"x509CertificateChain[{i}]") for i, one in enumerate(chain))
    return leaf, tuple(others)


def _entry(value: Json, promise_is_enough: bool) -> LogEntry:
    if not isinstance(value, Mapping):
        raise ClaimRefused("bundle", "a log entry that is no object")
    proof = value.get("inclusionProof")
    checkpoint = proof.get("checkpoint") if isinstance(proof, Mapping) else None
    proven = isinstance(proof, Mapping) and isinstance(checkpoint, Mapping)
    promised = value.get("inclusionPromise") is not None
    if not proven and not (promise_is_enough and promised):
        raise ClaimRefused("log", "the log entry has no inclusion proof with a checkpoint")
    _number(value.get("logIndex", 0), "logIndex")
    version = _object(value, "kindVersion")
    return LogEntry(
        kind=str(version.get("kind", "")),
        version=str(version.get("version", "")),
        body=unbase64(value.get("canonicalizedBody"), "canonicalizedBody"),
        integrated_at=_number(value.get("integratedTime", 0), "integratedTime"),
        promised=promised,
        log_id=unbase64(_object(value, "logId").get("keyId"), "logId.keyId"),
        proven=proven,
        tree_size=_number(proof.get("treeSize"), "treeSize") if isinstance(proof, Mapping) and proven else 0,
        checkpoint=str(checkpoint.get("envelope", "")) if isinstance(checkpoint, Mapping) else "",
        raw=value,
    )


def _object(value: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    found = value.get(key)
    if not isinstance(found, Mapping):
        raise ClaimRefused("bundle", f"{key} is missing or no object")
    return found


def _number(value: Json, where: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or len(text) > 19:
        raise ClaimRefused("bundle", f"{text!r:.30} is no number", where=where)
    return int(text)


def unbase64(text: Json, where: str) -> bytes:
    """The bytes of a base64 field; the standard alphabet with padding and nothing else.

    Raises:
        ClaimRefused: ``bundle``.
    """
    if not isinstance(text, str):
        raise ClaimRefused("bundle", "missing or not a string", where=where)
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise ClaimRefused("bundle", "not base64", where=where) from None
