"""A waiver: a named person accepts one violation of one rule by one adapter, until a day.

It is written by hand (``waiver.yaml``, see ``waiver.schema.json``), checked against the rules of the policy it waives,
and then signed; only the signed one has an effect. It is bound to a rule id and to the bytes of one adapter, has an
expiry that the policy bounds, and is never for what nobody may waive. ``status`` puts every waiver in one of five
states as of an instant, so that unused, expired and soon-to-expire ones are listed and never forgotten.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from ecology.contracts.identity import Digest
from ecology.contracts.policy import Policy, Waiver, WaiverRules
from ecology.documents.source import Mistake, Source, read_source, refuse
from ecology.errors import PolicyError
from ecology.kernel.codec import structure
from ecology.kernel.verdicts import NEVER_WAIVED, effective, instant
from ecology.policy.shape import Schema, near, shape_mistakes, understood

SCHEMA_FILE = Path(__file__).with_name("waiver.schema.json")
State = Literal["used", "unused", "soon to expire", "expired", "not yet in effect"]


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """A waiver as of an instant."""

    waiver: Waiver
    state: State
    used: bool

    def __str__(self) -> str:
        one = self.waiver
        use = ", unused" if not self.used and self.state == "soon to expire" else ""
        return (
            f"{one.rule} for {one.subject[7:19]}: {self.state}{use}; until {one.expires} "
            f"by {one.approver} ({one.ticket}): {one.reason}"
        )


def read_waiver(path: Path, policy: Policy, now: str) -> Waiver:
    """A waiver as it is written, before it is signed.

    Args:
        path: ``waiver.yaml``.
        policy: What it waives a rule of.
        now: The instant of issue, where the file names none.

    Raises:
        ConfigError: There is no such file.
        PolicyError: It is no waiver, or the policy does not allow it; every mistake is listed with file and line.
    """
    source = read_source(path, PolicyError)
    refuse(source, [*source.mistakes, *shape_mistakes(source, _schema())], "the waiver")
    waiver = structure(Waiver, {"issued": now, **source.data})
    refuse(source, _mistakes(source, waiver, policy), "the waiver")
    return waiver


def objections(waiver: Waiver, policy: Policy) -> tuple[tuple[str, str], ...]:
    """Why the policy does not allow the waiver: key and sentence; empty where it does.

    Asked when it is signed and again whenever it is read: a policy may have become stricter since.
    """
    rules = {rule.id: rule for rule in policy.rules}
    terms = policy.waiver_rules
    found: list[tuple[str, str]] = []
    if terms is None:
        found.append(("", f"policy {policy.id} has no section waiver_rules, so nobody may waive"))
    if waiver.rule not in rules:
        found.append(("rule", f"there is no rule {waiver.rule!r}; {near(waiver.rule, sorted(rules))}"))
    elif rules[waiver.rule].metric == NEVER_WAIVED:
        found.append(("rule", "a missing signature cannot be waived"))
    elif terms and waiver.rule in terms.never:
        found.append(("rule", f"policy {policy.id} says that nobody may waive {waiver.rule}"))
    found += _dates(waiver, terms or WaiverRules())
    return tuple(found)


def status(policy: Policy, used: Collection[tuple[str, Digest]], now: str) -> tuple[Standing, ...]:
    """Every waiver of the policy as of an instant.

    Args:
        policy: With its waivers.
        used: Rule and subject of the findings that a waiver stood for.
        now: ISO 8601 instant with time zone.
    """
    days = (policy.waiver_rules or WaiverRules()).soon_days
    soon = (instant(now) + datetime.timedelta(days=days)).isoformat()
    found = []
    for waiver in policy.waivers:
        is_used = (waiver.rule, waiver.subject) in used
        state: State = "used" if is_used else "unused"
        if not effective(waiver, now):
            state = "not yet in effect" if instant(now) < instant(waiver.expires) else "expired"
        elif not effective(waiver, soon):
            state = "soon to expire"
        found.append(Standing(waiver, state, is_used))
    return tuple(found)


def with_waivers(policy: Policy, waivers: Collection[Waiver]) -> Policy:
    """The policy with waivers; its digest stays, since each waiver is signed by itself."""
    return dataclasses.replace(policy, waivers=tuple(waivers))


@functools.cache
def _schema() -> Schema:
    return understood(json.loads(SCHEMA_FILE.read_bytes()))


def _mistakes(source: Source, waiver: Waiver, policy: Policy) -> Iterator[Mistake]:
    for key, what in objections(waiver, policy):
        yield source.mistake((key,) if key else (), what)


def _dates(waiver: Waiver, terms: WaiverRules) -> Iterator[tuple[str, str]]:
    read: dict[str, datetime.datetime] = {}
    for key in ("issued", "expires"):
        try:
            read[key] = instant(getattr(waiver, key))
        except PolicyError as error:
            yield key, f"{error.what}; {error.todo}"
    if len(read) < 2:
        return
    if read["expires"] <= read["issued"]:
        yield "expires", f"{waiver.expires} is not after {waiver.issued}, when it was issued"
    elif read["expires"] - read["issued"] > datetime.timedelta(days=terms.max_days):
        yield "expires", f"later than {terms.max_days} days after {waiver.issued}, the longest that the policy allows"
