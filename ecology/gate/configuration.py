"""What ``adapter_config.json`` may say: a list of what is allowed, so that what nobody thought of is refused.

Every field of ``LoraConfig`` in PEFT 0.21.2 stands in one of two tables. ``FIXED`` holds the fields that may only have
the value that a plain LoRA has, each with what another value would do. ``READ`` holds those that a plain LoRA needs,
each with its type and range. A key in neither is refused, be it of a later PEFT or of a loader that we do not know.

Patterns in names are matched by ``store.matching``, which bounds what they cost.

Source: peft 0.21.2, ``tuners/lora/config.py`` and ``config.py``; ``LoraConfig().to_dict()`` is compared in the tests.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping

from ecology.contracts.identity import Json
from ecology.contracts.policy import AdapterLimits

MOST_NAMES = 10_000
_NAME = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")
_PRINTABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

FIXED: Mapping[str, tuple[tuple[Json, ...], str]] = {
    "auto_mapping": ((None,), "names a Python class that a loader imports"),
    "megatron_config": ((None,), "hands arguments to another library's layers"),
    "megatron_core": (("megatron.core", None), "names a Python module that a loader imports"),
    "modules_to_save": ((None,), "replaces whole layers of the base"),
    "bias": (("none",), "changes biases of the base, also while the adapter is disabled"),
    "lora_bias": ((False,), "adds a bias, which no merge here carries"),
    "use_dora": ((False,), "rescales the weights of the base"),
    "layer_replication": ((None,), "stacks the base's layers anew"),
    "trainable_token_indices": ((None,), "replaces rows of the base's embedding"),
    "target_parameters": ((None,), "wraps bare parameters in place of modules"),
    "fan_in_fan_out": ((False,), "stores the factors the other way round"),
    "loftq_config": (({}, None), "belongs to an initialisation that changes the base"),
    "eva_config": ((None,), "belongs to an initialisation from data"),
    "corda_config": ((None,), "names files that a loader reads, and changes the base"),
    "lora_ga_config": ((None,), "belongs to an initialisation that changes the base"),
    "velora_config": ((None,), "swaps the backward pass"),
    "kasa_config": ((None,), "truncates the weights of the base for good"),
    "monteclora_config": ((None,), "samples the adapter at random"),
    "arrow_config": ((None,), "routes to other adapters"),
    "use_bdlora": ((None,), "has factors of other shapes"),
    "use_qalora": ((False,), "pools the inputs of the factors"),
    "qalora_group_size": ((16,), "belongs to use_qalora"),
    "alora_invocation_tokens": ((None,), "switches the adapter on by a trigger in the prompt"),
    "ensure_weight_tying": ((False,), "ties layers of the base"),
}
"""Key to the values that are allowed and what any other value does."""


def check_configuration(config: Mapping[str, Json], limits: AdapterLimits) -> list[str]:
    """What the configuration says beyond a plain LoRA; one sentence each: key, what was found, what is allowed.

    Args:
        config: Parsed ``adapter_config.json``.
        limits: The policy's bounds; only ``peft_types`` is read here.
    """
    found = []
    for key, value in config.items():
        if key in FIXED:
            allowed, effect = FIXED[key]
            if not any(_same(value, one) for one in allowed):
                found.append(f"{key} is {_show(value)}, only {_show(allowed[0])} is allowed: it {effect}")
        elif key == "peft_type":
            if value not in limits.peft_types:
                found.append(f"peft_type is {_show(value)}, allowed: {', '.join(limits.peft_types)}")
        elif key in READ:
            admits, allowed_text = READ[key]
            if not admits(value):
                found.append(f"{key} is {_show(value)}, allowed: {allowed_text}")
        else:
            found.append(f"unknown key {_show(key)} with value {_show(value)}; a LoRA does not need it")
    for key in ("peft_type", "r", "lora_alpha", "target_modules"):
        if key not in config:  # PEFT would fill in a default that nobody has signed
            found.append(f"missing key {key!r}")
    if isinstance(config.get("target_modules"), str) and config.get("layers_to_transform") is not None:
        found.append("layers_to_transform goes with a list of target_modules only")
    return found


def _same(value: Json, allowed: Json) -> bool:
    # 0 == False and 16.0 == 16 in Python; a reader in another language may see two values.
    return type(value) is type(allowed) and bool(value == allowed)


def _show(value: Json) -> str:
    return json.dumps(value)[:80]  # escapes what is not ASCII


def _integer(low: int) -> Callable[[Json], bool]:
    return lambda value: type(value) is int and low <= value <= 1_000_000


def _number(value: Json, low: float, high: float) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and low < value < high


def _alpha(value: Json) -> bool:
    return _number(value, 0.0, 1e15)


def _text(value: Json) -> bool:
    return isinstance(value, str) and len(value) <= 500 and _PRINTABLE.fullmatch(value) is not None


def _names(value: Json) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MOST_NAMES
        and all(isinstance(name, str) and len(name) <= 256 and _NAME.fullmatch(name) for name in value)
        and len(set(value)) == len(value)
    )


def _targets(value: Json) -> bool:
    # PEFT writes down what "all-linear" came to; a folder that still says it was not written by PEFT.
    return (_names(value) and bool(value)) or (_text(value) and value.lower() != "all-linear")


def _layers(value: Json) -> bool:
    layers = value if isinstance(value, list) else [value]
    return value is None or (len(layers) <= MOST_NAMES and all(_integer(0)(layer) for layer in layers))


def _patterns(admits: Callable[[Json], bool]) -> Callable[[Json], bool]:
    return lambda value: (
        isinstance(value, Mapping)
        and len(value) <= MOST_NAMES
        and all(_text(key) for key in value)
        and all(admits(item) for item in value.values())
    )


READ: Mapping[str, tuple[Callable[[Json], bool], str]] = {
    "task_type": (lambda value: value in (None, "CAUSAL_LM"), "CAUSAL_LM or null"),
    "peft_version": (lambda value: value is None or (_text(value) and len(value) <= 80), "a version"),
    "base_model_name_or_path": (lambda value: value is None or _text(value), "printable text, or null"),
    "revision": (lambda value: value is None or _text(value), "printable text, or null"),
    "inference_mode": (lambda value: type(value) is bool, "true or false"),
    "r": (_integer(1), "a whole number of at least 1"),
    "lora_alpha": (_alpha, "a number above 0"),
    "lora_dropout": (
        lambda value: _same(value, 0) or _same(value, 0.0) or _number(value, 0.0, 1.0),
        "0 to 1 (not included)",
    ),
    "use_rslora": (lambda value: type(value) is bool, "true or false"),
    "init_lora_weights": (
        lambda value: type(value) is bool or value == "gaussian",
        "true, false or gaussian: others change the base when they are loaded",
    ),
    "target_modules": (_targets, "a list of module names without repetition, or a pattern"),
    "exclude_modules": (
        lambda value: value is None or _names(value) or _text(value),
        "module names, a pattern or null",
    ),
    "layers_to_transform": (_layers, "layer numbers or null"),
    "layers_pattern": (
        lambda value: value is None or _names(value) or (_text(value) and _NAME.fullmatch(value) is not None),
        "names or null",
    ),
    "rank_pattern": (_patterns(_integer(1)), "module patterns to whole numbers of at least 1"),
    "alpha_pattern": (_patterns(_alpha), "module patterns to numbers above 0"),
}
"""Key to what admits a value, and that in words."""
