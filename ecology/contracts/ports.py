"""What a room must offer to be used by the run. Conformance cases are in ``ecology.testing``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ecology.contracts.artifact import Artifact
from ecology.contracts.evidence import Item, Split, Suite, Turn
from ecology.contracts.identity import CompatibilityIdentity, Digest, Json
from ecology.contracts.promotion import Event


class Clock(Protocol):
    """Time, as an argument."""

    def now(self) -> str:
        """RFC 3339 instant in UTC, whole seconds, ending in ``Z``."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...


class Progress(Protocol):
    """Where long work tells how far it is. Silent by default."""

    def track(self, what: str, total: int, unit: str = "it") -> AbstractContextManager[Step]:
        """Opens a bar of ``total`` units."""
        ...


class Step(Protocol):
    """One bar."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """``amount`` more units are done."""
        ...


class ModelEngine(Protocol):
    """One resident base that adapters are attached to and taken from."""

    @property
    def identity(self) -> CompatibilityIdentity:
        """Computed from the base's files."""
        ...

    @property
    def fingerprint(self) -> str:
        """Engine, version, dtype, threads and batch policy: part of every cache key."""
        ...

    def prove_base(self) -> Digest:
        """Digest of the resident weights now; equals ``identity.base_weights`` or the base was changed.

        Raises:
            IntegrityError: The resident weights are not the base's.
        """
        ...

    def attach(self, folder: Path | None) -> AbstractContextManager[None]:
        """Answers come from base plus this adapter inside the context; None is the bare base.

        Raises:
            MalformedArtifact: A key is missing, superfluous or of the wrong shape.
        """
        ...

    def generate(self, prompts: Sequence[str], max_new_tokens: int, progress: Step | None = None) -> tuple[str, ...]:
        """Greedy replies to single user messages, special tokens left out."""
        ...

    def loglikelihoods(
        self, prompts: Sequence[str], choices: Sequence[Sequence[str]], progress: Step | None = None
    ) -> tuple[tuple[float, ...], ...]:
        """Sum of log-probabilities of each choice as a reply to its prompt, in nats."""
        ...

    def time_turns(
        self,
        folders: Sequence[Path | None],
        prompts: Sequence[str],
        max_new_tokens: int,
        progress: Step | None = None,
    ) -> tuple[tuple[Turn, ...], ...]:
        """What each of these adapters takes for each prompt: interleaved, fixed length, warm-up discarded.

        None among them is the bare base.
        """
        ...

    def liveness(self, folder: Path, prompts: Sequence[str]) -> tuple[str, ...]:
        """What is wrong with the adapter at run time, one sentence each; empty when it is alive and exact."""
        ...


class ArtifactStore(Protocol):
    """Content-addressed adapters."""

    def put(self, folder: Path) -> Artifact:
        """Copies the folder in; a second time is free. Claims beside it are not taken along."""
        ...

    def folder(self, digest: Digest) -> Path:
        """A local, verified, read-only folder with exactly these bytes.

        Raises:
            IntegrityError: It is not held, or its bytes are not what the digest says.
        """
        ...

    def add_claims(self, digest: Digest, envelopes: Iterable[str]) -> None:
        """Appends envelopes to the artifact's ``claims.jsonl``; those already there are left out."""
        ...

    def claims(self, digest: Digest) -> tuple[str, ...]:
        """Envelopes of the artifact, in the order they were added."""
        ...


class AuditLog(Protocol):
    """Append-only Merkle log (RFC 6962) with signed checkpoints (C2SP)."""

    def append(self, event: Event) -> int:
        """Index of the new leaf."""
        ...

    def events(self) -> tuple[Event, ...]:
        """All of them, in order."""
        ...

    def checkpoint(self) -> str:
        """A signed note over size and root as of now."""
        ...


class Registry(Protocol):
    """A view of the log's facts; can be rebuilt from it."""

    def apply(self, event: Event) -> None:
        """Takes one fact in; the same fact twice changes nothing."""
        ...

    def alias(self, name: str) -> str | None:
        """Digest that the alias names; None before the first promotion."""
        ...

    def revoked(self) -> Mapping[str, str]:
        """Quarantined digests with the reason, descendants included."""
        ...


class Signer(Protocol):
    """Signs in-toto statements into DSSE envelopes."""

    @property
    def keyid(self) -> str:
        """SHA-256 of the public key (DER), hex."""
        ...

    @property
    def development(self) -> bool:
        """Whether this is the key that was made on first use."""
        ...

    def sign(self, statement: Mapping[str, Json]) -> str:
        """One DSSE envelope as one line of canonical JSON."""
        ...


class CandidateEvaluator(Protocol):
    """Asks a candidate items of a suite."""

    def ask(
        self, subject: Digest, folder: Path | None, suite: Suite, split: Split, items: Sequence[Item]
    ) -> Mapping[str, Mapping[str, bool | float]]:
        """Score name -> item id -> value; what was asked before comes from the cache."""
        ...
