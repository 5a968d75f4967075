"""Shapes, random parents and clocks that the rows of ``breeding`` share."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from ecology.breeder.operators import OPERATORS
from ecology.breeder.svd import SvdOptions
from ecology.lowrank.lowrank import LowRank

Shapes = dict[str, tuple[int, int]]

QWEN_05B: Shapes = {
    "q": (896, 896), "k": (128, 896), "v": (128, 896), "o": (896, 896),
    "gate": (4864, 896), "up": (4864, 896), "down": (896, 4864),
}  # fmt: skip
LLAMA_7B: Shapes = {
    "q": (4096, 4096), "k": (4096, 4096), "v": (4096, 4096), "o": (4096, 4096),
    "gate": (11008, 4096), "up": (11008, 4096), "down": (4096, 11008),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large the shapes are."""

    name: str
    shapes: Shapes
    layers: int
    large_name: str
    large: Shapes
    large_layers: int
    draws: int
    """Sets of parents for the errors."""
    runs: int
    """Of what is timed by the wall's clock."""
    axes: dict[str, tuple[int, ...]]
    """Of the growth plot."""


FULL = Sizes(
    "0.5B shape", QWEN_05B, 24, "7B shape", LLAMA_7B, 32, 20, 5,
    {"parents": (2, 4, 8, 16), "rank": (8, 16, 32, 64), "width": (512, 1024, 2048, 4096)},
)  # fmt: skip
_SMALL: Shapes = {name: (m // 16, n // 16) for name, (m, n) in LLAMA_7B.items()}
QUICK = Sizes(
    "small shape", _SMALL, 2, "small shape", _SMALL, 2, 2, 1,
    {"parents": (2, 3), "rank": (4, 8), "width": (64, 128)},
)  # fmt: skip


def random_parents(shapes: Shapes, layers: int, parents: int, rank: int, seed: int = 0) -> list[LowRank]:
    """Gaussian parents, float32 values in fp64 arrays."""
    generator = np.random.Generator(np.random.PCG64(seed))

    def factor(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape, np.float32).astype(np.float64) / 30

    return [
        LowRank.of(
            {f"l.{i}.{k}": (factor(m, rank), factor(rank, n)) for i in range(layers) for k, (m, n) in shapes.items()}
        )
        for _ in range(parents)
    ]


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of one call: on one thread what a wall clock would show on an idle machine."""
    start = time.process_time()
    call()
    return time.process_time() - start


def wall(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def svd_child(parents: Sequence[LowRank], weights: Sequence[float], rank: int = 16) -> LowRank:
    """One child by the svd operator."""
    return OPERATORS["svd"].function(parents, SvdOptions(rank, tuple(weights)), 0)
