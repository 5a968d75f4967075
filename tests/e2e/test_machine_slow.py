"""The machine gives out: a disk that fills, a clock that goes back, a base that is half there; and several at once."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ecology.pipeline.house import open_house

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # a sweep takes a minute, and ten on a busy machine
ROOT = Path(__file__).parents[2]
PLAIN = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
SMALL = ("run", "experiment=small", "--config-dir", str(Path(__file__).parent / "small"))
DISKS = ("100k", "300k", "600k")
"""Sizes of disks that fill at different moments of a run."""
LIMITS = (2_000, 30_000)
"""Bytes that no file may exceed."""


@pytest.fixture
def home(keyed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(keyed, tmp_path / "home")


@pytest.mark.parametrize("size", DISKS)
def test_a_disk_that_fills_is_said_and_the_run_goes_on_when_there_is_room(
    size: str, order: Any, tmp_path: Path
) -> None:
    if not order.mounts:
        pytest.skip("this user may not mount a small disk")
    disk = tmp_path / "disk"
    full = order(tmp_path, disk / "home", SMALL, tmpfs=[str(disk), size])
    assert full.code in {2, 4}, full.stderr  # 2: SQLite says of a file that it cannot make that it cannot open it
    assert "Traceback" not in full.stderr
    assert "bug of ours" not in full.stderr
    again = order(tmp_path, disk / "home", SMALL, tmpfs=[str(disk), "64m"])
    assert again.code == 0, again.stderr
    verified = order(tmp_path, disk / "home", ("audit", "verify"))
    assert verified.code == 0, verified.stderr


@pytest.mark.parametrize("limit", LIMITS)
def test_a_file_that_may_not_grow_is_said(
    limit: int, order: Any, home: Path, tmp_path: Path, undisturbed: Any, resumes: Any
) -> None:
    done = order(tmp_path, home, SMALL, file_bytes=limit)
    assert done.code in {2, 4}, done.stderr
    assert "bug of ours" not in done.stderr
    assert "Traceback" not in done.stderr
    resumes(tmp_path, home)


def test_a_clock_that_goes_back_is_refused_until_somebody_says_it_is_right(
    order: Any, undisturbed: Any, tmp_path: Path
) -> None:
    home = shutil.copytree(undisturbed[0] / "home", tmp_path / "home")
    early = "2001-01-01T00:00:00Z"
    refused = order(tmp_path, home, SMALL, clock=early)
    assert refused.code == 2
    for words in ("clock was set back", early, "audit clock"):
        assert words in refused.stderr
    assert order(tmp_path, home, ("audit", "clock"), clock=early).code == 0
    back = order(tmp_path, home, ("registry", "rollback"), clock="2001-01-01T00:00:09Z")
    assert back.code == 0, back.stderr
    assert order(tmp_path, home, ("audit", "verify")).code == 0


def test_a_base_that_is_half_there_is_named_with_what_to_do(order: Any, undisturbed: Any, tmp_path: Path) -> None:
    home = shutil.copytree(undisturbed[0] / "home", tmp_path / "home")
    (weights,) = home.glob("bases/toy-*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    done = order(tmp_path, home, SMALL)
    assert done.code in {2, 3}, done.stderr
    assert "model.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_killed_download_left_is_swept_away(
    order: Any, home: Path, undisturbed: Any, resumes: Any, tmp_path: Path
) -> None:
    (place,) = (undisturbed[0] / "home").glob("bases/toy-*")
    left = home / "bases" / f".{place.name}.abcdef"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    resumes(tmp_path, home)
    assert not left.exists()


def test_the_same_plan_twice_at_once_is_made_once(order: Any, home: Path, undisturbed: Any, tmp_path: Path) -> None:
    done = order.together([order.words(tmp_path / name, home, SMALL) for name in ("a", "b")])
    assert [one.code for one in done] == [0, 0], [one.stderr for one in done]
    found = [json.loads(next((tmp_path / n).glob("outputs/*/*/report.json")).read_bytes()) for n in ("a", "b")]
    assert sorted(report["decision"]["decision"] for report in found) == ["held", "promoted"]
    assert found[0]["decision"]["subject"] == found[1]["decision"]["subject"]
    names = [[(c["name"], c["digest"]) for c in report["candidates"]] for report in found]
    assert names[0] == names[1]
    events = open_house(str(home), quiet=True).log.events()
    assert [event.kind for event in events].count("promoted") == 1
    assert [event.kind for event in events].count("bred") == 5
    assert order(tmp_path, home, ("audit", "verify")).code == 0


def test_two_plans_at_once_move_the_alias_one_after_the_other(order: Any, home: Path, tmp_path: Path) -> None:
    done = order.together([order.words(tmp_path / s, home, (*SMALL, f"seed={s}")) for s in ("1", "2")])
    assert {one.code for one in done} <= {0, 1}, [one.stderr for one in done]
    house = open_house(str(home), quiet=True)
    moves = [move for move in house.registry.history("champion") if move.kind == "promoted"]
    assert moves
    for before, after in itertools.pairwise(moves):
        assert after.previous == before.subject
    assert order(tmp_path, home, ("audit", "verify")).code == 0


def test_readers_work_while_a_run_writes(order: Any, home: Path, undisturbed: Any, tmp_path: Path) -> None:
    (old,) = undisturbed[0].glob("outputs/*/*")
    commands = [
        ("registry", "list"),
        ("audit", "verify"),
        ("report", "build", str(shutil.copytree(old, tmp_path / "old"))),
    ]
    readers = [
        order.words(tmp_path, home, commands[number % 3], delay_s=0.7 * number, said=str(tmp_path / f"said-{number}"))
        for number in range(12)
    ]
    writer, *others = order.together([order.words(tmp_path / "run", home, SMALL), *readers])
    assert writer.code == 0, writer.stderr
    assert [one.code for one in others] == [0] * len(readers), [one.stderr for one in others]


def test_what_a_run_tells(order: Any, undisturbed: Any, tmp_path: Path) -> None:
    home = shutil.copytree(undisturbed[0] / "home", tmp_path / "home")
    loud = order(tmp_path, home, ("--verbose", *SMALL))
    assert "stage_ended: stage gates" in loud.stderr
    assert undisturbed[1].stderr == ""
    assert "\x1b" not in loud.stderr + loud.stdout + undisturbed[1].stdout
    (folder,) = tmp_path.glob("outputs/*/*")
    told = [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]
    assert len((folder / "run.log").read_text("utf-8").splitlines()) == len(told)
    ended = {event["stage"]: event for event in told if event["event"] == "stage_ended"}
    stages = json.loads((folder / "report.json").read_bytes())["stages"]
    assert {stage["stage"] for stage in stages} == set(ended)
    assert all(stage["peak_memory_bytes"] > 2**20 for stage in stages)
    assert told[-1]["event"] == "job_ended"
    assert told[-1]["code"] == 0


def ecology(cwd: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ecology", "--quiet", "--home", str(home), *arguments],
        cwd=cwd,
        env={**PLAIN, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def test_a_sweep_of_several_processes_picks_once_and_resumes(order: Any, home: Path, tmp_path: Path) -> None:
    sweep = (
        *SMALL,
        "-m",
        "breeder=linear,tise,crossover",
        "seed=1,2",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    )
    done = ecology(tmp_path, home, *sweep)
    assert done.returncode == 2, done.stderr  # the worst of its jobs: two cannot run
    assert "did you mean 'ties'" in done.stderr
    (folder,) = tmp_path.glob("outputs/*/*")
    told = json.loads((folder / "sweep.json").read_bytes())
    assert [job["code"] for job in told["jobs"]] == [0, 0, 2, 2, 0, 0]
    assert [bool(job["error"]) for job in told["jobs"]] == [False, False, True, True, False, False]
    assert told["pick"]["decision"]["decision"] == "promoted"
    assert told["pick"]["fresh_score"] is not None
    decisions = [
        json.loads((folder / str(n) / "report.json").read_bytes())["decision"]["decision"] for n in (0, 1, 4, 5)
    ]
    assert decisions == ["none"] * 4
    house = open_house(str(home), quiet=True)
    kinds = [event.kind for event in house.log.events()]
    assert kinds.count("promoted") == 1
    assert kinds.count("report_written") == 5
    assert order(tmp_path, home, ("audit", "verify")).code == 0
    verified = order(tmp_path, home, ("report", "verify", str(folder)))
    assert verified.code == 0, verified.stdout + verified.stderr
    page = (folder / "sweep.html").read_text("utf-8")
    for words in ("What each operator", "Which gate stopped whom", "crossover", "seed=2"):
        assert words in page
    kept = {path: path.stat().st_mtime_ns for path in (home / "notes").glob("[rl]*/*.json")}
    again = ecology(tmp_path, home, *(word for word in sweep if "hydra" not in word))
    assert again.returncode == 2, again.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (folder / "sweep.html").exists()
    (folder / "sweep.html").write_text(page.replace("promoted", "demoted!"))
    assert order(tmp_path, home, ("report", "verify", str(folder))).code == 3


def test_a_sweep_that_was_killed_goes_on_and_repeats_nothing(order: Any, home: Path, tmp_path: Path) -> None:
    sweep = (*SMALL, "-m", "breeder=linear,crossover")
    killed = order(tmp_path, home, sweep, point="mid-canary")
    assert killed.code == -9
    kept = {path: path.stat().st_mtime_ns for path in (home / "notes").glob("[rlc]*/*.json")}
    assert kept
    again = order(tmp_path, home, sweep)
    assert again.code == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    events = [event.kind for event in open_house(str(home), quiet=True).log.events()]
    assert events.count("promoted") == 1
    assert order(tmp_path, home, ("audit", "verify")).code == 0


def test_a_job_whose_process_dies_is_reported_and_the_others_go_on(home: Path, tmp_path: Path) -> None:
    """The worker that trains with seed 2 is killed, twice; ``sitecustomize`` makes it so, in that worker only."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if any('loky' in word for word in sys.orig_argv):\n"
        "    import ecology.pipeline.main_job as m\n"
        "    real = m.JobTask.__call__\n"
        "    def call(self, job):\n"
        "        os.kill(os.getpid(), signal.SIGKILL) if job.settings.seed == 2 else None\n"
        "        return real(self, job)\n"
        "    m.JobTask.__call__ = call\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "ecology", "--quiet", "--home", str(home), *SMALL, "-m", "breeder=linear", "seed=1,2",
         "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        cwd=tmp_path,
        env={**PLAIN, "PYTHONPATH": f"{tmp_path / 'patch'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    (folder,) = tmp_path.glob("outputs/*/*")
    told = json.loads((folder / "sweep.json").read_bytes())
    assert [job["code"] for job in told["jobs"]] == [0, 4]
    assert "died" in told["jobs"][1]["error"]
    assert told["pick"]["decision"]["decision"] == "promoted"
