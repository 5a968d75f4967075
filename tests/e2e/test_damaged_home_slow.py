"""A home whose small files were cut short: what can be computed again is, and what cannot is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ecology.errors import EXIT_INTEGRITY, EXIT_OK
from tests.e2e.conftest import Done, Order, essence, reports

pytestmark = pytest.mark.slow


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_every_note_cut_short_is_computed_again(order: Order, undisturbed: tuple[Path, Done], tmp_path: Path) -> None:
    whole = undisturbed[0]
    shutil.copytree(whole / "home", tmp_path / "home")
    notes = [path for path in (tmp_path / "home" / "notes").glob("*/*") if path.is_file()]
    assert {"recipe", "liveness", "resources", "canary", "verdict"} <= {path.parent.name for path in notes}
    for path in notes:
        cut(path)
    done = order(tmp_path, tmp_path / "home")
    assert done.code == EXIT_OK, done.stderr
    ((first,), (again,)) = reports(whole), reports(tmp_path)
    same = [essence(one)["candidates"] for one in (first, again)]
    assert [(c["name"], c["digest"], c["outcomes"]) for c in same[0]] == [
        (c["name"], c["digest"], c["outcomes"]) for c in same[1]
    ]
    assert again["decision"]["decision"] == "held"


def test_an_archive_cut_short_is_named_and_nothing_is_lost(
    order: Order, undisturbed: tuple[Path, Done], tmp_path: Path
) -> None:
    shutil.copytree(undisturbed[0] / "home", tmp_path / "home")
    archive = tmp_path / "home" / "archive.json"
    whole = archive.read_bytes()
    cut(archive)
    done = order(tmp_path, tmp_path / "home")
    assert done.code == EXIT_INTEGRITY
    assert f"{archive}: this file is damaged" in done.stderr
    assert "restore it from a backup" in done.stderr
    archive.write_bytes(whole)  # as it says: and the attempt goes on
    assert order(tmp_path, tmp_path / "home").code == EXIT_OK
