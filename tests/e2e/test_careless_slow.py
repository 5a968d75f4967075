"""Every mistake of the table, through the command line: what, where and how to mend it, and nothing half-written."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

_SPEC = importlib.util.spec_from_file_location("careless", Path(__file__).with_name("careless.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
careless = importlib.util.module_from_spec(_SPEC)
sys.modules["careless"] = careless
_SPEC.loader.exec_module(careless)


def test_the_table_is_long_enough_and_says_everything_once() -> None:
    assert len(careless.CASES) >= 60
    assert len({case.id for case in careless.CASES}) == len(careless.CASES)


@pytest.mark.parametrize("case", careless.CASES, ids=[case.id for case in careless.CASES])
def test_mistake(case: Any, order: Callable[..., Any], tmp_path: Path) -> None:
    case.setup(tmp_path)
    before = {path for path in tmp_path.rglob("*")}
    said = tmp_path.with_name(f"{tmp_path.name}-said")
    done = order(tmp_path, tmp_path / "home", case.arguments, said=str(said), **case.how)
    told = done.stderr + done.stdout if case.code == 1 else done.stderr
    assert done.code == case.code, told
    for words in case.says:
        assert words in told
    assert "Traceback" not in told
    assert "bug of ours" not in told
    if case.how.get("powerless"):
        tmp_path.chmod(0o755)
    fresh = {path for path in tmp_path.rglob("*")} - before
    assert [path for path in fresh if path.suffix == ".tmp" or path.name.startswith(".incoming")] == []
    if case.code == 2:
        assert not list(tmp_path.glob("outputs/*/*/report*"))
    assert not Path("/elsewhere").exists()
