"""Where reproduction is bounded: before a run starts, before each child is bred; and the switch that stops all.

The switch is a file in the home, because it has to work when nothing else does: while it is there no run takes another
step. It is looked at between stages and with every step of every progress bar, so that a long stage notices too.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from ecology.contracts.genome import Genome
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Outcome, Policy, ReproductionLimits
from ecology.contracts.ports import Progress, Step
from ecology.errors import ConfigError
from ecology.kernel.reproduction import Kin, Population, child_objections, run_objections
from ecology.pipeline.house import House
from ecology.signer.approval import verify_approvals

KIND = "generation"
"""What an approval of an adapter for breeding is an approval of."""


class Stoppable:
    """A progress bar that asks before every step whether the home was stopped.

    Args:
        inner: What shows the progress.
        house: The home.
    """

    def __init__(self, inner: Progress, house: House) -> None:
        """Wraps a progress bar."""
        self._inner, self._house = inner, house

    @contextlib.contextmanager
    def track(self, what: str, total: int, unit: str = "it") -> Iterator[Step]:
        """Opens a bar."""
        self._house.stop_check()
        with self._inner.track(what, total, unit) as step:
            yield _StoppableStep(step, self._house)


class _StoppableStep:
    def __init__(self, inner: Step, house: House) -> None:
        self._inner, self._house = inner, house

    def advance(self, amount: int = 1, note: str = "") -> None:
        """``amount`` more units are done, and going on is still allowed."""
        self._inner.advance(amount, note)
        self._house.stop_check()


def admit_run(policy: Policy, house: House) -> None:
    """That a run may start now.

    Raises:
        Stopped: The home was stopped.
        ConfigError: The policy's limits do not allow it.
    """
    house.stop_check()
    if policy.reproduction is not None:
        _refuse(run_objections(policy.reproduction, population(house, policy.reproduction)), policy.id)


def admit_child(
    limits: ReproductionLimits | None,
    operator: str,
    parents: Sequence[Digest],
    house: House,
    genomes: Mapping[Digest, Genome] | None = None,
) -> None:
    """That these parents may have another child.

    Args:
        limits: Of the policy; None asks for quarantine alone.
        operator: Name in the table of operators.
        parents: Who would breed.
        house: The home, whose facts count.
        genomes: What is signed of parents of which the home has no fact, as of those that ``ecology breed`` made.

    Raises:
        Stopped: The home was stopped.
        ConfigError: A parent is quarantined, or the policy's limits do not allow it.
    """
    house.stop_check()
    found = population(house, limits)
    signed: dict[str, Kin] = {
        digest: Kin(digest, "", genome.lineage.generation, genome.lineage.parents, 0, False)
        for digest, genome in (genomes or {}).items()
    }
    found = dataclasses.replace(found, visitors=signed)
    _refuse(child_objections(limits, found, operator, parents), operator)


def population(house: House, limits: ReproductionLimits | None) -> Population:
    """The facts of a home that reproduction is bounded by."""
    known = house.registry.list()
    children: dict[str, set[str]] = {}
    for one in known:
        for parent in one.parents:
            children.setdefault(parent, set()).add(one.digest)
    kin = {
        one.digest: Kin(
            digest=one.digest,
            name=one.name,
            generation=one.generation or 0,
            parents=one.parents,
            children=len(children.get(one.digest, ())),
            admitted=_admitted([v.outcome for v in one.verdicts if v.scope == "full"]),
        )
        for one in known
        if one.operator
    }
    now = house.clock.now()
    today, envelopes = 0, dict[str, list[str]]()
    if limits is not None:
        for event in house.log.events_since(0):
            today += event.kind == "run_started" and event.at[:10] == now[:10]
            if event.kind == "breeding_approved":
                envelopes.setdefault(str(event.body["digest"]), []).append(str(event.body["envelope"]))
    approved = frozenset(
        digest
        for digest, lines in envelopes.items()
        if limits is not None
        and verify_approvals(
            lines, Digest(digest), KIND, approvers=limits.approvers, threshold=limits.required, now=now
        ).met
    )
    return Population(kin, approved, house.registry.revoked(), today)


def _admitted(outcomes: Sequence[str]) -> bool:
    return bool(outcomes) and Outcome(outcomes[-1]).admits


def _refuse(objections: Sequence[str], where: str) -> None:
    if objections:
        raise ConfigError(
            "reproduction is bounded:\n  " + "\n  ".join(objections),
            where=where,
            todo="the policy's section `reproduction` says what is allowed; `ecology registry approve` approves",
        )
