"""A trusted root: whose certificates, logs and clocks are believed, and from when to when.

It is an explicit file. A policy names it with its digest; a command line names it by path. Nothing is fetched and no
cache is read: the cache that ``sigstore --offline`` reads is not verified, and whoever can write it is trusted.

Every window is a closed interval (protobuf-specs, TimeRange) and has a beginning: a root that leaves one out is
malformed and not unlimited. sigstore-python takes the end of a time-stamping authority's window as open, so that end is
moved by a microsecond before it is handed over.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ecology.contracts.identity import Json
from ecology.signer import strict
from ecology.signer.bundle import unbase64
from ecology.signer.refusal import ClaimRefused

MEDIA_TYPES = (
    "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    "application/vnd.dev.sigstore.trustedroot.v0.2+json",
)


_LISTS = ("tlogs", "certificateAuthorities", "ctlogs", "timestampAuthorities")


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """When something was in use."""

    start: datetime.datetime
    end: datetime.datetime | None

    def __contains__(self, moment: object) -> bool:
        """Both ends belong to it."""
        return (
            isinstance(moment, datetime.datetime) and self.start <= moment and (self.end is None or moment <= self.end)
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Root:
    """A trusted root that was read and found whole."""

    sigstore: Any
    """``sigstore.models.TrustedRoot``."""
    logs: Mapping[bytes, tuple[Window, ...]]
    """Log id -> windows of its keys."""
    ct_logs: Mapping[bytes, tuple[Window, ...]]
    authorities: tuple[tuple[tuple[bytes, ...], Window], ...]
    """DER certificates of each certificate authority, issuer of leaves first, and its window."""


def load_root(text: str) -> Root:
    """Reads a ``trusted_root.json``. Imports ``sigstore``.

    Raises:
        ClaimRefused: ``root``: it is malformed, or of a version that is not read.
    """
    from sigstore.models import TrustedRoot  # noqa: PLC0415  (0.9 s: only where a keyless claim is present)
    from sigstore_models.trustroot import v1  # noqa: PLC0415

    try:
        value = strict.parse(text.encode("utf-8"))
    except ClaimRefused as refusal:
        raise ClaimRefused("root", refusal.what) from None
    if not isinstance(value, dict) or value.get("mediaType") not in MEDIA_TYPES:
        raise ClaimRefused("root", "not a trusted root of Sigstore, version 0.1 or 0.2")
    for key in _LISTS:  # a list that is left out is an empty one, as protobuf's JSON has it
        value.setdefault(key, [])
    logs = _windows(value, "tlogs")
    ct_logs = _windows(value, "ctlogs")
    authorities = []
    for where, entry in _entries(value, "certificateAuthorities"):
        authorities.append((_chain(entry, where), _window(entry.get("validFor"), where)))
    for where, entry in _entries(value, "timestampAuthorities"):
        _chain(entry, where)
        window = _window(entry.get("validFor"), where)
        if window.end is not None:
            end = window.end + datetime.timedelta(microseconds=1)
            entry["validFor"]["end"] = end.isoformat().replace("+00:00", "Z")
    try:
        found = TrustedRoot(v1.TrustedRoot.from_json(json.dumps(value)))
    except Exception as error:
        raise ClaimRefused("root", f"malformed: {' '.join(str(error).split())[:200]}") from error
    return Root(found, logs, ct_logs, tuple(authorities))


def _chain(entry: Mapping[str, Any], where: str) -> tuple[bytes, ...]:
    """DER certificates of an authority: one without any vouches for nothing, and is malformed."""
    chain = entry.get("certChain", {}).get("certificates", [])
    if not chain:
        raise ClaimRefused("root", "an authority without certificates", where=where)
    return tuple(unbase64(one.get("rawBytes"), where) for one in chain)


def _windows(value: Mapping[str, Json], key: str) -> Mapping[bytes, tuple[Window, ...]]:
    found: dict[bytes, tuple[Window, ...]] = {}
    for where, entry in _entries(value, key):
        log_id = unbase64(entry.get("logId", {}).get("keyId"), f"{where}.logId")
        found[log_id] = (*found.get(log_id, ()), _window(entry.get("publicKey", {}).get("validFor"), where))
    return found


def _entries(value: Mapping[str, Json], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    entries = value.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ClaimRefused("root", "not a list of objects", where=key)
    yield from ((f"{key}[{i}]", entry) for i, entry in enumerate(entries))


def _window(value: Json, where: str) -> Window:
    if not isinstance(value, Mapping) or not isinstance(value.get("start"), str):
        raise ClaimRefused("root", "validFor has no start", where=where)
    end = value.get("end")
    return Window(_instant(value["start"], where), None if end is None else _instant(end, where))


def _instant(text: Json, where: str) -> datetime.datetime:
    try:
        found = datetime.datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise ClaimRefused("root", f"{text!r:.40} is no instant", where=where) from None
    if found.tzinfo is None:
        raise ClaimRefused("root", f"{text!r:.40} has no time zone", where=where)
    return found
