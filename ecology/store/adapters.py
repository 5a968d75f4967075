"""PEFT LoRA folders in, canonical folders out.

Reading refuses what the algebra on dW = s B A cannot carry (DoRA, biases, saved modules, inits that moved the base,
...) and what it does not know, naming the key and the way out: an adapter that is read as something else is worse
than one that is not read. Whether to trust a folder is the gate's business.

Writing gives the bytes that an artifact's digest is taken of, so they must follow from the weights alone:
``adapter_config.json`` is canonical JSON with full module names, sorted, and ``lora_alpha == r`` (scale 1) for every
module; ``adapter_model.safetensors`` is float32, keys sorted, header padded to 8 bytes; the base is named by id in
the configuration and by weights digest in the file's metadata, the one place that PEFT leaves alone. Plain
``PeftModel.from_pretrained`` (peft 0.21.2) loads it without a warning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ecology.contracts.artifact import CLAIMS_FILE, CONFIG_FILE, WEIGHTS_FILE, Artifact, FileRecord
from ecology.contracts.identity import Digest, Json
from ecology.errors import ConfigError, MalformedArtifact
from ecology.kernel.canonical import canonical, digest, is_digest
from ecology.store.files import open_plain, parse_json, read_bounded, write_atomic
from ecology.store.header import load_tensor, read_header
from ecology.store.matching import pattern_values, targeted

MAX_CONFIG_BYTES = 1024 * 1024
MAX_CLAIMS_BYTES = 16 * 1024 * 1024
MAX_FILES = 1000
MAX_FOLDER_DEPTH = 4
MAX_NAME_CHARACTERS = 256
BASE_KEY = "base"
"""Key of the weights file's metadata that holds the base's weights digest."""

_TENSOR_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")

_HARMLESS = frozenset(
    {
        *(
            "alpha_pattern",
            "exclude_modules",
            "init_lora_weights",
            "layers_pattern",
            "layers_to_transform",
            "lora_alpha",
        ),
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


def describe(folder: Path) -> Artifact:
    """Names the bytes of a folder. Any plain files may be in it; ``claims.jsonl`` is left out.

    Raises:
        MalformedArtifact: No such folder, a link, a device, more than ``MAX_FILES`` files, or a name that is not UTF-8.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise MalformedArtifact(
            "not a folder", where=str(folder), todo="give the adapter's own folder, not a link to it"
        )
    files = tuple(sorted(_record(folder, path) for path in _walk(folder, MAX_FOLDER_DEPTH)))
    return Artifact(digest(files), files)


def read_claims(folder: Path) -> tuple[str, ...]:
    """Lines of the folder's ``claims.jsonl``, not judged; empty when there is none.

    Raises:
        MalformedArtifact: It is a link, larger than ``MAX_CLAIMS_BYTES`` or not UTF-8.
    """
    path = folder / CLAIMS_FILE
    if not os.path.lexists(path):
        return ()
    try:
        text = read_bounded(path, MAX_CLAIMS_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedArtifact(f"{CLAIMS_FILE} is not UTF-8", where=str(path)) from error
    return tuple(line for line in text.split("\n") if line.strip())


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


def write_adapter(
    folder: Path,
    modules: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    base_id: str,
    base_digest: Digest,
) -> Artifact:
    """Writes the canonical folder of the LoRA dW = B A; equal arguments give equal bytes.

    Args:
        folder: Made when missing; must hold nothing else than an earlier version of the same two files.
        modules: Module name -> (B out x rank, A rank x in); rounded to float32 here and nowhere else.
        base_id: Name of the base for people, such as ``HuggingFaceTB/SmolLM2-135M-Instruct``; never a path.
        base_digest: The base's weights digest.

    Raises:
        ConfigError: No module, a rank of 0, shapes that do not fit, values beyond float32, or names that PEFT could
            not tell apart.
    """
    tensors = _tensors(modules)
    ranks = {name: tensors[f"base_model.model.{name}.lora_A.weight"].shape[0] for name in sorted(modules)}
    if os.path.isabs(base_id) or not base_id or base_id.startswith(".") or not is_digest(base_digest):
        raise ConfigError(
            f"{base_id!r} with {base_digest!r} does not name a base", todo="give its id and weights digest"
        )
    config = canonical(_config(ranks, base_id))
    weights = _safetensors(tensors, {BASE_KEY: base_digest, "format": "pt"})
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / CONFIG_FILE, config)
    write_atomic(folder / WEIGHTS_FILE, weights)
    artifact = describe(folder)
    if [file.path for file in artifact.files] != [CONFIG_FILE, WEIGHTS_FILE]:
        raise ConfigError("the output folder holds other files", where=str(folder), todo="give a new folder")
    return artifact


def _walk(folder: Path, depth: int, count: list[int] | None = None) -> Iterator[Path]:
    count = [0] if count is None else count
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise MalformedArtifact(f"cannot be listed: {error}", where=str(folder)) from error
    for entry in entries:
        if entry.is_symlink():
            raise MalformedArtifact(f"{entry.name!a} is a link", where=str(folder), todo="put a plain file there")
        if entry.is_dir(follow_symlinks=False):
            if depth == 0:
                raise MalformedArtifact(f"folders deeper than {MAX_FOLDER_DEPTH}", where=str(folder))
            yield from _walk(Path(entry.path), depth - 1, count)
        else:
            count[0] += 1
            if count[0] > MAX_FILES:
                raise MalformedArtifact(f"more than {MAX_FILES} files", where=str(folder))
            yield Path(entry.path)


def _record(folder: Path, path: Path) -> FileRecord:
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise MalformedArtifact(f"the name {name!a} is not UTF-8", where=str(folder)) from error
    with open_plain(path) as stream:
        sha256 = hashlib.file_digest(stream, "sha256")
        return FileRecord(name, stream.tell(), Digest(f"sha256:{sha256.hexdigest()}"))


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


def _tensors(modules: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> dict[str, npt.NDArray[np.float32]]:
    if not modules:
        raise ConfigError("an adapter without a module cannot be written", todo="give it at least one, if of zeros")
    suffixes = {name[i + 1 :] for name in modules for i, letter in enumerate(name) if letter == "."}
    if shared := sorted(suffixes & set(modules)):
        raise ConfigError(
            f"PEFT cannot tell module {shared[0]!r} from a longer name that ends alike", todo="use full names"
        )
    tensors = {}
    for name, (B, A) in modules.items():  # noqa: N806
        if B.ndim != 2 or A.ndim != 2 or B.shape[1] != A.shape[0] or 0 in (*B.shape, *A.shape):
            raise ConfigError(f"{name}: B {B.shape} and A {A.shape} are no factors")
        for letter, factor in (("A", A), ("B", B)):
            with np.errstate(over="ignore"):
                rounded = np.ascontiguousarray(factor, "<f4")
            if not np.isfinite(rounded).all():
                raise ConfigError(f"{name}: lora_{letter} holds values that float32 cannot")
            tensors[f"base_model.model.{name}.lora_{letter}.weight"] = rounded
    return dict(sorted(tensors.items()))


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
