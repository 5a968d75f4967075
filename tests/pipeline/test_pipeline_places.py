"""Shipped names, paths, and the home."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecology.errors import ConfigError
from ecology.pipeline.places import home, shared, subject


def test_a_bare_name_is_the_shipped_one_even_beside_a_namesake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "release").write_text("not this one")
    monkeypatch.chdir(tmp_path)
    assert subject("release", "policies", ".yaml") == shared("policies", "release.yaml")
    assert subject("./release", "policies", ".yaml") == Path("release")


@pytest.mark.parametrize("text", ["nothing", "../policies", "a/b", ""])
def test_what_is_not_there_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        subject(text, "policies", ".yaml")


def test_unknown_names_list_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="release, reproduction") as caught:
        subject("relaese", "policies", ".yaml")
    assert "_test" not in str(caught.value)
    with pytest.raises(ConfigError, match="shipped ones: outsider; or"):
        subject("insider", "examples")  # what else lies there is no adapter


def test_home_is_made_private_and_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECOLOGY_HOME", str(tmp_path / "a"))
    assert home() == tmp_path / "a"
    assert home(str(tmp_path / "b")) == tmp_path / "b"
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="ECOLOGY_HOME"):
        home(str(tmp_path / "file"))
