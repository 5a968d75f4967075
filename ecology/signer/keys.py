"""Key files: Ed25519 private keys in PEM, readable by their owner alone.

The first use makes ``keys/development.pem``. That key proves that bytes were not changed since this installation
signed them; it does not prove who the installation is. So it, and only it, is a *development* key, and every signature
of it is shown as such. A named key that a person made elsewhere (``openssl genpkey -algorithm ed25519``) is opened with
``LocalSigner.from_file``.

A key is created under a name of its own with O_EXCL and mode 0600 and then linked to its final name, which fails if
that exists: of two first uses at the same moment one makes the key and both use it, and no reader ever sees half a
file.

The key id is the SHA-256 of the DER SubjectPublicKeyInfo, in hex. It is derived from a key and never looked up by.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ecology.contracts.identity import Json
from ecology.contracts.policy import TrustedKey
from ecology.errors import BackendError, ConfigError, IntegrityError, PolicyError, from_system
from ecology.kernel.canonical import canonical
from ecology.signer import dsse

DEVELOPMENT = "development"
_MAX_KEY_BYTES = 64 * 1024


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LocalSigner:
    """A private key on this machine. Implements ``ports.Signer``."""

    private_key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)
    name: str
    """For people: ``development`` or the file's name without its suffix."""
    development: bool
    """Whether this is the key that was made on first use."""

    @classmethod
    def open(cls, home: Path) -> LocalSigner:
        """The development key of an installation, made on first use; its public half lies beside it.

        Args:
            home: ``ECOLOGY_HOME``; the key is ``keys/development.pem`` below it.

        Raises:
            ConfigError: The file cannot be made or read, is encrypted, or others may read it.
            IntegrityError: It holds no key any more.
            BackendError: There is no room to write it.
        """
        folder = home / "keys"
        path = folder / f"{DEVELOPMENT}.pem"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():
                write_once(path, _private_pem(Ed25519PrivateKey.generate()), 0o600)
            signer = cls(_home_key(path), DEVELOPMENT, True)
            public = folder / f"{DEVELOPMENT}.pub.pem"
            if not public.exists():
                write_once(public, signer.public_key.public_key.encode("ascii"), 0o644)
        except OSError as error:
            if isinstance(full := from_system(error), BackendError):
                raise full from error
            raise ConfigError(
                f"cannot make or read the development key: {error.strerror}",
                where=str(path),
                todo="check the folder's owner",
            ) from error
        return signer

    @classmethod
    def from_file(cls, path: Path) -> LocalSigner:
        """A named key, which is not a development key, whatever its file is called.

        Raises:
            ConfigError: The file cannot be read, is no unencrypted Ed25519 or ECDSA PEM key, or others may read it.
        """
        try:
            return cls(_read_private(path), path.stem, False)
        except OSError as error:
            raise ConfigError(f"cannot read the key: {error.strerror}", where=str(path)) from error

    @property
    def keyid(self) -> str:
        """SHA-256 of the public key (DER), hex."""
        return key_id(self.private_key.public_key())

    @property
    def public_key(self) -> TrustedKey:
        """The public half, as a policy would name it."""
        pem = self.private_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return TrustedKey(name=self.name, public_key=pem.decode("ascii"))

    def sign(self, statement: Mapping[str, Json]) -> str:
        """One DSSE envelope around the statement's canonical JSON, as one line.

        Raises:
            ConfigError: The statement has no canonical JSON, or its envelope would be longer than is ever read back.
        """
        payload = canonical(statement)
        signature = self.sign_bytes(dsse.pae(dsse.PAYLOAD_TYPE, payload))
        line = dsse.seal(payload, [dsse.Signature(self.keyid, signature)])
        if len(line) > dsse.MAX_LINE_BYTES:
            raise ConfigError(
                f"the envelope has {len(line)} bytes, and at most {dsse.MAX_LINE_BYTES} are read back",
                todo="put fewer samples into the evidence",
            )
        return line

    def sign_bytes(self, data: bytes) -> bytes:
        """A bare signature: 64 bytes of Ed25519, also for the notes of the audit log; or ECDSA in DER.

        A note begins with the log's origin and what an envelope signs begins with ``DSSEv1``, so neither signature can
        be passed off as the other.
        """
        if isinstance(self.private_key, Ed25519PrivateKey):
            return self.private_key.sign(data)
        return self.private_key.sign(data, ec.ECDSA(_HASHES[self.private_key.curve.name]))


PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey
_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
"""One hash a curve, as Sigstore's algorithm registry pairs them; other pairs are not verified."""


def signed_by(key: PublicKey, signature: bytes, data: bytes) -> bool:
    """Whether this key made this signature: Ed25519 (RFC 8032), or ECDSA in DER over the curve's own hash."""
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, data)
        else:
            key.verify(signature, data, ec.ECDSA(_HASHES[key.curve.name]))
    except InvalidSignature:
        return False
    return True


def key_id(key: PublicKey) -> str:
    """SHA-256 of the DER SubjectPublicKeyInfo, 64 hex digits."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def load_public(key: TrustedKey) -> PublicKey:
    """The key that a policy or a command line names.

    Raises:
        PolicyError: It is no Ed25519 or ECDSA (P-256, P-384, P-521) public key in PEM.
    """
    todo = "give the PEM that `openssl pkey -in KEY -pubout` prints for an Ed25519 or ECDSA P-256 key"
    where = f"trusted key {key.name!r}"
    try:
        public = serialization.load_pem_public_key(key.public_key.encode("utf-8"))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PolicyError("not a public key in PEM", where=where, todo=todo) from error
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _HASHES:
        return public
    if not isinstance(public, Ed25519PublicKey):
        raise PolicyError("a public key of another kind than Ed25519 or ECDSA", where=where, todo=todo)
    return public


def read_trusted(path: Path) -> TrustedKey:
    """A public key file as a trust anchor; it is named after the file.

    Raises:
        ConfigError: The file cannot be read or is a private key.
        PolicyError: It is no Ed25519 or ECDSA public key in PEM.
    """
    try:
        with path.open("rb") as file:
            pem = file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read the key: {error.strerror}", where=str(path)) from error
    if b"PRIVATE KEY" in pem:
        raise ConfigError(
            "this is a private key, and a public one is asked for",
            where=str(path),
            todo=f"openssl pkey -in {path} -pubout -out {path.with_suffix('.pub.pem')}",
        )
    name = path.name.removesuffix(".pem").removesuffix(".pub")
    key = TrustedKey(name=name, public_key=pem.decode("utf-8", "replace"))
    load_public(key)
    return key


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class _NoKey(ConfigError):
    """A file that holds no private key that signs here."""


def _home_key(path: Path) -> Ed25519PrivateKey | ec.EllipticCurvePrivateKey:
    try:
        return _read_private(path)
    except _NoKey as error:
        todo = "restore it from a backup: no other key goes on with the log of this home"
        raise IntegrityError(f"the key of this home is damaged: {error.what}", where=error.where, todo=todo) from error


def _read_private(path: Path) -> Ed25519PrivateKey | ec.EllipticCurvePrivateKey:
    """Checks the mode on the open file, so that what is checked is what is read."""
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if os.name == "posix" and mode & 0o077:
            raise ConfigError(
                f"others may read this private key (mode {mode:04o}); it has to be thought of as known",
                where=str(path),
                todo=f"chmod 600 {path}; if others have been on this machine, make a new key and revoke this one",
            )
        pem = file.read(_MAX_KEY_BYTES)
    todo = f"openssl genpkey -algorithm ed25519 -out {path.with_name('new.pem')}"
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise ConfigError(
            "this private key is encrypted, and there is nobody to ask for the password",
            where=str(path),
            todo=f"decrypt it: openssl pkey -in {path} -out plain.pem",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _NoKey("not a private key in PEM", where=str(path), todo=todo) from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _HASHES:
        return key
    if not isinstance(key, Ed25519PrivateKey):
        raise _NoKey("a private key of another kind than Ed25519 or ECDSA", where=str(path), todo=todo)
    return key


def write_once(path: Path, data: bytes, mode: int) -> None:
    """Creates ``path`` whole or leaves the one that is there; two writers at a time are fine.

    The draft's name holds the process, as those of the store do, so that what a killed one leaves can be told.

    Args:
        path: A file of an existing folder.
        data: Its bytes.
        mode: Its permissions, from its first byte on.

    Raises:
        OSError: The folder cannot be written or knows no hard links.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
