"""The bench: base model, engine and evaluator of one run, each opened when it is first needed.

A run whose members are all in the store and whose answers are all in the cache still loads the base once, to prove
that it is the base; a static gate loads neither weights nor torch.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ecology.backend.bases import KINDS, BaseModel, BaseSpec, ensure, known, present
from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.documents.source import read_source
from ecology.errors import ConfigError
from ecology.gate.files import TOKENIZER_FILES
from ecology.kernel.canonical import digest_bytes
from ecology.kernel.codec import structure
from ecology.pipeline.house import House
from ecology.pipeline.options import choose, read_options
from ecology.pipeline.places import shared
from ecology.telemetry.environment import environment

if TYPE_CHECKING:
    from ecology.evaluator.asking import Evaluator
    from ecology.pipeline.settings import BackendSettings
    from ecology.runtime.engine import TransformersEngine


@dataclasses.dataclass(frozen=True)
class Bench:
    """What candidates are measured on."""

    base: BaseModel
    backend: BackendSettings
    house: House

    @property
    def identity(self) -> CompatibilityIdentity:
        """Of the base."""
        return self.base.identity

    @functools.cached_property
    def environment(self) -> Mapping[str, str]:
        """What determinism depends on: versions, threads, kind of CPU."""
        return environment_of(self.backend.threads)

    @functools.cached_property
    def engine(self) -> TransformersEngine:
        """The resident base."""
        from ecology.runtime.engine import TransformersEngine  # noqa: PLC0415  (torch only when weights are needed)

        return TransformersEngine(
            self.base,
            clock=self.house.clock,
            threads=self.backend.threads,
            batch_size=self.backend.batch_size,
            dtype=self.backend.dtype,
        )

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """Asks items, through the cache of results by content."""
        from ecology.evaluator.asking import Evaluator  # noqa: PLC0415
        from ecology.evaluator.cache import ResultCache  # noqa: PLC0415

        return Evaluator(self.engine, ResultCache(self.house.home / "results"), self.house.progress)


def environment_of(threads: int) -> Mapping[str, str]:
    """Versions, thread count and kind of CPU, as a genome records them."""
    return environment(threads)


def open_bench(base: Mapping[str, object], backend: BackendSettings, house: House) -> Bench:
    """The bench for a base, which is fetched and converted if it is not cached.

    Args:
        base: What ``conf/base/<name>.yaml`` holds.
        backend: Threads and batch size.
        house: Where bases are cached.

    Raises:
        ConfigError: The base is not described well.
        BackendError: It cannot be had.
    """
    return Bench(ensure(base_spec(base), house.home, house.progress), backend, house)


def base_spec(base: Mapping[str, object]) -> BaseSpec:
    """A base's description as its kind's own type.

    Raises:
        ConfigError: Unknown kind, or wrong fields.
    """
    kind = choose(KINDS, str(base.get("kind")), "base.kind")
    spec: BaseSpec = read_options(kind, base, "base")
    return spec


def preset(name: str) -> BaseSpec:
    """What a preset of ``conf/base`` says.

    Raises:
        ConfigError: There is none of that name, or it leaves something to be filled in.
    """
    folder = shared("conf", "base")
    path = folder / f"{name}.yaml"
    if name in {"", ".", ".."} or "/" in name or not path.exists():
        names = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise ConfigError(f"no base preset {name!r}", where="--base", todo=f"choose one of {names}")
    said = read_source(path, ConfigError).plain("the preset")
    open_keys = [key for key, value in said.items() if value == "???"]
    if open_keys:
        raise ConfigError(
            f"the preset leaves {', '.join(open_keys)} open",
            where=str(path),
            todo="copy it with values, or use ecology run",
        )
    return structure(KINDS[said["kind"]], said, str(path))


def whole_presets() -> Iterator[tuple[str, BaseSpec]]:
    """Every preset of ``conf/base`` that leaves nothing to be filled in, by name."""
    for path in sorted(shared("conf", "base").glob("*.yaml")):
        if "???" not in read_source(path, ConfigError).plain("the preset").values():
            yield path.stem, preset(path.stem)


def fetch_base(name: str, house: House) -> BaseModel:
    """A preset's base, cached.

    Raises:
        ConfigError: There is no such preset.
        BackendError: It cannot be had.
    """
    return ensure(preset(name), house.home, house.progress)


def known_base(name: str, house: House) -> BaseModel:
    """A preset's identity, schema and norms, without its weights where the package or the cache knows them.

    Raises:
        ConfigError: There is no such preset.
        BackendError: It had to be fetched and cannot be had.
    """
    spec = preset(name)
    return known(spec, house.home) or ensure(spec, house.home, house.progress)


def tokenizer_files(base: Path, adapter: Path | None = None) -> dict[str, Digest]:
    """Digests of a base's own tokenizer files and template: an adapter's folder may hold the same bytes and no others.

    Args:
        base: Its folder; of a base that is not fetched nothing is known, and then no such file may be there.
        adapter: Only names that this folder has too are looked at; None looks at all.
    """
    return {
        name: digest_bytes((base / name).read_bytes())
        for name in sorted(TOKENIZER_FILES)
        if (adapter is None or os.path.lexists(adapter / name)) and (base / name).is_file()
    }


def list_bases(house: House) -> list[str]:
    """One line a preset of ``conf/base``: name, kind, and whether it is cached here."""
    lines = []
    for path in sorted(shared("conf", "base").glob("*.yaml")):
        said = read_source(path, ConfigError).plain("the preset")
        if "???" in said.values():
            state = "to be filled in"
        else:
            state = "cached" if present(preset(path.stem), house.home) else "not fetched"
        lines.append(f"{path.stem:<16} {said['kind']:<12} {state}")
    return lines
