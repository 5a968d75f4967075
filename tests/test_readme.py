"""README, help and shipped files say the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_help_in_the_readme_is_the_help_of_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ecology", "--help"],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() in README


def test_the_conformance_table_of_the_readme_is_that_of_its_page() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text("utf-8")
    table = page.split("## In short")[1].split("## Ours")[0].strip()
    assert table.count("\n") > 15
    assert table in README


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, ecology.cli; ecology.cli.build_parser(); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    for name in ("torch", "transformers", "hydra", "numpy", "sqlalchemy", "pydantic", "yaml"):
        assert f"'{name}'" not in done.stdout


def test_the_static_gate_imports_neither_engine_nor_database(tmp_path: Path) -> None:
    code = (
        "import sys; from ecology.cli import main; "
        f"main(['--home', {str(tmp_path)!r}, 'gate', 'examples/outsider', '--static', '--format', 'json']); "
        "print([n for n in ('torch', 'transformers', 'peft', 'hydra', 'sqlalchemy', 'sigstore') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_options_before_the_command_hold_as_those_behind_it_do(tmp_path: Path) -> None:
    other, said = tmp_path / "other", tmp_path / "said"
    environment = {**os.environ, "ECOLOGY_HOME": str(other)}
    for words in (["--home", str(said), "audit", "verify"], ["audit", "verify", "--home", str(said)]):
        subprocess.run([sys.executable, "-m", "ecology", *words], capture_output=True, env=environment, check=False)
        assert said.exists()
        assert not other.exists()
        shutil.rmtree(said)


def test_every_command_of_the_readme_is_one_of_the_program() -> None:
    from ecology.cli import build_parser

    (commands,) = [a for a in build_parser()._actions if a.dest == "==SUPPRESS==" and a.choices]
    used = set(re.findall(r"^ecology (\w+)", README, flags=re.MULTILINE))
    assert used
    assert used <= set(commands.choices or ())


def test_every_preset_is_yaml_and_every_group_has_one() -> None:
    for group in (ROOT / "conf").iterdir():
        if group.is_dir():
            presets = list(group.glob("*.yaml"))
            assert presets, group
            for preset in presets:
                assert isinstance(yaml.safe_load(preset.read_text("utf-8")), dict), preset


def test_every_policy_has_its_tests_beside_it() -> None:
    policies = {p.stem for p in (ROOT / "policies").glob("*.yaml")}
    assert {name for name in policies if not name.endswith("_test")} == {
        name.removesuffix("_test") for name in policies if name.endswith("_test")
    }
