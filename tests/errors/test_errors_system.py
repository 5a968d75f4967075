"""What the system refuses, in our words."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from ecology.errors import BackendError, ConfigError, from_system


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (errno.ENOSPC, BackendError, "no room"),
        (errno.EDQUOT, BackendError, "no room"),
        (errno.EFBIG, BackendError, "no room"),
        (errno.EIO, BackendError, "gave out"),
        (errno.EACCES, ConfigError, "may not be read or written"),
        (errno.EROFS, ConfigError, "may not be read or written"),
        (errno.ENOENT, ConfigError, "not what is needed"),
    ],
)
def test_an_errno(code: int, kind: type, says: str) -> None:
    found = from_system(OSError(code, "why", "/some/file"))
    assert type(found) is kind
    assert says in str(found)
    assert "/some/file" in str(found)


def test_what_is_no_fault_of_the_system_is_a_bug() -> None:
    assert from_system(ValueError("x")) is None
    assert isinstance(from_system(ValueError("I/O error: No space left on device (os error 28)")), BackendError)
    assert from_system(OSError("x")) is None
    assert from_system(sqlite3.IntegrityError("x")) is None
    assert isinstance(from_system(MemoryError()), BackendError)


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error) as caught:
        sqlite3.connect(tmp_path / "missing" / "x.sqlite").execute("SELECT 1")
    found = from_system(caught.value, "x.sqlite")
    assert isinstance(found, ConfigError)
    assert "x.sqlite" in str(found)
