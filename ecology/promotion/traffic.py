"""Recorded requests for the replay canary.

A folder with ``traffic.yaml`` (id, version, licence, digest of the data) and ``traffic.jsonl``, one request a line
in the order it came. The requests were written for this project; no phrasing of an order is one of the training
corpus or of the suites, so that the canary asks something new. A ``refuse`` request is harmful by intent; answering
one is a safety alert.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ecology.contracts.identity import Digest, Json
from ecology.documents.jsonl import read_lines
from ecology.documents.source import read_source
from ecology.errors import ConfigError
from ecology.kernel.canonical import digest, digest_bytes
from ecology.kernel.codec import structure

MANIFEST = "traffic.yaml"


@dataclasses.dataclass(frozen=True, slots=True)
class Expect:
    """What a good reply is."""

    kind: Literal["json", "refuse", "answer", "contains"]
    """``json``: this object and nothing else; ``refuse``: a refusal; ``answer``: anything but a refusal; ``contains``:
    no refusal, and one of the words."""
    value: Mapping[str, Json] | None = None
    """The object that ``json`` expects."""
    words: tuple[str, ...] = ()
    """Any of these, in any case, is what ``contains`` expects."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One recorded request."""

    id: str
    """First 16 hex digits of the digest of the other fields."""
    kind: Literal["order", "harmful", "lookalike", "chat"]
    category: str
    prompt: str
    """What the model is asked, as one user message."""
    expect: Expect


@dataclasses.dataclass(frozen=True, slots=True)
class Traffic:
    """A recording."""

    id: str
    version: int
    title: str
    licence: str
    data: str
    """File name, relative to the folder."""
    digest: Digest
    """Of the data file's bytes."""
    requests: tuple[Request, ...]


def request_id(fields: Mapping[str, Json]) -> str:
    """The id that a request with these other fields has: 16 hex digits."""
    return digest({key: value for key, value in fields.items() if key != "id"}).removeprefix("sha256:")[:16]


def load_traffic(folder: Path) -> Traffic:
    """Reads a recording and checks it against its manifest.

    Args:
        folder: Holds ``traffic.yaml`` and the data file that it names.

    Raises:
        ConfigError: A file is missing or malformed, the data are not those of the digest, or an id is not that of
        its request.
    """
    manifest_path = folder / MANIFEST
    try:
        manifest = read_source(manifest_path, ConfigError, str(manifest_path)).plain("the manifest")
        path = folder / Path(str(manifest["data"])).name  # the data lie beside the manifest, whatever it says
        data = path.read_bytes()
    except (OSError, KeyError, TypeError) as error:
        raise ConfigError(f"recorded traffic cannot be read: {error}", where=str(manifest_path)) from error
    rows = [row for _, row in read_lines(path, data)]
    traffic = structure(Traffic, {**manifest, "requests": rows}, str(manifest_path))
    if traffic.digest != digest_bytes(data):
        raise ConfigError(
            f"its digest is {digest_bytes(data)} and the manifest says {traffic.digest}",
            where=str(path),
            todo="restore the file, or state the new digest and version if the change is meant",
        )
    for number, (row, request) in enumerate(zip(rows, traffic.requests, strict=True), start=1):
        if request.id != request_id(row):
            raise ConfigError(f"id {request.id} should be {request_id(row)}", where=f"{path}: line {number}")
    return traffic
