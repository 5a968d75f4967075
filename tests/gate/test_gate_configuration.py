"""What a configuration may say, against PEFT's own table of fields."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ecology.contracts.policy import AdapterLimits
from ecology.gate.configuration import FIXED, READ, check_configuration

PLAIN = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"]}


def wrong(**changes: Any) -> list[str]:
    return check_configuration({**PLAIN, **changes}, AdapterLimits())


def test_a_plain_lora_is_allowed() -> None:
    assert wrong() == []
    assert wrong(lora_alpha=16.5, lora_dropout=0.05, use_rslora=True, init_lora_weights=False, revision=None) == []
    assert wrong(target_modules=r".*\.(q|v)_proj", layers_to_transform=None, exclude_modules=["lm_head"]) == []
    assert wrong(layers_to_transform=[0, 1], layers_pattern="layers", rank_pattern={r"layers\.0\.q_proj": 4}) == []
    assert wrong(base_model_name_or_path="org/model", task_type="CAUSAL_LM", peft_version="0.21.2") == []


@pytest.mark.parametrize("key", ["peft_type", "r", "lora_alpha", "target_modules"])
def test_what_a_lora_needs_may_not_be_left_to_a_default(key: str) -> None:
    config = {k: v for k, v in PLAIN.items() if k != key}
    assert check_configuration(config, AdapterLimits()) == [f"missing key {key!r}"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", 0), ("r", -1), ("r", 8.0), ("r", 10**7), ("lora_alpha", 0), ("lora_alpha", -8), ("lora_alpha", True),
        ("lora_alpha", 1e16), ("lora_dropout", 1.0), ("lora_dropout", -0.1), ("lora_dropout", False), ("use_rslora", 1),
        ("task_type", "SEQ_CLS"), ("inference_mode", None), ("init_lora_weights", "olora"), ("init_lora_weights", None),
        ("init_lora_weights", 1), ("target_modules", []), ("target_modules", None), ("target_modules", "all-linear"),
        ("target_modules", "ALL-LINEAR"), ("target_modules", ["q_proj", "q_proj"]), ("target_modules", ["q proj"]),
        ("target_modules", ["../x"]), ("target_modules", {"a": 1}), ("layers_to_transform", "0"),
        ("layers_to_transform", [-1]), ("layers_to_transform", [True]), ("layers_pattern", ".*"),
        ("rank_pattern", {"q_proj": "4"}), ("rank_pattern", {"q_proj": 0}), ("rank_pattern", {"": 4}),
        ("alpha_pattern", {"q_proj": 0}), ("alpha_pattern", []), ("base_model_name_or_path", "a\nb"),
        ("base_model_name_or_path", "x" * 501), ("base_model_name_or_path", 3), ("revision", ""), ("peft_version", 21),
        ("exclude_modules", 3), ("peft_type", "IA3"), ("peft_type", ["LORA"]),
        ("megatron_core", ""), ("qalora_group_size", 16.0), ("loftq_config", {"a": 1}), ("bias", None),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_named(key: str, value: object) -> None:
    found = wrong(**{key: value})
    assert len(found) == 1
    assert found[0].startswith(f"{key} is ")
    assert "allowed" in found[0]


def test_layers_and_a_pattern_do_not_go_together() -> None:
    assert wrong(target_modules=".*q_proj", layers_to_transform=[0]) == [
        "layers_to_transform goes with a list of target_modules only"
    ]


def test_unknown_keys_are_refused_whatever_their_value() -> None:
    assert wrong(runtime_config=None)[0].startswith('unknown key "runtime_config"')
    assert wrong(**{"é" * 200: None})[0].isascii()


def test_the_tables_know_every_field_of_pefts_lora_and_no_other() -> None:
    peft = pytest.importorskip("peft")
    fields = {field.name for field in dataclasses.fields(peft.LoraConfig)} - {"runtime_config"}  # never saved
    assert set(FIXED) | set(READ) | {"peft_type"} == fields
    assert not set(FIXED) & set(READ)


def test_pefts_defaults_are_allowed() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM").to_dict()
    config["peft_type"], config["target_modules"] = "LORA", sorted(config["target_modules"])
    assert check_configuration(config, AdapterLimits()) == []
