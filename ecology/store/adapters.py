"""PEFT LoRA folders, read for what they do and not for what they are called.

Reading refuses what the algebra on dW = s B A cannot carry (DoRA, biases, saved modules, inits that moved the base,
...) and what it does not know, naming the key and the way out: an adapter that is read as something else is worse
than one that is not read. ``peft_config`` says which key is which. Whether to trust a folder is the gate's business.

Converted, because it is exact: rsLoRA and rank and alpha patterns (into the scale), layers and exclusions (into the
list of modules), embeddings, convolutions and Conv1D (``layouts``), BD-LoRA (zeros written out), float16, bfloat16
and float8 (widened when looked at), VeLoRA and MonteCLoRA (plain in use), PiSSA and its like once saved relative to
the base, TinyLoRA (``tinylora``). DoRA could be converted only with the base's weights and to full rank: refused.
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

from ecology.contracts.artifact import CONFIG_FILE, WEIGHTS_FILE
from ecology.contracts.identity import Json
from ecology.errors import MalformedArtifact, UnsupportedAdapter
from ecology.store.files import parse_json, read_bounded
from ecology.store.folders import describe, read_claims
from ecology.store.header import Header, read_header
from ecology.store.layouts import LINEAR, Factors, Layout, block_diagonal, unrolled
from ecology.store.mapped import Stored, map_tensor
from ecology.store.matching import pattern_values, targeted
from ecology.store.peft_config import CONVERTIBLE, LORA, METHODS, PEFT_VERSION
from ecology.store.tinylora import TinyLora, read_tinylora
from ecology.store.writer import write_adapter

__all__ = [
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

_FACTOR = re.compile(r"base_model\.model\.(.+?)\.lora_(embedding_)?([AB])(\.weight)?")
_TRAINING_ONLY = re.compile(r"base_model\.model\..+\.lora_(?:velora_embed|monteclora_sampler(?:\..+)?)")
"""State of a variant that says nothing about its function in use."""

_FOREIGN_TENSORS: Mapping[str, str] = types.MappingProxyType(
    {
        ".lora_magnitude_vector": "use_dora",
        ".lora_B.bias": "lora_bias",
        ".lora_diag": "kasa_config",
        ".token_adapter.": "trainable_token_indices",
    }
)
"""What in a tensor's name gives away the key that it belongs to, whatever the configuration says."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class AdapterFolder:
    """A LoRA as a folder declares it."""

    config: Mapping[str, Json]
    modules: Mapping[str, Factors]
    """By module name as in the base, sorted."""
    layouts: Mapping[str, Layout]
    """Of the modules that are not linear layers, by name."""
    metadata: Mapping[str, str]
    """Of the weights file."""
    tiny: TinyLora | None = None
    """What the modules were expanded from, where the folder is a TinyLoRA."""


def read_adapter(folder: Path) -> AdapterFolder:
    """Reads a PEFT LoRA or TinyLoRA folder.

    A LoRA's scale is alpha / r, or alpha / sqrt(r) with ``use_rslora``, by module. A TinyLoRA is expanded exactly to
    the LoRA of its rank. Factors stay memory-mapped, in the type that the file holds.

    Raises:
        UnsupportedAdapter: The adapter does something that s B A does not hold; names the key and the way out.
        MalformedArtifact: A file is missing or malformed, or its parts do not fit each other.
    """
    where = str(folder / CONFIG_FILE)
    if not os.path.lexists(folder / WEIGHTS_FILE) and os.path.lexists(folder / "adapter_model.bin"):
        raise MalformedArtifact(
            "adapter_model.bin is a pickle, which runs code when it is read",
            where=str(folder),
            todo="save the adapter again with safe_serialization=True",
        )
    config = read_config(folder)
    refuse_unsupported(config, where)
    weights = folder / WEIGHTS_FILE
    header = read_header(weights)
    if config["peft_type"] == "TINYLORA":
        tiny = read_tinylora(config, weights, header)
        parts, factors = tiny.layouts, tiny.expand()
    else:
        tiny = None
        parts, factors = _read_lora(config, weights, header, where)
    layouts = {name: layout for name, layout in parts.items() if layout != LINEAR}
    proxy = types.MappingProxyType
    return AdapterFolder(proxy(config), proxy(factors), proxy(layouts), header.metadata, tiny)


def _read_lora(
    config: Mapping[str, Json], weights: Path, header: Header, where: str
) -> tuple[dict[str, Layout], dict[str, Factors]]:
    found = _pair_up(tuple(header.tensors), str(weights))
    if stray := sorted(set(found) - targeted(config, found, where)):
        raise MalformedArtifact(f"{stray[0]} has tensors and is no target module", where=str(weights))
    scales = _scales(config, tuple(found), where)
    layouts, factors = {}, {}
    for name, keys in found.items():
        rank, scale = scales[name]
        stored_A, stored_B = (map_tensor(weights, header, keys[letter]) for letter in "AB")  # noqa: N806
        shapes = f"{name}: B {stored_B.shape} and A {stored_A.shape}"
        parts = unrolled(stored_A, stored_B)
        if parts is None:
            raise MalformedArtifact(f"{shapes} are no factors of rank {rank}", where=str(weights))
        layout, A, B = parts  # noqa: N806
        A, B = _in_full(config, name, A, B, where)  # noqa: N806
        if layout.kind == "conv" and B.shape[1] != rank and rank % max(1, B.shape[1]) == 0 and A.shape[0] == rank:
            raise UnsupportedAdapter(
                f"{shapes} belong to a convolution with {rank // max(1, B.shape[1])} groups",
                field="target_modules",
                where=str(weights),
                todo="train without grouped convolutions among the targets",
            )
        if A.shape[0] != rank or B.shape[1] != rank or 0 in (B.shape[0], A.shape[1]):
            raise MalformedArtifact(f"{shapes} are no factors of rank {rank}", where=str(weights))
        if not all(np.isfinite(np.asarray(M)).all() for M in (A, B)):
            raise MalformedArtifact(f"{name} holds NaN or infinity", where=str(weights), todo="train it again")
        layouts[name] = Layout("embedding") if ".lora_embedding_" in keys["A"] else layout
        factors[name] = Factors(B, A, scale)
    return layouts, factors


def _in_full(
    config: Mapping[str, Json],
    name: str,
    A: Stored,  # noqa: N803
    B: Stored,  # noqa: N803
    where: str,
) -> tuple[Stored, Stored]:
    """A and B with the zeros that BD-LoRA leaves out."""
    blocks = config.get("use_bdlora")
    if not blocks:
        return A, B
    count = blocks.get("nblocks", 1) if isinstance(blocks, dict) else None
    sides = {}
    for side in "ab":
        patterns = (blocks.get(f"target_modules_bd_{side}") or []) if isinstance(blocks, dict) else None
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
            raise MalformedArtifact("use_bdlora does not name modules", where=where)
        sides[side] = any(pattern in name.rsplit(".", 1)[-1] for pattern in patterns)
    if type(count) is not int or count < 1 or (sides["a"] and sides["b"]):
        raise MalformedArtifact(f"use_bdlora does not say how {name} is cut into blocks", where=where)
    if any(sides[side] and (M.ndim != 2 or M.shape[0] % count) for side, M in (("a", A), ("b", B))):
        raise MalformedArtifact(f"{name} cannot be cut into {count} blocks", where=where)
    return (
        block_diagonal(np.asarray(A, np.float32), count) if sides["a"] else A,
        block_diagonal(np.asarray(B, np.float32), count) if sides["b"] else B,
    )


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


def refuse_unsupported(config: Mapping[str, Json], where: str) -> None:
    """Raises for the first key whose effect dW = s B A does not hold, or that nobody knows.

    Args:
        config: Parsed ``adapter_config.json``.
        where: File name for messages.

    Raises:
        UnsupportedAdapter: Names the key, what it does and the way out.
    """
    kind = config.get("peft_type")
    keys = METHODS.get(kind) if isinstance(kind, str) else None
    if keys is None:
        raise UnsupportedAdapter(
            f"peft_type is {kind!r:.40}",
            field="peft_type",
            where=where,
            todo="only LORA and TINYLORA are read; "
            + (
                "peft.convert_to_lora makes a LoRA of it, which loses what its rank does not hold"
                if kind in CONVERTIBLE
                else "its change is no dW that a LoRA could hold without the base"
            ),
        )
    for name, value in config.items():
        key = keys.get(name)
        if key is None and value:
            raise UnsupportedAdapter(
                f"{name} is {value!r:.80}, which PEFT {PEFT_VERSION} does not know",
                field=name,
                where=where,
                todo="convert the adapter to a plain LoRA, or leave the key out if it says nothing",
            )
        shown = value.lower() if name == "init_lora_weights" and isinstance(value, str) else value
        if key is not None and not key.is_plain(shown):
            raise UnsupportedAdapter(
                f"{name} is {value!r:.80}: it {key.meaning}", field=name, where=where, todo=key.todo
            )


def _pair_up(keys: tuple[str, ...], where: str) -> dict[str, dict[str, str]]:
    """Module name -> {"A": key, "B": key}."""
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        match = _FACTOR.fullmatch(key)
        if match is not None and bool(match[2]) != bool(match[4]) and len(key) <= MAX_NAME_CHARACTERS:
            found.setdefault(match[1], {})[match[3]] = key
        elif not _TRAINING_ONLY.fullmatch(key):
            raise _foreign(key, where)
    for name, pair in found.items():
        if ".base_layer." in name:
            raise UnsupportedAdapter(
                f"{name} is a layer within a layer, as in PyTorch's own MultiheadAttention",
                field="target_modules",
                where=where,
                todo="train without it among the targets",
            )
        if len(pair) != 2:
            raise MalformedArtifact(f"{name} has lora_{next(iter(pair))} alone", where=where)
        if len({".lora_embedding_" in key for key in pair.values()}) != 1:
            raise MalformedArtifact(f"{name} has the factors of a linear layer and of an embedding", where=where)
    if not found:
        raise MalformedArtifact("there are no tensors", where=where, todo="train the adapter first")
    return found


def _foreign(key: str, where: str) -> UnsupportedAdapter:
    """The refusal of a tensor that is no factor, by what it belongs to."""
    what = f"tensor {ascii(key)[:200]} is no LoRA factor"
    field = next((name for part, name in _FOREIGN_TENSORS.items() if part in key), None)
    if field is not None:
        return UnsupportedAdapter(f"{what}: it belongs to {field}", field=field, where=where, todo=LORA[field].todo)
    if ".base_layer." in key:
        return UnsupportedAdapter(
            f"{what}: it replaces weights of the base, also while the adapter is disabled",
            field="target_modules",
            where=where,
            todo="save it with save_embedding_layers=False, unless the embedding was resized",
        )
    return UnsupportedAdapter(
        f"{what}: it replaces what the base holds there",
        field="modules_to_save",
        where=where,
        todo="train without embeddings, biases and saved modules; keep the LoRA factors only",
    )


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
