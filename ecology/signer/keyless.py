"""Signing without a key of one's own: the identity that a CI job, or a person at a browser, already has.

The key lives for minutes in memory; the certificate authority of a Sigstore instance binds it to the identity, a log
makes that public for ever. Which instance: the public one (its configuration comes through TUF, over the network), or
a private one by a trust configuration file. Whoever signs on the public instance publishes the identity and the digest.

A signature of a sweep is one statement with all subjects, because each costs a log entry; a certificate that runs out
between two signatures is replaced by a new one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecology.contracts.identity import Json
from ecology.errors import BackendError, ConfigError
from ecology.kernel.canonical import canonical

AUDIENCE = "sigstore"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class KeylessSigner:
    """Signs with an identity. Implements ``ports.Signer`` but for that its lines are bundles."""

    context: Any
    """``sigstore.sign.SigningContext``."""
    token: Any
    """``sigstore.oidc.IdentityToken``."""

    @property
    def keyid(self) -> str:
        """``issuer#identity``: who, in place of a key."""
        return f"{self.token.federated_issuer}#{self.token.identity}"

    @property
    def development(self) -> bool:
        """Never: somebody vouches for the identity."""
        return False

    def sign(self, statement: Mapping[str, Json]) -> str:
        """One Sigstore bundle around the statement's canonical JSON, as one line.

        Raises:
            BackendError: The instance does not answer, or does not give what is asked for.
        """
        from sigstore.dsse import Statement  # noqa: PLC0415

        with _errors(), self.context.signer(self.token) as signer:
            bundle = signer.sign_dsse(Statement(canonical(statement)))
        return json.dumps(json.loads(bundle.to_json()), separators=(",", ":"), sort_keys=True)

    def sign_artifact(self, data: bytes) -> str:
        """One bundle with a signature over bytes.

        Raises:
            BackendError: As for ``sign``.
        """
        with _errors(), self.context.signer(self.token) as signer:
            return str(signer.sign_artifact(data).to_json())


def keyless_signer(trust_config: Path | None, token: str | None) -> KeylessSigner:
    """A signer for the identity at hand.

    Args:
        trust_config: ``ClientTrustConfig`` of a private instance; None is the public one, over the network.
        token: An identity token; None asks the CI's ambient credentials, then a browser.

    Raises:
        ConfigError: The trust configuration cannot be used, or there is no identity.
        BackendError: The instance does not answer.
    """
    from sigstore.errors import Error  # noqa: PLC0415  (0.9 s: only where it is asked for)
    from sigstore.models import ClientTrustConfig  # noqa: PLC0415
    from sigstore.oidc import IdentityToken, Issuer, detect_credential  # noqa: PLC0415
    from sigstore.sign import SigningContext  # noqa: PLC0415

    try:
        if trust_config is None:
            config = ClientTrustConfig.production()
        else:
            config = ClientTrustConfig.from_json(trust_config.read_text("utf-8"))
        context = SigningContext.from_trust_config(config)
    except (OSError, ValueError, Error) as error:
        raise ConfigError(
            f"no Sigstore instance to sign with: {str(error)[:300]}",
            where=str(trust_config or "the public instance"),
            todo="a private instance is named with --trust-config FILE",
        ) from error
    with _errors():
        raw = token or detect_credential(AUDIENCE)
        if raw is not None:
            return KeylessSigner(context, IdentityToken(raw, AUDIENCE))
        return KeylessSigner(context, Issuer(config.signing_config.get_oidc_url()).identity_token())


class _errors:  # noqa: N801  (used as a statement)
    """The client's errors as ours."""

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            raise BackendError(
                f"the Sigstore instance did not sign: {type(error).__name__}: {str(error)[:300]}",
                todo="check the identity, the network and the instance; sign with a key instead: --key FILE",
            ) from error
