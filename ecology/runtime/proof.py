"""What shows that the weights in memory are those of the files.

Digests of the loaded tensors are compared with those that the base's identity was computed from; then weights are laid
out for the kernels and compared bit by bit (``kernels``); from then on the tensors that answers are computed with are
digested as they lie in memory, layout and all, and compared with what they were at first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from ecology.backend.bases import BaseModel
from ecology.errors import IntegrityError
from ecology.runtime.kernels import FrozenProduct, raw

STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def digests(tensors: Mapping[str, torch.Tensor], workers: int) -> dict[str, str]:
    """SHA-256 of each tensor's bytes."""
    with ThreadPoolExecutor(workers) as pool:  # hashlib lets other threads run while it works
        return dict(zip(tensors, pool.map(_digest, tensors.values()), strict=True))


def computed_with(model: Any, products: Mapping[str, FrozenProduct]) -> dict[str, torch.Tensor]:
    """Every tensor of the base that an answer follows from, as it lies in memory."""
    found = {name: tensor for name, tensor in _tensors(model).items() if not tensor.is_mkldnn}
    for name, product in products.items():
        kinds = {str(tensor.dtype).removeprefix("torch."): tensor for tensor in product.own}
        found |= {f"{name}.weight ({kind}, laid out)": tensor for kind, tensor in kinds.items()}
    return found


def check_files(base: BaseModel, workers: int, model: Any) -> None:
    """The link from the files to the memory, tensor by tensor, in the dtype that the files have.

    Raises:
        IntegrityError: A tensor is missing, or is not the one that the base's identity was computed from.
    """
    tensors = _tensors(model)
    known = digests(tensors, workers)
    for name, expected in base.tensor_digests.items():
        tensor = tensors.get(name)
        if tensor is None:
            if name in model.state_dict():  # the other name of a shared weight
                continue
            raise IntegrityError("the file's tensor is not in the loaded base", where=f"{base.folder}: {name}")
        stored, found = base.tensor_dtypes[name], known[name]
        if stored != "F32" and stored in STORED:
            found = _digest(tensor.detach().to(STORED[stored]))
        if found != expected:
            raise IntegrityError(
                "the loaded tensor is not the one that the base's identity was computed from",
                where=f"{base.folder}: {name}",
                todo="delete the cached base and fetch it again",
            )


def _tensors(model: Any) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _digest(tensor: torch.Tensor) -> str:
    return "sha256:" + hashlib.sha256(raw(tensor).data).hexdigest()
