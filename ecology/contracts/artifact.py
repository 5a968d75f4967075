"""Bytes that have a name: their digest."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ecology.contracts.identity import Digest

if TYPE_CHECKING:  # genome names Corpus, SignedArtifact names Genome: the cycle is one of words only
    from ecology.contracts.genome import Genome

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
CLAIMS_FILE = "claims.jsonl"
"""DSSE envelopes, one a line, beside the artifact and outside its digest."""
MAX_CLAIMS = 1024
"""Lines of claims that are read; ours have one envelope for each signer and each verdict."""
MAX_CLAIMS_BYTES = 16 * 1024 * 1024
MAX_WIDE_CLAIMS_BYTES = 4 * 1024 * 1024
"""Of lines that are not ASCII, which take up to four times as much in memory; bundles of some writers are not."""
BASE_KEY = "base"
"""Key of the weights file's metadata that holds the base's weights digest."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class FileRecord:
    """One file of an artifact."""

    path: str
    """POSIX, relative to the artifact's folder."""
    size_bytes: int
    digest: Digest


@dataclasses.dataclass(frozen=True, slots=True)
class Artifact:
    """An adapter folder's bytes. ``digest`` is the digest of the canonical JSON of ``files``."""

    digest: Digest
    files: tuple[FileRecord, ...]
    """Sorted by path; ``claims.jsonl`` is never among them."""

    @property
    def size_bytes(self) -> int:
        """Sum of the files' sizes."""
        return sum(file.size_bytes for file in self.files)


@dataclasses.dataclass(frozen=True, slots=True)
class SignedArtifact:
    """An adapter of ours: bytes, birth certificate and the envelopes that vouch for both."""

    artifact: Artifact
    genome: Genome
    claims: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Submission:
    """What stands before the gate. Nothing in it is trusted: neither the folder nor what the claims say."""

    name: str
    """For people: ``linear-2`` or the folder's name."""
    folder: str
    artifact: Artifact
    claims: tuple[str, ...]
    unread: str = ""
    """Why none of the claims was read, such as too many lines; empty where they were."""


@dataclasses.dataclass(frozen=True, slots=True)
class Corpus:
    """A training corpus, as a lineage records it."""

    id: str
    digest: Digest
    """Of the data file's bytes."""
    licence: str
    """SPDX identifier."""
    split: str
    no_train: bool
    rows: int
