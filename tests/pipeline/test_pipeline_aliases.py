"""An alias is moved in one way, by whomever, and never onto what may not serve."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest

from ecology.contracts.identity import Digest
from ecology.contracts.promotion import CanaryResult
from ecology.errors import ConfigError
from ecology.kernel.canonical import digest
from ecology.pipeline import aliases, facts, revoking
from ecology.pipeline.attempt import begin
from ecology.pipeline.house import House, open_house
from ecology.pipeline.trial import settle
from ecology.store.writer import write_adapter

BASE, OTHER_BASE, POLICY, RUN = (digest(name) for name in ("base", "other base", "policy", "run"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return open_house(str(tmp_path / "home"), quiet=True)


def adapter(house: House, name: str, base: Digest = BASE, outcome: str = "pass", parents: tuple[str, ...] = ()) -> str:
    """A small adapter in the store, bred and judged."""
    factors = np.full((4, 1), float(len(name) + ord(name[0])), np.float32), np.ones((1, 4), np.float32)
    folder = house.home.parent / f"{name}-{base[7:11]}"
    made = house.store.put(Path(folder) if write_adapter(folder, {"q": factors}, "toy", base) else folder)
    body = {"name": name, "operator": "linear", "parents": list(parents), "generation": 1, "run": RUN}
    house.record("bred", {"digest": made.digest, **body})
    judged(house, made.digest, outcome)
    return str(made.digest)


def judged(house: House, subject: str, outcome: str, policy: Digest = POLICY, scope: str = "full") -> None:
    count = len(house.log.events_since(0))
    body = {"digest": subject, "policy": policy, "outcome": outcome, "rung": "", "run": "", "scope": scope}
    house.record("judged", {**body, "findings": [], "decided_at": str(count)})


def trial(winner: str, incumbent: str, decision: str) -> CanaryResult:
    return CanaryResult(Digest(winner), incumbent, (), decision, "because")  # type: ignore[arg-type]


def settled(house: House, winner: str, incumbent: str, decision: str, run: Digest = RUN) -> str:
    attempt = begin(house, run, "n", "champion", BASE)
    assert attempt.incumbent == incumbent
    made = settle(
        house, attempt, Digest(winner), trial(winner, incumbent, decision),
        alias="champion", genesis=BASE, why_none="",
    )  # fmt: skip
    return made.decision


def test_an_adapter_that_was_revoked_while_it_was_tried_is_not_promoted(house: House) -> None:
    new = adapter(house, "a")
    attempt = begin(house, RUN, "n", "champion", BASE)
    revoking.revoke(house, "a", "leaks")
    made = settle(house, attempt, Digest(new), trial(new, BASE, "promote"), alias="champion", genesis=BASE, why_none="")
    assert (made.decision, made.subject) == ("none", BASE)
    assert "quarantined while it was tried: leaks" in made.reason
    assert house.registry.alias("champion") is None


@pytest.mark.parametrize("decision", ["promote", "rollback", "hold"])
def test_a_trial_against_somebody_who_serves_no_longer_moves_nothing(house: House, decision: str) -> None:
    old, new, tried = (adapter(house, name) for name in ("a", "b", "c"))
    aliases.promote(house, old, "champion", POLICY)
    attempt = begin(house, RUN, "n", "champion", BASE)
    aliases.promote(house, new, "champion", POLICY)
    revoking.revoke(house, "a", "leaks")
    canary = trial(tried, old, decision)
    made = settle(house, attempt, Digest(tried), canary, alias="champion", genesis=BASE, why_none="")
    assert (made.decision, made.subject) == ("none", new)
    assert house.registry.alias("champion") == new


def test_a_champion_that_is_revoked_leaves_nobody_to_be_better_than(house: House) -> None:
    """The alias names nobody after the revocation, which is not what the canary compared with either."""
    old, tried = adapter(house, "a"), adapter(house, "c")
    aliases.promote(house, old, "champion", POLICY)
    attempt = begin(house, RUN, "n", "champion", BASE)
    revoking.revoke(house, "a", "leaks")
    canary = trial(tried, old, "promote")
    made = settle(house, attempt, Digest(tried), canary, alias="champion", genesis=BASE, why_none="")
    assert (made.decision, made.subject) == ("none", BASE)
    assert house.registry.alias("champion") is None


def test_a_trial_that_is_broken_off_moves_nothing_and_is_remembered(house: House) -> None:
    new = adapter(house, "a")
    assert settled(house, new, BASE, "rollback") == "rolled_back"
    assert house.registry.alias("champion") is None
    assert [(move.kind, move.reason) for move in house.registry.history("champion")] == [("held", "because")]
    assert facts.audit_verify(house)


def test_a_promotion_that_was_taken_back_since_is_not_reported_again(house: House) -> None:
    new = adapter(house, "a")
    first = begin(house, RUN, "n", "champion", BASE)
    canary = trial(new, BASE, "promote")
    assert settle(house, first, Digest(new), canary, alias="champion", genesis=BASE, why_none="").decision == "promoted"
    aliases.rollback(house, "champion")
    again = begin(house, RUN, "n", "champion", BASE)
    made = settle(house, again, Digest(new), canary, alias="champion", genesis=BASE, why_none="")
    assert made.decision == "none"
    assert "since" in made.reason
    assert house.registry.alias("champion") == BASE


def test_who_promotes_by_hand_needs_the_last_full_verdict_of_the_policy(house: House) -> None:
    new = adapter(house, "a")
    with pytest.raises(ConfigError, match="no full verdict under the policy"):
        aliases.promote(house, "a", "champion", digest("another policy"))
    judged(house, new, "deny", scope="static")
    judged(house, new, "deny", policy=digest("another policy"))
    judged(house, new, "inconclusive")
    with pytest.raises(ConfigError, match="last full verdict under the policy is inconclusive"):
        aliases.promote(house, "a", "champion", POLICY)
    judged(house, new, "pass")
    assert aliases.promote(house, "a", "champion", POLICY) == f"champion: the bare base -> {new}"
    assert aliases.promote(house, "a", "champion", POLICY) == f"champion is {new} already"


def test_what_was_never_taken_in_is_not_promoted(house: House) -> None:
    stranger = digest("stranger")
    judged(house, stranger, "pass")
    with pytest.raises(ConfigError, match="not in the store"):
        aliases.promote(house, stranger, "champion", POLICY)


def test_one_alias_serves_one_base(house: House) -> None:
    aliases.promote(house, adapter(house, "a"), "champion", POLICY)
    other = adapter(house, "b", OTHER_BASE)
    with pytest.raises(ConfigError, match="another base"):
        aliases.promote(house, other, "champion", POLICY)
    aliases.promote(house, other, "theirs", POLICY)
    assert (aliases.base_of(house, other), aliases.base_of(house, BASE)) == (OTHER_BASE, BASE)


@pytest.mark.parametrize("alias", ["x/../y", "", "a b", "-", "é" * 70])
def test_an_alias_is_a_name(house: House, alias: str) -> None:
    adapter(house, "a")
    with pytest.raises(ConfigError, match="is no name"):
        aliases.promote(house, "a", alias, POLICY)


def test_an_alias_does_not_hide_an_adapter(house: House) -> None:
    first, second = adapter(house, "a"), adapter(house, "b")
    with pytest.raises(ConfigError, match="an adapter is called so"):
        aliases.promote(house, "b", "a", POLICY)
    aliases.promote(house, first, "later", POLICY)
    late = adapter(house, "later")
    for what in (lambda: revoking.revoke(house, "later", "x"), lambda: facts.show(house, "later")):
        with pytest.raises(ConfigError, match="an alias and an adapter are called so"):
            what()
    assert house.registry.resolve(late) == late
    assert house.registry.alias("later") == first
    assert second not in house.registry.revoked()


def test_the_same_move_twice_in_a_second_is_two_moves(house: House) -> None:
    first, second = adapter(house, "a"), adapter(house, "b")

    class Still:
        def now(self) -> str:
            return "2100-01-01T00:00:00Z"

        def monotonic(self) -> float:
            return 0.0

    still = dataclasses.replace(house, clock=Still())
    for name, wanted in (("a", first), ("b", second), ("a", first), ("b", second)):
        aliases.promote(still, name, "champion", POLICY)
        assert house.registry.alias("champion") == wanted
    aliases.rollback(still, "champion")
    assert house.registry.alias("champion") == first
    assert facts.audit_verify(house)


def test_a_rollback_to_before_the_first_promotion_names_the_base(house: House) -> None:
    new = adapter(house, "a")
    aliases.promote(house, "a", "champion", POLICY)
    assert revoking.revoke(house, "a", "leaks").splitlines()[-1] == f"champion: {new} -> the bare base"
    with pytest.raises(ConfigError, match="nothing to go back to"):
        aliases.rollback(house, "champion")


def test_many_hands_leave_one_history(house: House) -> None:
    """Each move says what the alias named before it, so a lost update would show as a gap."""
    names = [adapter(house, name) for name in ("a", "b", "c", "d")]
    threads = [
        threading.Thread(
            target=aliases.promote, args=(open_house(str(house.home), quiet=True), name, "champion", POLICY)
        )
        for name in names * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    moves = house.registry.history("champion")
    assert [move.previous for move in moves[1:]] == [move.subject for move in moves[:-1]]
    assert house.registry.alias("champion") == moves[-1].subject
