"""Who is compatible with whom, computed from files and never from names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NewType

Digest = NewType("Digest", str)
"""A content digest, written ``sha256:<64 lower-case hex digits>``."""

Json = Any
"""A value that JSON can hold: None, bool, int, float, str, list or tuple, dict with string keys."""


OPTIONAL: Mapping[str, bool] = {"optional": True}
"""Metadata of a field that came later: at its default it is left out of canonical JSON, so that what was signed before
it was there keeps its digest."""


@dataclasses.dataclass(frozen=True, slots=True)
class CompatibilityIdentity:
    """What two adapters must share before their weights may meet.

    Law: ``a.differences(b) == ()`` if and only if ``a == b``.
    """

    base_family: str
    """``model_type`` of the base's ``config.json`` ("llama")."""
    base_weights: Digest
    """Digest over every tensor of the base: name, dtype, shape and bytes."""
    architecture: Digest
    """Digest of the shape-giving part of ``config.json``."""
    tokenizer: Digest
    """Digest of ``tokenizer.json`` and the chat template."""
    tensor_schema: Digest
    """Digest of the sorted (name, shape) pairs of the base's tensors."""

    def differences(self, other: CompatibilityIdentity) -> tuple[str, ...]:
        """Names of the fields in which the two differ, in declaration order."""
        return tuple(f.name for f in dataclasses.fields(self) if getattr(self, f.name) != getattr(other, f.name))
