"""``ecology registry``: what is said of what is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ecology.cli import main
from ecology.kernel.canonical import digest
from ecology.pipeline.house import House, open_house
from ecology.store.adapters import write_adapter

POLICY, RUN, OUTSIDER = (digest(name) for name in ("policy", "run", "outsider"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return open_house(str(tmp_path / "home"), quiet=True)


def judged(house: House, subject: str, name: str) -> None:
    words = {"digest": subject, "name": name, "policy": POLICY, "run": RUN, "attempt": "1"}
    house.record("judged", {**words, "outcome": "deny", "rung": "static", "scope": "full", "findings": []})


def shown(house: House, capsys: pytest.CaptureFixture[str], name: str) -> dict[str, object]:
    assert main(["registry", "show", name, "--home", str(house.home)]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_one_from_outside_that_was_judged_is_shown_with_its_verdicts(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    judged(house, OUTSIDER, "outsider")
    found = shown(house, capsys, "outsider")
    assert found["claims"] == "none held"
    (verdict,) = found["verdicts"]  # type: ignore[misc, attr-defined]
    assert (verdict["outcome"], verdict["rung"]) == ("deny", "static")


def test_of_a_stored_one_the_claims_are_counted(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_adapter(tmp_path / "a", {"m": (np.ones((3, 1)), np.ones((1, 4)))}, "b", "sha256:" + "0" * 64)
    held = house.store.put(tmp_path / "a")
    judged(house, held.digest, "a")
    assert shown(house, capsys, "a")["claims"] == 0
    house.store.add_claims(held.digest, ["{}"])
    assert shown(house, capsys, "a")["claims"] == 1
