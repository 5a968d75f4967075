"""The content-addressed store: one folder an artifact, named by its digest.

    <root>/artifacts/<64 hex digits>/adapter_config.json, adapter_model.safetensors, ..., claims.jsonl
    <root>/artifacts/.incoming-<random>/        being copied; never read
    <root>/.lock                                held by the process that copies

An artifact appears by one rename, so it is there in whole or not at all. One process puts at a time, under a lock that
the system takes back when it dies; so whatever is still ``.incoming`` when a put begins was left by a killed one, and
is removed. Files are verified whenever they are handed out. ``claims.jsonl`` is
the one file that grows (``store.lines``).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from ecology.contracts.artifact import CLAIMS_FILE, Artifact, FileRecord
from ecology.contracts.identity import Digest
from ecology.errors import IntegrityError, MalformedArtifact
from ecology.kernel.canonical import is_digest
from ecology.store import lines
from ecology.store.files import open_plain, sync_folder
from ecology.store.folders import describe


class LocalStore:
    """``ports.ArtifactStore`` in a local folder; any number of processes may share it.

    Args:
        root: Made on first use.
    """

    def __init__(self, root: Path) -> None:
        self._artifacts = root / "artifacts"

    def put(self, folder: Path) -> Artifact:
        """Copies the folder in; a second time is free. Claims beside it are not taken along.

        Raises:
            MalformedArtifact: The folder cannot be described, or changed while it was copied.
        """
        artifact = describe(folder)
        target = self._path(artifact.digest)
        if target.is_dir():
            return artifact
        self._artifacts.mkdir(parents=True, exist_ok=True)
        with lines.locked(self._artifacts.with_name(".lock"), fcntl.LOCK_EX):
            for left in self._artifacts.glob(".incoming-*"):
                shutil.rmtree(left, ignore_errors=True)
            if not target.is_dir():
                self._copy_in(folder, artifact, target)
        return artifact

    def _copy_in(self, folder: Path, artifact: Artifact, target: Path) -> None:
        incoming = self._artifacts / f".incoming-{secrets.token_hex(8)}"
        incoming.mkdir()
        try:
            for file in artifact.files:
                _copy(folder, incoming, file)
            if describe(incoming) != artifact:
                raise MalformedArtifact("the folder changed while it was copied", where=str(folder), todo="try again")
            for inside in {(incoming / file.path).parent for file in artifact.files} | {incoming}:
                sync_folder(inside)
            incoming.rename(target)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)  # gone already where the rename succeeded
        sync_folder(self._artifacts)

    def folder(self, digest: Digest) -> Path:
        """A local, verified folder with exactly these bytes; its files are read-only.

        Raises:
            IntegrityError: It is not held, or its bytes are not what the digest says.
        """
        path = self._held(digest)
        try:
            found = describe(path).digest
        except MalformedArtifact as error:
            raise IntegrityError(
                f"a stored adapter is damaged: {error.what}", where=str(path), todo=_RESTORE
            ) from error
        if found != digest:
            raise IntegrityError(f"a stored adapter is damaged: its bytes are {found}", where=str(path), todo=_RESTORE)
        return path

    def digests(self) -> tuple[Digest, ...]:
        """Everything that is held, sorted."""
        if not self._artifacts.is_dir():
            return ()
        names = sorted(path.name for path in self._artifacts.iterdir())
        return tuple(Digest(f"sha256:{name}") for name in names if is_digest(f"sha256:{name}"))

    def add_claims(self, digest: Digest, envelopes: Iterable[str]) -> None:
        """Appends envelopes to the artifact's ``claims.jsonl``; those already there are left out.

        Raises:
            ConfigError: An envelope is not one line.
            IntegrityError: The artifact is not held.
        """
        lines.append(self.claims_file(digest), envelopes)

    def claims(self, digest: Digest) -> tuple[str, ...]:
        """Envelopes of the artifact, in the order they were added.

        Raises:
            IntegrityError: The artifact is not held, or its claims are not text.
        """
        return lines.read(self.claims_file(digest))

    def claims_file(self, digest: Digest) -> Path:
        """Where the claims of an artifact lie, or will.

        Raises:
            IntegrityError: The artifact is not held.
        """
        return self._held(digest) / CLAIMS_FILE

    def _path(self, digest: Digest) -> Path:
        if not is_digest(digest):  # also keeps '..' out of paths
            raise IntegrityError(f"{digest!r:.80} is not a digest", todo="write it as sha256:<64 hex digits>")
        return self._artifacts / digest.removeprefix("sha256:")

    def _held(self, digest: Digest) -> Path:
        path = self._path(digest)
        if not path.is_dir():
            raise IntegrityError(f"the store does not hold {digest}", where=str(self._artifacts), todo=_RESTORE)
        return path


_RESTORE = "put the adapter in again from where it came"


def _copy(source: Path, target: Path, file: FileRecord) -> None:
    path = target / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    with open_plain(source / file.path) as reader, os.fdopen(descriptor, "wb") as writer:
        shutil.copyfileobj(reader, writer, 1024 * 1024)
        writer.flush()
        os.fsync(writer.fileno())
