"""What ``adapter_config.json`` may say: a list of what is allowed, so that what nobody thought of is refused.

The keys are those of ``store.peft_config``, the one table of what PEFT's configurations can say. A key that changes
nothing under its plain value may have that value and no other. A key that a method needs stands in ``VALUES`` with its
type and range. Everything else, be it a key of a later PEFT or of a loader that we do not know, is refused.

Values are admitted under which the loaded adapter is its tensors and nothing else. ``pissa``, ``olora``, ``corda``,
``loftq``, ``mica``, ``eva`` and ``lora_ga`` change the base or the factors from what is not in the file. False fills
modules that have no tensors with random numbers. ``orthogonal`` fills them with factors whose product is 0 but for
rounding: refused beside a pattern, which may reach modules that no schema tells of.

Claimed range: folders written by PEFT 0.4.0 to 0.21.2. No release in it has changed the default of a key, so an absent
key means its default; those that decide what the tensors mean (``NEEDED``) have to be said.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Callable, Mapping

from ecology.contracts.artifact import CONFIG_FILE
from ecology.contracts.identity import Json
from ecology.contracts.policy import AdapterLimits
from ecology.gate.violation import Violation
from ecology.store.peft_config import METHODS, Key, same_json

MOST_NAMES = 10_000
NEEDED: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
    {"LORA": ("r", "lora_alpha", "target_modules"), "TINYLORA": ("r", "u", "target_modules")}
)
_NAME = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")
_PRINTABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_MODELING = re.compile(r"transformers\.models\.([a-z0-9_]{1,60})\.modeling_\1")
_CLASS = re.compile(r"[A-Z][A-Za-z0-9]{0,80}")


def check_configuration(config: Mapping[str, Json], limits: AdapterLimits) -> list[Violation]:
    """What the configuration says beyond what its method needs.

    Args:
        config: Parsed ``adapter_config.json``.
        limits: The policy's bounds; only ``peft_types`` is read here.
    """
    method = config.get("peft_type")
    if not isinstance(method, str) or method not in METHODS or method not in limits.peft_types:
        understood = ", ".join(METHODS)
        allowed = f"{', '.join(limits.peft_types)} (the policy's peft_types; understood here: {understood})"
        return [_wrong("peft_type", config.get("peft_type", "nothing"), allowed, "config import")]
    values = {**_SHARED, **VALUES[method]}
    found = _keys(config, METHODS[method], values)
    for key in NEEDED[method]:
        if key not in config:  # PEFT would fill in a default that nobody has signed
            found.append(_wrong(key, "no such key", "said in full"))
    if isinstance(config.get("target_modules"), str) and config.get("layers_to_transform") is not None:
        found.append(
            _wrong("layers_to_transform", config["layers_to_transform"], "null beside a target_modules pattern")
        )
    start = config.get("init_lora_weights", True)
    if isinstance(config.get("target_modules"), str) and start not in _SILENT:
        allowed = "true or gaussian beside a pattern: what it matches beyond the file would start as other than nothing"
        found.append(_wrong("init_lora_weights", start, allowed, "undeclared module"))
    if config.get("layers_pattern") and config.get("layers_to_transform") is None:
        found.append(_wrong("layers_pattern", config["layers_pattern"], "null without layers_to_transform"))
    return found


def _keys(
    config: Mapping[str, Json], table: Mapping[str, Key], values: Mapping[str, tuple[Callable[[Json], bool], str]]
) -> list[Violation]:
    found = []
    for name, value in config.items():
        key = table.get(name)
        if key is None:
            found.append(_wrong(_show(name), value, "no such key: none that PEFT 0.4.0 to 0.21.2 has", "config import"))
        elif name in values:
            admits, words = values[name]
            if not admits(value):
                beyond = name in _LOADER
                found.append(
                    _wrong(
                        name,
                        value,
                        f"{words}{f' (another value {key.meaning})' if beyond else ''}",
                        "config import" if beyond else "config type",
                    )
                )
        elif not any(same_json(value, one) for one in _plain(name, key)):
            allowed = " or ".join(_show(one) for one in _plain(name, key))
            found.append(_wrong(name, value, f"{allowed}: another value {key.meaning}", "config import"))
    return found


def _plain(name: str, key: Key) -> tuple[Json, ...]:
    return key.plain or _ALSO.get(name, (key.default,))


def _wrong(key: str, found: Json, allowed: str, threat: str = "config type") -> Violation:
    said = found if found in ("nothing", "no such key") else _show(found)
    return Violation(threat, CONFIG_FILE, key, str(said), allowed)


def _show(value: Json) -> str:
    try:
        return json.dumps(value)[:80]  # escapes what is not ASCII
    except (ValueError, RecursionError):
        return "what cannot be shown"


def _integer(low: int, high: int = 1_000_000) -> Callable[[Json], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(value: Json, low: float, high: float) -> bool:
    if type(value) is int:
        return low < value < high  # an integer of a thousand digits has no float
    return type(value) is float and math.isfinite(value) and low < value < high


def _alpha(value: Json) -> bool:
    return _number(value, 0.0, 1e15)


def _dropout(value: Json) -> bool:
    return same_json(value, 0) or same_json(value, 0.0) or _number(value, 0.0, 1.0)


def _truth(value: Json) -> bool:
    return type(value) is bool


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
    return (_names(value) and bool(value)) or (_pattern(value) and value.lower() != "all-linear")


def _pattern(value: Json) -> bool:
    return isinstance(value, str) and len(value) <= 2048 and _PRINTABLE.fullmatch(value) is not None


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


def _mapping_of_class(value: Json) -> bool:
    """PEFT names the base's own class when no task is said; a loader imports it, so only a model of transformers is."""
    if value is None:
        return True
    if not isinstance(value, dict) or set(value) != {"base_model_class", "parent_library"}:
        return False
    name, library = value["base_model_class"], value["parent_library"]
    return (
        isinstance(name, str)
        and isinstance(library, str)
        and _CLASS.fullmatch(name) is not None
        and _MODELING.fullmatch(library) is not None
    )


_LOADER = ("auto_mapping", "peft_type", "init_lora_weights")
"""Keys whose other values make a loader import a class or change the base."""
_SILENT = (True, "gaussian")
"""Starts with B = 0, exactly: a module that is matched and has no tensors is as it was."""
_ALSO: Mapping[str, tuple[Json, ...]] = types.MappingProxyType(
    {"megatron_core": ("megatron.core", None), "loftq_config": ({}, None)}
)
"""Keys that say nothing about the function and have a second harmless value."""

_LAYER_NAMES = (
    lambda value: value is None or value in ([], "") or _names(value) or _names([value]),
    "names or null",
)
_SHARED: Mapping[str, tuple[Callable[[Json], bool], str]] = types.MappingProxyType(
    {
        "peft_type": (lambda value: value in METHODS, "a method that is understood"),
        "task_type": (lambda value: value in (None, "CAUSAL_LM"), "CAUSAL_LM or null"),
        "auto_mapping": (_mapping_of_class, "null, or a class of transformers.models.X.modeling_X"),
        "peft_version": (lambda value: value is None or (_text(value) and len(value) <= 80), "a version"),
        "base_model_name_or_path": (
            lambda value: value in (None, "") or _text(value),
            "printable text of at most 500 characters, or null",
        ),
        "revision": (lambda value: value is None or _text(value), "printable text, or null"),
        "inference_mode": (_truth, "true or false"),
        "r": (_integer(1), "a whole number from 1 to 1000000"),
        "target_modules": (_targets, "module names without repetition, or a pattern"),
        "layers_to_transform": (_layers, "layer numbers from 0, or null"),
        "layers_pattern": _LAYER_NAMES,
    }
)

VALUES: Mapping[str, Mapping[str, tuple[Callable[[Json], bool], str]]] = types.MappingProxyType(
    {
        "LORA": types.MappingProxyType(
            {
                "lora_alpha": (_alpha, "a finite number above 0 and below 1e15"),
                "lora_dropout": (_dropout, "0 to 1 (not included)"),
                "use_rslora": (_truth, "true or false"),
                "use_dora": (_truth, "true or false"),
                "init_lora_weights": (
                    lambda value: value is True or value in ("gaussian", "orthogonal"),
                    "true, gaussian or orthogonal; false leaves random numbers where the file has none",
                ),
                "exclude_modules": (
                    lambda value: value in (None, "", []) or _names(value) or _pattern(value),
                    "module names, a pattern or null",
                ),
                "rank_pattern": (_patterns(_integer(1)), "module patterns to whole numbers of at least 1"),
                "alpha_pattern": (_patterns(_alpha), "module patterns to finite numbers above 0"),
            }
        ),
        "TINYLORA": types.MappingProxyType(
            {
                "target_modules": (
                    lambda value: _names(value) and bool(value),
                    "module names without repetition: which vector a module has depends on how many there are",
                ),
                "u": (_integer(1, 65536), "a whole number from 1 to 65536"),
                "weight_tying": (
                    lambda value: same_json(value, 0) or same_json(value, 1) or _number(value, -1e-300, 1 + 1e-12),
                    "0 to 1",
                ),
                "projection_seed": (_integer(0, 2**53), "a whole number from 0 to 2**53"),
                "save_projection": (
                    lambda value: value is True,
                    "true: without the projections in the file nobody can bound the change",
                ),
                "init_weights": (lambda value: type(value) is bool or value == "uniform", "true, false or uniform"),
                "init_v_bound": (lambda value: _number(value, 0.0, 1e3), "a number above 0 and below 1000"),
                "tinylora_dropout": (_dropout, "0 to 1 (not included)"),
            }
        ),
    }
)
"""Method to the keys that may have more than one value, with what admits a value, and that in words."""
