"""The registry: the same facts give the same view, however they arrive; and it can be found out."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.audit.log import SqlAuditLog
from ecology.contracts.promotion import Event
from ecology.errors import ConfigError, IntegrityError
from ecology.pipeline.revocations import quarantined
from ecology.registry.events import KINDS, check_event
from ecology.registry.registry import SqlRegistry
from ecology.signer.keys import LocalSigner

SIGNER = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), "golden", False)


def d(text: object) -> str:
    return "sha256:" + hashlib.sha256(str(text).encode()).hexdigest()


CLOCK = iter(range(10**9))


def fact(kind: str, at: str = "", **body: Any) -> Event:
    return Event(kind, at or f"t{next(CLOCK):09d}", body)


def bred(name: str, /, *parents: str, generation: int = 0, **more: Any) -> Event:
    body = {"digest": d(name), "name": name, "operator": "linear", "parents": [d(p) for p in parents]}
    return fact("bred", **{**body, "generation": generation, "run": d("run"), **more})


def judged(name: str, /, outcome: str = "pass", scope: str = "full", **more: Any) -> Event:
    body = {"digest": d(name), "policy": d("policy"), "outcome": outcome, "rung": "", "run": d("run"), "scope": scope}
    return fact("judged", **body, findings=[{"rule": "STA-001", "outcome": outcome}], **more)


def moved(kind: str, subject: str, previous: str = "", **more: Any) -> Event:
    return fact(kind, alias="champion", subject=d(subject), previous=d(previous) if previous else "", **more)


def revoked(name: str, reason: str = "poisoned") -> Event:
    return fact("revoked", digest=d(name), reason=reason)


@pytest.fixture
def registry(tmp_path: Path) -> SqlRegistry:
    return SqlRegistry(f"sqlite:///{tmp_path}/a home/ecology.db")


def tell(registry: SqlRegistry, *events: Event) -> SqlRegistry:
    for event in events:
        registry.apply(event)
    return registry


FAMILY = (
    bred("a"),
    bred("b"),
    bred("ab", "a", "b", generation=1),
    bred("ba", "b", "a", generation=1),
    bred("abba", "ab", "ba", generation=2),
)


def test_an_adapter_is_what_was_said_of_it(registry: SqlRegistry) -> None:
    tell(
        registry,
        *FAMILY,
        fact("signed", digest=d("ab"), keyid="k1", development=True),
        fact("signed", digest=d("ab"), keyid="k2", development=False),
        judged("ab", "deny", "static"),
        judged("ab", "warn"),
        judged("outsider", "deny", "static", name="stranger"),
        moved("promoted", "ab", "base"),
    )
    known = registry.show(d("ab"))
    assert (known.name, known.operator, known.generation, known.run) == ("ab", "linear", 1, d("run"))
    assert known.parents == (d("a"), d("b"))
    assert known.signers == {"k1": True, "k2": False}
    assert [(v.outcome, v.scope) for v in known.verdicts] == [("deny", "static"), ("warn", "full")]
    assert known.verdicts[1].findings == ({"rule": "STA-001", "outcome": "warn"},)
    assert known.aliases == ("champion",)
    assert known.quarantined == ""
    assert [k.name for k in registry.list()] == ["a", "b", "ab", "ba", "abba", "stranger"]
    assert registry.show(d("outsider")).operator == ""
    with pytest.raises(ConfigError, match="no such adapter"):
        registry.show(d("nobody"))


def test_quarantine_reaches_all_descendants_whenever_they_are_born(registry: SqlRegistry) -> None:
    tell(registry, *FAMILY, revoked("a"))
    assert set(registry.revoked()) == {d("a"), d("ab"), d("ba"), d("abba")}
    assert registry.revoked()[d("a")] == "poisoned"
    assert registry.revoked()[d("abba")] == f"descends from {d('a')}, which is revoked: poisoned"
    tell(registry, bred("late", "abba", generation=3), revoked("ab", "also weak"))
    assert d("late") in registry.revoked()
    assert registry.revoked()[d("ab")] == "also weak"
    assert registry.show(d("late")).quarantined.startswith("descends from")
    assert d("b") not in registry.revoked()
    tell(registry, revoked("a", "another reason"))
    assert registry.revoked()[d("a")] == "poisoned"


def test_lineage_is_a_graph_with_roots(registry: SqlRegistry) -> None:
    tell(registry, *FAMILY, revoked("b", "x"))
    lineage = registry.lineage(d("abba"))
    assert set(lineage.members) == {d(n) for n in ("a", "b", "ab", "ba", "abba")}
    assert set(lineage.roots) == {d("a"), d("b")}
    assert lineage.members[d("ba")].parents == (d("b"), d("a"))
    short = {name: d(name)[:19] for name in ("a", "b", "ab", "ba", "abba")}
    bad = f"QUARANTINED: descends from {d('b')}, which is revoked: x"
    assert lineage.text.split("\n") == [
        f"abba {short['abba']} linear g2 {bad}",
        f"├─ ab {short['ab']} linear g1 {bad}",
        f"│  ├─ a {short['a']} linear g0",
        f"│  └─ b {short['b']} linear g0 QUARANTINED: x",
        f"└─ ba {short['ba']} linear g1 {bad}",
        f"   ├─ b {short['b']} linear g0 QUARANTINED: x",
        f"   └─ a {short['a']} linear g0",
    ]
    assert registry.lineage(d("a")).roots == (d("a"),)
    with pytest.raises(ConfigError):
        registry.lineage(d("nobody"))


def test_a_deep_and_tangled_lineage_is_drawn_once(registry: SqlRegistry) -> None:
    events = [bred("0"), bred("1", "0")]
    events += [bred(str(n), str(n - 1), str(n - 2), generation=n) for n in range(2, 60)]
    registry.rebuild(events)
    text = registry.lineage(d(59)).text
    assert len(text.split("\n")) < 130
    assert "(drawn above)" in text


def test_cycles_are_impossible(registry: SqlRegistry) -> None:
    tell(registry, bred("a", "a"), bred("b", "a"), bred("c", "b"), bred("a", "c", "d"), bred("d", "c"))
    assert registry.show(d("a")).parents == (d("d"),)  # "d" was not known to descend from "a" yet
    assert registry.show(d("d")).parents == ()
    assert set(registry.lineage(d("c")).members) == {d(n) for n in "abcd"}
    assert registry.lineage(d("c")).members[d("d")].operator == "linear"


def test_bytes_bred_twice_keep_the_first_name_and_all_parents(registry: SqlRegistry) -> None:
    tell(registry, bred("a"), bred("b"), bred("x", "a"), bred("x", "b", "a", name="y"))
    assert registry.show(d("x")).name == "x"
    assert registry.show(d("x")).parents == (d("a"), d("b"))


def test_an_outsider_that_is_bred_here_later_gets_its_birth(registry: SqlRegistry) -> None:
    tell(registry, judged("x"), bred("x", "a", generation=1))
    assert (registry.show(d("x")).operator, registry.show(d("x")).generation) == ("linear", 1)


def test_an_alias_moves_and_goes_back(registry: SqlRegistry) -> None:
    assert registry.alias("champion") is None
    assert registry.rollback_target("champion") is None
    tell(registry, moved("promoted", "a", "base"))
    assert registry.rollback_target("champion") == d("base")
    tell(registry, moved("promoted", "b", "a"), moved("held", "b", "b", reason="same"), moved("promoted", "c", "b"))
    assert registry.alias("champion") == d("c")
    assert registry.rollback_target("champion") == d("b")
    tell(registry, moved("rolled_back", "b", "c"))
    assert registry.aliases() == {"champion": d("b")}
    assert registry.rollback_target("champion") == d("a")
    tell(registry, moved("promoted", "d", "b"), revoked("b"))
    assert registry.rollback_target("champion") == d("a")  # the quarantined one is passed over
    tell(registry, moved("rolled_back", "a", "d"), moved("rolled_back", "base", "a"))
    assert registry.rollback_target("champion") is None
    assert [(m.kind, m.subject) for m in registry.history("champion")][:3] == [
        ("promoted", d("a")),
        ("promoted", d("b")),
        ("held", d("b")),
    ]
    assert registry.history("challenger") == ()


def test_people_name_adapters_as_they_like(registry: SqlRegistry) -> None:
    tell(registry, *FAMILY, fact("bred", **{**FAMILY[0].body, "digest": d("a2")}), moved("promoted", "ab"))
    assert registry.resolve("champion") == d("ab")
    assert registry.resolve("ba") == d("ba")
    assert registry.resolve("a") == d("a2")  # the last of that name
    assert registry.resolve(d("a")) == d("a")
    assert registry.resolve(d("a")[7:15]) == d("a")
    for nothing in ("sha256:", "", "zzzz", d("nobody"), d("a")[7:9]):
        with pytest.raises(ConfigError):
            registry.resolve(nothing)


NAMES = st.sampled_from("abcdefg")
TIMES = st.sampled_from("12")  # few, so that equal facts come up
FACTS = st.one_of(
    st.builds(lambda n, ps, t: bred(n, *ps, at=t), NAMES, st.lists(NAMES, max_size=3), TIMES),
    st.builds(lambda n, o, t: judged(n, o, at=t), NAMES, st.sampled_from(["pass", "deny"]), TIMES),
    st.builds(lambda k, n, t: moved(k, n, at=t), st.sampled_from(["promoted", "held", "rolled_back"]), NAMES, TIMES),
    st.builds(lambda n, b, t: fact("signed", at=t, digest=d(n), keyid=n, development=b), NAMES, st.booleans(), TIMES),
    st.builds(lambda n, t: fact("revoked", at=t, digest=d(n), reason=t), NAMES, TIMES),
    st.builds(lambda n: fact("ranked", at="1", run=d(n), order=[d(n)], front=[]), NAMES),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(FACTS, max_size=25), st.data())
def test_rebuilt_equals_grown_and_twice_equals_once(events: list[Event], data: st.DataObject) -> None:
    grown, rebuilt, twice, followed = (SqlRegistry("sqlite://") for _ in range(4))
    tell(grown, *events)
    assert rebuilt.rebuild(events) == len(events)
    assert rebuilt.facts() == grown.facts()
    for event in events:
        tell(twice, event, event)
    tell(twice, *events)
    assert twice.facts() == grown.facts()
    log = ListLog(())
    for cut in [*sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3))), len(events)]:
        log.events = tuple(events[:cut])
        followed.follow(log)
    assert followed.facts() == grown.facts()
    grown.verify(ListLog(events))
    for digest in {str(e.body.get("digest")) for e in events if e.kind == "bred"}:
        lineage = grown.lineage(digest)
        assert lineage.roots  # ends, so there is no cycle
        ancestors = set(lineage.members)
        assert all(set(grown.lineage(p).members) < ancestors for p in lineage.members[digest].parents)
    banned = grown.revoked()
    for known in grown.list():
        inherited = known.digest in banned or not any(p in banned for p in known.parents)
        assert inherited


class ListLog:
    def __init__(self, events: Sequence[Event]) -> None:
        self.events = tuple(events)

    def events_since(self, start: int) -> Iterable[Event]:
        return self.events[start:]


def test_follow_takes_in_what_a_crash_left_behind(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ecology.db"
    log, registry = SqlAuditLog(url, SIGNER), SqlRegistry(url)
    assert registry.follow(log) == 0
    log.append_all(FAMILY[:3])
    assert registry.follow(log) == 3
    log.append(FAMILY[3])
    registry.apply(FAMILY[3])
    log.append_all([FAMILY[3], FAMILY[4]])
    assert registry.follow(log) == 3
    assert registry.follow(log) == 0
    registry.verify(log)
    assert len(registry.list()) == 5


WRITER = """
import sys
from pathlib import Path
from ecology.audit.log import SqlAuditLog
from ecology.contracts.promotion import Event
from ecology.registry.registry import SqlRegistry
from ecology.signer.keys import LocalSigner
home, who = Path(sys.argv[1]), sys.argv[2]
url = f"sqlite:///{home}/ecology.db"
registry, log = SqlRegistry(url), SqlAuditLog(url, LocalSigner.open(home))
for n in range(6):
    body = {"alias": "champion", "subject": f"{who}-{n}", "previous": ""}
    log.append(Event("promoted", "2026-01-02T03:04:05Z", body))
    registry.follow(log)
"""


def test_several_processes_leave_the_view_of_the_log(tmp_path: Path) -> None:
    runs = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(who)]) for who in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    url = f"sqlite:///{tmp_path}/ecology.db"
    events = SqlAuditLog(url).events()
    registry = SqlRegistry(url)
    assert len(registry.history("champion")) == len(events) == 18
    assert registry.alias("champion") == events[-1].body["subject"]
    registry.verify(SqlAuditLog(url))


def test_an_alias_moved_by_hand_is_found_out_and_mended(tmp_path: Path) -> None:
    registry = SqlRegistry(f"sqlite:///{tmp_path}/ecology.db")
    events = [*FAMILY, moved("promoted", "ab")]
    log = ListLog(events)
    registry.follow(log)
    registry.verify(log)
    connection = sqlite3.connect(tmp_path / "ecology.db")
    connection.execute("UPDATE registry_aliases SET subject = ?", (d("evil"),))
    connection.commit()
    connection.close()
    with pytest.raises(IntegrityError, match="rebuild"):
        registry.verify(log)
    registry.rebuild(events)
    assert registry.alias("champion") == d("ab")
    registry.verify(log)


def test_a_fact_that_was_logged_and_not_taken_in_yet_is_no_damage(tmp_path: Path) -> None:
    registry = SqlRegistry(f"sqlite:///{tmp_path}/ecology.db")
    registry.follow(ListLog(FAMILY[:3]))
    registry.verify(ListLog(FAMILY[:4]))  # as a reader sees it while a run writes
    assert registry.facts() == rebuilt(FAMILY[:4]).facts()


def rebuilt(events: Sequence[Event]) -> SqlRegistry:
    registry = SqlRegistry("sqlite://")
    registry.rebuild(events)
    return registry


@pytest.mark.parametrize("kind", KINDS)
def test_malformed_facts_are_refused_before_they_are_logged(kind: str, registry: SqlRegistry) -> None:
    whole = {
        "run_started": fact("run_started", run=d("run"), name="quickstart"),
        "bred": FAMILY[2],
        "signed": fact("signed", digest=d("a"), keyid="k", development=True),
        "judged": judged("a"),
        "promoted": moved("promoted", "a"),
        "held": moved("held", "a"),
        "rolled_back": moved("rolled_back", "a"),
        "revoked": revoked("a"),
        "breeding_approved": fact("breeding_approved", digest=d("a"), envelope="{}"),
        "stopped": fact("stopped", reason="smoke"),
        "resumed": fact("resumed", reason="found it"),
    }[kind]
    check_event(whole)
    for key in KINDS[kind]:
        without = Event(kind, "t", {k: v for k, v in whole.body.items() if k != key})
        for broken in (without, Event(kind, "t", {**whole.body, key: {}}), Event(kind, "t", {**whole.body, key: None})):
            with pytest.raises(ConfigError):
                check_event(broken)
            with pytest.raises(ConfigError):
                registry.apply(broken)
            with pytest.raises(IntegrityError, match="event 1 of the log"):
                registry.rebuild([whole, broken])
    assert registry.list() == ()  # nothing of a failed rebuild stays


def test_more_malformed_facts() -> None:
    with pytest.raises(ConfigError):
        check_event(bred("a", parents=[3]))
    with pytest.raises(ConfigError):
        check_event(bred("a", generation=True))
    with pytest.raises(ConfigError):
        check_event(fact("revoked", digest="", reason="x"))
    check_event(bred("a", parents=(d("b"),)))
    check_event(fact("something new", anything=1))


def test_a_damaged_database_is_told_from_one_out_of_reach(tmp_path: Path) -> None:
    (tmp_path / "noise.db").write_bytes(b"this is not a database, and it is long enough to be sure of that" * 20)
    for opened in (
        lambda: SqlRegistry(f"sqlite:///{tmp_path}/noise.db"),
        lambda: SqlAuditLog(f"sqlite:///{tmp_path}/noise.db", SIGNER),
        lambda: quarantined(tmp_path / "noise.db"),
    ):
        with pytest.raises(IntegrityError, match="from a backup") as caught:
            opened()
        assert "rebuild a registry" in str(caught.value)
        assert "ecology registry rebuild" not in str(caught.value)  # the log that it reads is in this file
    with pytest.raises(ConfigError):
        SqlRegistry(f"sqlite:///{tmp_path}")
    with pytest.raises(ConfigError):
        SqlRegistry("nonsense")


@pytest.mark.parametrize("findings", ["", "{", "7", "[7]", "null"])
def test_a_damaged_row_is_said_to_be_and_rebuilt(findings: str, tmp_path: Path) -> None:
    """The log is whole, so here a rebuild helps."""
    url, body = f"sqlite:///{tmp_path}/r.db", {"digest": d("a"), "policy": d("p"), "outcome": "deny", "rung": ""}
    events = [bred("a"), fact("judged", **body, run="", scope="full", findings=[{"rule": "R", "outcome": "deny"}])]
    registry = SqlRegistry(url)
    registry.rebuild(events)
    with sqlite3.connect(tmp_path / "r.db") as connection:
        connection.execute("UPDATE registry_verdicts SET findings = ?", (findings,))
    with pytest.raises(IntegrityError, match="ecology registry rebuild"):
        registry.show(d("a"))
    registry.rebuild(events)
    assert registry.show(d("a")).verdicts[0].findings == ({"rule": "R", "outcome": "deny"},)
