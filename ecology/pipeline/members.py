"""Who stands before the gate. Nothing here needs an engine, a database or Hydra."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ecology.contracts.artifact import SignedArtifact, Submission
from ecology.contracts.identity import Digest
from ecology.store.folders import claims_beside, describe


@dataclasses.dataclass(frozen=True)
class Member:
    """Somebody who stands before the gate."""

    name: str
    submission: Submission
    signed: SignedArtifact | None
    """None for a folder from outside."""
    breeds: bool

    @property
    def digest(self) -> Digest:
        """Of the artifact."""
        return self.submission.artifact.digest

    @property
    def folder(self) -> Path:
        """Where its bytes are."""
        return Path(self.submission.folder)


def submission_of(name: str, folder: Path, max_bytes: int | None = None) -> Submission:
    """A folder from anywhere, as it stands before the gate.

    Args:
        name: For people.
        folder: The adapter's own.
        max_bytes: A larger folder is not read; None reads any.

    Raises:
        MalformedArtifact: It is no folder or cannot be read.
    """
    artifact = describe(folder, max_bytes)
    return Submission(name, str(folder), artifact, *claims_beside(folder))
