"""Checkpoints: the size and the root of the log, signed, in a form that other transparency tools read.

    tiny-ecology/3f1c09b27d6e4a58
    17
    sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

    — tiny-ecology/3f1c09b27d6e4a58 Az3grlgt...

The first line is the origin: which log this is. By default it names the key that signs it. Whoever keeps a checkpoint
(a report does) can later prove that the log was rewritten, if it was.

Sources: C2SP signed-note (Ed25519, type 0x01) and tlog-checkpoint, https://c2sp.org.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ecology.contracts.policy import TrustedKey
from ecology.errors import ConfigError, IntegrityError, PolicyError
from ecology.kernel.merkle import HASH_BYTES

MAX_NOTE_BYTES = 64 * 1024
MAX_SIGNATURES = 64
_ED25519 = b"\x01"
_SIGNATURE_LINE = re.compile("— ([^ +\\s]+) ([A-Za-z0-9+/]+={0,2})")
_NAME = re.compile(r"[^\s+]+")


class NoteSigner(Protocol):
    """What the log needs of a key."""

    @property
    def public_key(self) -> TrustedKey:
        """The public half."""
        ...

    def sign_bytes(self, data: bytes) -> bytes:
        """A bare Ed25519 signature, 64 bytes."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a note says."""

    origin: str
    """Which log this is."""
    size: int
    """Number of leaves."""
    root: bytes
    """RFC 6962 root hash, 32 bytes."""

    @property
    def text(self) -> str:
        """The lines that are signed, the last newline included."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"


def default_origin(key: TrustedKey) -> str:
    """``tiny-ecology/`` and the first 16 digits of the key id (SHA-256 of the DER public key).

    Raises:
        PolicyError: Not an Ed25519 public key in PEM.
    """
    der = load_public(key).public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"tiny-ecology/{hashlib.sha256(der).hexdigest()[:16]}"


def sign(checkpoint: Checkpoint, key: TrustedKey, sign_bytes: Callable[[bytes], bytes]) -> str:
    """The checkpoint as a signed note; the key's name in it is the origin.

    Raises:
        ConfigError: The origin cannot be a key's name.
        PolicyError: Not an Ed25519 public key in PEM.
    """
    if not _NAME.fullmatch(checkpoint.origin):
        raise ConfigError(f"the origin {checkpoint.origin!r:.80} is empty or has a space or a plus in it")
    blob = _note_key_id(checkpoint.origin, load_public(key)) + sign_bytes(checkpoint.text.encode("utf-8"))
    return f"{checkpoint.text}\n— {checkpoint.origin} {base64.b64encode(blob).decode('ascii')}\n"


def read(note: str) -> Checkpoint:
    """What a note says, signed or not.

    Raises:
        ConfigError: It is not a checkpoint.
    """
    return _parse(note)[0]


def verify(note: str, keys: Sequence[TrustedKey]) -> Checkpoint:
    """What a note says, if one of ``keys`` signed it. Signatures of unknown keys (witnesses) are ignored.

    Raises:
        ConfigError: It is not a checkpoint.
        IntegrityError: None of the keys signed it, or a line that names one of them was not made by it.
        PolicyError: A key is not an Ed25519 public key in PEM.
    """
    checkpoint, signatures = _parse(note)
    signed = False
    for key in keys:
        public = load_public(key)
        wanted = _note_key_id(checkpoint.origin, public)
        for name, blob in signatures:
            if name != checkpoint.origin or blob[:4] != wanted:
                continue
            try:
                public.verify(blob[4:], checkpoint.text.encode("utf-8"))
            except InvalidSignature:
                raise IntegrityError(
                    f"the checkpoint of size {checkpoint.size} is not what key {key.name!r} signed",
                    where=checkpoint.origin,
                ) from None
            signed = True
    if not signed:
        names = ", ".join(key.name for key in keys) or "none given"
        raise IntegrityError(
            f"the checkpoint of size {checkpoint.size} is not signed by a known key ({names})",
            where=checkpoint.origin,
            todo="give the public key of the log, and of each key it had before",
        )
    return checkpoint


def load_public(key: TrustedKey) -> Ed25519PublicKey:
    """The key in a PEM.

    Raises:
        PolicyError: It is no Ed25519 public key in PEM.
    """
    try:
        public = serialization.load_pem_public_key(key.public_key.encode("utf-8"))
    except (ValueError, TypeError) as error:
        raise PolicyError("not a public key in PEM", where=f"key {key.name!r}") from error
    if not isinstance(public, Ed25519PublicKey):
        raise PolicyError("a public key of another kind than Ed25519", where=f"key {key.name!r}")
    return public


def _parse(note: str) -> tuple[Checkpoint, list[tuple[str, bytes]]]:
    """Name and (key id || signature) of each signature line, besides what is signed."""
    if len(note) > MAX_NOTE_BYTES:
        raise _not_a_checkpoint(f"longer than {MAX_NOTE_BYTES} bytes")
    text, separator, block = note.rpartition("\n\n")
    lines = text.split("\n")
    if not separator or len(lines) != 3:
        raise _not_a_checkpoint("it has not the three lines, the blank line and the signatures of one")
    origin, size, root_text = lines
    if not _NAME.fullmatch(origin):
        raise _not_a_checkpoint("no origin")
    if not re.fullmatch(r"0|[1-9][0-9]{0,15}", size):
        raise _not_a_checkpoint("no size")
    try:
        root = base64.b64decode(root_text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        root = b""
    if len(root) != HASH_BYTES or base64.b64encode(root).decode("ascii") != root_text:
        raise _not_a_checkpoint("no root hash")
    return Checkpoint(origin, int(size), root), _signatures(block)


def _signatures(block: str) -> list[tuple[str, bytes]]:
    if not block.endswith("\n"):
        raise _not_a_checkpoint("it is cut off")
    found = []
    for line in block[:-1].split("\n"):
        match = _SIGNATURE_LINE.fullmatch(line)
        try:
            blob = base64.b64decode(match[2], validate=True) if match else b""
        except binascii.Error:
            blob = b""
        if not match or len(blob) < 5:
            raise _not_a_checkpoint("a signature line that is none")
        found.append((match[1], blob))
    if len(found) > MAX_SIGNATURES:
        raise _not_a_checkpoint(f"more than {MAX_SIGNATURES} signatures")
    return found


def _not_a_checkpoint(why: str) -> ConfigError:
    return ConfigError(f"not a checkpoint: {why}", todo="give the whole signed note, as the report printed it")


def _note_key_id(name: str, key: Ed25519PublicKey) -> bytes:
    """SHA-256(name || 0x0A || 0x01 || public key), first four bytes (signed-note)."""
    return hashlib.sha256(name.encode("utf-8") + b"\n" + _ED25519 + _raw(key)).digest()[:4]


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
