"""The GitHub Action and the pre-commit hooks, tested by running what they run, as a pull request would."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from lxml import etree

from ecology.signer.keys import read_trusted
from ecology.signer.verify import verify_envelope

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "tests" / "schemas"
COMMAND = re.compile(r"::(?:error|warning|notice)(?: \w+=[^,:\r\n]*(?:,\w+=[^,:\r\n]*)*)?::[^\r\n]*")
"""A workflow command: ``::name key=value,...::message``, with ``%``, line ends, colons and commas escaped."""
POLICY = """\
id: team
version: 1
title: What the team asks of a pull request
rules:
  - {id: FILES, title: Only the files of an adapter, metric: static.files, comparator: "==", threshold: 0}
  - {id: TENSORS, title: Declared factors only, metric: static.tensors, comparator: "==", threshold: 0}
"""


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with one adapter that was there before; the good and the bad one come with the pull request."""
    folder = tmp_path / "a clone"
    (folder / "policies").mkdir(parents=True)
    (folder / "policies" / "team.yaml").write_text(POLICY, "utf-8")
    shutil.copytree(ROOT / "examples" / "outsider", folder / "adapters" / "old")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "before")
    git(folder, "checkout", "-qb", "pull-request")
    for name in ("good", "bad"):
        shutil.copytree(ROOT / "examples" / "outsider", folder / "adapters" / name)
    (folder / "adapters" / "bad" / "payload.pkl").write_bytes(b"\x80\x04.")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "two adapters")
    return folder


def step(clone: Path, **inputs: str) -> tuple[subprocess.CompletedProcess[str], str, Path]:
    """The action's own gate step with its own defaults, run as the runner runs it."""
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
    values = {name: str(spec.get("default", "")) for name, spec in action["inputs"].items()} | inputs
    (gate,) = [one for one in action["runs"]["steps"] if one.get("id") == "gate"]
    given = re.compile(r"\$\{\{ inputs\.(\w+) \}\}")
    env = {name: given.sub(lambda m: values[m[1]], text) for name, text in gate["env"].items()}
    summary, output = clone / ".summary.md", clone / ".output"
    files = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(output)}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", gate["run"]],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env, **files},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done, summary.read_text("utf-8") if summary.exists() else "", clone / values["out"]


def inputs(**more: str) -> dict[str, str]:
    return {"python": sys.executable, "policy": "policies/team.yaml", "adapters": "adapters/*", **more}


def test_a_pull_request_with_a_good_and_a_bad_adapter_is_refused_for_the_bad_one(clone: Path) -> None:
    done, summary, out = step(clone, **inputs(since="main"))
    assert done.returncode == 1, done.stderr
    commands = [line for line in done.stdout.splitlines() if line]
    assert all(COMMAND.fullmatch(line) for line in commands), "the runner reads each line as a command"
    errors = [line for line in done.stdout.splitlines() if line.startswith("::error ")]
    assert len(errors) == 1
    assert "file=adapters/bad/adapter_config.json" in errors[0]
    assert "payload.pkl" in errors[0]
    assert "::notice file=adapters/good/adapter_config.json" in done.stdout
    assert "adapters/old" not in done.stdout, "it did not change"
    assert "1 of 2 refused" in summary
    log = json.loads((out / "sarif.json").read_bytes())
    schema = json.loads((SCHEMAS / "sarif-2.1.0.json").read_bytes())
    jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker()).validate(log)
    junit = etree.fromstring((out / "junit.xml").read_bytes())
    etree.XMLSchema(etree.parse(SCHEMAS / "jenkins-junit.xsd")).assertValid(junit)
    assert {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in log["runs"][0]["results"]} == {
        "adapters/good/adapter_config.json",
        "adapters/bad/adapter_config.json",
    }
    assert (out / "junit.xml").read_text("utf-8").count("<failure ") == 1
    key = read_trusted(clone / ".ecology-home" / "keys" / "development.pub.pem")
    said = [verify_envelope(path.read_text().strip(), [key]).statement for path in out.glob("*.intoto.jsonl")]
    assert {(one["predicateType"], one["predicate"]["verificationResult"]) for one in said} == {  # type: ignore[index, call-overload]
        ("https://slsa.dev/verification_summary/v1", "PASSED"),
        ("https://slsa.dev/verification_summary/v1", "FAILED"),
    }


HOSTILE = 'import os; print("bad: passed (said by the pull request)", flush=True); os._exit(0)'


def hostile(clone: Path) -> None:
    """Modules that a pull request brings in its own root, named like ours and like what we import."""
    for name in ("cryptography", "yaml", "rfc8785", "numpy", "argparse", "hashlib", "pip"):
        (clone / f"{name}.py").write_text(HOSTILE, "utf-8")
    git(clone, "add", "-f", ".")


def test_no_module_of_a_pull_request_runs_in_place_of_ours(clone: Path) -> None:
    hostile(clone)
    unsafe = [sys.executable, "-m", "ecology", "gate", "--static", "--home", str(clone / ".home"), "adapters/bad"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(unsafe, cwd=clone, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "said by the pull request" in done.stdout) == (1, False), done.stderr
    (clone / "ecology").mkdir()
    (clone / "ecology" / "__init__.py").write_text(HOSTILE, "utf-8")
    (clone / "ecology" / "__main__.py").write_text(HOSTILE, "utf-8")
    done, _, _ = step(clone, **inputs())
    assert done.returncode == 1, done.stderr
    assert "said by the pull request" not in done.stdout
    assert "payload.pkl" in done.stdout
    for name in ("ecology-gate", "ecology-policy-test"):
        files = ["adapters/bad/adapter_config.json", "policies/team.yaml"]
        assert "said by the pull request" not in hook(name, clone, *files).stdout
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
    runs = " ".join(one.get("run", "") for one in action["runs"]["steps"])
    assert runs.count(" -m ") == runs.count(" -P -m ") == 2


@pytest.mark.parametrize(
    "given", [".ecology-home/keys/development.pem", ".ecology-home/notes/gate/x", "ecology-gate/x"]
)
def test_a_pull_request_brings_no_keys_notes_or_verdicts(clone: Path, given: str) -> None:
    (clone / given).parent.mkdir(parents=True)
    (clone / given).write_text("mine", "utf-8")
    git(clone, "add", "-f", given)
    done, _, _ = step(clone, **inputs())
    assert done.returncode == 2
    assert "::error::" in done.stdout


def kept(out: Path) -> dict[str, bool]:
    """Adapter to whether nothing had to be measured again."""
    return {one["name"]: one["kept"] for one in json.loads((out / "gate.json").read_bytes())}


def test_an_unchanged_adapter_is_free_on_another_machine_and_a_changed_policy_or_base_makes_it_not_free(
    clone: Path,
) -> None:
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
    (cache,) = [one for one in action["runs"]["steps"] if one.get("uses", "").startswith("actions/cache@")]
    paths = [line.replace("${{ inputs.home }}/", "") for line in cache["with"]["path"].splitlines()]
    assert paths == ["notes", "bases"], "keys and the secret seed stay where they are"
    _, _, out = step(clone, **inputs())
    cold = {"bad": False, "good": False, "old": True}  # what is old has the bytes of what is good
    assert kept(out) == cold

    def machine(name: str, **more: str) -> dict[str, bool]:
        """Another machine: a fresh home with what the cache brings, and nothing else."""
        for path in paths:
            if (clone / ".ecology-home" / path).exists():
                shutil.copytree(clone / ".ecology-home" / path, clone / name / path)
        _, _, out = step(clone, **inputs(home=name, **more))
        return kept(out)

    assert machine("second") == {"bad": True, "good": True, "old": True}
    assert machine("third", base="toy") == cold
    policy = clone / "policies" / "team.yaml"
    policy.write_text(policy.read_text("utf-8").replace("threshold: 0}", "threshold: 0, severity: warn}", 1), "utf-8")
    assert machine("fourth") == cold
    key = cache["with"]["key"]
    assert all(f"'{what}'" in key for what in ("policies/**", "suites/**", "corpora/**", "**/adapter_config.json"))


def test_the_same_step_passes_once_the_bad_one_is_gone(clone: Path) -> None:
    git(clone, "rm", "-qr", "adapters/bad")
    done, summary, _ = step(clone, **inputs())
    assert done.returncode == 0, done.stderr
    assert "2 passed" in summary


def test_nothing_to_judge_and_a_broken_policy_are_not_the_same(clone: Path) -> None:
    done, _, _ = step(clone, **inputs(adapters="nothing/*"))
    assert (done.returncode, "::notice::no folder matches" in done.stdout) == (0, True)
    (clone / "policies" / "team.yaml").write_text("id: team\n", "utf-8")
    done, _, _ = step(clone, **inputs())
    assert done.returncode == 2


def test_a_changed_policy_is_asked_of_every_adapter(clone: Path) -> None:
    text = (clone / "policies" / "team.yaml").read_text("utf-8")
    (clone / "policies" / "team.yaml").write_text(text.replace("version: 1", "version: 2"), "utf-8")
    done, _, _ = step(clone, **inputs(since="main"))
    assert "adapters/old" in done.stdout
    done, _, _ = step(clone, **inputs(since="no-such-revision"))
    assert done.returncode == 2


def hook(name: str, clone: Path, *files: str) -> subprocess.CompletedProcess[str]:
    """A hook's own entry on the files that its own pattern matches."""
    hooks = {one["id"]: one for one in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))}
    spec = hooks[name]
    excluded = spec.get("exclude", "^$")
    matching = [f for f in files if re.search(spec["files"], f) and not re.search(excluded, f)]
    command = [sys.executable if word == "python" else word for word in shlex.split(spec["entry"])]
    return subprocess.run(
        [*command, *matching],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ECOLOGY_HOME": str(clone / ".home")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_hook_judges_the_adapters_whose_files_changed(clone: Path) -> None:
    changed = [f"adapters/bad/{name}" for name in ("adapter_config.json", "adapter_model.safetensors")]
    done = hook("ecology-gate", clone, "README.md", *changed)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("bad: REFUSED") == 1, "once, though two of its files changed"
    assert "payload.pkl" in done.stdout


def test_the_hook_runs_the_tests_of_changed_policies(clone: Path) -> None:
    for path in ROOT.joinpath("policies").glob("*.yaml"):
        shutil.copy(path, clone / "policies" / path.name)
    changed = [f"policies/{name}.yaml" for name in ("release", "release_test", "toy")]
    done = hook("ecology-policy-test", clone, *changed)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^release: [1-9]\d* passed, 0 failed$", done.stdout, re.MULTILINE), done.stdout
    path = clone / "policies" / "release.yaml"
    text = path.read_text("utf-8")
    start = text.index("- id: SAFE-001")
    path.write_text(text[:start] + text[start:].replace("threshold: 0.75", "threshold: 0.85", 1), "utf-8")
    assert hook("ecology-policy-test", clone, "policies/release.yaml").returncode == 1
