"""The canonical folder: bytes that follow from the weights and the base's name alone.

``adapter_config.json`` is canonical JSON with full module names, sorted, and ``lora_alpha == r`` (scale 1) for every
module; ``adapter_model.safetensors`` is float32, keys sorted, header padded to 8 bytes; the base is named by id in
the configuration and by weights digest in the file's metadata, the one place that PEFT leaves alone (a key that it
does not know in the configuration makes it warn). Plain ``PeftModel.from_pretrained`` (peft 0.21.2) loads the folder
without a warning.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ecology.contracts.artifact import BASE_KEY, CONFIG_FILE, WEIGHTS_FILE, Artifact
from ecology.contracts.identity import Digest, Json
from ecology.errors import ConfigError
from ecology.kernel.canonical import canonical, is_digest
from ecology.store.files import write_atomic
from ecology.store.folders import describe
from ecology.store.layouts import LINEAR, Layout
from ecology.store.tinylora import TinyLora


def write_adapter(
    folder: Path,
    modules: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    base_id: str,
    base_digest: Digest,
    *,
    layouts: Mapping[str, Layout] | None = None,
    task_type: str | None = "CAUSAL_LM",
    fan_in_fan_out: bool = False,
) -> Artifact:
    """Writes the canonical folder of the LoRA dW = B A; equal arguments give equal bytes.

    Args:
        folder: Made when missing; must hold nothing else than an earlier version of the same two files.
        modules: Module name -> (B out x rank, A rank x in); rounded to float32 here and nowhere else.
        base_id: Name of the base for people, such as ``HuggingFaceTB/SmolLM2-135M-Instruct``; never a path.
        base_digest: The base's weights digest.
        layouts: Of modules that are no linear layers; None: all are.
        task_type: PEFT's word for the class that wraps the base; None: its plain wrapper.
        fan_in_fan_out: Whether the base has Conv1D layers; says nothing about the factors, and PEFT warns without.

    Raises:
        ConfigError: No module, a rank of 0, shapes that do not fit, values beyond float32, or names that PEFT could
            not tell apart.
    """
    ranks = {name: modules[name][1].shape[0] for name in sorted(modules)}
    tensors = _tensors(modules, layouts or {})
    config = {**_config(ranks, base_id), "fan_in_fan_out": fan_in_fan_out, "task_type": task_type}
    return _write(folder, config, tensors, base_id, base_digest)


def write_tinylora(
    folder: Path, adapter: TinyLora, base_id: str, base_digest: Digest, *, task_type: str | None = "CAUSAL_LM"
) -> Artifact:
    """Writes the canonical folder of a TinyLoRA: its basis as it was, its vectors rounded to float32.

    Args:
        folder: As in ``write_adapter``.
        adapter: What to write.
        base_id: As in ``write_adapter``.
        base_digest: As in ``write_adapter``.
        task_type: As in ``write_adapter``.

    Raises:
        ConfigError: Vectors beyond float32, or names that PEFT could not tell apart.
    """
    _check_names(adapter.modules)
    config = {
        **adapter.settings,
        "base_model_name_or_path": base_id,
        "bias": "none",
        "inference_mode": True,
        "modules_to_save": None,
        "peft_type": "TINYLORA",
        "save_projection": True,
        "target_modules": sorted(adapter.modules),
        "task_type": task_type,
        "tinylora_dropout": 0.0,
    }
    tensors = {key: _rounded(key, tensor) for key, tensor in sorted(adapter.tensors().items())}
    return _write(folder, config, tensors, base_id, base_digest)


def _write(
    folder: Path,
    config: Mapping[str, Json],
    tensors: Mapping[str, npt.NDArray[np.float32]],
    base_id: str,
    base_digest: Digest,
) -> Artifact:
    if os.path.isabs(base_id) or not base_id or base_id.startswith(".") or not is_digest(base_digest):
        raise ConfigError(
            f"{base_id!r} with {base_digest!r} does not name a base", todo="give its id and weights digest"
        )
    weights = _safetensors(tensors, {BASE_KEY: base_digest, "format": "pt"})
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / CONFIG_FILE, canonical(dict(config)))
    write_atomic(folder / WEIGHTS_FILE, weights)
    artifact = describe(folder)
    if [file.path for file in artifact.files] != [CONFIG_FILE, WEIGHTS_FILE]:
        raise ConfigError("the output folder holds other files", where=str(folder), todo="give a new folder")
    return artifact


def _check_names(modules: Iterable[str]) -> None:
    modules = set(modules)
    if not modules:
        raise ConfigError("an adapter without a module cannot be written", todo="give it at least one, if of zeros")
    suffixes = {name[i + 1 :] for name in modules for i, letter in enumerate(name) if letter == "."}
    if shared := sorted(suffixes & modules):
        raise ConfigError(
            f"PEFT cannot tell module {shared[0]!r} from a longer name that ends alike", todo="use full names"
        )


def _tensors(
    modules: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]], layouts: Mapping[str, Layout]
) -> dict[str, npt.NDArray[np.float32]]:
    _check_names(modules)
    tensors = {}
    for name, (B, A) in modules.items():  # noqa: N806
        if B.ndim != 2 or A.ndim != 2 or B.shape[1] != A.shape[0] or 0 in (*B.shape, *A.shape):
            raise ConfigError(f"{name}: B {B.shape} and A {A.shape} are no factors")
        layout = layouts.get(name, LINEAR)
        for key, factor in zip(layout.keys(name), layout.stored(B, A), strict=True):
            tensors[key] = _rounded(key, factor)
    return dict(sorted(tensors.items()))


def _rounded(key: str, tensor: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(tensor, "<f4")
    if not np.isfinite(rounded).all():
        raise ConfigError(f"{key} holds values that float32 cannot")
    return rounded


def _config(ranks: Mapping[str, int], base_id: str) -> dict[str, Json]:
    rank = max(ranks.values())  # the largest, because servers size their buffers by r alone
    # Keys of the patterns are regular expressions to PEFT.
    lower = {re.escape(name): value for name, value in ranks.items() if value != rank}
    return {
        "alpha_pattern": lower,
        "base_model_name_or_path": base_id,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": lower,
        "target_modules": sorted(ranks),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def _safetensors(tensors: Mapping[str, npt.NDArray[np.float32]], metadata: Mapping[str, str]) -> bytes:
    """The file's bytes: metadata first, tensors in the order given, header padded with spaces to 8 bytes."""
    table: dict[str, Json] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for key, tensor in tensors.items():
        table[key] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [position, position + tensor.nbytes]}
        position += tensor.nbytes
    head = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    return b"".join((len(head).to_bytes(8, "little"), head, *(tensor.tobytes() for tensor in tensors.values())))
