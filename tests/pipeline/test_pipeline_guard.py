"""What a configuration may not hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.errors import ConfigError
from ecology.pipeline import compose, guard

LAUNCHER = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
REFERENCE = {"launcher": LAUNCHER, "run": {"dir": "outputs"}, "callbacks": {}, "sweep": {"subdir": "0"}}


@given(st.lists(st.sampled_from("abc"), max_size=4), st.sampled_from(sorted(guard.CODE_KEYS)))
def test_a_code_key_is_found_however_deep(path: list[str], key: str) -> None:
    node: dict[str, object] = {key: "os.system"}
    for name in path:
        node = {name: [node]}
    with pytest.raises(ConfigError, match="names no code"):
        guard.refuse_code({"x": node, "hydra": REFERENCE}, REFERENCE, ())


@pytest.mark.parametrize(
    "value",
    ["${oc.env:HOME}", "${${a}:HOME}", "a${now:%S}", "${hydra:runtime.cwd}", "${ oc.env:X}", "${a}${b:c}"],
)  # fmt: skip
def test_an_interpolation_names_another_key_and_nothing_else(value: str) -> None:
    with pytest.raises(ConfigError, match="not recorded"):
        guard.refuse_code({"x": value, "hydra": REFERENCE}, REFERENCE, ())
    guard.refuse_code({"x": "${seed} ${evaluator.suites[0]} ${..name}", "hydra": REFERENCE}, REFERENCE, ())


@pytest.mark.parametrize(
    ("found", "said", "passes"),
    [
        ({"run": {"dir": "elsewhere"}}, ("hydra.run.dir",), True),
        ({"run": {"dir": "elsewhere"}}, (), False),
        ({"run": {"dir": "../x"}}, ("hydra.run.dir",), False),
        ({"run": {"dir": "a/${now:%Y-%m-%d}"}}, ("hydra.run.dir",), True),
        ({"run": {"dir": "a/${oc.env:HOME}"}}, ("hydra.run.dir",), False),
        ({"sweep": {"subdir": "/etc"}}, ("hydra.sweep.subdir",), False),
        ({"callbacks": {"x": {"_target_": "a.b"}}}, (), False),
        ({"job": {"env_set": {"A": "1"}}}, (), False),
        ({"job": {"num": 3}, "runtime": {"cwd": "/x"}}, (), True),
        ({"launcher": {"_target_": "os.system"}}, (), False),
        ({"launcher": {**LAUNCHER, "n_jobs": 2}}, (), True),
        ({"launcher": {**LAUNCHER, "initializer": "x"}}, (), False),
    ],
)
def test_hydras_own_section_is_as_shipped(found: dict[str, object], said: tuple[str, ...], passes: bool) -> None:
    plain = {"hydra": {**REFERENCE, **found}}
    if passes:
        guard.refuse_code(plain, REFERENCE, said)
    else:
        with pytest.raises(ConfigError, match="hydra"):
            guard.refuse_code(plain, REFERENCE, said)


@pytest.mark.parametrize("text", ["a: &x 1\nb: 2\n", "a: *x\n", "a: !!str x\n", "a: [\n", "a: searchpath\n", "\x00"])
def test_an_overlay_is_plain_yaml(text: str, tmp_path: Path) -> None:
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        guard.scan_overlay(tmp_path)


def test_every_shipped_file_would_pass_as_an_overlay() -> None:
    guard.scan_overlay(Path(__file__).parents[2] / "conf")


@given(st.text(max_size=80))
def test_a_name_never_leaves_its_folder(text: str) -> None:
    if not guard.name_problem("name", text):
        assert "/" not in text
        assert "\\" not in text
        assert not text.startswith(".")


@given(st.text(alphabet="ab/._-", max_size=12))
def test_a_choice_never_climbs(text: str) -> None:
    if not guard.choice_problem("gate", text):
        assert ".." not in text.split("/")
        assert not text.startswith("/")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["name", "seed", "alias", "evaluator", "breeder", "sed"]), st.one_of(
    st.none(), st.integers(), st.text(max_size=4), st.booleans(), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)))  # fmt: skip
def test_whatever_a_configuration_holds_is_told_and_never_raised(plain: dict[str, object]) -> None:
    groups, problems = compose.sort_out(plain)
    assert problems
    assert set(groups) <= set(plain)
