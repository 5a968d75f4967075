"""The home's secret seed and its facts."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ecology.errors import IntegrityError
from ecology.kernel.canonical import digest
from ecology.pipeline.house import House, open_house


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
    assert house.recall("kind", key) is None
    house.remember("kind", key, {"a": 1})
    assert house.recall("kind", key) == b'{"a":1}'
    assert house.recall("other", key) is None
