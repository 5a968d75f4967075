"""What a configuration may say, against PEFT's own table of fields."""

from __future__ import annotations

from typing import Any

import pytest

from ecology.contracts.policy import AdapterLimits
from ecology.gate.configuration import NEEDED, VALUES, check_configuration
from ecology.gate.violation import THREATS, Violation
from ecology.store.peft_config import METHODS

PLAIN = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"]}


BOTH = AdapterLimits(peft_types=("LORA", "TINYLORA"))
TINY = {"peft_type": "TINYLORA", "r": 2, "u": 14, "target_modules": ["q_proj"], "save_projection": True}


def wrong(**changes: Any) -> list[Violation]:
    return check_configuration({**PLAIN, **changes}, BOTH)


def test_a_plain_lora_is_allowed() -> None:
    assert wrong() == []
    assert wrong(lora_alpha=16.5, lora_dropout=0.05, use_rslora=True, init_lora_weights="gaussian", revision=None) == []
    assert wrong(target_modules=r".*\.(q|v)_proj", layers_to_transform=None, exclude_modules=["lm_head"]) == []
    assert wrong(layers_to_transform=[0, 1], layers_pattern="layers", rank_pattern={r"layers\.0\.q_proj": 4}) == []
    assert wrong(base_model_name_or_path="org/model", task_type="CAUSAL_LM", peft_version="0.21.2") == []


@pytest.mark.parametrize("key", ["peft_type", "r", "lora_alpha", "target_modules"])
def test_what_a_lora_needs_may_not_be_left_to_a_default(key: str) -> None:
    config = {k: v for k, v in PLAIN.items() if k != key}
    (found,) = check_configuration(config, AdapterLimits())
    assert found.key == key
    assert found.found in ("no such key", "nothing")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", 0), ("r", -1), ("r", 8.0), ("r", 10**7), ("lora_alpha", 0), ("lora_alpha", -8), ("lora_alpha", True),
        ("lora_alpha", 1e16), ("lora_dropout", 1.0), ("lora_dropout", -0.1), ("lora_dropout", False), ("use_rslora", 1),
        ("task_type", "SEQ_CLS"), ("inference_mode", None), ("init_lora_weights", "olora"), ("init_lora_weights", None),
        ("init_lora_weights", False), ("init_lora_weights", 1), ("target_modules", []), ("target_modules", None),
        ("target_modules", "all-linear"),
        ("target_modules", "ALL-LINEAR"), ("target_modules", ["q_proj", "q_proj"]), ("target_modules", ["q proj"]),
        ("target_modules", ["../x"]), ("target_modules", {"a": 1}), ("layers_to_transform", "0"),
        ("layers_to_transform", [-1]), ("layers_to_transform", [True]), ("megatron_core", 3),
        ("rank_pattern", {"q_proj": "4"}), ("rank_pattern", {"q_proj": 0}), ("rank_pattern", {"": 4}),
        ("alpha_pattern", {"q_proj": 0}), ("alpha_pattern", []), ("base_model_name_or_path", "a\nb"),
        ("base_model_name_or_path", "x" * 501), ("base_model_name_or_path", 3), ("revision", ""), ("peft_version", 21),
        ("exclude_modules", 3), ("peft_type", "IA3"), ("peft_type", ["LORA"]),
        ("megatron_core", ""), ("qalora_group_size", 16.0), ("loftq_config", {"a": 1}), ("bias", None),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_named(key: str, value: object) -> None:
    found = wrong(**{key: value})
    assert [one.key for one in found] == [key]
    sentence = found[0].sentence()
    assert sentence.startswith(f"adapter_config.json: {key}: found ")
    assert "; allowed: " in sentence
    assert all(reference in sentence for reference in THREATS[found[0].threat])


def test_layers_and_a_pattern_do_not_go_together() -> None:
    assert [one.key for one in wrong(target_modules=".*q_proj", layers_to_transform=[0])] == ["layers_to_transform"]
    assert [one.key for one in wrong(layers_pattern="layers")] == ["layers_pattern"]


def test_unknown_keys_are_refused_whatever_their_value() -> None:
    assert "no such key" in wrong(trust_remote_code=False)[0].allowed
    assert wrong(**{"é" * 200: None})[0].sentence().isascii()
    assert wrong(u=3)[0].key == '"u"'  # of TinyLoRA, not of LoRA


def test_every_key_that_the_gate_reads_is_one_of_pefts() -> None:
    for method, values in VALUES.items():
        assert set(values) <= set(METHODS[method])
        assert set(NEEDED[method]) <= set(METHODS[method])


@pytest.mark.parametrize("method", METHODS)
def test_every_key_at_its_default_is_allowed(method: str) -> None:
    given = PLAIN if method == "LORA" else TINY
    config = {**{name: key.default for name, key in METHODS[method].items()}, **given}
    assert check_configuration(config, BOTH) == []


@pytest.mark.parametrize("method", METHODS)
def test_every_key_refuses_a_value_of_another_kind(method: str) -> None:
    given = PLAIN if method == "LORA" else TINY
    for name in METHODS[method]:
        config = {**given, name: {"surprise": [1]}}
        assert name in {one.key for one in check_configuration(config, BOTH)}, name


def test_tinylora_is_understood_and_up_to_the_policy() -> None:
    assert check_configuration(TINY, BOTH) == []
    (refused,) = [one for one in check_configuration(TINY, AdapterLimits()) if one.key == "peft_type"]
    assert "understood here: LORA, TINYLORA" in refused.allowed
    for key, value in (("save_projection", False), ("u", 0), ("weight_tying", 1.5), ("projection_seed", -1)):
        assert [one.key for one in check_configuration({**TINY, key: value}, BOTH)] == [key]


@pytest.mark.parametrize(
    ("value", "admitted"),
    [
        ({"base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models.llama.modeling_llama"}, True),
        ({"base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models.llama.modeling_gpt2"}, False),
        ({"base_model_class": "system", "parent_library": "os"}, False),
        ({"base_model_class": "X", "parent_library": "transformers.models.llama.modeling_llama", "more": 1}, False),
        ({"base_model_class": "X", "parent_library": "evil.transformers.models.llama.modeling_llama"}, False),
    ],
)
def test_the_class_that_peft_names_is_one_of_transformers(value: Any, admitted: bool) -> None:
    assert (wrong(auto_mapping=value) == []) is admitted


def test_pefts_defaults_are_allowed() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM").to_dict()
    config["peft_type"], config["target_modules"] = "LORA", sorted(config["target_modules"])
    assert check_configuration(config, AdapterLimits()) == []
    config = peft.TinyLoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM").to_dict()
    config["peft_type"], config["target_modules"] = "TINYLORA", sorted(config["target_modules"])
    assert check_configuration(config, BOTH) == []


def test_other_methods_are_refused_by_name() -> None:
    peft = pytest.importorskip("peft")
    for kind in peft.PeftType:
        if kind.value not in METHODS:
            (found,) = check_configuration({**PLAIN, "peft_type": kind.value}, BOTH)
            assert kind.value in found.found


def test_what_is_beside_a_pattern_starts_as_nothing() -> None:
    """A pattern may reach modules that no schema tells of; only a start with B = 0 leaves those as they are."""
    for start in (True, "gaussian"):
        assert wrong(target_modules=r".*\.(q|v)_proj", init_lora_weights=start) == []
    (found,) = wrong(target_modules=r".*\.(q|v)_proj", init_lora_weights="orthogonal")
    assert (found.key, found.threat) == ("init_lora_weights", "undeclared module")
    assert wrong(target_modules=["q_proj"], init_lora_weights="orthogonal") == []


def test_a_tinylora_names_its_modules() -> None:
    """Which vector a module has depends on how many there are, so that one more that nobody sees would move them."""
    assert check_configuration(TINY, BOTH) == []
    (found,) = check_configuration({**TINY, "target_modules": ".*q_proj"}, BOTH)
    assert found.key == "target_modules"
