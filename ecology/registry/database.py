"""The registry's tables, and how they are opened.

They stand in the audit log's database and share nothing with it but the URL, so that either can be moved. Every row
names the position of the fact that it comes from: the order of the facts is the order of the rows. There are no foreign
keys: a fact may speak of an adapter that was bred somewhere else.
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
METADATA = sa.MetaData()


def _text(name: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=key, nullable=False)


def _count(name: str, *, key: bool = False) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, primary_key=key, nullable=False, autoincrement=False)


FACTS = sa.Table("registry_facts", METADATA, _text("digest", key=True), _count("position"))
ARTIFACTS = sa.Table(
    "registry_artifacts",
    METADATA,
    _text("digest", key=True),
    _text("name"),
    _text("operator"),  # empty: it was judged or signed here, and not bred here
    sa.Column("generation", sa.Integer),
    _text("run"),
    _text("at"),
    _count("position"),
)
PARENTS = sa.Table(
    "registry_parents",
    METADATA,
    _text("child", key=True),
    _text("parent", key=True),
    _count("ordinal"),
    sa.Index("registry_parents_by_parent", "parent"),
)
SIGNATURES = sa.Table(
    "registry_signatures",
    METADATA,
    _text("digest", key=True),
    _text("keyid", key=True),
    sa.Column("development", sa.Boolean, nullable=False),
    _count("position"),
)
VERDICTS = sa.Table(
    "registry_verdicts",
    METADATA,
    _count("position", key=True),
    _text("digest"),
    _text("policy"),
    _text("outcome"),
    _text("scope"),
    _text("rung"),
    _text("run"),
    _text("findings"),  # canonical JSON
    _text("at"),
    sa.Index("registry_verdicts_by_digest", "digest"),
)
MOVES = sa.Table(
    "registry_aliases",
    METADATA,
    _count("position", key=True),
    _text("alias"),
    _text("kind"),  # promoted, held, rolled_back
    _text("subject"),
    _text("previous"),
    _text("reason"),
    _text("at"),
    sa.Index("registry_aliases_by_alias", "alias"),
)
REVOCATIONS = sa.Table(
    "registry_revocations", METADATA, _text("digest", key=True), _text("reason"), _text("at"), _count("position")
)
CURSOR = sa.Table(  # how much of the log ``follow`` has read; not a fact, so not part of the view
    "registry_cursor",
    METADATA,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 0"), primary_key=True, autoincrement=False),
    _count("next"),
)
VIEW = tuple(table for table in METADATA.sorted_tables if table is not CURSOR)


class Database:
    """Connections to the registry's tables, which are made on first use.

    Args:
        url: SQLAlchemy URL; ``sqlite://`` is one in memory.

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
            inspector = sa.inspect(connection)
            ready = all(inspector.has_table(name) for name in METADATA.tables)
        if not ready:
            with self.writing() as connection:
                METADATA.create_all(connection)

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
                if connection.dialect.name == "postgresql" and sa.inspect(connection).has_table(FACTS.name):
                    connection.exec_driver_sql(f"LOCK TABLE {FACTS.name} IN EXCLUSIVE MODE")
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
                f"the registry is damaged: {reason}", where=self._where, todo="ecology registry rebuild"
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
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _on_begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("ecology_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
