"""An adapter and its verdict, as the formats for CI take them."""

from __future__ import annotations

import dataclasses

from ecology.contracts.policy import GateVerdict


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """One adapter that stood before the gate."""

    name: str
    path: str
    """POSIX path of its folder, relative to where the command ran if it lies below."""
    verdict: GateVerdict
