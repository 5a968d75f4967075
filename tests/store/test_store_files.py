"""Writing that is not torn, reading that is bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ecology.errors import MalformedArtifact
from ecology.store.files import MAX_JSON_DEPTH, parse_json, read_bounded, write_atomic


def test_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "file"
    path.parent.mkdir()
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


def test_failed_write_keeps_the_old_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_read_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", 5) == b"12345"
    with pytest.raises(MalformedArtifact, match="larger than 4 bytes"):
        read_bounded(tmp_path / "file", 4)
    with pytest.raises(MalformedArtifact, match="cannot be read"):
        read_bounded(tmp_path / "none", 4)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b'{"a":1,"a":2}',
        b"[NaN]",
        b"[Infinity]",
        b'["\\ud800"]',
        b'{"\\udfff":1}',
        b"\xff",
        b"1" * 5000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_json_with_two_readings_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedArtifact, match=r"^here: not well-formed JSON"):
        parse_json(text, "here")


def test_json_depth() -> None:
    assert parse_json(b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH, "here")
    with pytest.raises(MalformedArtifact, match="nested deeper"):
        parse_json(b"[" * (MAX_JSON_DEPTH + 2) + b"]" * (MAX_JSON_DEPTH + 2), "here")
