"""What an alias names, and the one way to move it.

An alias is the one thing here that changes, so everybody who moves one (a run that promotes, a person, a revocation)
does it inside ``standing``: under the alias' lock, with the registry caught up with the log. What was true when
somebody began to think is not taken for granted there.

A promotion by hand, a roll-back and a revocation carry the number of the move, so that the same move made twice is two
facts, within one second too.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

from ecology.contracts.artifact import BASE_KEY, WEIGHTS_FILE
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Outcome
from ecology.contracts.promotion import Promotion
from ecology.errors import ConfigError
from ecology.kernel import canonical
from ecology.pipeline.guard import name_problem
from ecology.pipeline.house import House
from ecology.store.header import read_header

NOTHING = "the bare base"
"""What serves where an alias names nobody."""


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """An alias while nobody else can move it."""

    house: House
    alias: str
    current: str
    """Digest that it names; empty where it names nobody."""
    banned: Mapping[str, str]
    """Quarantined digests with the reason."""
    moves: int
    """How often something happened to it."""

    def move(self, kind: str, subject: str, reason: str) -> str:
        """Writes a move down, and says it."""
        made = Promotion("promoted" if kind == "promoted" else "rolled_back", self.alias, subject, self.current, reason)
        self.house.record(kind, {**canonical.plain(made), "move": self.moves})
        return f"{self.alias}: {self.current or NOTHING} -> {subject or NOTHING}"


@contextlib.contextmanager
def standing(house: House, alias: str) -> Iterator[Standing]:
    """Holds an alias still.

    Args:
        house: Facts.
        alias: Name in the registry.
    """
    with house.lock(f"alias-{canonical.digest(alias)[7:23]}"):
        house.registry.follow(house.log)
        moves = len(house.registry.history(alias))
        yield Standing(house, alias, house.registry.alias(alias) or "", house.registry.revoked(), moves)


def promote(house: House, text: str, alias: str, policy: Digest) -> str:
    """Moves an alias by hand to an adapter of this home that its last full verdict under a policy admits.

    Args:
        house: Facts.
        text: What is meant: a name, a digest or the beginning of one, or another alias.
        alias: Name in the registry.
        policy: Digest of the policy that has to admit it.

    Raises:
        ConfigError: Nothing or more than one thing is meant, the alias cannot be called so, or the adapter may not be
            promoted.
    """
    if problem := name_problem("--alias", alias):
        raise ConfigError(problem, todo="choose another name")
    if alias in house.registry.names().values():
        raise ConfigError("an adapter is called so", where=f"alias {alias}", todo="choose another name")
    digest = house.registry.resolve(text)
    with standing(house, alias) as now:
        if digest in now.banned:
            raise ConfigError(f"it is quarantined: {now.banned[digest]}", where=digest, todo="promote another")
        full = [v for v in house.registry.show(digest).verdicts if v.scope == "full" and v.policy == policy]
        if not full or not Outcome(full[-1].outcome).admits:
            found = f"its last full verdict under the policy is {full[-1].outcome}" if full else ""
            what = found or f"no full verdict under the policy {policy} is known"
            raise ConfigError(what, where=digest, todo="`ecology gate` judges it; only what passes is promoted")
        if Digest(digest) not in house.store.digests():
            what = "it was judged and never taken in: its bytes are not in the store"
            raise ConfigError(what, where=digest, todo="only what was bred or trained here is promoted")
        if now.current == digest:
            return f"{alias} is {digest} already"
        if now.current and base_of(house, now.current) != base_of(house, digest):
            what = f"{alias} names an adapter of another base, {base_of(house, now.current)}"
            raise ConfigError(what, where=digest, todo="give this base an alias of its own: --alias NAME")
        return now.move("promoted", digest, "promoted by hand")


def rollback(house: House, alias: str) -> str:
    """Moves an alias back to the one before.

    Raises:
        ConfigError: There is nothing to go back to.
    """
    with standing(house, alias) as now:
        target = house.registry.rollback_target(alias)
        if not now.current or target is None:
            raise ConfigError("there is nothing to go back to", where=f"alias {alias}", todo="ecology registry list")
        return now.move("rolled_back", target, "rolled back by hand")


def leave_quarantined(house: House) -> list[str]:
    """Moves every alias off what must not be used: to the last one before it that may serve, or to the bare base.

    Returns:
        A line for each move.
    """
    lines = []
    for alias in sorted(house.registry.aliases()):
        with standing(house, alias) as now:
            if now.current in now.banned:
                target = house.registry.rollback_target(alias) or ""
                lines.append(now.move("rolled_back", target, f"quarantined: {now.banned[now.current]}"))
    return lines


def base_of(house: House, digest: str) -> str:
    """Weights digest of the base that an adapter in the store was made for; of a base itself, its own digest.

    Raises:
        IntegrityError: What the store holds is not what it was.
    """
    if Digest(digest) not in house.store.digests():
        return digest  # genesis: an alias may name the base's weights
    return read_header(house.store.folder(Digest(digest)) / WEIGHTS_FILE).metadata.get(BASE_KEY, "")
