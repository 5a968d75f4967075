"""The audit log: an RFC 6962 Merkle tree over events, with signed checkpoints, in a SQL database.

An entry is the canonical JSON of one ``Event``. Its bytes are stored as they were hashed, so checking the log hashes
and never serialises: a million entries take seconds.

Every append signs the new size and root (the *head*) in the same transaction. So each leaf is under a signature from
the moment it is there, not only from the next report on, and whoever changes, drops or swaps leaves afterwards needs
the private key too. An append first checks that the head it builds on is signed and is the root of what it says: a log
that was tampered with is not carried on, because to sign on top of it would vouch for it.

What a log cannot notice by itself is being replaced as a whole by an older copy of itself. Therefore each checkpoint
that is given out (to a report, to a terminal) is kept here, and can be brought back later: ``consistency`` proves that
the log still begins with what that checkpoint saw.

The head is signed by the installation's own key, whatever keys sign statements. If that key is replaced, give the
public halves of its predecessors as ``earlier``.

Sources: RFC 6962 section 2; C2SP tlog-checkpoint; ``ecology.kernel.merkle``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

import sqlalchemy as sa

from ecology.audit import leaves, notes
from ecology.audit.database import CHECKPOINTS, HEAD, LEAVES, TABLES
from ecology.audit.notes import Checkpoint, NoteSigner
from ecology.audit.proofs import Consistency, Inclusion
from ecology.contracts.policy import TrustedKey
from ecology.contracts.ports import Step
from ecology.contracts.promotion import Event
from ecology.errors import ConfigError, IntegrityError
from ecology.kernel import merkle
from ecology.kernel.canonical import canonical
from ecology.kernel.codec import structure
from ecology.sql.database import Database

_EMPTY = Checkpoint("", 0, merkle.EMPTY_ROOT)


class SqlAuditLog:
    """Implements ``ports.AuditLog``. Several processes may append to one log at the same time.

    Args:
        url: SQLAlchemy URL; made if missing.
        signer: The installation's key; None for a log that is only read.
        origin: Name of the log in its checkpoints; by default made from the key.
        earlier: Public keys that signed this log before ``signer`` did.

    Raises:
        ConfigError: The database cannot be used.
    """

    def __init__(
        self, url: str, signer: NoteSigner | None = None, *, origin: str = "", earlier: Sequence[TrustedKey] = ()
    ) -> None:
        """Opens the log."""
        self._database = Database(url, TABLES)
        self._signer = signer
        self._keys = (*([signer.public_key] if signer else []), *earlier)
        self._origin = origin or (notes.default_origin(signer.public_key) if signer else "")

    def append(self, event: Event) -> int:
        """Adds one fact, durably, and signs the new head.

        Returns:
            Index of the new leaf, from 0.

        Raises:
            ConfigError: The log was opened without a key, the event has no canonical JSON, the database is busy.
            IntegrityError: The log was tampered with; nothing is added.
        """
        return self.append_all([event])[0]

    def append_all(self, events: Iterable[Event]) -> range:
        """Adds facts in this order, all or none of them, next to each other.

        Returns:
            Indices of the new leaves.

        Raises:
            ConfigError: As for ``append``.
            IntegrityError: As for ``append``.
        """
        entries = [canonical(event) for event in events]
        hashes = [merkle.leaf_hash(entry) for entry in entries]
        with self._database.writing() as connection:
            before, _ = self._head(connection)
            after = before.extend(hashes)
            new = range(before.size, after.size)
            if new:
                rows = [{"position": i, "entry": e, "hash": h} for i, e, h in zip(new, entries, hashes, strict=True)]
                connection.execute(sa.insert(LEAVES), rows)
                row = {"size": after.size, "peaks": b"".join(after.peaks), "note": self._sign(after)}
                connection.execute(sa.update(HEAD).values(row) if before.size else sa.insert(HEAD).values(id=0, **row))
        return new

    def events(self) -> tuple[Event, ...]:
        """All of them, in order.

        Raises:
            IntegrityError: The entries are not those of the head.
        """
        return tuple(_event(entry) for entry in self._checked_entries())

    def events_since(self, start: int) -> tuple[Event, ...]:
        """Those from index ``start`` on, in order; without the check of the whole that ``events`` makes.

        Raises:
            IntegrityError: One of them is not what was logged.
        """
        with self._database.reading() as connection:
            return tuple(_event(entry) for entry in leaves.entries_since(connection, start))

    def export(self) -> Iterator[str]:
        """The events as JSON Lines: one canonical JSON text each, without the newline, as they were hashed.

        Raises:
            IntegrityError: The entries are not those of the head; at the end, so keep nothing of a failed export.
        """
        for entry in self._checked_entries():
            yield entry.decode("utf-8")

    def checkpoint(self) -> str:
        """A signed note over size and root as of now; it is kept, as a witness against later changes.

        Raises:
            ConfigError: The log is empty and was opened without a key.
            IntegrityError: The log was tampered with.
        """
        with self._database.writing() as connection:
            return self._give_out(connection, *self._head(connection))

    def verify(self, *keys: TrustedKey, progress: Step | None = None) -> Checkpoint:
        """Recomputes the whole tree from the stored bytes and compares it with everything that was ever signed.

        1. Positions are 0, 1, 2, ...; each stored hash is that of its entry.
        2. The head is signed, and its size and root are those of the entries.
        3. Each checkpoint that was given out is signed, and the entries begin with what it saw.

        Args:
            keys: Public keys of the log; by default those it was opened with.
            progress: Advanced by the number of entries.

        Returns:
            Origin, size and root of what was verified.

        Raises:
            ConfigError: No key is known.
            IntegrityError: Something is not as it was.
        """
        anchors = keys or self._keys
        if not anchors:
            raise ConfigError("no key to verify the log with", todo="give the public key of the log")
        with self._database.reading() as connection:
            given_out = [_stored(note, anchors) for note in connection.execute(sa.select(CHECKPOINTS.c.note)).scalars()]
            frontier, checkpoint = self._head(connection, anchors)
            roots = leaves.roots(leaves.hashes(connection, progress), {c.size for c in given_out} | {frontier.size})
        for seen in [*given_out, *([checkpoint] if checkpoint else [])]:
            if roots.get(seen.size) != seen.root:
                raise _rewritten(seen, max(roots))
        if (extra := max(roots)) != frontier.size:
            raise IntegrityError(f"{extra} entries, and the head covers {frontier.size}", where=LEAVES.name)
        return checkpoint or Checkpoint(self._origin, 0, merkle.EMPTY_ROOT)

    def prove(self, index: int) -> Inclusion:
        """That the event of this index is in the log: checkable by anyone, offline.

        Raises:
            ConfigError: There is no such event.
            IntegrityError: The log was tampered with.
        """
        with self._database.writing() as connection:
            frontier, head = self._head(connection)
            if not 0 <= index < frontier.size or head is None:
                raise ConfigError(f"no event {index}: the log has {frontier.size}, counted from 0")
            hashes = leaves.stored_hashes(connection)
            entry = leaves.as_bytes(
                connection.execute(sa.select(LEAVES.c.entry).where(LEAVES.c.position == index)).scalar_one()
            )
            path = merkle.inclusion_proof(hashes, index)
            if not merkle.verify_inclusion(merkle.leaf_hash(entry), index, head.size, path, head.root):
                raise _rewritten(head, len(hashes))
            return Inclusion(index, entry, path, self._give_out(connection, frontier, head))

    def consistency(self, old_checkpoint: str, *keys: TrustedKey) -> Consistency:
        """That the log still begins with everything that an old checkpoint saw.

        Args:
            old_checkpoint: The signed note, such as an old report holds.
            keys: Public keys of the log; by default those it was opened with.

        Raises:
            ConfigError: It is not a checkpoint.
            IntegrityError: It is not signed by the log's key, or the log was rewritten or cut since.
        """
        old = notes.verify(old_checkpoint, keys or self._keys)
        with self._database.writing() as connection:
            frontier, head = self._head(connection, keys or self._keys)
            hashes = leaves.stored_hashes(connection)
            new = head or Checkpoint(self._origin, 0, merkle.EMPTY_ROOT)
            if old.size > frontier.size or len(hashes) != frontier.size:
                raise _rewritten(old, len(hashes))
            path = merkle.consistency_proof(hashes, old.size)
            if not merkle.verify_consistency(old.size, new.size, old.root, new.root, path):
                raise _rewritten(old, frontier.size)
            return Consistency(old, new, path, self._give_out(connection, frontier, head))

    def close(self) -> None:
        """Lets go of the database."""
        self._database.close()

    def __enter__(self) -> SqlAuditLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _head(
        self, connection: sa.Connection, keys: Sequence[TrustedKey] = ()
    ) -> tuple[merkle.Frontier, Checkpoint | None]:
        """The frontier to build on, after checking that it is signed and that the leaves reach as far."""
        row = connection.execute(sa.select(HEAD.c.size, HEAD.c.peaks, HEAD.c.note)).one_or_none()
        last = connection.execute(sa.select(sa.func.max(LEAVES.c.position))).scalar()
        size = 0 if last is None else last + 1
        if row is None:
            if size or connection.execute(sa.select(CHECKPOINTS.c.id).where(CHECKPOINTS.c.size > 0)).first():
                raise IntegrityError(
                    "the head of the log is gone", where=HEAD.name, todo="restore the database from a copy"
                )
            return merkle.Frontier(), None
        step, peaks = merkle.HASH_BYTES, leaves.as_bytes(row.peaks)
        frontier = merkle.Frontier(row.size, tuple(peaks[i : i + step] for i in range(0, len(peaks), step)))
        checkpoint = _stored(row.note, keys or self._keys)
        if (
            not isinstance(row.size, int)
            or not frontier.well_formed()
            or (frontier.size, frontier.root()) != (checkpoint.size, checkpoint.root)
        ):
            raise IntegrityError("the head of the log is not what was signed", where=HEAD.name)
        if size != frontier.size:
            raise _rewritten(checkpoint, size)
        return frontier, checkpoint

    def _sign(self, frontier: merkle.Frontier) -> str:
        if self._signer is None:
            raise ConfigError("the log was opened without a key, and can only be read", todo="open it with the signer")
        checkpoint = Checkpoint(self._origin, frontier.size, frontier.root())
        return notes.sign(checkpoint, self._signer.public_key, self._signer.sign_bytes)

    def _give_out(self, connection: sa.Connection, frontier: merkle.Frontier, head: Checkpoint | None) -> str:
        note = self._sign(frontier) if head is None else str(connection.execute(sa.select(HEAD.c.note)).scalar_one())
        if connection.execute(sa.select(CHECKPOINTS.c.id).where(CHECKPOINTS.c.note == note)).first() is None:
            connection.execute(sa.insert(CHECKPOINTS).values(size=frontier.size, note=note))
        return note

    def _checked_entries(self) -> Iterator[bytes]:
        """Streams the entries and compares their root with the head's when they have all been seen."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(HEAD.c.note)).one_or_none()
            head = (_stored(row.note, self._keys) if self._keys else _unsigned(row.note)) if row else _EMPTY
            frontier = merkle.Frontier()
            for entries in leaves.chunks(connection):
                frontier = frontier.extend(merkle.leaf_hash(entry) for _, entry, _ in entries)
                yield from (entry for _, entry, _ in entries)
            if (frontier.size, frontier.root()) != (head.size, head.root):
                raise _rewritten(head, frontier.size)


def _event(entry: bytes) -> Event:
    try:
        return structure(Event, json.loads(entry, parse_int=_number))
    except (ConfigError, ValueError) as error:
        raise IntegrityError(f"an entry of the log is not an event: {error}", where=LEAVES.name) from error


def _number(text: str) -> int | float:
    """Canonical JSON writes the double 4e16 as an integer; integers beyond 2**53 - 1 it does not write."""
    number = int(text)
    return number if abs(number) < 2**53 else float(text)


def _stored(note: str, keys: Sequence[TrustedKey]) -> Checkpoint:
    _unsigned(note)
    return notes.verify(note, keys)


def _unsigned(note: str) -> Checkpoint:
    try:
        return notes.read(note)
    except ConfigError as error:
        raise IntegrityError(f"a stored checkpoint is {error.what}", where=CHECKPOINTS.name) from error


def _rewritten(seen: Checkpoint, size: int) -> IntegrityError:
    what = (
        f"the log has {size} events, and a signed checkpoint saw {seen.size}: events are gone"
        if size < seen.size
        else f"the first {seen.size} events are not those that a signed checkpoint saw: the log was rewritten"
    )
    return IntegrityError(
        what, where=seen.origin, todo="restore the database from a copy; trust nothing it says until then"
    )
