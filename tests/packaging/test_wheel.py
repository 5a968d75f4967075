"""An installed wheel outside the checkout finds what it ships; so does the editable install that runs these tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and unpacked in a folder with a space in its name."""
    where = tmp_path_factory.mktemp("wheel here")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    common = ["--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "wheel", *common, "--wheel-dir", str(where), str(ROOT)], check=True, capture_output=True)
    (wheel,) = where.glob("tiny_ecology-*.whl")
    subprocess.run(
        [*pip, "install", *common, "--target", str(where / "site"), str(wheel)], check=True, capture_output=True
    )
    return where / "site"


def run(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    call = f"from ecology.cli import main; sys.exit(main({list(arguments)!r}))"
    code = f"import sys; sys.path.insert(0, {str(site)!r}); {call}"
    env = {**os.environ, "ECOLOGY_HOME": str(cwd / "home"), "PYTHONPATH": ""}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_wheel_finds_suites_policies_and_configuration(installed: Path, tmp_path: Path) -> None:
    for folder in ("conf", "policies", "suites", "corpora", "examples"):
        assert (installed / "ecology" / "_share" / folder).is_dir(), folder
    listed = run(installed, tmp_path, "suite", "list")
    assert listed.returncode == 0, listed.stderr
    assert "orders" in listed.stdout
    assert run(installed, tmp_path, "policy", "test", "release").returncode == 0
    mistaken = run(installed, tmp_path, "run", "breeder=[tise]")
    assert mistaken.returncode == 2
    assert "ties" in mistaken.stderr


def test_the_wheel_gates_with_what_it_ships(installed: Path, tmp_path: Path) -> None:
    gated = run(installed, tmp_path, "gate", "outsider", "--static")
    assert gated.returncode == 1  # a path is asked for, and there is none here
    shipped = installed / "ecology" / "_share" / "examples" / "outsider"
    gated = run(installed, tmp_path, "gate", str(shipped), "--static")
    assert gated.returncode == 1
    assert "STA-006" in gated.stdout
