"""Configuration: what composes, what is refused, and that every mistake is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecology.errors import ConfigError
from ecology.pipeline import compose


@pytest.mark.parametrize(
    ("overrides", "breeders"),
    [
        ([], {"linear", "svd", "ties", "dare", "crossover", "mutate", "prune"}),
        (["breeder=[ties,dare]"], {"ties", "dare"}),
        (["breeder=ties"], {"ties"}),
    ],
)
def test_multi_select_groups_stand_side_by_side(overrides: list[str], breeders: set[str]) -> None:
    settings, plain = compose.compose(overrides)
    assert set(settings.breeder) == breeders == set(plain["breeder"])


@pytest.mark.parametrize("preset", ["toy"])
def test_experiments_compose(preset: str) -> None:
    settings, _ = compose.compose([f"experiment={preset}"])
    assert settings.name == preset


@pytest.mark.parametrize(
    "override",
    [
        "+anything._target_=os.system",
        "+breeder.linear.class=os.system",
        "hydra.launcher._target_=os.system",
        "hydra.sweeper._target_=os.system",
        "+hydra.callbacks.x._target_=os.system",
        "hydra.searchpath=[pkg://os]",
        "name=${oc.env:HOME}",
        "name=${oc.decode:x}",
    ],
)
def test_a_configuration_names_no_code_and_reads_no_environment(override: str) -> None:
    with pytest.raises(ConfigError):
        compose.compose([override])


def test_an_overlay_cannot_bring_code_either(tmp_path: Path) -> None:
    folder = tmp_path / "hydra" / "callbacks"
    folder.mkdir(parents=True)
    marker = tmp_path / "ran"
    (folder / "evil.yaml").write_text(f"evil:\n  _target_: pathlib.Path.touch\n  self: {marker}\n")
    with pytest.raises(ConfigError):
        compose.launch(["+hydra/callbacks=evil"], lambda job: 0, overlay=tmp_path)
    assert not marker.exists()


def test_an_overlay_adds_presets(tmp_path: Path) -> None:
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "mine.yaml").write_text("policy: toy\ntighten: {}\n")
    settings, _ = compose.compose(["gate=mine"], tmp_path)
    assert settings.gate.policy == "toy"


def test_every_mistake_is_told_at_once_with_its_path() -> None:
    with pytest.raises(ConfigError) as caught:
        compose.compose(["seed=x", "backend.threads=q", "+evaluator.hidden_itmes=3", "~evaluator.finalists"])
    text = str(caught.value)
    for path in ("seed", "backend.threads", "evaluator.hidden_itmes", "evaluator.finalists"):
        assert path in text


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ties'"):
        compose.compose(["breeder=tiess"])


def test_several_values_need_a_sweep() -> None:
    with pytest.raises(ConfigError, match="-m"):
        compose.compose(["seed=1,2"])


def test_open_keys_are_named() -> None:
    with pytest.raises(ConfigError, match=r"base\.repo"):
        compose.compose(["base=hub"])


def test_a_sweep_runs_every_job_and_collects_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []

    def task(job: compose.Job) -> int:
        seen.append((job.settings.seed, tuple(job.settings.breeder)))
        assert job.folder.is_dir()
        return job.settings.seed

    codes = compose.launch(["breeder=ties,dare", "seed=0,1"], task, multirun=True)
    assert sorted(codes) == [0, 0, 1, 1]
    assert sorted(seen) == [(0, ("dare",)), (0, ("ties",)), (1, ("dare",)), (1, ("ties",))]


def test_hydras_own_settings_cannot_be_swept() -> None:
    with pytest.raises(ConfigError, match="cannot be swept"):
        compose.launch(["hydra.job.name=a,b"], lambda job: 0, multirun=True)
