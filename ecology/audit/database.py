"""The log's tables, and how they are opened.

Leaves and checkpoints that were given out can be added and nothing else: triggers refuse to change or delete them. That
stops accidents, not an attacker with the file in hand; him the checkpoints catch. The head is the one row that moves.

How the database is opened, and how writers wait for each other, is in ``ecology.sql``.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from ecology.sql import RESTORE
from ecology.sql.database import Tables

_COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
METADATA = sa.MetaData()

LEAVES = sa.Table(
    "audit_leaves",
    METADATA,
    sa.Column("position", _COUNT, primary_key=True, autoincrement=False),
    sa.Column("entry", sa.LargeBinary, nullable=False),  # canonical JSON of the event: what is hashed
    sa.Column("hash", sa.LargeBinary, nullable=False),
)
CHECKPOINTS = sa.Table(
    "audit_checkpoints",
    METADATA,
    sa.Column("id", _COUNT, primary_key=True),
    sa.Column("size", _COUNT, nullable=False),
    sa.Column("note", sa.Text, nullable=False, unique=True),
)
HEAD = sa.Table(
    "audit_head",
    METADATA,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 0"), primary_key=True, autoincrement=False),
    sa.Column("size", _COUNT, nullable=False),
    sa.Column("peaks", sa.LargeBinary, nullable=False),  # of the frontier, one after the other
    sa.Column("note", sa.Text, nullable=False),
)

_GUARDED = {LEAVES.name: ("UPDATE", "DELETE"), CHECKPOINTS.name: ("UPDATE", "DELETE"), HEAD.name: ("DELETE",)}


def _guarded(connection: sa.Connection) -> bool:
    if connection.dialect.name != "sqlite":
        return True
    found = connection.exec_driver_sql(
        "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'audit_%'"
    )
    return int(found.scalar_one()) == sum(len(events) for events in _GUARDED.values())


def _triggers(dialect: str) -> Iterator[str]:
    if dialect == "postgresql":
        yield (
            "CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
        )
    for table, events in _GUARDED.items():
        for event in events:
            name = f"{table}_no_{event.lower()}"
            if dialect == "sqlite":
                yield (
                    f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {event} ON {table} "
                    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
                )
            elif dialect == "postgresql":
                yield (
                    f"CREATE OR REPLACE TRIGGER {name} BEFORE {event} ON {table} "
                    "FOR EACH ROW EXECUTE FUNCTION audit_refuse()"
                )


TABLES = Tables(
    metadata=METADATA,
    lock=LEAVES,
    damaged="the database",
    todo=RESTORE,
    durable=True,
    guards=_triggers,
    guarded=_guarded,
)
