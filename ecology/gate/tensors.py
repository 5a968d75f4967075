"""Which tensors there may be: those that the configuration implies on this base, and in them only finite numbers.

PEFT loads any key that it finds by name, so a "LoRA" with a key of the base overwrites the base, silently and for good
(peft 0.21.2; ``disable_adapter`` and ``unload`` do not undo it). Hence no list of what is forbidden: from
``target_modules``, ranks and the base's tensor schema follows the one set of keys and shapes that is allowed.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ecology.contracts.identity import Json
from ecology.contracts.policy import AdapterLimits
from ecology.store.adapters import BASE_KEY
from ecology.store.header import Header, load_tensor
from ecology.store.matching import pattern_values, targeted

METADATA: Mapping[str, str] = {"format": "pt"}
"""What ``__metadata__`` may hold, besides the base's digest, which is the business of ``provenance``."""

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"base_model\.model\.(.+)\.lora_[AB]\.weight")
_READABLE = ("F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True, slots=True)
class Module:
    """One targeted module and what the configuration says about it."""

    name: str
    """As in the base: ``model.layers.0.self_attn.q_proj``."""
    inputs: int
    outputs: int
    rank: int
    scale: float
    """alpha / r, or alpha / sqrt(r)."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """Key and shape of its two factors."""
        return {
            f"{_PREFIX}{self.name}.lora_A.weight": (self.rank, self.inputs),
            f"{_PREFIX}{self.name}.lora_B.weight": (self.outputs, self.rank),
        }


def linear_modules(schema: Mapping[str, tuple[int, ...]]) -> Mapping[str, tuple[int, int]]:
    """Name to (outputs, inputs) of what a LoRA may be put on: matrices that are not embeddings.

    Args:
        schema: Name and shape of every tensor of the base.
    """
    return {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in schema.items()
        if name.endswith(".weight") and len(shape) == 2 and not _is_embedding(name.removesuffix(".weight"))
    }


def implied_modules(
    config: Mapping[str, Json], schema: Mapping[str, tuple[int, ...]], where: str
) -> tuple[tuple[Module, ...], list[str]]:
    """The modules that a checked configuration targets on this base, and what is wrong with its targets.

    Args:
        config: In which ``configuration`` found nothing.
        schema: Name and shape of every tensor of the base.
        where: File name for messages.

    Raises:
        MalformedArtifact: A pattern that is unsafe to match, or no target.
    """
    linear = linear_modules(schema)
    chosen = sorted(targeted(config, linear, where))
    ranks = pattern_values(config, "rank_pattern", config["r"], chosen, where)
    alphas = pattern_values(config, "alpha_pattern", config["lora_alpha"], chosen, where)
    stabilised = config.get("use_rslora", False)
    problems = [] if chosen else ["target_modules matches no linear module of the base"]
    targets = config["target_modules"]
    for entry in targets if isinstance(targets, list) else ():
        if entry not in linear and not any(name.endswith(f".{entry}") for name in linear):
            problems.append(f"target_modules names {entry!r}, which is no linear module of the base")
    modules = []
    for name in chosen:
        outputs, inputs = linear[name]
        rank, alpha = ranks[name], alphas[name]
        scale = alpha / math.sqrt(rank) if stabilised else alpha / rank
        modules.append(Module(name, inputs, outputs, rank, scale))
    return tuple(modules), problems


def check_keys(
    header: Header, modules: tuple[Module, ...] | None, schema: Mapping[str, tuple[int, ...]], limits: AdapterLimits
) -> list[str]:
    """Tensors that are superfluous, missing, misshapen or of another type; one sentence each.

    Args:
        header: Of the weights file.
        modules: What the configuration implies; None where it implies nothing that can be trusted, and then only what
            no configuration could allow is found.
        schema: Name and shape of every tensor of the base.
        limits: The policy's bounds; ``dtypes`` is read here.
    """
    found = []
    for key, value in header.metadata.items():
        if key != BASE_KEY and METADATA.get(key) != value:
            found.append(f"metadata {ascii(key)[:80]} is {ascii(value)[:80]}, allowed: format pt and {BASE_KEY}")
    linear = linear_modules(schema)
    expected = {key: shape for module in modules or () for key, shape in module.shapes.items()}
    for name, info in header.tensors.items():
        factor = _FACTOR.fullmatch(name)
        possible = name in expected if modules is not None else factor is not None and factor[1] in linear
        if not possible:
            found.append(f"tensor {ascii(name)[:200]} {_trespass(name, schema)}")
        elif name in expected and info.shape != expected[name]:
            found.append(f"tensor {name} has shape {info.shape}, the configuration and the base imply {expected[name]}")
        if info.dtype not in limits.dtypes:
            found.append(f"tensor {ascii(name)[:200]} is {info.dtype}, allowed: {', '.join(limits.dtypes)}")
    found += [f"tensor {key} is missing" for key in expected if key not in header.tensors]
    return found


def check_finite(path: Path, header: Header) -> list[str]:
    """Tensors that hold NaN or infinity; one sentence each.

    Args:
        path: The weights file.
        header: Its header.

    Raises:
        MalformedArtifact: The file changed while it was read.
    """
    found = []
    for name, info in header.tensors.items():
        if info.dtype not in _READABLE:
            continue  # refused for its type; what integers hold is finite
        values = load_tensor(path, header, name)
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if bad:
            found.append(f"tensor {ascii(name)[:200]} holds {bad} of {values.size} values that are not finite")
    return found


def check_sizes(modules: tuple[Module, ...], limits: AdapterLimits) -> list[str]:
    """Ranks and scales out of bounds; one sentence each."""
    found = []
    for module in modules:
        if module.rank > limits.max_rank:
            found.append(f"{module.name} has rank {module.rank}, allowed: at most {limits.max_rank}")
        if not abs(module.scale) <= limits.max_scale:
            found.append(f"{module.name} is scaled by {module.scale:g}, allowed: at most {limits.max_scale:g}")
    return found


def check_norms(
    path: Path,
    header: Header,
    modules: tuple[Module, ...],
    weight_norms: Mapping[str, float],
    limits: AdapterLimits,
) -> list[str]:
    """Modules whose ||dW||_F is too large a share of the base's ||W||_F; one sentence each.

    ||B A||_F^2 is the sum of the products of the entries of B^T B and A A^T, so no matrix larger than the factors is
    ever built.

    Args:
        path: The weights file.
        header: Its header; modules whose tensors are not as implied are left out, being refused for that.
        modules: What the configuration implies.
        weight_norms: ||W||_F by name of the base's tensor.
        limits: The policy's bounds; ``max_relative_norm`` is read here.

    Raises:
        MalformedArtifact: The file changed while it was read.
    """
    found = []
    for module in modules:
        infos = [(header.tensors.get(key), shape) for key, shape in module.shapes.items()]
        if any(info is None or info.shape != shape or info.dtype not in _READABLE for info, shape in infos):
            continue
        with np.errstate(all="ignore"):  # what is not finite is larger than any bound
            a, b = (load_tensor(path, header, key).astype(np.float64) for key in module.shapes)
            square = float(np.sum((a @ a.T) * (b.T @ b)))
        norm = abs(module.scale) * math.sqrt(max(0.0, square)) if math.isfinite(square) else math.inf
        base = weight_norms.get(f"{module.name}.weight", 0.0)
        if not base > 0:
            found.append(f"{module.name}: the norm of the base's weight is not known, so nothing bounds the change")
        elif not norm <= limits.max_relative_norm * base:
            found.append(
                f"{module.name} changes its weight by {norm / base:.4g} of the weight's norm, "
                f"allowed: at most {limits.max_relative_norm:g}"
            )
    return found


def _is_embedding(module: str) -> bool:
    last = module.rsplit(".", 1)[-1]
    return "embed" in last or last in ("wte", "wpe")


def _trespass(name: str, schema: Mapping[str, tuple[int, ...]]) -> str:
    """What an unexpected tensor would do."""
    bare = name.removeprefix(_PREFIX).replace(".base_layer.", ".").replace(".modules_to_save.", ".")
    if bare in schema:
        return f"overwrites {bare} of the base, also while the adapter is disabled"
    if ".lora_" in name or ".lora_magnitude_vector" in name:
        module = bare.split(".lora_", 1)[0]
        known = f"{module}.weight" in schema
        return f"belongs to {module[:200]!r}, which is {'no declared target' if known else 'no module of the base'}"
    return "is no LoRA factor"
