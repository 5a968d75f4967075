"""Reading the leaves: in order, in pieces, and never believing a stored hash where the bytes can be hashed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import sqlalchemy as sa

from ecology.audit.database import LEAVES
from ecology.contracts.ports import Step
from ecology.errors import IntegrityError
from ecology.kernel import merkle

CHUNK = 10_000


def chunks(connection: sa.Connection) -> Iterator[list[tuple[int, bytes, bytes]]]:
    """(position, entry, stored hash) in order, ``CHUNK`` at a time."""
    query = sa.select(LEAVES.c.position, LEAVES.c.entry, LEAVES.c.hash).order_by(LEAVES.c.position)
    for rows in connection.execute(query.execution_options(yield_per=CHUNK)).partitions():
        yield [(row[0], as_bytes(row[1]), as_bytes(row[2])) for row in rows]


def entries_since(connection: sa.Connection, start: int) -> Iterator[bytes]:
    """Entries from a position on, each compared with its stored hash.

    Raises:
        IntegrityError: A leaf is not what was logged.
    """
    query = sa.select(LEAVES.c.entry, LEAVES.c.hash).where(LEAVES.c.position >= start).order_by(LEAVES.c.position)
    for position, row in enumerate(connection.execute(query), start):
        entry = as_bytes(row.entry)
        if merkle.leaf_hash(entry) != row.hash:
            raise IntegrityError(f"event {position} is not what was logged", where=LEAVES.name)
        yield entry


def hashes(connection: sa.Connection, progress: Step | None) -> Iterator[bytes]:
    """Leaf hashes from the entries' bytes; each is compared with the one that is stored.

    Raises:
        IntegrityError: A leaf is gone or is not what was logged.
    """
    expected = 0
    for rows in chunks(connection):
        for position, entry, stored in rows:
            if position != expected:
                raise IntegrityError(f"event {expected} is gone; the next one is {position}", where=LEAVES.name)
            found = merkle.leaf_hash(entry)
            if found != stored:
                raise IntegrityError(f"event {position} is not what was logged", where=LEAVES.name)
            yield found
            expected += 1
        if progress is not None:
            progress.advance(len(rows))


def roots(leaf_hashes: Iterator[bytes], sizes: set[int]) -> dict[int, bytes]:
    """Roots at these sizes as far as there are leaves, and at the end, which is the largest key."""
    frontier, found = merkle.Frontier(), {0: merkle.EMPTY_ROOT}
    for size in sorted(sizes):
        frontier = frontier.extend(islice(leaf_hashes, size - frontier.size))
        found[frontier.size] = frontier.root()
    frontier = frontier.extend(leaf_hashes)
    found[frontier.size] = frontier.root()
    return found


def stored_hashes(connection: sa.Connection) -> list[bytes]:
    """All leaf hashes as they are stored: for proofs, which are checked against a signed root afterwards."""
    return [as_bytes(h) for h in connection.execute(sa.select(LEAVES.c.hash).order_by(LEAVES.c.position)).scalars()]


def as_bytes(value: object) -> bytes:
    """A binary column's value, whatever type somebody else has put there.

    Raises:
        IntegrityError: It is not binary.
    """
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise IntegrityError("a binary column holds something else", where=LEAVES.name)
    return bytes(value)
