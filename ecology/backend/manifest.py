"""What a base model is, computed from its files: no torch, no transformers, no weights in memory at once.

A manifest is a small canonical JSON file beside the cached base: the compatibility identity, and for every tensor its
dtype, shape, digest and Frobenius norm. With it the static gate knows every shape and norm of a base without opening
the weights, and an engine can prove tensor by tensor that what it holds is what the files held.

How long a manifest is believed. Reading half a gigabyte for every command would be slow, so a command compares the
sizes and modification times of the files with those noted; a difference makes the manifest be computed afresh, and with
it another identity if a byte has changed. A forged time stamp gets past that check, but not past the engine, which
digests every resident tensor when it loads and before every candidate.

Digests, all over canonical JSON (RFC 8785):

- ``base_weights``: ``[{"digest", "dtype", "name", "shape"}]`` sorted by name, the digest being over the tensor's bytes;
- ``architecture``: ``config.json`` without the keys that change nothing in what the model computes;
- ``tokenizer``: ``tokenizer.json`` parsed (so that indentation does not matter), and the chat template;
- ``tensor_schema``: ``[[name, shape]]`` sorted by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ecology.contracts.identity import CompatibilityIdentity, Digest, Json
from ecology.contracts.ports import Step
from ecology.errors import ConfigError, EcologyError, IntegrityError
from ecology.kernel.canonical import canonical, digest
from ecology.kernel.codec import structure

FORMAT = 2
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


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the base as its file holds it."""

    dtype: str
    shape: tuple[int, ...]
    digest: Digest
    norm: float
    """Frobenius norm."""
    spectral: float = 0.0
    """A lower bound of the spectral norm, within a few per cent of it; 0 for what is no matrix."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stamp:
    """What is compared before a manifest is believed."""

    size_bytes: int
    modified_ns: str
    """Nanoseconds since 1970; text, because JSON numbers end at 2**53."""


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """All that is known of a base without its weights."""

    format: int
    identity: CompatibilityIdentity
    tensors: Mapping[str, Tensor]
    files: Mapping[str, Stamp]
    """Name in the base's folder -> stamp; empty in a manifest that is shipped."""


def examine(folder: Path, progress: Step | None = None) -> Manifest:
    """Computes the manifest from the files.

    Args:
        folder: ``config.json``, ``tokenizer.json`` and ``*.safetensors``.
        progress: Advanced by the mebibytes read.

    Raises:
        ConfigError: A file is missing or cannot be read as what it should be.
    """
    config = _json(folder / "config.json")
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
        tokenizer=digest({"tokenizer": _json(folder / "tokenizer.json"), "chat_template": chat_template(folder)}),
        tensor_schema=digest([[n, tensors[n].shape] for n in order]),
    )
    return Manifest(FORMAT, identity, {n: tensors[n] for n in order}, stamps(folder))


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a base, sorted by name.

    Raises:
        ConfigError: There are none. Other weight formats can carry code and are not read.
    """
    files = tuple(sorted(folder.glob("*.safetensors")))
    if not files:
        raise ConfigError(
            "no safetensors file is in the folder of the base",
            where=str(folder),
            todo="convert the weights: other formats can carry code and are not read",
        )
    return files


def stamps(folder: Path) -> Mapping[str, Stamp]:
    """Sizes and modification times of the files that make the base what it is."""
    names = ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"]
    files = [folder / name for name in names if (folder / name).exists()] + list(weight_files(folder))
    stats = {file.name: file.stat() for file in files}
    return {name: Stamp(stat.st_size, str(stat.st_mtime_ns)) for name, stat in sorted(stats.items())}


def chat_template(folder: Path) -> str:
    """The Jinja text of the base's chat template; empty when it has none."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    template = _json(config).get("chat_template") if config.exists() else None
    return template if isinstance(template, str) else ""


def write(manifest: Manifest) -> bytes:
    """The manifest as canonical JSON."""
    return canonical(manifest)


def read(data: bytes, where: str) -> Manifest:
    """The manifest that ``write`` gave.

    Raises:
        IntegrityError: The bytes are not a manifest of this format.
    """
    try:
        manifest = structure(Manifest, json.loads(data), where)
    except (ValueError, EcologyError) as error:
        raise IntegrityError(
            f"the manifest of a base is damaged: {error}", where=where, todo="delete the file"
        ) from error
    if not 1 <= manifest.format <= FORMAT:
        raise IntegrityError(f"format {manifest.format} is not read", where=where, todo="delete the file")
    return manifest


def _json(file: Path) -> dict[str, Json]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"a file of the base is missing: {error.strerror}", where=str(file)) from error
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", where=str(file)) from error
    if not isinstance(data, dict):
        raise ConfigError("not a JSON object", where=str(file))
    return data


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
