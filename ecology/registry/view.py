"""How one fact changes the tables, and what is read off them.

Everything here is a function of a connection inside a transaction. A fact of an unknown kind is counted and changes
nothing else. Laws: the same fact twice is the same as once; facts in one order always give one view.

Parents. Bytes can be bred twice, in two ways (a mutation by nothing gives its parent again). All births are kept,
because a revoked ancestor on any of them is reason enough for quarantine; an edge that would make an adapter its own
ancestor is left out, so a lineage ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from ecology.contracts.promotion import Event
from ecology.kernel.canonical import canonical, digest
from ecology.kernel.quarantine import quarantine
from ecology.registry.database import ARTIFACTS, FACTS, MOVES, PARENTS, REVOCATIONS, SIGNATURES, VERDICTS
from ecology.registry.events import check_event, number, text, texts


def take(connection: sa.Connection, event: Event) -> None:
    """Applies one fact.

    Raises:
        ConfigError: The fact is of a known kind and malformed.
    """
    check_event(event)
    named = digest(event)
    if connection.execute(sa.select(FACTS.c.position).where(FACTS.c.digest == named)).first() is not None:
        return
    last = connection.execute(sa.select(sa.func.max(FACTS.c.position))).scalar()
    position = 0 if last is None else int(last) + 1
    connection.execute(sa.insert(FACTS).values(digest=named, position=position))
    if effect := _EFFECTS.get(event.kind):
        effect(connection, event, position)


def ancestors(connection: sa.Connection, subject: str) -> set[str]:
    """Digests of all ancestors, the subject left out."""
    found = sa.select(PARENTS.c.parent).where(PARENTS.c.child == subject).cte("ancestors", recursive=True)
    further = sa.select(PARENTS.c.parent).join(found, PARENTS.c.child == found.c.parent)
    return set(connection.execute(sa.select(found.union(further).c.parent)).scalars())


def quarantined(connection: sa.Connection) -> Mapping[str, str]:
    """Digest -> reason, descendants included. Its own revocation names the reason before any ancestor's."""
    query = sa.select(REVOCATIONS.c.digest, REVOCATIONS.c.reason).order_by(REVOCATIONS.c.position)
    reasons = {row.digest: row.reason for row in connection.execute(query)}
    rows = connection.execute(sa.select(PARENTS.c.parent, PARENTS.c.child).order_by(PARENTS.c.child))
    return quarantine(reasons, ((row.parent, row.child) for row in rows))


def _bred(connection: sa.Connection, event: Event, position: int) -> None:
    child = text(event, "digest")
    _mention(connection, event, position)
    born = {
        "name": text(event, "name"),
        "operator": text(event, "operator"),
        "generation": number(event, "generation"),
        "run": text(event, "run"),
        "at": event.at,
    }
    first_birth = sa.and_(ARTIFACTS.c.digest == child, ARTIFACTS.c.operator == "")
    connection.execute(sa.update(ARTIFACTS).where(first_birth).values(born))
    known = set(connection.execute(sa.select(PARENTS.c.parent).where(PARENTS.c.child == child)).scalars())
    for parent in texts(event, "parents"):
        if parent in known or parent == child or child in ancestors(connection, parent):
            continue
        connection.execute(sa.insert(PARENTS).values(child=child, parent=parent, ordinal=len(known)))
        known.add(parent)


def _signed(connection: sa.Connection, event: Event, position: int) -> None:
    _mention(connection, event, position)
    row = {"digest": text(event, "digest"), "keyid": text(event, "keyid")}
    same = [SIGNATURES.c[key] == value for key, value in row.items()]
    if connection.execute(sa.select(SIGNATURES.c.digest).where(*same)).first() is None:
        development = bool(event.body["development"])
        connection.execute(sa.insert(SIGNATURES).values(**row, development=development, position=position))


def _judged(connection: sa.Connection, event: Event, position: int) -> None:
    _mention(connection, event, position)
    keys = ("digest", "policy", "outcome", "scope", "rung", "run")
    row = {key: text(event, key) for key in keys}
    findings = canonical(event.body["findings"]).decode("utf-8")
    connection.execute(sa.insert(VERDICTS).values(**row, findings=findings, at=event.at, position=position))


def _moved(connection: sa.Connection, event: Event, position: int) -> None:
    row = {key: text(event, key) for key in ("alias", "subject", "previous", "reason")}
    connection.execute(sa.insert(MOVES).values(**row, kind=event.kind, at=event.at, position=position))


def _revoked(connection: sa.Connection, event: Event, position: int) -> None:
    subject = text(event, "digest")
    if connection.execute(sa.select(REVOCATIONS.c.digest).where(REVOCATIONS.c.digest == subject)).first() is None:
        reason = text(event, "reason") or "no reason given"
        connection.execute(sa.insert(REVOCATIONS).values(digest=subject, reason=reason, at=event.at, position=position))


def _mention(connection: sa.Connection, event: Event, position: int) -> None:
    """An adapter from outside is never bred here; it is known from the first fact about it."""
    subject = text(event, "digest")
    if connection.execute(sa.select(ARTIFACTS.c.digest).where(ARTIFACTS.c.digest == subject)).first() is None:
        row = {"digest": subject, "name": text(event, "name"), "run": text(event, "run"), "at": event.at}
        connection.execute(sa.insert(ARTIFACTS).values(**row, operator="", generation=None, position=position))


_EFFECTS: Mapping[str, Callable[[sa.Connection, Event, int], None]] = {
    "bred": _bred,
    "signed": _signed,
    "judged": _judged,
    "promoted": _moved,
    "held": _moved,
    "rolled_back": _moved,
    "revoked": _revoked,
}
