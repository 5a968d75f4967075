"""A run that is killed at a point where it hurts ends, when it is run again, as if nobody had killed it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecology.pipeline.house import open_house

pytestmark = pytest.mark.slow

POINTS = (
    "mid-finetune",
    "mid-write in the store",
    "between sign and register",
    "mid-evaluation",
    "between promotion event and alias move",
    "mid-canary",
    "mid-report",
)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(
    point: str, order: Callable[..., Any], keyed: Path, undisturbed: Any, resumes: Any, tmp_path: Path
) -> None:
    home = shutil.copytree(keyed, tmp_path / "home")
    killed = order(tmp_path, home, point=point)
    assert killed.code == -signal.SIGKILL, killed.stderr
    resumes(tmp_path, home)


def test_between_event_and_alias_the_log_is_ahead_and_readers_see_what_it_says(
    order: Callable[..., Any], keyed: Path, undisturbed: Any, tmp_path: Path
) -> None:
    home = shutil.copytree(keyed, tmp_path / "home")
    killed = order(tmp_path, home, point="between promotion event and alias move")
    assert killed.code == -signal.SIGKILL
    shown = order(tmp_path, home, ("registry", "list"))
    assert shown.code == 0
    assert "champion" in shown.stdout
    assert open_house(str(home), quiet=True).registry.alias("champion") is not None
