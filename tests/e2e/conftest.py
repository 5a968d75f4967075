"""A home with keys, a process that makes runs quickly, and what two runs must have in common."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ecology.pipeline.house import open_house

HERE = Path(__file__).parent
SMALL = ("run", "experiment=small", "--config-dir", str(HERE / "small"))
TIMED = ("resource.", "canary.latency")
"""Metrics that depend on how busy the machine is."""


@dataclasses.dataclass(frozen=True)
class Done:
    """How one command ended."""

    code: int
    """Exit code, or minus the signal."""
    seconds: float
    stdout: str
    stderr: str


class Zygote:
    """Runs commands, each in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.mounts: bool = json.loads(self._line())["mounts"]
        """Whether it may mount small disks."""

    def __call__(self, cwd: Path, home: Path, arguments: tuple[str, ...] = SMALL, **how: Any) -> Done:
        (done,) = self.together([self.words(cwd, home, arguments, **how)])
        return done

    def words(self, cwd: Path, home: Path, arguments: tuple[str, ...] = SMALL, **how: Any) -> dict[str, Any]:
        """One order; ``zygote.py`` says what it may hold."""
        cwd.mkdir(parents=True, exist_ok=True)
        return {"cwd": str(cwd), "home": str(home), "arguments": list(arguments), "said": str(cwd / "said"), **how}

    def together(self, orders: list[dict[str, Any]]) -> list[Done]:
        """Runs all of them at once."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(orders) + "\n")
        self.process.stdin.flush()
        return [Done(**one) for one in json.loads(self._line())]

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


Order = Zygote


@pytest.fixture(scope="session")
def order() -> Iterator[Zygote]:
    """``order(cwd, home, arguments, point=..., after_s=...)`` runs one command in a process of its own."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "zygote.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    ) as process:
        yield Zygote(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that has a key and a secret seed and nothing else: copies of it ask the same hidden items."""
    house = open_house(str(tmp_path_factory.mktemp("keyed")), quiet=True)
    assert house.signer.keyid
    assert house.secret_seed
    return house.home


@pytest.fixture(scope="session")
def undisturbed(order: Order, keyed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """Folder of a run that nobody killed, and how long it took; its home lies beside."""
    where = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(keyed, where / "home")
    done = order(where, where / "home")
    assert done.code == 0, done.stderr
    return where, done


def reports(where: Path) -> list[dict[str, Any]]:
    """Reports of the runs in a folder, oldest first."""
    return [json.loads(path.read_bytes()) for path in sorted(where.glob("outputs/*/*/report.json"))]


def essence(report: dict[str, Any]) -> dict[str, Any]:
    """What a run must come to, however often it was killed: everything but times, latencies and memory."""

    def quality(evidence: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [m for m in evidence if not m["metric"].startswith(TIMED)]

    canary = report["canary"] or {"observations": []}
    return {
        "run": report["run"],
        "decision": {key: report["decision"][key] for key in ("decision", "alias", "subject", "previous")},
        "candidates": [
            {
                "name": c["name"],
                "digest": c["digest"],
                "genome": c["genome"],
                "rung": c["rung"],
                "outcomes": {f["rule"]: f["outcome"] for f in quality(c["verdict"]["findings"])},
                "evidence": quality(c["evidence"]),
                "reference": quality(c["reference"]),
                "fitness": c["fitness"],
            }
            for c in report["candidates"]
        ],
        "canary": [(o["requests"], o["decision"], quality(o["measurements"])) for o in canary["observations"]],
        "base": quality(report["base_evidence"]),
    }


def facts(home: Path) -> list[tuple[str, str]]:
    """Kind and body of every fact without its times and latencies, in the order of the log."""
    found = []
    for event in open_house(str(home), quiet=True).log.events():
        body = json.loads(json.dumps(dict(event.body), default=list))
        for key in ("digest",) if event.kind == "report_written" else ("canary", "reason", "folder", "observation"):
            body.pop(key, None)  # these hold latencies, or the second the run began
        body.pop("folder", None)
        found.append((event.kind, json.dumps(body, sort_keys=True)))
    return found


@pytest.fixture
def resumes(order: Order, undisturbed: tuple[Path, Done]) -> Callable[..., None]:
    """``resumes(cwd, home)`` runs again what was killed there and compares all that is left with the other run."""

    def check(cwd: Path, home: Path, *, killed: bool = True) -> None:
        if (home / "registry.sqlite3").exists():
            verified = order(cwd, home, ("audit", "verify"))
            assert verified.code == 0, verified.stderr
        if killed:
            again = order(cwd, home)
            assert again.code == 0, again.stderr
        there, _ = undisturbed
        (wanted,), found = reports(there), reports(cwd)
        assert essence(found[-1]) == essence(wanted)
        ours, theirs = facts(home), facts(there / "home")
        assert len(ours) == len(set(ours)), "a fact was recorded twice"
        assert sorted(ours) == sorted(theirs)
        verified = order(cwd, home, ("audit", "verify"))
        assert verified.code == 0, verified.stderr
        left = [path.name for path in home.rglob("*") if path.name.startswith(".incoming-") or path.suffix == ".tmp"]
        assert left == []
        assert [path for path in (home / "work").glob("bred-*")] == []

    return check
