"""What docs/robustness.md says is tried, and how often, is what the tests try."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "robustness.md"


def load(name: str) -> ModuleType:
    """A module of this folder, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"counted_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def table() -> str:
    """The table as it should stand in the document."""
    careless, named = load("careless"), load("test_kill_named_slow")
    machine, moments = load("test_machine_slow"), load("test_kill_random_slow")
    rows = {
        "SIGKILL at a named point": len(named.POINTS),
        "SIGKILL at a moment drawn over the length of a run": len(moments.SHARES),
        "disks that fill, files that may not grow": len(machine.DISKS) + len(machine.LIMITS),
        "mistakes in configurations and command lines": len(careless.CONFIGURATION),
        "missing, malformed and unreadable files": len(careless.FILES),
        "homes, folders and installations that are not as they should be": len(careless.MACHINE),
        "configurations and documents that want something else": len(careless.HOSTILE),
        "files exchanged between planning and use": len(careless.SWAPPED),
    }
    lines = [f"| {what} | {count} |" for what, count in rows.items()]
    return "\n".join(["| what `make test-slow` tries through the command line | how many |", "|---|---|", *lines])


def test_the_document_has_the_counts_of_the_tests() -> None:
    assert table() in DOCUMENT.read_text("utf-8"), f"write into {DOCUMENT.name}:\n{table()}"


def test_every_point_has_a_name_that_the_zygote_knows() -> None:
    text = DOCUMENT.read_text("utf-8").replace("\n", " ")
    points = load("test_kill_named_slow").POINTS
    assert set(points) == set(load("zygote").POINTS)
    for point in points:
        assert point in text
