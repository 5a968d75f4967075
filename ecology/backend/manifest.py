"""What is known of a base model without its weights; ``examine`` computes it from the files.

A manifest is a small canonical JSON file beside the cached base: the compatibility identity, and for every tensor its
dtype, shape, digest and Frobenius norm. With it the static gate knows every shape and norm of a base without opening
the weights, and an engine can prove tensor by tensor that what it holds is what the files held.

How long a manifest is believed. Reading half a gigabyte for every command would be slow, so a command compares the
sizes and modification times of the files with those noted; a difference makes the manifest be computed afresh, and with
it another identity if a byte has changed. A forged time stamp gets past that check, but not past the engine, which
digests every resident tensor when it loads and before every candidate.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from ecology.contracts.identity import CompatibilityIdentity, Digest, Json
from ecology.errors import ConfigError, EcologyError, IntegrityError
from ecology.kernel.canonical import canonical
from ecology.kernel.codec import structure

FORMAT = 2


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
    template = json_object(config).get("chat_template") if config.exists() else None
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


def json_object(file: Path) -> dict[str, Json]:
    """What a JSON file of a base holds.

    Raises:
        ConfigError: It is missing or no JSON object.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"a file of the base is missing: {error.strerror}", where=str(file)) from error
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", where=str(file)) from error
    if not isinstance(data, dict):
        raise ConfigError("not a JSON object", where=str(file))
    return data
