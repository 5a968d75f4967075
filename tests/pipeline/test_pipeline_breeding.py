"""``ecology breed`` as a process of its own: what it loads, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ecology.cli import main
from ecology.pipeline.bench import fetch_base, preset
from ecology.pipeline.house import open_house
from ecology.store.adapters import write_adapter

HEAVY = {
    *("torch", "transformers", "peft", "scipy", "hydra", "omegaconf", "pydantic", "sqlalchemy", "sigstore", "jinja2"),
    *("joblib", "tokenizers", "huggingface_hub", "lm_eval", "optuna"),
}
"""What a start would wait for and a small merge does not need."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two small adapters of the default base."""
    from ecology.backend.bases import known

    root = tmp_path_factory.mktemp("pair")
    base = known(preset("smollm2-135m"), open_house(str(root / "none"), quiet=True).home)
    assert base is not None
    generator = np.random.Generator(np.random.PCG64(1))
    for name in "ab":
        modules = {
            f"model.layers.{i}.self_attn.q_proj": (generator.normal(size=(576, 4)), generator.normal(size=(4, 576)))
            for i in range(2)
        }
        write_adapter(root / name, modules, "smollm2-135m", base.identity.base_weights)
    return [str(root / name) for name in "ab"]


@pytest.mark.parametrize("target", ["--out", "--dry-run"])
def test_breeding_loads_nothing_that_it_does_not_need(target: str, pair: list[str], tmp_path: Path) -> None:
    code = "import json, sys; from ecology.cli import main; code = main(sys.argv[1:]);"
    code += "print(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))"
    where = [target, str(tmp_path / "child")] if target == "--out" else [target]
    done = subprocess.run(
        [sys.executable, "-c", code, "breed", "linear", *pair, *where, "weights=[0.5,0.5]"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ECOLOGY_HOME": str(tmp_path / "home")},
    )
    status, loaded = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    assert "numpy" in loaded
    assert not HEAVY & set(loaded)
    assert (tmp_path / "child").exists() == (target == "--out")


def _told(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> tuple[int, str]:
    code = main(["--quiet", "--home", str(home), "breed", *words])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_every_mistake_of_the_options_is_told_at_once(
    pair: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["densty=0.5", "space=heart", "weights=[1,x]", "--out", str(tmp_path / "c")]
    code, said = _told(capsys, tmp_path / "home", "ties", *pair, *wrong)
    assert code == 2
    for part in ("ties.densty: no such option (did you mean 'density'?)", "ties.space: expected one of core", "[1]"):
        assert part in said
    code, said = _told(capsys, tmp_path / "home", "ties", *pair, "density=2", "--out", str(tmp_path / "c"))
    assert code == 2
    assert "ties.density: 2.0 is out of range" in said
    assert not (tmp_path / "c").exists()


def test_numbers_may_be_written_with_an_exponent(
    pair: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "c")
    code, said = _told(capsys, tmp_path / "home", "mutate", pair[0], "noise=5e-2", "spectrum=1E-1", "--out", out)
    assert code == 0, said
    assert "noise=0.05" in said
    assert "spectrum=0.1" in said


KEEP = """\
id: keep
version: 1
title: A child keeps what it was bred to be
owner: tests
signatures: {allow_development: true, trusted: []}
adapter: {peft_types: [LORA], dtypes: [F32], max_rank: 64, max_scale: 8, max_file_bytes: 10000, max_relative_norm: 99}
data: {forbid_no_train: true, licences: [Apache-2.0], max_overlap: 0.0}
rules:
  - {id: SIG, title: Signed, metric: static.signature, comparator: "==", threshold: 0}
  - {id: KEEP, title: Projection keeps 97 %, metric: resource.retained_energy, comparator: ">=", threshold: 0.97}
"""


def test_a_gate_can_require_what_projection_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, policy = open_house(str(tmp_path / "home"), quiet=True), tmp_path / "keep.yaml"
    policy.write_text(KEEP)
    base = fetch_base("toy", home)
    generator = np.random.Generator(np.random.PCG64(2))
    for name in "ab":
        modules = {
            f"model.layers.{i}.self_attn.o_proj": (generator.normal(size=(32, 2)), generator.normal(size=(2, 32)))
            for i in range(2)
        }
        write_adapter(tmp_path / name, modules, "toy", base.identity.base_weights)
    parents = [str(tmp_path / "a"), str(tmp_path / "b"), "--base", "toy"]
    for out, rank, code, outcome in (("whole", 4, 0, "pass"), ("cut", 1, 1, "DENY")):
        bred, said = _told(capsys, home.home, "svd", *parents, f"rank={rank}", "--out", str(tmp_path / out))
        assert bred == 0, said
        asked = ["gate", str(tmp_path / out), "--base", "toy", "--policy", str(policy)]
        assert main(["--quiet", "--home", str(home.home), *asked]) == code
        text = capsys.readouterr().out
        line = next(line for line in text.splitlines() if " KEEP " in line)
        assert line.split()[0] == outcome, text


@pytest.mark.parametrize("seed", ["-1", str(2**53), "9" * 23, "1.5", "nan", ""])
@pytest.mark.parametrize("operator", ["linear", "mutate", "dare", "crossover", "della"])
def test_a_seed_is_one_that_a_run_could_have(
    operator: str, seed: str, pair: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["breed", operator, *pair, "--dry-run", f"--seed={seed}", "--home", str(tmp_path / "home")])
    assert left.value.code == 2
    assert "--seed: a whole number from 0 to 9007199254740991 is needed" in capsys.readouterr().err


def test_the_greatest_seed_is_bred_with_as_rehearsed(
    pair: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["breed", "dare", *pair, f"--seed={2**53 - 1}", "--home", str(tmp_path / "home"), "--quiet"]
    assert main([*words, "--dry-run"]) == 0
    rehearsed = capsys.readouterr().out.splitlines()[0].removeprefix("would be ")
    assert main([*words, "--out", str(tmp_path / "child")]) == 0
    assert rehearsed in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("size", ["0", "65537", "x"])
def test_a_batch_size_is_one_that_a_run_could_have(size: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        main(["registry", "replay", "x", "--batch-size", size, "--home", str(tmp_path / "home")])
    assert left.value.code == 2
