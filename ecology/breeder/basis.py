"""Leading singular vectors of the base's weights, computed once a base and kept.

PEFT decomposes every target anew whenever an adapter is put in: seconds for ten layers of the default base, minutes for
thirty. And singular vectors have no sign of their own: two LAPACKs may turn a pair round, and with it the meaning of
every trained number. Here each left vector's largest entry is made positive, and what was computed is kept in
``<cache>/svd-<base>-<modules>-r<rank>.safetensors`` with its own digest beside it.

Source: Eckart and Young 1936; the sign rule is that of scikit-learn's ``svd_flip``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from ecology.contracts.identity import Digest
from ecology.errors import IntegrityError
from ecology.kernel.canonical import digest, digest_bytes
from ecology.store.files import write_atomic

KEPT_RANK = 8
"""Vectors kept a module, so that adapters of ranks 1, 2 and 4 share one file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Leading:
    """The leading part of one weight's SVD, float32."""

    U: torch.Tensor
    """(outputs, r)."""
    S: torch.Tensor
    """(r,), descending."""
    V: torch.Tensor
    """(r, inputs)."""

    def cut(self, rank: int) -> Leading:
        """The first ``rank`` of them; fewer where there are fewer."""
        return Leading(self.U[:, :rank].contiguous(), self.S[:rank].contiguous(), self.V[:rank].contiguous())


def leading(weight: torch.Tensor, rank: int) -> Leading:
    """The truncated SVD of a weight, with a definite sign.

    Args:
        weight: (outputs, inputs), also as the kernels lay it out.
        rank: Vectors kept, at most the smaller of the two.
    """
    plain = weight.to_dense() if weight.is_mkldnn else weight
    U, S, V = torch.linalg.svd(plain.detach().to("cpu", torch.float32), full_matrices=False)  # noqa: N806
    U, S, V = U[:, :rank], S[:rank], V[:rank]  # noqa: N806
    largest = U.abs().argmax(0)
    signs = torch.sign(U[largest, torch.arange(U.shape[1])])
    return Leading((U * signs).contiguous(), S.contiguous(), (V * signs[:, None]).contiguous())


def bases(modules: Mapping[str, Any], rank: int, base_weights: Digest, cache: Path | None) -> Mapping[str, Leading]:
    """The leading singular vectors of linear modules, by name.

    Args:
        modules: Linear layers with frozen weights.
        rank: Vectors a module.
        base_weights: Digest of the weights of the model that they belong to.
        cache: Where they are kept; None computes them and keeps nothing.

    Raises:
        IntegrityError: What is kept does not have its digest.
    """
    kept = max(rank, KEPT_RANK)
    if cache is None:
        return {name: leading(module.weight, rank) for name, module in modules.items()}
    key = digest({"modules": sorted(modules), "base": base_weights})[7:23]
    file = cache / f"svd-{base_weights[7:19]}-{key}-r{kept}.safetensors"
    note = file.with_suffix(".digest")
    if file.exists() and note.exists():
        data = file.read_bytes()
        if digest_bytes(data) != note.read_text("utf-8").strip():
            raise IntegrityError("the kept singular vectors are damaged", where=str(file), todo="delete the file")
        found = load(data)
    else:
        found = {}
        for name, module in modules.items():
            whole = leading(module.weight, kept)
            found |= {f"{name}.U": whole.U, f"{name}.S": whole.S, f"{name}.V": whole.V}
        data = save(found)
        cache.mkdir(parents=True, exist_ok=True)
        write_atomic(file, data)
        write_atomic(note, digest_bytes(data).encode())
    return {name: Leading(found[f"{name}.U"], found[f"{name}.S"], found[f"{name}.V"]).cut(rank) for name in modules}
