"""The home's secret seed and its facts."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from ecology.errors import IntegrityError
from ecology.kernel.canonical import digest
from ecology.pipeline.house import House, open_house
from ecology.telemetry.journal import EVENTS_FILE, FileJournal


@pytest.fixture
def house(tmp_path: Path) -> House:
    return open_house(str(tmp_path / "home"), quiet=True)


def test_the_seed_is_secret_lasting_and_committed_to(house: House) -> None:
    path = house.home / "keys" / "hidden_items.seed"
    seed, commitment = house.secret_seed, house.seed_commitment
    assert path.stat().st_mode & 0o077 == 0
    again = open_house(str(house.home), quiet=True)
    assert (again.secret_seed, again.seed_commitment) == (seed, commitment)
    assert seed.hex() not in commitment


def test_splits_and_suites_have_unrelated_seeds(house: House, tmp_path: Path) -> None:
    seeds = {house.split_seed(digest(suite), split) for suite in "ab" for split in ("hidden", "fresh")}
    assert len(seeds) == 4
    assert open_house(str(tmp_path / "other"), quiet=True).split_seed(digest("a"), "hidden") not in seeds


def test_a_damaged_seed_is_an_integrity_error(house: House) -> None:
    assert house.secret_seed
    (house.home / "keys" / "hidden_items.seed").write_text("short")
    with pytest.raises(IntegrityError, match="seed"):
        _ = open_house(str(house.home), quiet=True).secret_seed


def test_drafts_of_processes_that_are_gone_are_tidied_and_no_others(house: House) -> None:
    """A key is written under a name of its own first, so a kill may leave the key itself under a second name."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert house.secret_seed
    assert house.signer.keyid
    keys = {path.name for path in (house.home / "keys").iterdir()}
    left, writing = [], []
    for name in ("keys/.development.pem", "keys/.hidden_items.seed", "notes/x/.a.json", "bases/toy-1/.manifest.json"):
        for pid, found in ((gone.pid, left), (os.getpid(), writing)):
            path = house.home / f"{name}.{pid}.0a1b2c3d.tmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("half")
            found.append(path)
    house.tidy()
    assert [path for path in left if path.exists()] == []
    assert all(path.exists() for path in writing)
    assert keys <= {path.name for path in (house.home / "keys").iterdir()}


@pytest.mark.parametrize("name", ["development.pem", "hidden_items.seed"])
def test_a_kill_before_a_key_has_its_name_leaves_a_draft_that_is_tidied(name: str, house: House) -> None:
    """The real writer, killed between its draft and the link."""
    script = (
        "import os, signal, sys\n"
        "from ecology.pipeline.house import open_house\n"
        "link = os.link\n"
        "def killed(draft, path):\n"
        f"    os.kill(os.getpid(), signal.SIGKILL) if path.name == {name!r} else link(draft, path)\n"
        "os.link = killed\n"
        "house = open_house(sys.argv[1], quiet=True)\n"
        "house.signer.keyid, house.secret_seed\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(house.home)], check=False)
    assert done.returncode == -signal.SIGKILL
    (draft,) = (house.home / "keys").glob(".*")
    assert draft.stat().st_mode & 0o077 == 0
    house.tidy()
    assert not draft.exists()
    assert not (house.home / "keys" / name).exists()


def test_lasting_facts_are_recorded_once_and_moves_every_time(house: House) -> None:
    ranked = {"run": "r", "order": [], "front": []}
    for _ in range(2):
        house.record("ranked", ranked)
        house.record("run_started", {"run": "r", "name": "n"})
    other = open_house(str(house.home), quiet=True)
    other.record("ranked", ranked)
    assert [event.kind for event in house.log.events()] == ["ranked", "run_started", "run_started"]


def test_two_writers_record_one_fact_once(house: House) -> None:
    houses = [open_house(str(house.home), quiet=True) for _ in range(4)]
    _ = house.signer  # made before, so that the threads race for the fact alone
    threads = [threading.Thread(target=h.record, args=("seed_committed", {"commitment": "c"})) for h in houses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(house.log.events()) == 1
    house.log.verify()


def test_notes_are_kept_by_what_they_came_from(house: House) -> None:
    key = digest("something")
    assert house.recall("kind", key, Mapping[str, int]) is None
    house.remember("kind", key, {"a": 1})
    assert house.recall("kind", key, Mapping[str, int]) == {"a": 1}
    assert house.recall("other", key, Mapping[str, int]) is None


WHOLE = b'{"moved":null,"started_at":"2026-01-01T00:00:00Z"}'
DAMAGED = (
    b"",
    b"\0" * 64,
    WHOLE[:20],
    WHOLE + b"}",
    b"null",
    b"[]",
    b"7",
    b"NaN",
    b'{"a":1,"a":1}',
    b"[" * 20_000,
    b"\xff",
)


@dataclasses.dataclass(frozen=True)
class Kept:
    started_at: str
    moved: str | None = None


@pytest.mark.parametrize("data", DAMAGED, ids=lambda data: repr(data[:12]))
def test_a_damaged_note_is_as_good_as_none_unless_nothing_else_says_it(
    data: bytes, house: House, tmp_path: Path
) -> None:
    key = digest("something")
    told = dataclasses.replace(house, journal=FileJournal(tmp_path, house.clock))
    told.remember("kind", key, Kept("2026-01-01T00:00:00Z"))
    (path,) = (house.home / "notes" / "kind").iterdir()
    assert path.read_bytes() == WHOLE
    path.write_bytes(data)
    assert told.recall("kind", key, Kept) is None
    assert "note_damaged" in (tmp_path / EVENTS_FILE).read_text("utf-8")
    with pytest.raises(IntegrityError, match=f"{path.name}: this file is damaged: .*; ask somebody"):
        told.recall("kind", key, Kept, "ask somebody")
