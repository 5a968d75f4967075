"""One installation, opened: store, log, registry, keys and the secret seed under one home.

Each part is opened when it is first used, so that a command that needs no database loads none. A fact is recorded in
one place only, ``House.record``: first in the log, then in the registry, which is a view of it. A process that dies
between the two leaves a view that is behind; whoever opens the registry next lets it catch up before reading.

A fact is recorded once, however often a run is repeated, if it is true for good (``ONCE``) or belongs to one attempt at
a run (``ecology.pipeline.attempt``), which a killed process may make again from the beginning.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hmac
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ecology.contracts.identity import Digest
from ecology.contracts.policy import TrustedKey
from ecology.contracts.ports import Clock, Progress
from ecology.contracts.promotion import Event, Revocation
from ecology.errors import ConfigError, IntegrityError, Stopped
from ecology.kernel import canonical
from ecology.pipeline.notes import read_kept
from ecology.pipeline.places import home as find_home
from ecology.signer.keys import DEVELOPMENT, LocalSigner, write_once
from ecology.store.artifacts import LocalStore
from ecology.store.files import remove_drafts, write_atomic
from ecology.telemetry.clock import SystemClock
from ecology.telemetry.journal import Journal, SilentJournal, Told
from ecology.telemetry.progress import BarProgress, SilentProgress

if TYPE_CHECKING:
    from ecology.audit.log import SqlAuditLog
    from ecology.registry.registry import SqlRegistry

T = TypeVar("T")

DATABASE = "registry.sqlite3"
ONCE = frozenset({"seed_committed", "bred", "signed", "judged", "ranked", "opened", "confirmed"})
"""Facts that are true for good: recorded once, however often a run is repeated."""
ATTEMPT = "attempt"
"""Key of a fact's body that names the attempt it belongs to: within one attempt a fact happens once."""
CLOCK_SET_BACK = "clock_set_back"
"""The fact that somebody has seen that the clock goes back and that this is right."""
SKEW_S = 300
"""Clocks of machines that share a home may differ by so many seconds."""


@dataclasses.dataclass(frozen=True)
class House:
    """The ports of one installation."""

    home: Path
    clock: Clock
    progress: Progress
    key: Path | None = None
    """PEM file of a named signing key; None is the development key of this home."""
    journal: Journal = dataclasses.field(default_factory=SilentJournal)
    """What is told of a run besides its facts and its report."""

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
        """The view of the log, caught up with it: a process may have died between a fact and its effect."""
        from ecology.registry.registry import SqlRegistry  # noqa: PLC0415

        registry = SqlRegistry(self.database)
        registry.follow(self.log)
        return registry

    @property
    def database(self) -> str:
        """SQLAlchemy URL of log and registry."""
        return f"sqlite:///{self.home / DATABASE}"

    @property
    def development_keys(self) -> tuple[TrustedKey, ...]:
        """The development key of this home, if it has been made: who only judges makes none."""
        made = os.path.lexists(self.home / "keys" / f"{DEVELOPMENT}.pem")
        return (LocalSigner.open(self.home).public_key,) if made else ()

    def quarantine(self) -> tuple[Revocation, ...]:
        """What is quarantined here, as every report says it."""
        instants = self.registry.revocations()
        return tuple(
            Revocation(Digest(found), why, instants.get(found, ("", ""))[1])
            for found, why in self.registry.revoked().items()
        )

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
            ConfigError: The fact is of a known kind and malformed, or the clock was set back.
            IntegrityError: The log was tampered with.
        """
        from ecology.registry.events import check_event  # noqa: PLC0415

        event = Event(kind=kind, at=at or self.clock.now(), body=canonical.plain(body))
        check_event(event)
        with self.lock("facts"):  # so that of two processes with the same fact one writes it
            self._seen.catch_up(self.log.events_since(self._seen.size))
            if not _once(event) or _fact(event) not in self._seen.facts:
                if kind != CLOCK_SET_BACK:
                    _refuse_the_past(event.at, self._seen.latest, str(self.home))
                self.log.append(event)
                self.journal.tell("fact", kind=kind, **_told(event.body))
        self.registry.follow(self.log)

    def recorded(self, kind: str, body: Mapping[str, object]) -> bool:
        """Whether this very fact, one that happens once, is in the log."""
        self._seen.catch_up(self.log.events_since(self._seen.size))
        return _fact(Event(kind, "", canonical.plain(body))) in self._seen.facts

    def now(self) -> str:
        """The clock's time, if the facts of this home do not say that it is later already.

        Raises:
            ConfigError: The clock was set back: what has expired would be valid again.
        """
        now = self.clock.now()
        if (self.home / DATABASE).exists():
            self._seen.catch_up(self.log.events_since(self._seen.size))
            _refuse_the_past(now, self._seen.latest, str(self.home))
        return now

    @functools.cached_property
    def _seen(self) -> _Seen:
        return _Seen()

    @property
    def _seed_file(self) -> Path:
        return self.home / "keys" / "hidden_items.seed"

    @property
    def has_seed(self) -> bool:
        """Whether this home has a secret seed already."""
        return self._seed_file.exists()

    @functools.cached_property
    def secret_seed(self) -> bytes:
        """32 random bytes that decide the hidden items; made on first use, readable by the owner alone.

        Raises:
            IntegrityError: The file does not hold 32 bytes in hex.
        """
        path = self._seed_file
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_once(path, secrets.token_hex(32).encode(), 0o600)
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

    def recall(self, kind: str, key: Digest, shape: type[T], only_here: str = "") -> T | None:
        """What ``remember`` kept, as a value of a shape, or None.

        A note that cannot be read is as good as none: it is computed again, and the journal says why. Unless nothing
        else knows what it said.

        Args:
            kind: Of the note.
            key: Digest of what it follows from.
            shape: What was remembered.
            only_here: For what cannot be computed again: what a person can do about a damaged note.

        Raises:
            IntegrityError: The note is damaged and can only be had here.
        """
        try:
            return read_kept(self._note(kind, key), shape, only_here)
        except IntegrityError as error:
            if only_here:
                raise
            self.journal.tell("note_damaged", kind=kind, what=str(error))
            return None

    def forget(self, kind: str, key: Digest) -> None:
        """Drops what ``remember`` kept, if it did."""
        self._note(kind, key).unlink(missing_ok=True)

    def _note(self, kind: str, key: Digest) -> Path:
        folder = self.home / "notes" / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{key.removeprefix('sha256:')}.json"

    def tidy(self) -> None:
        """Removes what killed processes left half-written in this home."""
        for folder in (
            self.home,
            self.home / "keys",
            *(self.home / "notes").glob("*"),
            *(self.home / "bases").glob("*"),
        ):
            remove_drafts(folder)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """One process at a time; the others wait."""
        import fcntl  # noqa: PLC0415  (not on every platform: only commands that run need it)

        folder = self.home / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


@dataclasses.dataclass
class _Seen:
    """What was read of the log so far."""

    size: int = 0
    latest: str = ""
    """Time of the latest fact since somebody last set the clock back on purpose."""
    facts: set[Digest] = dataclasses.field(default_factory=set)
    """Facts that happen once."""

    def catch_up(self, events: Iterable[Event]) -> None:
        """Takes in the events from ``size`` on."""
        for event in events:
            self.size += 1
            self.latest = event.at if event.kind == CLOCK_SET_BACK else max(self.latest, event.at)
            if _once(event):
                self.facts.add(_fact(event))


def _once(event: Event) -> bool:
    return event.kind in ONCE or ATTEMPT in event.body


def _fact(event: Event) -> Digest:
    """A fact without its time."""
    return canonical.digest([event.kind, event.body])


def _told(body: Mapping[str, object]) -> dict[str, Told]:
    """The short values of a fact, for the journal; the whole fact is in the log."""
    return {key: value for key, value in body.items() if isinstance(value, str | int | float | bool)}


def _refuse_the_past(now: str, latest: str, where: str) -> None:
    try:
        behind = (datetime.datetime.fromisoformat(latest) - datetime.datetime.fromisoformat(now)).total_seconds()
    except (ValueError, TypeError):  # no fact yet, or one whose time was not written by this clock
        return
    if behind > SKEW_S:
        raise ConfigError(
            f"the clock says {now}, and the latest fact in the log is of {latest}: the clock was set back",
            where=where,
            todo="set the clock right; if the later time was the wrong one, say so once with: ecology audit clock",
        )


def open_house(
    home: str | None = None,
    *,
    quiet: bool = False,
    key: Path | None = None,
    journal: Journal | None = None,
) -> House:
    """The installation at ``home``, with the system's clock and progress bars on stderr.

    Raises:
        ConfigError: The folder cannot be made or written.
    """
    from ecology.pipeline.boundaries import Stoppable  # noqa: PLC0415  (it imports this module)

    progress: Progress = SilentProgress() if quiet else BarProgress()
    house = House(find_home(home), SystemClock(), progress, key, journal or SilentJournal())
    return dataclasses.replace(house, progress=Stoppable(progress, house))
