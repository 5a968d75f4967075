"""One installation, opened: store, log, registry, keys and the secret seed under one home.

Each part is opened when it is first used, so that a command that needs no database loads none. A fact is recorded in
one place only, ``House.record``: first in the log, then in the registry, which is a view of it.
"""

from __future__ import annotations

import dataclasses
import functools
import hmac
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ecology.contracts.identity import Digest
from ecology.contracts.policy import TrustedKey
from ecology.contracts.ports import Clock, Progress
from ecology.contracts.promotion import Event
from ecology.errors import IntegrityError, Stopped
from ecology.kernel import canonical
from ecology.pipeline.places import home as find_home
from ecology.signer.keys import LocalSigner
from ecology.store.artifacts import LocalStore
from ecology.store.files import write_atomic
from ecology.telemetry.clock import SystemClock
from ecology.telemetry.progress import BarProgress, SilentProgress

if TYPE_CHECKING:
    from ecology.audit.log import SqlAuditLog
    from ecology.registry.registry import SqlRegistry

ONCE = frozenset({"seed_committed", "bred", "signed", "judged", "ranked", "opened"})
"""Facts that are true for good: recorded once, however often a run is repeated."""


@dataclasses.dataclass(frozen=True)
class House:
    """The ports of one installation."""

    home: Path
    clock: Clock
    progress: Progress
    key: Path | None = None
    """PEM file of a named signing key; None is the development key of this home."""

    @functools.cached_property
    def store(self) -> LocalStore:
        """Content-addressed artifacts."""
        return LocalStore(self.home / "store")

    @functools.cached_property
    def signer(self) -> LocalSigner:
        """The key that signs for this home; the development key is made on first use."""
        return LocalSigner.open(self.home) if self.key is None else LocalSigner.from_file(self.key)

    @functools.cached_property
    def log(self) -> SqlAuditLog:
        """The append-only log. Its checkpoints are signed by the home's own key, whoever signs artifacts."""
        from ecology.audit.log import SqlAuditLog  # noqa: PLC0415

        return SqlAuditLog(self.database, LocalSigner.open(self.home))

    @functools.cached_property
    def registry(self) -> SqlRegistry:
        """The view of the log."""
        from ecology.registry.registry import SqlRegistry  # noqa: PLC0415

        return SqlRegistry(self.database)

    @property
    def database(self) -> str:
        """SQLAlchemy URL of log and registry."""
        return f"sqlite:///{self.home / 'registry.sqlite3'}"

    @property
    def development_keys(self) -> tuple[TrustedKey, ...]:
        """The development key of this home, if it has been made."""
        return (LocalSigner.open(self.home).public_key,)

    @property
    def stop_file(self) -> Path:
        """While this file is there no run takes another step."""
        return self.home / "STOP"

    def stop_check(self) -> None:
        """That this home was not stopped.

        Raises:
            Stopped: It was; the message says why.
        """
        if not os.path.lexists(self.stop_file):
            return
        try:
            reason = self.stop_file.read_text("utf-8", "replace").strip()[:500]
        except OSError:
            reason = ""
        raise Stopped(
            f"stopped: {reason or 'nobody said why'}",
            where=str(self.stop_file),
            todo="`ecology registry resume --reason TEXT` lets runs start again",
        )

    def record(self, kind: str, body: Mapping[str, object], at: str | None = None) -> None:
        """Appends one fact to the log and shows it to the registry.

        Args:
            kind: As documented in ``ecology.registry.registry``.
            body: What happened, as plain data.
            at: When; None is now.

        Raises:
            ConfigError: The fact is of a known kind and malformed.
            IntegrityError: The log was tampered with.
        """
        from ecology.registry.events import check_event  # noqa: PLC0415

        event = Event(kind=kind, at=at or self.clock.now(), body=canonical.plain(body))
        check_event(event)
        with self.lock("facts"):  # so that of two processes with the same fact one writes it
            self._catch_up()
            if kind not in ONCE or _fact(event) not in self._facts[1]:
                self.log.append(event)
                self._catch_up()
        self.registry.follow(self.log)

    @functools.cached_property
    def _facts(self) -> tuple[list[int], set[Digest]]:
        """How far the log was read, and the facts of ``ONCE`` seen so far."""
        return [0], set()

    def _catch_up(self) -> None:
        place, seen = self._facts
        for event in self.log.events_since(place[0]):
            place[0] += 1
            if event.kind in ONCE:
                seen.add(_fact(event))

    @functools.cached_property
    def secret_seed(self) -> bytes:
        """32 random bytes that decide the hidden items; made on first use, readable by the owner alone.

        Raises:
            IntegrityError: The file does not hold 32 bytes in hex.
        """
        path = self.home / "keys" / "hidden_items.seed"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_hex(32).encode())
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, path)  # of two processes one wins, and both read what it wrote
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        try:
            seed = bytes.fromhex(path.read_text("ascii"))
        except ValueError:
            seed = b""
        if len(seed) != 32:
            raise IntegrityError(
                "this is not a seed of 32 bytes in hex",
                where=str(path),
                todo="restore it from a backup; a new one changes every hidden item",
            )
        return seed

    @property
    def seed_commitment(self) -> Digest:
        """Digest that commits to the secret seed without telling it."""
        return canonical.digest_bytes(b"tiny-ecology hidden items\0" + self.secret_seed)

    def split_seed(self, suite: Digest, split: str) -> str:
        """The secret seed of one split of one suite: HMAC-SHA256, so that one split tells nothing of another."""
        return hmac.new(self.secret_seed, f"{suite}\0{split}".encode(), "sha256").hexdigest()

    def remember(self, kind: str, key: Digest, value: object) -> None:
        """Keeps a small result under the digest of what it was computed from."""
        write_atomic(self._note(kind, key), canonical.canonical(value))

    def recall(self, kind: str, key: Digest) -> bytes | None:
        """What ``remember`` kept, or None."""
        path = self._note(kind, key)
        return path.read_bytes() if path.exists() else None

    def _note(self, kind: str, key: Digest) -> Path:
        folder = self.home / "notes" / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{key.removeprefix('sha256:')}.json"

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """One process at a time; the others wait."""
        import fcntl  # noqa: PLC0415  (not on every platform: only commands that run need it)

        folder = self.home / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _fact(event: Event) -> Digest:
    """A fact without its time."""
    return canonical.digest([event.kind, event.body])


def open_house(home: str | None = None, *, quiet: bool = False, key: Path | None = None) -> House:
    """The installation at ``home``, with the system's clock and progress bars on stderr.

    Raises:
        ConfigError: The folder cannot be made or written.
    """
    from ecology.pipeline.boundaries import Stoppable  # noqa: PLC0415  (it imports this module)

    progress: Progress = SilentProgress() if quiet else BarProgress()
    house = House(find_home(home), SystemClock(), progress, key)
    return dataclasses.replace(house, progress=Stoppable(progress, house))
