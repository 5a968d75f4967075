"""The envelope: DSSE v1 around in-toto statements.

A signature is made over ``PAE(type, payload)``, so neither the payload nor what it is said to be can be changed, and a
payload needs no canonical form to be checked: the very bytes that were signed travel along. Ours are canonical JSON all
the same, so that one statement signed twice by one key gives one envelope.

Why not ``securesystemslib.dsse``, which is installed: its reader skips characters that are not base64, lets bare
``KeyError`` and ``ValueError`` out, and accepts two entries for one key only to die on them. Forty lines of our own are
easier to bound and to fuzz; its writer and verifier stand in our tests as the other implementation.

Source: https://github.com/secure-systems-lab/dsse, envelope.md and protocol.md, v1.0.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import string
from collections.abc import Mapping, Sequence

from ecology.contracts.identity import Json
from ecology.kernel.canonical import canonical
from ecology.signer import strict
from ecology.signer.refusal import ClaimRefused

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_LINE_BYTES = strict.MAX_BYTES
MAX_SIGNATURES = 16
MAX_PARTS = 1024
"""Commas, colons and brackets of an envelope: five for each signature and seven more, unless key ids have some."""


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """One entry of ``signatures``."""

    keyid: str
    """DSSE does not sign it, so nothing is decided by it; a reader who knows the key demands that it be the key's."""
    sig: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Envelope:
    """Payload bytes and who says to have signed them."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    @property
    def signed_bytes(self) -> bytes:
        """What the signatures are over."""
        return pae(self.payload_type, self.payload)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: ``DSSEv1 SP len(type) SP type SP len(payload) SP payload``."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def write(envelope: Envelope) -> str:
    """One line of canonical JSON, without the newline."""
    return canonical(
        {
            "payload": base64.b64encode(envelope.payload).decode("ascii"),
            "payloadType": envelope.payload_type,
            "signatures": [
                {"keyid": s.keyid, "sig": base64.b64encode(s.sig).decode("ascii")} for s in envelope.signatures
            ],
        }
    ).decode("utf-8")


def read(line: str) -> Envelope:
    """The envelope on a line. The payload is decoded and not looked at.

    A missing ``keyid`` is read as an empty one. Members that DSSE does not name are refused, where its readers should
    ignore them: nobody signed them, and what nobody signed has no business in a claim.

    Raises:
        ClaimRefused: ``size``, ``json``, ``envelope`` or ``payload-type``.
    """
    if len(line) > MAX_LINE_BYTES:  # characters: a cheap bound before encoding
        raise ClaimRefused("size", f"longer than the {MAX_LINE_BYTES} bytes that are read")
    try:
        data = line.encode("utf-8")
    except UnicodeEncodeError:
        raise ClaimRefused("json", "not UTF-8 text") from None
    value = strict.parse(data, MAX_LINE_BYTES, max_parts=MAX_PARTS)
    if not isinstance(value, dict):
        raise ClaimRefused("envelope", "not a JSON object")
    _only(value, ("payload", "payloadType", "signatures"))
    payload_type = value.get("payloadType")
    if not isinstance(payload_type, str):
        raise ClaimRefused("envelope", "payloadType is missing or not a string")
    if payload_type != PAYLOAD_TYPE:
        raise ClaimRefused("payload-type", f"an envelope around {payload_type!r:.80} and not around {PAYLOAD_TYPE}")
    return Envelope(_base64(value.get("payload"), "payload"), payload_type, _signatures(value.get("signatures")))


def _signatures(value: Json) -> tuple[Signature, ...]:
    if not isinstance(value, list) or not value:
        raise ClaimRefused("envelope", "no list of signatures")
    if len(value) > MAX_SIGNATURES:
        raise ClaimRefused("envelope", f"{len(value)} signatures, and at most {MAX_SIGNATURES} are read")
    return tuple(_signature(entry, f"signatures[{i}]") for i, entry in enumerate(value))


def _signature(entry: Json, where: str) -> Signature:
    if not isinstance(entry, Mapping):
        raise ClaimRefused("envelope", "not a JSON object", where=where)
    _only(entry, ("keyid", "sig"), where)
    keyid = entry.get("keyid", "")
    if not isinstance(keyid, str):
        raise ClaimRefused("envelope", "keyid is not a string", where=where)
    return Signature(keyid, _base64(entry.get("sig"), f"{where}.sig"))


def _only(value: Mapping[str, Json], known: tuple[str, ...], where: str = "") -> None:
    if unknown := sorted(set(value) - set(known)):
        raise ClaimRefused("envelope", f"members that nobody signed: {ascii(unknown)[:100]}", where=where)


def _base64(text: Json, where: str) -> bytes:
    """Both alphabets are allowed by DSSE; padding and nothing but the alphabet are demanded."""
    if not isinstance(text, str):
        raise ClaimRefused("envelope", "missing or not a string", where=where)
    try:
        data = text.encode("ascii").translate(_URL_SAFE)
        digits = data.rstrip(b"=")
        if len(data) - len(digits) > 2 or digits.translate(None, _ALPHABET):
            raise ClaimRefused("envelope", "not base64", where=where)
        return binascii.a2b_base64(data)
    except ValueError:  # not ASCII, or a wrong length
        raise ClaimRefused("envelope", "not base64", where=where) from None


_ALPHABET = string.ascii_letters.encode() + string.digits.encode() + b"+/"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def seal(payload: bytes, signatures: Sequence[Signature]) -> str:
    """An in-toto payload with its signatures as one line."""
    return write(Envelope(payload, PAYLOAD_TYPE, tuple(signatures)))
