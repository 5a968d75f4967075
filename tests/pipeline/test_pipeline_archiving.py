"""The archive of a home: what joins it, and what is said where it is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecology.contracts.promotion import Fitness
from ecology.errors import IntegrityError
from ecology.kernel.canonical import digest
from ecology.pipeline.archiving import FILE, offer
from ecology.pipeline.house import House, open_house
from ecology.promotion.archive import archive_key
from ecology.promotion.fitness import fitness_spec

SPEC = fitness_spec(
    {
        "title": "T",
        "terms": {"quality": {"metric": "orders.exact", "summary": "rate", "split": "hidden", "weight": 1.0}},
    }
)
RUN = digest("run")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return open_house(str(tmp_path / "home"), quiet=True)


def test_what_was_ranked_joins_and_is_a_fact(house: House) -> None:
    offer((), SPEC, RUN, house)
    assert json.loads((house.home / FILE).read_bytes()) == []
    assert [event.kind for event in house.log.events()] == ["ranked"]


ENTRY = {"subject": digest("a"), "key": archive_key(SPEC), "objectives": {"quality": 1.0}, "run": RUN}
OTHER = {**ENTRY, "subject": digest("b"), "objectives": {"size": 1.0}}


@pytest.mark.parametrize(
    "text",
    ["", json.dumps([ENTRY])[:-9], "{}", "[7]", json.dumps([{**ENTRY, "objectives": []}]), json.dumps([ENTRY, OTHER])],
)
def test_a_damaged_archive_is_named_and_left_as_it_is(text: str, house: House) -> None:
    """What earlier runs found stands nowhere else: it is not written over."""
    path = house.home / FILE
    house.home.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(IntegrityError, match=r"archive\.json: this file is damaged: .*restore it from a backup"):
        offer((), SPEC, RUN, house)
    assert path.read_text() == text
    assert house.log.events() == ()


def test_the_entries_of_earlier_runs_stay(house: House) -> None:
    house.home.mkdir(exist_ok=True)
    (house.home / FILE).write_text(json.dumps([ENTRY]))
    offer((Fitness(digest("c"), None, (), False),), SPEC, RUN, house)  # nobody ranked joins
    assert [entry["subject"] for entry in json.loads((house.home / FILE).read_bytes())] == [ENTRY["subject"]]
