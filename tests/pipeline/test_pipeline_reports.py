"""``ecology report build``: never what would spoil a report that verifies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from ecology.cli import main
from ecology.contracts.run import RunReport
from ecology.report import bundle
from ecology.report.bundle import ENVELOPE, RENDERERS, REPORT, write_report
from tests.report.conftest import SIGNER, make_report

DRAWN = tuple(name for name in RENDERERS if name != REPORT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    write_report(make_report(), folder, SIGNER.sign)
    return folder


def contents(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_lost_or_spoilt_comes_back_as_it_was_signed(folder: Path) -> None:
    before = contents(folder)
    (folder / "report.md").unlink()
    (folder / "junit.xml").write_text("spoilt")
    assert main(["report", "build", str(folder)]) == 0
    assert contents(folder) == before


def redrawn(report: RunReport) -> bytes:
    return b"as another version draws " + report.run.encode()


@pytest.fixture
def another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of the program than the one that wrote the folder."""
    assert folder.exists()
    monkeypatch.setitem(bundle.RENDERERS, "report.md", redrawn)  # type: ignore[arg-type]


@pytest.mark.usefixtures("another")
def test_what_would_not_verify_any_more_is_not_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "junit.xml").unlink()
    before = contents(folder)
    assert main(["report", "build", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "report.md would not be as signed" in said
    assert "--out DIR" in said
    assert contents(folder) == before
    assert main(["report", "build", str(folder), "--out", str(folder)]) == 2
    assert contents(folder) == before


@pytest.mark.usefixtures("another")
def test_another_folder_takes_what_another_version_draws(folder: Path, tmp_path: Path) -> None:
    before, out = contents(folder), tmp_path / "new" / "place"
    assert main(["report", "build", str(folder), "--out", str(out)]) == 0
    assert set(contents(out)) == set(DRAWN)
    assert contents(out)["report.md"].startswith(b"as another version")
    assert contents(folder) == before


def test_a_changed_report_is_not_drawn_over_the_one_that_was_signed(folder: Path) -> None:
    report = dataclasses.replace(make_report(), name="another")
    (folder / REPORT).write_bytes(RENDERERS[REPORT](report))
    before = contents(folder)
    assert main(["report", "build", str(folder)]) == 2
    assert contents(folder) == before


def test_beside_no_signature_everything_is_written_and_beside_an_unreadable_one_nothing(folder: Path) -> None:
    before = contents(folder)
    (folder / ENVELOPE).write_text("{")
    (folder / "report.md").unlink()
    assert main(["report", "build", str(folder)]) == 2
    assert not (folder / "report.md").exists()
    (folder / ENVELOPE).unlink()
    assert main(["report", "build", str(folder)]) == 0
    assert (folder / "report.md").read_bytes() == before["report.md"]
