"""One attempt at a run: from its first fact to its report, across as many killed processes as it takes.

A plan names what is bred and asked. What its candidates are compared with, the champion of the moment, is not part of
the plan; it is part of the attempt. The attempt is written down before its first fact, and a run of the same plan that
finds one that was not finished goes on with it: same comparison, same facts. So a run that was killed after it had
moved the alias still reports a promotion, and not that the champion is the winner already.

An attempt is given up where the alias has meanwhile moved to somebody else: its comparison is no longer of interest.
"""

from __future__ import annotations

import dataclasses

from ecology.contracts.identity import Digest
from ecology.contracts.promotion import Promotion
from ecology.kernel import canonical
from ecology.pipeline.house import ATTEMPT, House

GIVE_UP = "restore it from a backup, or remove it: the run then begins another attempt, against whoever serves now"


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """What a killed process must find again."""

    id: Digest
    run: Digest
    """Of the plan, or of a sweep."""
    incumbent: str
    """Digest that the alias named when the attempt began; the base's weights digest at genesis."""
    started_at: str
    moved: Promotion | None = None
    """What this attempt is about to do to the alias, or has done; None before that."""


def begun(house: House, run: Digest) -> Attempt | None:
    """The attempt at this run that was not finished; None where there is none.

    Raises:
        IntegrityError: It was written down and cannot be read. Whom it compared with and what it was about to do to the
            alias stand nowhere else.
    """
    return house.recall(ATTEMPT, run, Attempt, GIVE_UP)


def begin(house: House, run: Digest, name: str, alias: str, genesis: str) -> Attempt:
    """The attempt to go on with, or a new one; its ``run_started`` is in the log when this returns.

    Args:
        house: Holds the attempts; the caller holds the lock of this run.
        run: Digest of the plan or sweep.
        name: For people.
        alias: That would be moved.
        genesis: What an alias that was never moved stands for.

    Raises:
        IntegrityError: As ``begun``.
    """
    current = house.registry.alias(alias) or genesis
    held = begun(house, run)
    attempt = held
    if attempt is None or current not in {attempt.incumbent, attempt.moved.subject if attempt.moved else ""}:
        seed = [run, current, len(house.log.events_since(0))]  # the log grows, so no two attempts are called the same
        attempt = Attempt(canonical.digest(seed), run, current, house.now())
        house.remember(ATTEMPT, run, attempt)
    house.record("run_started", {"run": run, "name": name, ATTEMPT: attempt.id}, attempt.started_at)
    house.journal.tell("attempt", run=run, incumbent=attempt.incumbent, resumed=held is not None)
    return attempt


def intend(house: House, attempt: Attempt, promotion: Promotion) -> Attempt:
    """Writes down what is about to happen to the alias, before it happens."""
    intended = dataclasses.replace(attempt, moved=promotion)
    house.remember(ATTEMPT, attempt.run, intended)
    return intended


def end(house: House, attempt: Attempt) -> None:
    """The report is written: the next run of this plan is another attempt."""
    house.forget(ATTEMPT, attempt.run)
