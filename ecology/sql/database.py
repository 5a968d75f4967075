"""A database and its tables: opened, made on first use, read in snapshots, written by one at a time.

SQLite by default: write-ahead log, a busy timeout, and ``BEGIN IMMEDIATE`` for whatever writes, so that of two writers
the second waits *before* it reads what it will build on. The same SQL runs on PostgreSQL, where a table lock takes that
place. What tables there are is the business of those who keep them: the audit log and the registry.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sqlite3
from collections.abc import Callable, Iterator
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


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """What somebody keeps in a database."""

    metadata: sa.MetaData
    lock: sa.Table
    """Locked by whoever writes, where the database has no lock of the whole (PostgreSQL)."""
    damaged: str
    """What is damaged when the database says that something is: ``the registry``."""
    todo: str
    """What to do then."""
    durable: bool = False
    """Whether a write must have reached the disk before it is done, also if the machine loses power."""
    guards: Callable[[str], Iterator[str]] = lambda dialect: iter(())
    """SQL that protects the tables, by dialect; run once, after they are made."""
    guarded: Callable[[sa.Connection], bool] = lambda connection: True
    """Whether that protection is there."""


class Database:
    """Connections to tables, which are made on first use.

    Args:
        url: SQLAlchemy URL, such as ``sqlite:////home/me/.ecology/ecology.db``; ``sqlite://`` is one in memory.
        tables: What is kept there.

    Raises:
        ConfigError: The URL cannot be used.
    """

    def __init__(self, url: str, tables: Tables) -> None:
        """Opens the database and makes what is missing."""
        self._where, self._tables = url, tables
        try:
            parsed = sa.make_url(url)
            self._where = parsed.render_as_string(hide_password=True)
            self._engine = _engine(parsed, durable=tables.durable)
        except (ArgumentError, NoSuchModuleError, ImportError, OSError) as error:
            raise ConfigError(f"not a database that can be used: {error}", where=self._where) from error
        with self.reading() as connection:
            inspector = sa.inspect(connection)
            made = all(inspector.has_table(name) for name in tables.metadata.tables)
            ready = made and tables.guarded(connection)
        if not ready:
            with self.writing() as connection:
                tables.metadata.create_all(connection)
                for statement in tables.guards(connection.dialect.name):
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
                if connection.dialect.name == "postgresql" and sa.inspect(connection).has_table(self._tables.lock.name):
                    connection.exec_driver_sql(f"LOCK TABLE {self._tables.lock.name} IN EXCLUSIVE MODE")
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
            what = f"{self._tables.damaged} is damaged: {reason}"
            raise IntegrityError(what, where=self._where, todo=self._tables.todo) from error


def _out_of_reach(error: DBAPIError) -> bool:
    """Whether the database is locked, missing or full, and not broken: SQLite says both with one class of error."""
    if not isinstance(error.orig, sqlite3.Error):
        return isinstance(error, (OperationalError, InterfaceError))
    return str(getattr(error.orig, "sqlite_errorname", "")).startswith(_OUT_OF_REACH)


def _engine(url: sa.URL, *, durable: bool) -> sa.Engine:
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
    sa.event.listen(engine, "connect", functools.partial(_on_connect, durable=durable))
    sa.event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _record: object, *, durable: bool) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own; _on_begin does
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    if durable:
        cursor.execute("PRAGMA synchronous = FULL")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _on_begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("ecology_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
