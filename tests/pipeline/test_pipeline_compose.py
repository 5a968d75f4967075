"""Configuration: what composes, what is refused, and that every mistake is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecology.errors import ConfigError
from ecology.pipeline import compose, launching
from ecology.telemetry.progress import SilentProgress


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
        launching.launch(["+hydra/callbacks=evil"], lambda job: 0, overlay=tmp_path)
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


def test_a_sweep_runs_every_job_that_can_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["experiment=toy", "breeder=ties,tise,dare", "seed=0,1"]
    jobs = launching.plan_sweep(overrides, None, SilentProgress())
    assert [job.label for job in jobs][:2] == ["breeder=ties seed=0", "breeder=ties seed=1"]
    assert [bool(job.error) for job in jobs] == [False, False, True, True, False, False]
    assert "did you mean 'ties'" in jobs[2].error
    folder = launching.sweep_folder(overrides, None)
    seen = []

    def task(job: launching.Job) -> int:
        seen.append((job.folder.name, job.settings.seed, tuple(job.settings.breeder)))
        return 0

    launching.launch_sweep(overrides, [job for job in jobs if not job.error], folder, task, None)
    assert seen == [("0", 0, ("ties",)), ("1", 1, ("ties",)), ("4", 0, ("dare",)), ("5", 1, ("dare",))]
    assert {path.name for path in folder.iterdir()} == {"0", "1", "4", "5"}


def test_a_sweep_of_which_no_job_can_run_is_refused_with_every_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        launching.plan_sweep(["experiment=toy", "breeder=tise,daer"], None, SilentProgress())
    assert "tise" in str(caught.value)
    assert "daer" in str(caught.value)


def test_what_changes_between_plan_and_job_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine"
    (mine / "gate").mkdir(parents=True)
    (mine / "gate" / "own.yaml").write_text("policy: toy\ntighten: {}\n")
    overrides = ["experiment=toy", "gate=own", "seed=1,2"]
    jobs = launching.plan_sweep(overrides, mine, SilentProgress())
    (mine / "gate" / "own.yaml").write_text("policy: release\ntighten: {}\n")
    folder = launching.sweep_folder(overrides, mine)
    ran: list[launching.Job] = []

    def task(job: launching.Job) -> int:
        ran.append(job)
        return 0

    launching.launch_sweep(overrides, jobs, folder, task, mine)
    assert ran == []


def test_two_runs_of_one_second_have_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [launching.fresh_folder(Path("outputs/a")) for _ in range(3)]
    assert [path.name for path in made] == ["a", "a-2", "a-3"]


def test_hydras_own_settings_cannot_be_swept() -> None:
    with pytest.raises(ConfigError, match="cannot be swept"):
        launching.plan_sweep(["hydra.job.name=a,b"], None, SilentProgress())


def test_an_entry_of_a_mapping_keeps_its_place(tmp_path: Path) -> None:
    settings, plain = compose.compose(["experiment=toy"])
    assert list(settings.population.founders) == list(plain["population"]["founders"])[:4]
    assert next(iter(settings.population.founders)) == "talker"
