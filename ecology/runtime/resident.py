"""Loads a base as it serves: frozen, its weights laid out for the kernels, and in memory once.

The file of weights is mapped into memory when it is read. What is not laid out is copied out of the map, so that the
map goes and the base is not resident a second time under another name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ecology.backend.quiet import quiet
from ecology.errors import BackendError
from ecology.runtime.kernels import GROUPED, FrozenProduct, Precision, freeze_products


@dataclasses.dataclass(frozen=True)
class Resident:
    """A base in memory."""

    tokenizer: Any
    model: Any
    precision: Precision
    products: Mapping[str, FrozenProduct]


def load(folder: Path, *, reduced: bool = False, check: Callable[[Any], None] = lambda _: None) -> Resident:
    """Loads a base from safetensors, without remote code and without the network.

    Args:
        folder: Config, tokenizer and weights.
        reduced: Keep copies of the weights in bfloat16 as well.
        check: Given the model while its weights are as in the file.

    Raises:
        BackendError: It cannot be loaded.
        IntegrityError: A weight is another once it is laid out.
    """
    torch.set_num_threads(1)  # the cores get batches of their own: runtime.workers
    torch.use_deterministic_algorithms(True)
    try:
        with quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, attn_implementation=GROUPED
            )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise BackendError(f"the base cannot be loaded: {error}", where=str(folder)) from error
    model.train(False)
    model.requires_grad_(False)
    check(model)
    precision = Precision()
    products = freeze_products(model, precision, reduced=reduced)
    for tensor in (*model.parameters(), *model.buffers()):
        if not tensor.is_mkldnn:
            tensor.data = tensor.data.clone()
    return Resident(tokenizer, model, precision, products)
