"""The registry: which adapters there are, what was said of them, which one serves, which must not be used.

It holds no truth of its own. Each fact is an event of the audit log; ``follow`` takes in what the log has and this view
has not, ``apply`` takes in one, ``rebuild`` all of them anew, and all give the same view. ``verify`` compares the view
with the facts: the log is signed and the registry is not, so whoever moves an alias by hand is found out by it.

    kind          body (more keys are allowed)                      what it does here
    run_started   run, name                                         nothing
    bred          digest, name, operator, parents, generation, run  an artifact, and its edges to its parents
    signed        digest, keyid, development                        a signature
    judged        digest, policy, outcome, rung, run, scope,        a verdict; and an artifact, if it came from outside
                  findings [{rule, outcome}]                        (``name`` is taken from here if it is there)
    promoted      alias, subject, previous                          the alias names ``subject`` from now on
    held          alias, subject                                    a line in the alias' history
    rolled_back   alias, subject, previous                          the alias names ``subject`` again
    revoked       digest, reason                                    quarantine, of all descendants too
    breeding_approved  digest, envelope                               nothing: whoever counts approvals reads the log
    others        ranked {run, order, front}, canary_step {...},    nothing: the log keeps them
                  waived {...}, seed_committed {commitment},
                  report_written {run, digest}, ...

``subject`` is always what the alias names afterwards and ``previous`` what it named before (empty, or the base's
digest, at genesis). A digest names an adapter, a run or a policy as everywhere; ``outcome`` and ``scope`` are the
contract's words. Facts that are equal in every byte are one fact.

Prefer ``follow`` to ``apply``: facts come in the order of the log even where several processes write it, and what a
crash left between the log and the registry is taken in the next time.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol

import sqlalchemy as sa

from ecology.contracts.identity import Json
from ecology.contracts.ports import Step
from ecology.contracts.promotion import Event
from ecology.errors import ConfigError, IntegrityError
from ecology.registry import view
from ecology.registry.database import (
    ARTIFACTS,
    CURSOR,
    MOVES,
    PARENTS,
    REVOCATIONS,
    SIGNATURES,
    TABLES,
    VERDICTS,
    VIEW,
)
from ecology.registry.lineage import Lineage, Member
from ecology.sql.database import Database

_MOVING = ("promoted", "rolled_back")


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """One judgement of one adapter."""

    policy: str
    outcome: str
    scope: str
    rung: str
    run: str
    at: str
    findings: tuple[Mapping[str, Json], ...]
    """``{rule, outcome}`` each."""


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """One adapter, as ``registry list`` and ``registry show`` print it."""

    digest: str
    name: str
    operator: str
    """Empty: it came from outside."""
    generation: int | None
    run: str
    at: str
    """When it was first heard of, or bred."""
    parents: tuple[str, ...]
    signers: Mapping[str, bool]
    """Key id -> whether that is a development key."""
    verdicts: tuple[Verdict, ...]
    """Oldest first."""
    aliases: tuple[str, ...]
    """Aliases that name it now, sorted."""
    quarantined: str
    """Why it must not be used; empty when it may."""


@dataclasses.dataclass(frozen=True, slots=True)
class Move:
    """One line of an alias' history."""

    kind: str
    """``promoted``, ``held`` or ``rolled_back``."""
    subject: str
    previous: str
    reason: str
    at: str


class Followed(Protocol):
    """What ``follow`` needs of the audit log."""

    def events_since(self, start: int) -> Iterable[Event]:
        """Events from index ``start`` on, in order."""
        ...


class SqlRegistry:
    """Implements ``ports.Registry``.

    Args:
        url: SQLAlchemy URL, that of the audit log by custom; ``sqlite://`` is one in memory.

    Raises:
        ConfigError: The database cannot be used.
    """

    def __init__(self, url: str) -> None:
        """Opens the registry."""
        self._database = Database(url, TABLES)

    def apply(self, event: Event) -> None:
        """Takes one fact in; the same fact twice changes nothing, nor does one of a kind that is not known.

        Raises:
            ConfigError: The fact is of a known kind and malformed (``events.check_event`` tells before it is logged).
        """
        with self._database.writing() as connection:
            view.take(connection, event)

    def follow(self, log: Followed) -> int:
        """Takes in all facts that the log has and this view has not, in the order of the log.

        Returns:
            Number of events that were read.

        Raises:
            IntegrityError: A fact of a known kind is malformed; nothing is taken in.
        """
        with self._database.writing() as connection:
            start = connection.execute(sa.select(CURSOR.c.next)).scalar() or 0
            return _take_all(connection, log.events_since(start), start)

    def rebuild(self, events: Iterable[Event], progress: Step | None = None) -> int:
        """Forgets everything and takes these facts in; other readers see the old view until it is done.

        Args:
            events: All facts of the log, in its order.
            progress: Advanced by one for each fact.

        Returns:
            Number of facts.

        Raises:
            IntegrityError: A fact of a known kind is malformed; the old view stays.
        """
        with self._database.writing() as connection:
            for table in (*VIEW, CURSOR):
                connection.execute(sa.delete(table))
            return _take_all(connection, events, 0, progress)

    def verify(self, log: Followed) -> None:
        """Compares the view with one made anew from the log, which ``AuditLog.verify`` vouches for.

        Log and view stand still while the view is read, and what a writer has logged and not yet taken in is taken in
        first; so a run that goes on meanwhile makes no difference.

        Raises:
            IntegrityError: They differ, or a fact is malformed.
        """
        with self._database.writing() as connection:
            start = connection.execute(sa.select(CURSOR.c.next)).scalar() or 0
            count = start + _take_all(connection, log.events_since(start), start)
            found = _facts(connection)
        with SqlRegistry("sqlite://") as fresh:
            fresh.rebuild(itertools.islice(log.events_since(0), count))
            wanted = fresh.facts()
        for table, rows in wanted.items():
            if rows != found[table]:
                raise IntegrityError(
                    "the registry is not what the facts of the log say", where=table, todo="ecology registry rebuild"
                )

    def facts(self) -> Mapping[str, tuple[tuple[Any, ...], ...]]:
        """Table -> its rows, sorted: two registries with equal facts answer every question alike."""
        with self._database.reading() as connection:
            return _facts(connection)

    def alias(self, name: str) -> str | None:
        """Digest that the alias names; None before the first promotion."""
        with self._database.reading() as connection:
            return _aliases(connection).get(name)

    def aliases(self) -> Mapping[str, str]:
        """Alias -> digest that it names now."""
        with self._database.reading() as connection:
            return _aliases(connection)

    def history(self, alias: str) -> tuple[Move, ...]:
        """What happened to an alias, oldest first."""
        with self._database.reading() as connection:
            return _history(connection, alias)

    def rollback_target(self, alias: str) -> str | None:
        """What a rollback of the alias would name: the one before the present one, quarantined ones left out.

        None: there is nothing to go back to.
        """
        with self._database.reading() as connection:
            banned = view.quarantined(connection)
            stack: list[str] = []
            for move in _history(connection, alias):
                if move.kind == "promoted":
                    stack += [move.previous, move.subject] if not stack and move.previous else [move.subject]
                elif move.kind == "rolled_back":
                    while stack and stack[-1] != move.subject:
                        stack.pop()
                    stack = stack or [move.subject]
        return next((digest for digest in reversed(stack[:-1]) if digest not in banned), None)

    def revoked(self) -> Mapping[str, str]:
        """Quarantined digests with the reason, descendants included."""
        with self._database.reading() as connection:
            return view.quarantined(connection)

    def revocations(self) -> Mapping[str, tuple[str, str]]:
        """Digest -> reason and instant of each revocation itself, descendants left out, in the order of the facts."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(REVOCATIONS).order_by(REVOCATIONS.c.position))
            return {row.digest: (row.reason, row.at) for row in rows}

    def list(self) -> tuple[Known, ...]:
        """All adapters, in the order in which they were first heard of."""
        with self._database.reading() as connection:
            return _known(connection)

    def names(self) -> Mapping[str, str]:
        """Digest -> name of every adapter that has one."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(ARTIFACTS.c.digest, ARTIFACTS.c.name).where(ARTIFACTS.c.name != ""))
            return {row.digest: row.name for row in rows}

    def judgements(self) -> Mapping[str, int]:
        """Digest -> how often it was judged, of every adapter that ever was."""
        query = sa.select(VERDICTS.c.digest, sa.func.count()).group_by(VERDICTS.c.digest)
        with self._database.reading() as connection:
            return {digest: count for digest, count in connection.execute(query)}

    def show(self, digest: str) -> Known:
        """One adapter.

        Raises:
            ConfigError: It is not known.
        """
        with self._database.reading() as connection:
            found = _known(connection, digest)
        if not found:
            raise _unknown(digest)
        return found[0]

    def lineage(self, digest: str) -> Lineage:
        """An adapter and all its ancestors.

        Raises:
            ConfigError: It is not known.
        """
        with self._database.reading() as connection:
            wanted = view.ancestors(connection, digest) | {digest}
            banned = view.quarantined(connection)
            rows = {row.digest: row for row in connection.execute(sa.select(ARTIFACTS)) if row.digest in wanted}
            parents = _parents(connection)
        if digest not in rows and not any(digest in named for named in (*parents, *parents.values())):
            raise _unknown(digest)
        members = {
            found: Member(
                digest=found,
                name=rows[found].name if found in rows else "",
                operator=rows[found].operator if found in rows else "",
                generation=rows[found].generation if found in rows else None,
                parents=parents.get(found, ()),
                quarantined=banned.get(found, ""),
            )
            for found in sorted(wanted)
        }
        return Lineage(digest, members, tuple(found for found, member in members.items() if not member.parents))

    def resolve(self, text: str) -> str:
        """The digest that a person means: an alias, a digest or the beginning of one, or a name.

        Of several adapters of one name the one that was heard of last is meant; never one whose name an alias has too.

        Raises:
            ConfigError: Nothing or more than one thing is meant.
        """
        with self._database.reading() as connection:
            named = _aliases(connection).get(text)
            rows = connection.execute(
                sa.select(ARTIFACTS.c.digest, ARTIFACTS.c.name).order_by(ARTIFACTS.c.position)
            ).all()
        by_name = [row.digest for row in rows if row.name == text]
        if named and by_name and set(by_name) != {named}:
            raise ConfigError("an alias and an adapter are called so", where=text, todo="give the digest")
        if named or by_name:
            return named or str(by_name[-1])
        start = text if text.startswith("sha256:") else f"sha256:{text}"
        found = [row.digest for row in rows if len(start) >= 11 and row.digest.startswith(start)]
        if len(found) > 1:
            raise ConfigError(f"{len(found)} adapters begin with this", where=text, todo="give more digits")
        if not found:
            raise _unknown(text)
        return str(found[0])

    def close(self) -> None:
        """Lets go of the database."""
        self._database.close()

    def __enter__(self) -> SqlRegistry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _facts(connection: sa.Connection) -> Mapping[str, tuple[tuple[Any, ...], ...]]:
    return {table.name: tuple(sorted(tuple(row) for row in connection.execute(sa.select(table)))) for table in VIEW}


def _take_all(connection: sa.Connection, events: Iterable[Event], start: int, progress: Step | None = None) -> int:
    index = start
    for event in events:
        try:
            view.take(connection, event)
        except ConfigError as error:
            raise IntegrityError(f"event {index} of the log: {error.what}", where=error.where) from error
        index += 1
        if progress is not None:
            progress.advance()
    if index > start or not start:
        connection.execute(sa.delete(CURSOR))
        connection.execute(sa.insert(CURSOR).values(id=0, next=index))
    return index - start


def _aliases(connection: sa.Connection) -> dict[str, str]:
    query = sa.select(MOVES.c.alias, MOVES.c.subject).where(MOVES.c.kind.in_(_MOVING)).order_by(MOVES.c.position)
    last = {row.alias: row.subject for row in connection.execute(query)}  # the last one stays
    return {alias: subject for alias, subject in last.items() if subject}  # empty: back to the bare base


def _history(connection: sa.Connection, alias: str) -> tuple[Move, ...]:
    query = sa.select(MOVES).where(MOVES.c.alias == alias).order_by(MOVES.c.position)
    return tuple(Move(r.kind, r.subject, r.previous, r.reason, r.at) for r in connection.execute(query))


def _parents(connection: sa.Connection) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for row in connection.execute(sa.select(PARENTS).order_by(PARENTS.c.child, PARENTS.c.ordinal)):
        found[row.child] = (*found.get(row.child, ()), row.parent)
    return found


def _known(connection: sa.Connection, digest: str | None = None) -> tuple[Known, ...]:
    rows = sa.select(ARTIFACTS).order_by(ARTIFACTS.c.position, ARTIFACTS.c.digest)
    signatures = sa.select(SIGNATURES).order_by(SIGNATURES.c.position)
    judged = sa.select(VERDICTS).order_by(VERDICTS.c.position)
    if digest is not None:
        rows = rows.where(ARTIFACTS.c.digest == digest)
        signatures = signatures.where(SIGNATURES.c.digest == digest)
        judged = judged.where(VERDICTS.c.digest == digest)
    signers: dict[str, dict[str, bool]] = {}
    for row in connection.execute(signatures):
        signers.setdefault(row.digest, {})[row.keyid] = row.development
    verdicts: dict[str, tuple[Verdict, ...]] = {}
    for row in connection.execute(judged):
        verdict = Verdict(row.policy, row.outcome, row.scope, row.rung, row.run, row.at, _findings(row))
        verdicts[row.digest] = (*verdicts.get(row.digest, ()), verdict)
    parents, aliases, banned = _parents(connection), _aliases(connection), view.quarantined(connection)
    return tuple(
        Known(
            digest=row.digest,
            name=row.name,
            operator=row.operator,
            generation=row.generation,
            run=row.run,
            at=row.at,
            parents=parents.get(row.digest, ()),
            signers=signers.get(row.digest, {}),
            verdicts=verdicts.get(row.digest, ()),
            aliases=tuple(sorted(alias for alias, subject in aliases.items() if subject == row.digest)),
            quarantined=banned.get(row.digest, ""),
        )
        for row in connection.execute(rows)
    )


def _findings(row: Any) -> tuple[Mapping[str, Json], ...]:
    try:
        return tuple(dict(found) for found in json.loads(row.findings))
    except (ValueError, TypeError) as error:
        what = f"the registry is damaged: a verdict on {row.digest} cannot be read"
        raise IntegrityError(what, where=VERDICTS.name, todo="ecology registry rebuild") from error


def _unknown(text: str) -> ConfigError:
    return ConfigError("no such adapter in the registry", where=text, todo="`ecology registry list` prints them")
