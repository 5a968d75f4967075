"""Which arm a request goes to: decided by its id alone, so that anyone can compute it again.

``position`` reads 53 bits of SHA-256(salt, NUL, id) as a number in [0, 1). An id goes to the candidate while its
position is below the candidate's weight. Hence the law: widening the weight only adds ids, and no id ever goes back.
The salt is fixed for one rollout; another rollout has another salt and so another order of ids.

Source: the bucketing of GrowthBook (hash of seed and value, then a threshold), with SHA-256 in the place of FNV-1a.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from ecology.errors import ConfigError

Arm = Literal["incumbent", "candidate"]


def position(unit: str, salt: str) -> float:
    """Where ``unit`` stands under ``salt``: uniform in 0 (included) to 1 (not included).

    Args:
        unit: Request id, or session id where answers must stay with one arm.
        salt: Fixed for one rollout.
    """
    # The NUL keeps ("ab", "c") and ("a", "bc") apart; 53 bits are what a double holds, so the quotient never rounds up
    # to 1.
    hashed = hashlib.sha256(salt.encode() + b"\0" + unit.encode()).digest()
    return (int.from_bytes(hashed[:8], "big") >> 11) / 2**53


def arm(unit: str, salt: str, weight: float) -> Arm:
    """Which arm ``unit`` goes to when the candidate gets the share ``weight`` of the traffic.

    Law: ``arm(u, s, w) == "candidate"`` implies the same for every larger weight.

    Args:
        unit: Request id or session id.
        salt: Fixed for one rollout.
        weight: 0 (none) to 1 (all), both included.

    Raises:
        ConfigError: The weight is not between 0 and 1.
    """
    if not 0.0 <= weight <= 1.0:
        raise ConfigError(f"a share of the traffic is between 0 and 1, found {weight}", where="canary step: weight")
    return "candidate" if position(unit, salt) < weight else "incumbent"
