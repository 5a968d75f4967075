"""Keys that are somewhere else: a cloud's key service, a hardware module, a vault.

``securesystemslib`` speaks with them behind one URI scheme each (``awskms:``, ``gcpkms:``, ``azurekms:``, ``hsm:``,
``hv:``, and ``file2:`` for a PEM file); what is signed and how it is verified stays ours. The public half is given by
the caller: a signature is checked against it before it leaves this module, so a service that signs with another key
than was meant is noticed at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecology.contracts.identity import Json
from ecology.contracts.policy import TrustedKey
from ecology.errors import BackendError, ConfigError
from ecology.kernel.canonical import canonical
from ecology.signer import dsse
from ecology.signer.keys import key_id, load_public, read_trusted, signed_by


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RemoteSigner:
    """A key behind a URI. Implements ``ports.Signer``."""

    signer: Any
    """``securesystemslib.signer.Signer``."""
    public_key: TrustedKey

    @property
    def keyid(self) -> str:
        """SHA-256 of the public key (DER), hex."""
        return key_id(load_public(self.public_key))

    @property
    def development(self) -> bool:
        """Never: a person named it."""
        return False

    def sign(self, statement: Mapping[str, Json]) -> str:
        """One DSSE envelope around the statement's canonical JSON, as one line.

        Raises:
            BackendError: The service does not sign, or signs with another key.
            ConfigError: The statement has no canonical JSON.
        """
        payload = canonical(statement)
        signed = dsse.pae(dsse.PAYLOAD_TYPE, payload)
        try:
            signature = bytes.fromhex(self.signer.sign(signed).signature)
        except Exception as error:  # each service has exceptions of its own
            raise BackendError(
                f"the key service did not sign: {type(error).__name__}: {str(error)[:200]}",
                where=self.public_key.name,
                todo="check its URI, the credentials and the network",
            ) from error
        if not signed_by(load_public(self.public_key), signature, signed):
            raise BackendError("the key service signed with another key", where=self.public_key.name)
        return dsse.seal(payload, [dsse.Signature(self.keyid, signature)])


def remote_signer(uri: str, public_key: Path | None) -> RemoteSigner:
    """A signer for a key behind a URI.

    Args:
        uri: As securesystemslib names it.
        public_key: PEM file of its public half.

    Raises:
        ConfigError: There is no such scheme, an extra is missing, or no public key is given.
        PolicyError: The public key is of a kind that is not verified.
    """
    from securesystemslib.signer import Signer, SSlibKey  # noqa: PLC0415  (0.2 s that nobody else need wait for)

    if public_key is None:
        raise ConfigError("the public half is needed", where=uri, todo="name it with --public-key FILE")
    trusted = read_trusted(public_key)
    try:
        signer = Signer.from_priv_key_uri(uri, SSlibKey.from_crypto(load_public(trusted)))
    except Exception as error:  # each scheme has exceptions of its own
        raise ConfigError(
            f"not a key that can be used: {type(error).__name__}: {str(error)[:200]}",
            where=uri,
            todo="schemes: file2, awskms, gcpkms, azurekms, hsm, hv",
        ) from error
    return RemoteSigner(signer, trusted)
