"""The table of configuration keys against PEFT's own dataclasses."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ecology.store.peft_config import CONVERTIBLE, LORA, METHODS, PEFT_VERSION, TINYLORA, same_json

peft = pytest.importorskip("peft")

CLASSES = {"LORA": peft.LoraConfig, "TINYLORA": peft.TinyLoraConfig}


@pytest.mark.parametrize("method", METHODS)
def test_every_field_stands_in_the_table_and_no_other(method: str) -> None:
    assert peft.__version__ == PEFT_VERSION, "read the new release's configuration before raising the pin"
    assert set(METHODS[method]) - {"runtime_config"} == {
        field.name for field in dataclasses.fields(CLASSES[method]) if field.name != "runtime_config"
    }


@pytest.mark.parametrize("method", METHODS)
def test_defaults_are_pefts(method: str) -> None:
    found: dict[str, Any] = CLASSES[method]().to_dict()
    given = {"peft_type": method, "peft_version": PEFT_VERSION, "runtime_config": None}
    for name, key in METHODS[method].items():
        if name not in given:
            assert same_json(key.default, found[name]), name
            assert key.is_plain(found[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_what_is_beyond_says_what_to_do(method: str) -> None:
    for name, key in METHODS[method].items():
        assert bool(key.todo) == (key.role == "beyond") == bool(key.plain), name
        assert key.meaning, name
        assert key.is_plain("anything") == (key.role != "beyond"), name


def test_equal_in_python_is_not_equal_in_json() -> None:
    assert not LORA["use_dora"].is_plain(0)
    assert not LORA["lora_bias"].is_plain("")
    assert not LORA["init_lora_weights"].is_plain(1)
    assert LORA["modules_to_save"].is_plain([])


@pytest.mark.parametrize("init", ["pissa", "PiSSA", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga"])
def test_initialisations_that_change_the_base(init: str) -> None:
    assert not LORA["init_lora_weights"].is_plain(init)


@pytest.mark.parametrize("init", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_initialisations_that_leave_the_base(init: Any) -> None:
    assert LORA["init_lora_weights"].is_plain(init)


def test_methods_are_pefts() -> None:
    known = {kind.value for kind in peft.PeftType}
    assert set(METHODS) | CONVERTIBLE <= known
    assert not set(METHODS) & CONVERTIBLE


def test_tinylora_came_with_0_19() -> None:
    assert {key.since for key in TINYLORA.values()} == {"0.19.0"}
