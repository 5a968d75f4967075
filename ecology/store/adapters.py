"""PEFT LoRA folders, read for what they do and not for what they are called.

Reading refuses what the algebra on dW = s B A cannot carry (DoRA, biases, saved modules, inits that moved the base,
...) and what it does not know, naming the key and the way out: an adapter that is read as something else is worse
than one that is not read. Whether to trust a folder is the gate's business.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import types
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecology.contracts.artifact import CONFIG_FILE, WEIGHTS_FILE
from ecology.contracts.identity import Json
from ecology.errors import MalformedArtifact
from ecology.store.files import parse_json, read_bounded
from ecology.store.folders import describe, read_claims
from ecology.store.header import load_tensor, read_header
from ecology.store.matching import pattern_values, targeted
from ecology.store.writer import BASE_KEY, write_adapter

__all__ = [
    "BASE_KEY",
    "AdapterFolder",
    "Factors",
    "describe",
    "read_adapter",
    "read_claims",
    "read_config",
    "write_adapter",
]

MAX_CONFIG_BYTES = 1024 * 1024
MAX_NAME_CHARACTERS = 256

_TENSOR_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")

_HARMLESS = frozenset(
    {
        *("alpha_pattern", "exclude_modules", "init_lora_weights", "layers_pattern", "layers_to_transform"),
        *("lora_alpha", "peft_type", "r", "rank_pattern", "target_modules", "use_rslora"),
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "megatron_core", "peft_version"),
        *("qalora_group_size", "revision", "runtime_config", "task_type"),
        *("corda_config", "eva_config", "loftq_config", "lora_ga_config"),  # of use to their init_lora_weights alone
    }
)
"""Keys that are read below, and keys that say nothing about the function."""

_CARRIED_ELSEWHERE: Mapping[str, str] = {
    "use_dora": "merge the adapter and extract a plain LoRA: DoRA rescales the base itself",
    "lora_bias": "train with lora_bias=False",
    "modules_to_save": "train without modules_to_save: they replace weights of the base",
    "trainable_token_indices": "train without trainable_token_indices: they replace rows of the embedding",
    "target_parameters": "target modules, not parameters",
    "fan_in_fan_out": "store the delta as (out, in); Conv1D layers are not supported",
    "layer_replication": "train on the base as it is",
}
"""What to do about keys whose effect is outside s B A; every other unknown key gets a general answer."""

_FAITHFUL_INITS: tuple[Json, ...] = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""``init_lora_weights`` that leave the base as it was (peft 0.21.2, ``lora/layer.py``)."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """One module's delta, dW = ``scale`` B A."""

    B: npt.NDArray[np.float32]
    """Out features x rank."""
    A: npt.NDArray[np.float32]
    """Rank x in features."""
    scale: float


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class AdapterFolder:
    """A LoRA as a folder declares it."""

    config: Mapping[str, Json]
    modules: Mapping[str, Factors]
    """By module name as in the base, sorted."""
    metadata: Mapping[str, str]
    """Of the weights file."""


def read_adapter(folder: Path) -> AdapterFolder:
    """Reads a PEFT LoRA folder; scale is alpha / r, or alpha / sqrt(r) with ``use_rslora``, by module.

    Raises:
        MalformedArtifact: A file is missing or malformed, or the adapter does something that s B A does not hold; the
            message names the key and what to do.
    """
    where = str(folder / CONFIG_FILE)
    if not os.path.lexists(folder / WEIGHTS_FILE) and os.path.lexists(folder / "adapter_model.bin"):
        raise MalformedArtifact(
            "adapter_model.bin is a pickle, which runs code when it is read",
            where=str(folder),
            todo="save the adapter again with safe_serialization=True",
        )
    config = read_config(folder)
    _refuse_unsupported(config, where)
    weights = folder / WEIGHTS_FILE
    header = read_header(weights)
    found = _pair_up(tuple(header.tensors), str(weights))
    if stray := sorted(set(found) - targeted(config, found, where)):
        raise MalformedArtifact(f"{stray[0]} has tensors and is no target module", where=str(weights))
    scales = _scales(config, tuple(found), where)
    modules = {}
    for name, keys in found.items():
        rank, scale = scales[name]
        A, B = load_tensor(weights, header, keys["A"]).copy(), load_tensor(weights, header, keys["B"]).copy()  # noqa: N806
        if A.ndim != 2 or B.ndim != 2 or A.shape[0] != rank or B.shape[1] != rank or 0 in (B.shape[0], A.shape[1]):
            raise MalformedArtifact(
                f"{name}: B {B.shape} and A {A.shape} are no factors of rank {rank}", where=str(weights)
            )
        if not (np.isfinite(A).all() and np.isfinite(B).all()):
            raise MalformedArtifact(f"{name} holds NaN or infinity", where=str(weights), todo="train it again")
        modules[name] = Factors(B, A, scale)
    return AdapterFolder(types.MappingProxyType(config), types.MappingProxyType(modules), header.metadata)


def read_config(folder: Path) -> dict[str, Json]:
    """``adapter_config.json`` as plain data, keys in file order.

    Raises:
        MalformedArtifact: It is missing, larger than ``MAX_CONFIG_BYTES``, or not a JSON object.
    """
    path = folder / CONFIG_FILE
    config = parse_json(read_bounded(path, MAX_CONFIG_BYTES), str(path))
    if not isinstance(config, dict):
        raise MalformedArtifact("not a JSON object", where=str(path))
    return config


def _refuse_unsupported(config: Mapping[str, Json], where: str) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise MalformedArtifact(
            f"peft_type is {kind!r:.40}", where=where, todo="only LORA is read; convert the adapter first"
        )
    if config.get("bias", "none") != "none":
        raise MalformedArtifact(f"bias is {config['bias']!r:.40}", where=where, todo='train with bias="none"')
    init = config.get("init_lora_weights", True)
    if not any(init is known or (isinstance(known, str) and init == known) for known in _FAITHFUL_INITS):
        raise MalformedArtifact(
            f"init_lora_weights is {init!r:.40}: the factors are relative to a base that it has changed",
            where=where,
            todo="save it with path_initial_model_for_weight_conversion, which makes it relative to the base",
        )
    for key, value in config.items():
        if key in _HARMLESS or key == "bias" or not value:
            continue
        todo = _CARRIED_ELSEWHERE.get(
            key, "only plain LoRA is read; convert the adapter, or leave the key out if it says nothing"
        )
        raise MalformedArtifact(f"{key} is {value!r:.80}", where=where, todo=todo)


def _pair_up(keys: tuple[str, ...], where: str) -> dict[str, dict[str, str]]:
    """Module name -> {"A": key, "B": key}."""
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        match = _TENSOR_KEY.fullmatch(key)
        if match is None or len(key) > MAX_NAME_CHARACTERS or ".lora_" in match[1]:
            todo = "train without embeddings, magnitudes, biases and saved modules; keep the LoRA factors only"
            raise MalformedArtifact(
                f"tensor {ascii(key)[:200]} is no LoRA factor of a linear module", where=where, todo=todo
            )
        found.setdefault(match[1], {})[match[2]] = key
    for name, pair in found.items():
        if len(pair) != 2:
            raise MalformedArtifact(f"{name} has lora_{next(iter(pair))} alone", where=where)
    if not found:
        raise MalformedArtifact("there are no tensors", where=where, todo="train the adapter first")
    return found


def _scales(config: Mapping[str, Json], names: tuple[str, ...], where: str) -> dict[str, tuple[int, float]]:
    """Module name -> (rank, scale)."""
    ranks = pattern_values(config, "rank_pattern", config.get("r", 8), names, where)
    alphas = pattern_values(config, "alpha_pattern", config.get("lora_alpha", 8), names, where)
    stabilised = config.get("use_rslora", False)
    if not isinstance(stabilised, bool):
        raise MalformedArtifact("use_rslora is neither true nor false", where=where)
    scales = {}
    for name in names:
        rank, alpha = ranks[name], alphas[name]
        if type(rank) is not int or rank < 1:
            raise MalformedArtifact(f"the rank of {name} is {rank!r:.40}", where=where)
        if type(alpha) not in (int, float) or not math.isfinite(alpha):
            raise MalformedArtifact(f"lora_alpha of {name} is {alpha!r:.40}", where=where)
        scales[name] = (rank, alpha / math.sqrt(rank) if stabilised else alpha / rank)
    return scales
