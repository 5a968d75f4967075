"""A run that is killed at any moment ends, when it is run again, as if nobody had killed it."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

MOMENTS = 20
_DRAW = random.Random(20)
SHARES = [(number + _DRAW.random()) / MOMENTS for number in range(MOMENTS)]
"""Shares of an undisturbed run's duration, one in each twentieth of it."""


@pytest.mark.parametrize("share", SHARES, ids=[f"{share:.0%}" for share in SHARES])
def test_killed_after(
    share: float, order: Callable[..., Any], keyed: Path, undisturbed: Any, resumes: Any, tmp_path: Path
) -> None:
    home = shutil.copytree(keyed, tmp_path / "home")
    killed = order(tmp_path, home, after_s=share * undisturbed[1].seconds)
    assert killed.code in {-signal.SIGKILL, 0}, killed.stderr  # 0: this machine was faster than the first time
    resumes(tmp_path, home, killed=killed.code != 0)


def test_killed_again_and_again(
    order: Callable[..., Any], keyed: Path, undisturbed: Any, resumes: Any, tmp_path: Path
) -> None:
    home = shutil.copytree(keyed, tmp_path / "home")
    for share in (0.2, 0.3, 0.4, 0.5):
        order(tmp_path, home, after_s=share * undisturbed[1].seconds)
    resumes(tmp_path, home)
