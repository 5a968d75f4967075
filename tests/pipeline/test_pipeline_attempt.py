"""An attempt is found again, states its facts once, and is given up where the alias has moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecology.contracts.promotion import CanaryResult
from ecology.errors import ConfigError, IntegrityError
from ecology.kernel.canonical import digest
from ecology.pipeline.attempt import ATTEMPT, begin, end
from ecology.pipeline.facts import accept_clock
from ecology.pipeline.house import House, open_house
from ecology.pipeline.trial import settle
from ecology.telemetry.clock import SystemClock

RUN, BASE, WINNER, OTHER = (digest(name) for name in ("run", "base", "winner", "other"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return open_house(str(tmp_path / "home"), quiet=True)


def trial(winner: str = WINNER) -> CanaryResult:
    return CanaryResult(digest("winner") if winner == WINNER else digest("other"), BASE, (), "promote", "it is better")


def kinds(house: House) -> list[str]:
    return [event.kind for event in house.log.events()]


def test_what_was_not_finished_is_gone_on_with(house: House) -> None:
    first = begin(house, RUN, "n", "champion", BASE)
    again = begin(open_house(str(house.home), quiet=True), RUN, "n", "champion", BASE)
    assert again == first
    assert kinds(house) == ["run_started"]
    end(house, first)
    assert begin(house, RUN, "n", "champion", BASE).id != first.id


def test_a_damaged_attempt_is_said_to_be_and_not_begun_again(house: House) -> None:
    begin(house, RUN, "n", "champion", BASE)
    (path,) = (house.home / "notes" / ATTEMPT).iterdir()
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(IntegrityError, match=rf"{path.name}: this file is damaged: .*restore it from a backup"):
        begin(house, RUN, "n", "champion", BASE)
    path.unlink()  # as the message says
    begin(house, RUN, "n", "champion", BASE)
    assert kinds(house) == ["run_started"] * 2


def test_a_promotion_that_was_made_is_made_once_and_still_a_promotion(house: House) -> None:
    first = begin(house, RUN, "n", "champion", BASE)
    made = settle(house, first, WINNER, trial(), alias="champion", genesis=BASE, why_none="")
    assert made.decision == "promoted"
    later = open_house(str(house.home), quiet=True)
    again = begin(later, RUN, "n", "champion", BASE)
    assert again.incumbent == BASE
    assert settle(later, again, WINNER, trial(), alias="champion", genesis=BASE, why_none="") == made
    assert kinds(house).count("promoted") == 1
    assert later.registry.alias("champion") == WINNER


def test_what_was_proven_against_somebody_else_moves_nothing(house: House) -> None:
    mine = begin(house, RUN, "n", "champion", BASE)
    theirs = begin(house, digest("other run"), "m", "champion", BASE)
    settle(house, theirs, OTHER, trial(OTHER), alias="champion", genesis=BASE, why_none="")
    late = settle(house, mine, WINNER, trial(), alias="champion", genesis=BASE, why_none="")
    assert (late.decision, late.subject) == ("none", OTHER)
    assert "run it again" in late.reason
    assert house.registry.alias("champion") == OTHER
    assert begin(house, RUN, "n", "champion", BASE).incumbent == OTHER


def test_a_view_that_is_behind_the_log_catches_up_before_it_is_read(house: House) -> None:
    attempt = begin(house, RUN, "n", "champion", BASE)
    body = {"alias": "champion", "subject": WINNER, "previous": BASE, "reason": "", ATTEMPT: attempt.id}
    from ecology.contracts.promotion import Event

    house.log.append(Event("promoted", house.clock.now(), body))
    assert open_house(str(house.home), quiet=True).registry.alias("champion") == WINNER


def test_a_clock_that_goes_back_is_refused_until_it_is_accepted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(house, RUN, "n", "champion", BASE)
    monkeypatch.setattr(SystemClock, "now", lambda self: "2001-01-01T00:00:00Z")
    with pytest.raises(ConfigError, match="clock was set back"):
        house.record("run_started", {"run": "r", "name": "n"})
    with pytest.raises(ConfigError, match="audit clock"):
        house.now()
    accept_clock(house)
    house.record("run_started", {"run": "r", "name": "n"})
    assert house.now() == "2001-01-01T00:00:00Z"
    house.log.verify()


def test_drafts_of_the_dead_are_removed_and_those_of_the_living_are_not(house: House) -> None:
    house.remember("kind", RUN, 1)
    dead, living = (house.home / "notes" / "kind" / f".x.json.{pid}.abcd1234.tmp" for pid in (2**22 - 7, 1))
    dead.touch()
    living.touch()
    house.tidy()
    assert not dead.exists()
    assert living.exists()
