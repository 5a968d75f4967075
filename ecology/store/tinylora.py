"""TinyLoRA as PEFT saves it: a frozen basis a module, and a few trained numbers that modules share.

    dW = B (sum_i v_i P_i) A            B m x r, A r x n, P u x r x r frozen; v of length u trained

B and A are a truncated SVD of the base's weight (with the signs that LAPACK chose, which is why they are saved), P is
random. dW is linear in v and of rank r at most, so the LoRA with factors B R and A is the same function, exactly. Two
adapters add in v alone if base, B, A, P, tying and u agree to the bit: ``TinyLora.basis`` is the digest of all that.

Which vector a module has is written nowhere. PEFT counts the targets in the order of the base's modules and gives
module i the group min(i // (N // G), G - 1), G = max(1, round(N (1 - weight_tying))); P of module i is drawn with
seed ``projection_seed`` + i. So i is found again by drawing P for every i and comparing (to 1e-4, since torch's
vectorised draw and ours differ in the last bits). If the i found are 0 .. N - 1, each once, they are the base's order:
where an earlier adapter in the same model gave its own i to some modules, they would repeat, and the file is refused.

Source: arXiv:2602.04118, section 4; peft 0.21.2, ``tuners/tinylora/layer.py`` and ``model.py``; the draw is
``at::normal_`` on CPU (ATen/native/cpu/DistributionTemplates.h: Mersenne Twister and Box-Muller).
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ecology.contracts.identity import Digest, Json
from ecology.errors import ConfigError, MalformedArtifact, UnsupportedAdapter
from ecology.kernel.canonical import canonical
from ecology.store.header import Header
from ecology.store.layouts import LINEAR, PREFIX, Factors, Layout
from ecology.store.mapped import load_tensor
from ecology.store.matching import targeted

VECTOR = "base_model.tinylora_v."
MOST_DRAWN = 10_000_000
"""Numbers that are drawn to tell the modules' order, at most."""
DRAW_TOLERANCE = 1e-4
"""Relative; two draws of different seeds differ by about 1."""

_PART = re.compile(r"base_model\.model\.(.+)\.tinylora_([ABP])")
_GROUP = re.compile(r"base_model\.tinylora_v\.(0|[1-9]\d{0,5})")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """What is frozen in one module; float32, as stored."""

    A: npt.NDArray[np.float32]
    """r x inputs; for an embedding r x dimension."""
    B: npt.NDArray[np.float32]
    """outputs x r; for an embedding vocabulary x r."""
    P: npt.NDArray[np.float32]
    """u x r x r."""
    group: int
    """Index of its vector."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TinyLora:
    """A TinyLoRA adapter."""

    settings: Mapping[str, Json]
    """``r``, ``u``, ``weight_tying`` and ``projection_seed``."""
    modules: Mapping[str, Basis]
    """By module name, sorted."""
    vectors: Mapping[int, npt.NDArray[np.float64]]
    """By group; each of length u."""
    layouts: Mapping[str, Layout]
    """Of every module."""

    @property
    def basis(self) -> Digest:
        """Digest of all that is frozen: equal digests, and only they, mean that vectors add."""
        whole = hashlib.sha256(canonical({"settings": dict(self.settings), "modules": list(self.modules)}))
        for name, one in self.modules.items():
            whole.update(canonical([name, one.group, [list(M.shape) for M in (one.A, one.B, one.P)]]))
            for matrix in (one.A, one.B, one.P):
                whole.update(np.ascontiguousarray(matrix, "<f4").tobytes())
        return Digest(f"sha256:{whole.hexdigest()}")

    def expand(self) -> dict[str, Factors]:
        """The LoRA of rank r that is the same function, by module; products in float64, rounded once."""
        found = {}
        for name, one in self.modules.items():
            R = np.tensordot(self.vectors[one.group], one.P.astype(np.float64), axes=1)  # noqa: N806
            B, A = one.B, one.A  # noqa: N806
            if self.layouts[name].kind == "embedding":  # the file holds the weight's way round, a LoRA the other
                B, A, R = A.T, B.T, R.T  # noqa: N806
            found[name] = Factors((B @ R).astype(np.float32), A, 1.0)
        return found

    def with_vectors(self, vectors: Mapping[int, npt.NDArray[np.float64]]) -> TinyLora:
        """The adapter with other vectors on the same basis.

        Raises:
            ConfigError: Other groups or lengths.
        """
        if {g: v.shape for g, v in vectors.items()} != {g: v.shape for g, v in self.vectors.items()}:
            raise ConfigError("vectors of other groups or lengths than the basis has")
        return dataclasses.replace(self, vectors=types.MappingProxyType(dict(vectors)))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What PEFT saves, by key; float32."""
        found: dict[str, npt.NDArray[Any]] = {
            f"{VECTOR}{group}": v.astype(np.float32) for group, v in self.vectors.items()
        }
        for name, one in self.modules.items():
            for letter, matrix in (("A", one.A), ("B", one.B), ("P", one.P)):
                found[f"{PREFIX}{name}.tinylora_{letter}"] = matrix
        return found


def read_tinylora(config: Mapping[str, Json], weights: Path, header: Header) -> TinyLora:
    """Reads the weights of a TinyLoRA.

    Args:
        config: Its configuration, in which nothing is ``beyond``.
        weights: ``adapter_model.safetensors``.
        header: Its head.

    Raises:
        UnsupportedAdapter: The projections are not in the file, or not those that the seed makes.
        MalformedArtifact: Tensors are missing, superfluous or do not fit each other.
    """
    where = str(weights)
    settings = _settings(config, where)
    parts, vectors = _collect(weights, header)
    rank, u = settings["r"], settings["u"]
    for name, part in parts.items():
        if "P" not in part and {"A", "B"} <= part.keys():
            raise UnsupportedAdapter(
                f"{name} comes without its projection, which torch would have to draw again",
                field="save_projection",
                where=where,
                todo="save the adapter with save_projection=true",
            )
        if part.keys() != {"A", "B", "P"}:
            raise MalformedArtifact(f"{name} has tinylora_{' and '.join(sorted(part))} alone", where=where)
        r = part["A"].shape[0] if part["A"].ndim == 2 else 0
        fits = part["B"].ndim == 2 and part["B"].shape[1] == r and part["P"].shape == (u, r, r)
        if not (0 < r <= rank and fits):
            shapes = ", ".join(f"{letter} {part[letter].shape}" for letter in "BPA")
            raise MalformedArtifact(f"{name}: {shapes} are no basis of rank {rank} and u {u}", where=where)
    if stray := sorted(set(parts) - targeted(config, parts, where)):
        raise MalformedArtifact(f"{stray[0]} has tensors and is no target module", where=where)
    groups = _groups(parts, settings, where)
    if set(groups.values()) != set(vectors) or any(v.shape != (u,) for v in vectors.values()):
        raise MalformedArtifact(
            f"vectors {sorted(vectors)} do not fit {len(parts)} modules with weight_tying {settings['weight_tying']} "
            f"and u {u}",
            where=where,
        )
    modules = {name: Basis(part["A"], part["B"], part["P"], groups[name]) for name, part in parts.items()}
    layouts = {name: Layout("embedding") if _is_embedding(name) else LINEAR for name in parts}
    frozen = types.MappingProxyType
    return TinyLora(frozen(settings), frozen(modules), frozen(dict(sorted(vectors.items()))), frozen(layouts))


def projection(seed: int, u: int, r: int) -> npt.NDArray[np.float64]:
    """P of the module with that seed, u x r x r, as ``torch.normal`` on CPU draws it, up to its last bits."""
    count = u * r * r
    draws = np.random.RandomState(seed & 0xFFFFFFFF)
    if count < 16:  # noqa: SIM108
        flat = _drawn_one_by_one(draws, count)
    else:
        flat = _drawn_by_sixteen(draws, count)
    scaled: npt.NDArray[np.float64] = (flat / np.sqrt(r)).reshape(u, r, r)
    return scaled


def _drawn_one_by_one(draws: np.random.RandomState, count: int) -> npt.NDArray[np.float64]:
    pairs = (count + 1) // 2
    raw = draws.randint(0, 2**32, size=(pairs, 2, 2), dtype=np.uint32).astype(np.uint64)
    uniform = (((raw[..., 0] << np.uint64(32)) | raw[..., 1]) & np.uint64(2**53 - 1)) / 2.0**53
    radius, angle = np.sqrt(-2 * np.log1p(-uniform[:, 1])), 2 * np.pi * uniform[:, 0]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:count]


def _drawn_by_sixteen(draws: np.random.RandomState, count: int) -> npt.NDArray[np.float64]:
    uniform = _uniform24(draws, count)
    flat = uniform.copy()
    for start in range(0, count - 15, 16):
        flat[start : start + 16] = _sixteen(uniform[start : start + 16])
    if count % 16:  # the last sixteen are drawn anew
        flat[-16:] = _sixteen(_uniform24(draws, 16))
    return flat


def _uniform24(draws: np.random.RandomState, count: int) -> npt.NDArray[np.float64]:
    raw = draws.randint(0, 2**32, size=count, dtype=np.uint32)
    uniform: npt.NDArray[np.float64] = (raw & np.uint32(2**24 - 1)) / 2.0**24
    return uniform


def _sixteen(uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    radius, angle = np.sqrt(-2 * np.log(1 - uniform[:8])), 2 * np.pi * uniform[8:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])


def _settings(config: Mapping[str, Json], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "r": config.get("r", 2),
        "u": config.get("u", 64),
        "weight_tying": config.get("weight_tying", 0.0),
        "projection_seed": config.get("projection_seed", 42),
    }
    for key, low, high in (("r", 1, 4096), ("u", 1, 1_000_000), ("projection_seed", -(2**63), 2**63)):
        if type(found[key]) is not int or not low <= found[key] < high:
            raise MalformedArtifact(f"{key} is {found[key]!r:.40}", where=where)
    if type(found["weight_tying"]) not in (int, float) or not 0 <= found["weight_tying"] <= 1:
        raise MalformedArtifact(f"weight_tying is {found['weight_tying']!r:.40}", where=where)
    found["weight_tying"] = float(found["weight_tying"])
    return found


def _collect(
    weights: Path, header: Header
) -> tuple[dict[str, dict[str, npt.NDArray[np.float32]]], dict[int, npt.NDArray[np.float64]]]:
    """Module name -> its three tensors, and group -> vector."""
    parts: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    vectors: dict[int, npt.NDArray[np.float64]] = {}
    for key in header.tensors:
        part, group = _PART.fullmatch(key), _GROUP.fullmatch(key)
        if part is None and group is None:
            raise UnsupportedAdapter(
                f"tensor {ascii(key)[:200]} is no part of a TinyLoRA: it replaces what the base holds there",
                field="target_modules" if ".base_layer." in key else "modules_to_save",
                where=str(weights),
                todo="save it with save_embedding_layers=False, and train without biases and saved modules",
            )
        value = load_tensor(weights, header, key)
        if not np.isfinite(value).all():
            raise MalformedArtifact(f"{key} holds NaN or infinity", where=str(weights), todo="train it again")
        if part is not None:
            parts.setdefault(part[1], {})[part[2]] = value
        elif group is not None:
            vectors[int(group[1])] = value.astype(np.float64)
    if not parts or not vectors:
        raise MalformedArtifact("there are no tensors", where=str(weights), todo="train the adapter first")
    return dict(sorted(parts.items())), vectors


def _groups(
    parts: Mapping[str, Mapping[str, npt.NDArray[np.float32]]], settings: Mapping[str, Any], where: str
) -> dict[str, int]:
    """Module name -> index of its vector."""
    count = len(parts)
    groups = max(1, round(count * (1.0 - settings["weight_tying"])))
    if groups == 1:
        return dict.fromkeys(parts, 0)
    if count * max(part["P"].size for part in parts.values()) > MOST_DRAWN:
        raise UnsupportedAdapter(
            f"{count} projections of u {settings['u']} are too many to draw again",
            field="u",
            where=where,
            todo="convert it with peft.save_as_lora, which is exact at rank r",
        )
    order: dict[str, int] = {}
    for rank in {part["A"].shape[0] for part in parts.values()}:
        alike = {name: part["P"].astype(np.float64) for name, part in parts.items() if part["A"].shape[0] == rank}
        for index in range(count):
            drawn = projection(settings["projection_seed"] + index, settings["u"], rank)
            near = DRAW_TOLERANCE * np.linalg.norm(drawn)
            order.update({name: index for name, P in alike.items() if np.linalg.norm(P - drawn) <= near})
    if sorted(order.values()) != list(range(count)):
        raise UnsupportedAdapter(
            "the projections are not those that projection_seed makes for modules 0, 1, 2, ..., so nothing says which "
            "vector belongs to which module",
            field="projection_seed",
            where=where,
            todo="convert it with peft.save_as_lora, which is exact at rank r",
        )
    size = max(1, count // groups)
    return {name: min(index // size, groups - 1) for name, index in order.items()}


def _is_embedding(name: str) -> bool:
    """By name, since a TinyLoRA's file does not say; where it is wrong the child's keys fit no layer of the base."""
    last = name.rsplit(".", 1)[-1]
    return "embed" in last or last in ("wte", "wpe")
