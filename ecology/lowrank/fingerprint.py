"""Whether two adapters are the same function, whatever their factors.

Two ways. ``same_function`` compares dW with dW, exactly, and needs both. ``fingerprint`` keeps 64 numbers of an
adapter: P^T dW Q summed over modules, where P (m x 8) and Q (n x 8) are Gaussian probes seeded by the module's name.
It is linear in dW, does not see the gauge, and a module of zeros counts as a module left out. The expected square of
an entry of the difference of two fingerprints is ||dW - dW'||_F^2, so their root mean square distance estimates that of
the adapters. It finds duplicates; it is no defence against someone who knows the probes.
"""

from __future__ import annotations

import hashlib

import numpy as np

from ecology.lowrank.lowrank import Array, LowRank, concat, total_norm

PROBES = 8
SEED = b"ecology/fingerprint/v1"
"""Part of every probe's seed: changing it changes all fingerprints."""


def fingerprint(adapter: LowRank) -> Array:
    """64 numbers that depend on dW alone; compare with ``same_fingerprint``."""
    total = np.zeros((PROBES, PROBES))
    for name, factors in adapter.modules.items():
        seed = int.from_bytes(hashlib.sha256(SEED + b"\0" + name.encode()).digest()[:8], "little")
        generator = np.random.Generator(np.random.PCG64(seed))
        m, n = factors.shape
        left = generator.standard_normal((PROBES, m))
        right = generator.standard_normal((n, PROBES))
        total += (left @ factors.B) @ (factors.A @ right)
    return total.ravel()


def same_fingerprint(a: Array, b: Array, tolerance: float = 1e-4) -> bool:
    """Whether two fingerprints differ by at most ``tolerance`` of the larger one's norm."""
    return bool(np.linalg.norm(a - b) <= tolerance * max(np.linalg.norm(a), np.linalg.norm(b)))


def distance(a: LowRank, b: LowRank) -> float:
    """||dW_a - dW_b||_F over all modules.

    Raises:
        ConfigError: A module has different shapes in the two.
    """
    return total_norm(concat([a, b], [1.0, -1.0]))


def same_function(a: LowRank, b: LowRank, tolerance: float = 1e-6) -> bool:
    """Whether ||dW_a - dW_b||_F is at most ``tolerance`` times the larger norm.

    Raises:
        ConfigError: A module has different shapes in the two.
    """
    return distance(a, b) <= tolerance * max(total_norm(a), total_norm(b))
