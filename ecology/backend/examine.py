"""What a base model is, computed from its files: no torch, no transformers, no weights in memory at once.

Digests, all over canonical JSON (RFC 8785):

- ``base_weights``: ``[{"digest", "dtype", "name", "shape"}]`` sorted by name, the digest being over the tensor's bytes;
- ``architecture``: ``config.json`` without the keys that change nothing in what the model computes;
- ``tokenizer``: ``tokenizer.json`` parsed (so that indentation does not matter), and the chat template;
- ``tensor_schema``: ``[[name, shape]]`` sorted by name.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ecology.backend.manifest import FORMAT, Manifest, Tensor, chat_template, json_object, stamps, weight_files
from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.contracts.ports import Step
from ecology.errors import ConfigError
from ecology.kernel.canonical import digest

MAX_HEADER_BYTES = 64 * 1024 * 1024  # bytes; a base is ours or named by us, so this only stops accidents
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of one value, by safetensors dtype (https://github.com/huggingface/safetensors, "Format")."""

INERT_KEYS = frozenset(
    {
        "_name_or_path",
        "architectures",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "initializer_range",
        "pad_token_id",
        "pretraining_tp",
        "torch_dtype",
        "transformers_version",
        "unk_token_id",
        "use_cache",
    }
)
"""Keys of ``config.json`` that do not alter what the model computes from given tokens. Any other key counts."""


BLOCK_VECTORS, POWER_STEPS = 4, 12
"""Of the iteration for spectral norms."""


def examine(folder: Path, progress: Step | None = None) -> Manifest:
    """Computes the manifest from the files.

    Args:
        folder: ``config.json``, ``tokenizer.json`` and ``*.safetensors``.
        progress: Advanced by the mebibytes read.

    Raises:
        ConfigError: A file is missing or cannot be read as what it should be.
    """
    config = json_object(folder / "config.json")
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        for name, tensor in _tensors(file, progress):
            if name in tensors:
                raise ConfigError(f"tensor {name!r} is in two files", where=str(file))
            tensors[name] = tensor
    order = sorted(tensors)
    shown = [
        {"name": n, "dtype": tensors[n].dtype, "shape": tensors[n].shape, "digest": tensors[n].digest} for n in order
    ]
    identity = CompatibilityIdentity(
        base_family=str(config.get("model_type", "")),
        base_weights=digest(shown),
        architecture=digest({key: value for key, value in config.items() if key not in INERT_KEYS}),
        tokenizer=digest({"tokenizer": json_object(folder / "tokenizer.json"), "chat_template": chat_template(folder)}),
        tensor_schema=digest([[n, tensors[n].shape] for n in order]),
    )
    return Manifest(FORMAT, identity, {n: tensors[n] for n in order}, stamps(folder))


def _tensors(file: Path, progress: Step | None) -> Iterator[tuple[str, Tensor]]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ConfigError("not a safetensors file", where=str(file))
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise ConfigError(f"not a safetensors file: {error}", where=str(file)) from error
    header.pop("__metadata__", None)
    data = np.memmap(file, np.uint8, "r", offset=8 + length) if size > 8 + length else np.empty(0, np.uint8)
    for name, entry in header.items():
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if dtype not in WIDTHS:
            raise ConfigError(f"tensor {name!r} has dtype {dtype}; known: {', '.join(WIDTHS)}", where=str(file))
        if not 0 <= start <= end <= data.size or end - start != WIDTHS[dtype] * math.prod(shape):
            raise ConfigError(f"tensor {name!r} does not fit its shape or the file", where=str(file))
        raw = np.ascontiguousarray(data[start:end])
        digest_ = Digest("sha256:" + hashlib.sha256(raw.data).hexdigest())
        yield name, Tensor(dtype, shape, digest_, _norm(raw, dtype), spectral_norm(_values(raw, dtype), shape))
        if progress is not None:
            progress.advance((end >> 20) - (start >> 20), name)


def _values(raw: np.ndarray, dtype: str) -> np.ndarray | None:
    """A tensor as floating point, one widened copy where it is BF16; None for indices and masks."""
    if dtype == "BF16":  # the upper half of an F32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    return raw.view(kinds[dtype]) if dtype in kinds else None


def spectral_norm(values: np.ndarray | None, shape: tuple[int, ...]) -> float:
    """||W||_2 from below: block power iteration (Golub & Van Loan, Matrix Computations, 8.2.4) with a fixed start.

    From below, so that a bound on a change that is a share of it errs towards refusal.

    Args:
        values: All of W, flat; None for what is not floating point.
        shape: Of W; only matrices have one here.

    Returns:
        0 where it is no matrix, is empty or is not finite.
    """
    if values is None or len(shape) != 2 or 0 in shape:
        return 0.0
    matrix = values.reshape(shape).astype(np.float32, copy=False)
    start = np.random.Generator(np.random.PCG64(0)).normal(size=(shape[1], min(BLOCK_VECTORS, *shape)))
    basis = start.astype(np.float32)
    with np.errstate(all="ignore"):
        for _ in range(POWER_STEPS):
            if not np.isfinite(basis).all():
                return 0.0
            basis, _ = np.linalg.qr(basis)
            image = matrix @ basis
            basis = matrix.T @ image
        gram = image.astype(np.float64).T @ image.astype(np.float64)
    return math.sqrt(max(0.0, float(np.linalg.eigvalsh(gram)[-1]))) if np.isfinite(gram).all() else 0.0


def _norm(raw: np.ndarray, dtype: str) -> float:
    values = _values(raw, dtype)
    if values is None:
        return 0.0  # nothing that an adapter could be compared with
    total = 0.0
    for start in range(0, values.size, 1 << 20):
        block = values[start : start + (1 << 20)].astype(np.float64)
        total += float(np.dot(block, block))
    return math.sqrt(total)
