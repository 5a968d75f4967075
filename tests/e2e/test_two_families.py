"""Two families end in one child, through the real command line, and it passes or fails the gates on its merits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecology.errors import IncompatibleParents
from ecology.pipeline.breeding import breed_folders, told
from ecology.pipeline.house import open_house
from ecology.report.claims import claim_problems
from ecology.report.json_report import parse_report
from ecology.store.adapters import describe

TIMEOUT_S = 900
QUICK = (
    "population.founders.near.options.epochs=6",
    "population.founders.far.options.epochs=6",
    "breeder.distill.options.epochs=6",
    "breeder.recover.options.epochs=1",
    "evaluator.finalists=1",
    "evaluator.latency_pairs=2",
    "evaluator.public_items=8",
    "evaluator.hidden_items=16",
)
OVERLAY = """# @package _global_
defaults:
  - distill_two_families
claims:
  chat:
    adapters: [distill]
    task: arithmetic
    items: 8
    better_prompt: "{prompt} The number only."
    neighbour: puzzles
    neighbour_items: 8
    safety_items: 8
    elsewhere_items: 8
"""


def ecology(home: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command, as a shell would run it."""
    return subprocess.run(
        [sys.executable, "-m", "ecology", "--quiet", *arguments],
        cwd=cwd,
        env={**os.environ, "ECOLOGY_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


class Ran:
    """One finished run."""

    def __init__(self, where: Path) -> None:
        self.home, self.cwd = where / "home", where
        overlay = where / "conf" / "experiment"
        overlay.mkdir(parents=True)
        (overlay / "claimed.yaml").write_text(OVERLAY)
        self.done = ecology(self.home, where, "run", "--config-dir", "conf", "experiment=claimed", *QUICK)
        self.folder = next(iter(where.glob("outputs/*/*")), where)

    @property
    def report(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.folder / "report.json").read_bytes())
        return loaded

    def candidate(self, name: str) -> dict[str, Any]:
        return next(c for c in self.report["candidates"] if c["name"] == name)

    def stored(self, name: str) -> Path:
        return self.home / "store" / "artifacts" / self.candidate(name)["digest"].removeprefix("sha256:")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("families"))


def test_the_child_is_of_the_chosen_base_and_has_both_teachers(ran: Ran) -> None:
    assert ran.done.returncode in {0, 1}, ran.done.stderr  # on its merits
    near, far, child = (ran.candidate(name)["genome"] for name in ("near", "far", "distill"))
    assert near["identity"] != far["identity"]
    assert child["identity"] == near["identity"] == ran.report["identity"]
    assert child["lineage"]["parents"] == [ran.candidate(name)["digest"] for name in ("near", "far")]
    assert child["lineage"]["operator"] == "distill"
    assert set(child["lineage"]["learned"]["teachers_right"]) == {"near", "far"}
    again = ran.candidate("recover")["genome"]["lineage"]
    assert again["parents"] == [ran.candidate("distill")["digest"]]
    assert again["generation"] == 2


def test_every_gate_was_asked_of_it_like_of_any_other(ran: Ran) -> None:
    findings = {f["rule"]: f["outcome"] for f in ran.candidate("distill")["verdict"]["findings"]}
    assert {findings[rule] for rule in ("STA-005", "STA-006", "STA-008", "STA-009", "LIV-001")} == {"pass"}
    refused = {f["rule"]: f["outcome"] for f in ran.candidate("far")["verdict"]["findings"]}
    assert refused["STA-005"] == "deny"  # the teacher of the other family is none of this base


def test_its_lineage_is_verified_down_to_both_founders(ran: Ran) -> None:
    done = ecology(ran.home, ran.cwd, "registry", "lineage", ran.candidate("recover")["digest"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified down to the founders" in done.stdout
    assert ecology(ran.home, ran.cwd, "report", "verify", str(ran.folder)).returncode == 0


def test_one_seed_without_a_control_is_inconclusive(ran: Ran) -> None:
    (claim,) = ran.report["claims"]
    assert claim["standing"] in {"inconclusive", "not supported"}
    assert claim["evidence"]["seeds"][0]["subject"] == ran.candidate("distill")["digest"]
    assert "chat on arithmetic" in ran.done.stdout
    for name in ("report.html", "report.md"):
        assert "chat on arithmetic" in (ran.folder / name).read_text()
    (told,) = [m for m in ran.candidate("distill")["evidence"] if m["metric"] == "claim.missed"]
    assert told["caveat"] == claim["line"]


def test_a_claim_that_was_written_better_is_noticed(ran: Ran, tmp_path: Path) -> None:
    data = (ran.folder / "report.json").read_bytes()
    assert list(claim_problems(parse_report(data))) == []
    standing = ran.report["claims"][0]["standing"]
    forged = data.replace(f'"standing":"{standing}"'.encode(), b'"standing":"supported"')
    assert any("stored is another claim" in problem for problem in claim_problems(parse_report(forged)))


def test_breed_refuses_two_families_and_the_way_that_it_points_to_works(ran: Ran, tmp_path: Path) -> None:
    house = open_house(str(ran.home), quiet=True)
    parents = [ran.stored(name) for name in ("near", "far")]
    with pytest.raises(IncompatibleParents) as refused:
        breed_folders("linear", parents, [], out=tmp_path / "sum", base="toy", seed=0, house=house)
    assert "ecology breed distill" in refused.value.todo
    given = ["corpus=smalltalk", "epochs=2", "rank=2", "layers=0", "max_new_tokens=24"]
    child = tmp_path / "child"
    taught = breed_folders("distill", parents, given, out=child, base="toy", seed=0, house=house)
    assert any("teachers_right" in line for line in told(taught, "distill"))
    judged = ecology(
        ran.home, tmp_path, "gate", "child", "--base", "toy", "--policy", "toy", "--static", "--format", "json"
    )
    (one,) = json.loads(judged.stdout)
    static = {f["rule"]: f["outcome"] for f in one["verdict"]["findings"] if f["rule"].startswith("STA")}
    assert {rule for rule, outcome in static.items() if outcome != "pass"} == {"STA-007"}, static
    given = ["epochs=1", "max_new_tokens=24"]
    back = breed_folders("recover", [child], given, out=tmp_path / "back", base="toy", seed=0, house=house)
    assert back.genome.lineage.parents == (taught.artifact.digest,)
    with pytest.raises(IncompatibleParents, match="another base"):
        breed_folders("recover", [child], given, out=tmp_path / "no", base="taught", seed=0, house=house)


STEPS = 5
"""Between two checkpoints."""


def lesson(home: Path, cwd: Path, parents: list[str], out: str) -> subprocess.Popen[str]:
    """``ecology breed distill``, started."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "ecology", "--quiet", "breed", "distill", *parents, "--base", "toy", "--out", out,
            "corpus=smalltalk", "epochs=60", "rank=4", "layers=0", "max_new_tokens=16", f"checkpoint_steps={STEPS}",
        ],
        cwd=cwd,
        env={**os.environ, "ECOLOGY_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_lesson_that_is_killed_goes_on_and_ends_at_the_same_bytes(ran: Ran, tmp_path: Path) -> None:
    parents = [str(ran.stored(name)) for name in ("near", "far")]
    killed = lesson(ran.home, tmp_path, parents, "killed")
    try:
        notes = _until(lambda: list((ran.home / "work").glob("*/checkpoint.json")), killed)
    finally:
        killed.kill()
        killed.communicate()
    assert killed.returncode == -9
    (note,) = notes
    behind = len(json.loads(note.read_bytes())["history"])
    assert behind
    assert behind % STEPS == 0
    whole = lesson(shutil.copytree(ran.home, tmp_path / "elsewhere", ignore=_no_work), tmp_path, parents, "whole")
    again = lesson(ran.home, tmp_path, parents, "again")
    said = [process.communicate(timeout=TIMEOUT_S) for process in (again, whole)]
    assert [again.returncode, whole.returncode] == [0, 0], said
    assert describe(tmp_path / "again") == describe(tmp_path / "whole")
    assert not note.exists()  # nothing is left of the work


def _until(found: Callable[[], list[Path]], process: subprocess.Popen[str]) -> list[Path]:
    """What is found, once it is and while the process is alive."""
    while process.poll() is None:
        if files := found():
            return files
        time.sleep(0.02)
    raise AssertionError(f"it ended before it was killed: {process.communicate()}")


def _no_work(folder: str, names: list[str]) -> set[str]:
    return {"work"} & set(names)
