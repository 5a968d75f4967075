"""Canonical JSON (RFC 8785) and digests: the only serialiser of anything that is signed or named by content."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Mapping
from typing import Any

import rfc8785

from ecology.contracts.identity import Digest, Json
from ecology.errors import ConfigError


def plain(value: object) -> Json:
    """Dataclasses, enums, tuples and mappings as what JSON can hold; other values as they are.

    A field whose metadata say ``optional`` is left out at its default: what was signed before the field was there has
    the same bytes as it always had.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: plain(found)
            for f in dataclasses.fields(value)
            if not ((found := getattr(value, f.name)) == f.default and f.metadata.get("optional"))
        }
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def canonical(value: object) -> bytes:
    """RFC 8785 bytes of a value, dataclasses included.

    Raises:
        ConfigError: The value holds something that I-JSON cannot (NaN, an integer beyond 2**53, bytes).
    """
    try:
        return rfc8785.dumps(plain(value))
    except (rfc8785.CanonicalizationError, ValueError, TypeError) as error:
        raise ConfigError(f"a value has no canonical JSON: {error}") from error


def digest_bytes(data: bytes) -> Digest:
    """SHA-256 of bytes as a ``Digest``."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest(value: object) -> Digest:
    """SHA-256 of the canonical JSON of a value."""
    return digest_bytes(canonical(value))


def is_digest(text: Any) -> bool:
    """Whether ``text`` is written as a ``Digest``."""
    return (
        isinstance(text, str)
        and len(text) == 71
        and text.startswith("sha256:")
        and set(text[7:]) <= set("0123456789abcdef")
    )
