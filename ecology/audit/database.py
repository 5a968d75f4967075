"""The log's tables, and how they are opened.

Leaves and checkpoints that were given out can be added and nothing else: triggers refuse to change or delete them. That
stops accidents, not an attacker with the file in hand; him the checkpoints catch. The head is the one row that moves.

SQLite by default: write-ahead log, a busy timeout, and ``BEGIN IMMEDIATE`` for whatever writes, so that of two writers
the second waits *before* it reads what it will build on. The same SQL runs on PostgreSQL, where a table lock takes that
place.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import NullPool, StaticPool

from ecology.errors import ConfigError, IntegrityError, from_system

BUSY_TIMEOUT_S = 60
_OUT_OF_REACH = tuple(
    f"SQLITE_{what}"
    for what in ("BUSY", "LOCKED", "CANTOPEN", "READONLY", "PERM", "AUTH", "FULL", "IOERR", "NOMEM", "NOLFS")
)
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


class Database:
    """Connections to the log's tables, which are made on first use.

    Args:
        url: SQLAlchemy URL, such as ``sqlite:////home/me/.ecology/ecology.db``.

    Raises:
        ConfigError: The URL cannot be used.
    """

    def __init__(self, url: str) -> None:
        """Opens the database and makes what is missing."""
        self._where = url
        try:
            parsed = sa.make_url(url)
            self._where = parsed.render_as_string(hide_password=True)
            self._engine = _engine(parsed)
        except (ArgumentError, NoSuchModuleError, ImportError, OSError) as error:
            raise ConfigError(f"not a database that can be used: {error}", where=self._where) from error
        with self.reading() as connection:
            ready = _ready(connection)
        if not ready:
            with self.writing() as connection:
                METADATA.create_all(connection)
                for statement in _triggers(connection.dialect.name):
                    connection.exec_driver_sql(statement)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One snapshot.

        Raises:
            ConfigError: The database cannot be reached.
            IntegrityError: The database is damaged.
        """
        with self._errors(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction that nobody else writes beside; all of it happens or nothing.

        Raises:
            ConfigError: The database cannot be reached, or somebody else has been writing for longer than a minute.
            IntegrityError: The database is damaged.
        """
        with self._errors(), self._engine.connect() as connection:
            connection.execution_options(ecology_writes=True)
            with connection.begin():
                if connection.dialect.name == "postgresql" and sa.inspect(connection).has_table(LEAVES.name):
                    connection.exec_driver_sql(f"LOCK TABLE {LEAVES.name} IN EXCLUSIVE MODE")
                yield connection

    def close(self) -> None:
        """Lets go of all connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if error.orig is not None and (refused := from_system(error.orig, self._where)) is not None:
                raise refused from error
            reason = str(error.orig).split("\n", 1)[0]
            if _out_of_reach(error):
                raise ConfigError(
                    f"the database cannot be used: {reason}",
                    where=self._where,
                    todo="check that the folder can be written and that no other process holds the database",
                ) from error
            raise IntegrityError(
                f"the database is damaged: {reason}", where=self._where, todo="restore it from a copy"
            ) from error


def _out_of_reach(error: DBAPIError) -> bool:
    """Whether the database is locked, missing or full, and not broken: SQLite says both with one class of error."""
    if not isinstance(error.orig, sqlite3.Error):
        return isinstance(error, (OperationalError, InterfaceError))
    return str(getattr(error.orig, "sqlite_errorname", "")).startswith(_OUT_OF_REACH)


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url)
    if url.database in (None, "", ":memory:"):
        engine = sa.create_engine(
            url, poolclass=StaticPool
        )  # one connection, or it would be another database each time
    else:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(
            url, poolclass=NullPool
        )  # no connection outlives its work, so a fork cannot share one
    sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own; _on_begin does
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    cursor.execute("PRAGMA synchronous = FULL")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _on_begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("ecology_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _ready(connection: sa.Connection) -> bool:
    inspector = sa.inspect(connection)
    if not all(inspector.has_table(name) for name in METADATA.tables):
        return False
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
