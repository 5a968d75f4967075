"""A toy base and adapters for it, made in milliseconds: what engines, evaluators and operators are tested on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecology.backend.bases import BaseModel, Toy, ensure
from ecology.contracts.artifact import Artifact
from ecology.store.adapters import write_adapter
from ecology.telemetry.progress import SilentProgress

TARGETS = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")


def toy_base(home: Path, seed: int = 0, hidden: int = 32, layers: int = 2) -> BaseModel:
    """A Llama of some ten thousand random parameters, cached under ``home``."""
    return ensure(Toy(name="toy", seed=seed, hidden=hidden, layers=layers), home, SilentProgress())


def toy_adapter(
    base: BaseModel,
    folder: Path,
    seed: int = 0,
    strength: float = 0.5,
    rank: int = 2,
    targets: Sequence[str] = TARGETS,
    rename: str = "",
) -> Artifact:
    """A random adapter for a toy base.

    Args:
        base: The base.
        folder: Where to; what was there is replaced.
        seed: Of the factors.
        strength: Frobenius norm of each dW over that of its weight; 0 gives an adapter that does nothing.
        rank: Of every module.
        targets: Last parts of the names of the modules.
        rename: Put before every module name, which makes an adapter that fits no base.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    modules = {}
    for tensor, shape in base.tensor_schema.items():
        name = tensor.removesuffix(".weight")
        if name.rpartition(".")[2] not in targets or len(shape) != 2:
            continue
        B, A = random.standard_normal((shape[0], rank)), random.standard_normal((rank, shape[1]))  # noqa: N806
        modules[rename + name] = (B * (strength * base.weight_norms[tensor] / np.linalg.norm(B @ A)), A)
    shutil.rmtree(folder, ignore_errors=True)
    return write_adapter(folder, modules, base.name, base.identity.base_weights)
