"""How a module's factors lie in PEFT's weights file, and back: the same dW = s B A in four dresses.

``linear``      ``lora_A.weight`` r x in, ``lora_B.weight`` out x r. Transformers' Conv1D (GPT-2, ``fan_in_fan_out``)
                lies alike: there the base's weight is turned and the factors are not.
``embedding``   ``lora_embedding_A`` r x vocabulary, ``lora_embedding_B`` dimension x r, without ``.weight``: B A is
                the transpose of what is added to the embedding's weight.
``conv``        ``lora_A.weight`` r x in x kernel, ``lora_B.weight`` out x r x 1 x ..: with the kernel unrolled it is a
                product of matrices, since the second convolution has kernel 1 (groups of 1 only).

Block-diagonal factors (BD-LoRA) are stored as their blocks and written out in full.

Source: peft 0.21.2, ``tuners/lora/layer.py`` (Linear, Embedding, _ConvNd), ``tuners/lora/variants.py``
(BlockDiagonalLinear).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ecology.store.mapped import Stored

PREFIX = "base_model.model."
"""Of every key in the file."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """One module's delta, dW = ``scale`` B A."""

    left: Stored
    """B as it lies in the file: out features x rank."""
    right: Stored
    """A as it lies in the file: rank x in features."""
    scale: float

    @property
    def B(self) -> npt.NDArray[np.float32]:  # noqa: N802
        """Out features x rank; widened at every look where the file holds another type."""
        return np.asarray(self.left, np.float32)

    @property
    def A(self) -> npt.NDArray[np.float32]:  # noqa: N802
        """Rank x in features; widened at every look where the file holds another type."""
        return np.asarray(self.right, np.float32)


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """What kind of module the factors are for."""

    kind: Literal["linear", "embedding", "conv"] = "linear"
    kernel: tuple[int, ...] = ()
    """Extents of a convolution's kernel, one to three."""

    def keys(self, name: str) -> tuple[str, str]:
        """Keys of A and B of module ``name`` in the weights file."""
        if self.kind == "embedding":
            return f"{PREFIX}{name}.lora_embedding_A", f"{PREFIX}{name}.lora_embedding_B"
        return f"{PREFIX}{name}.lora_A.weight", f"{PREFIX}{name}.lora_B.weight"

    def stored(self, B: npt.NDArray[Any], A: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:  # noqa: N803
        """(A, B) in the shapes that the file holds, for B m x r and A r x n with the kernel unrolled into n."""
        if self.kind == "conv":
            inputs = A.shape[1] // math.prod(self.kernel)
            return A.reshape(A.shape[0], inputs, *self.kernel), B.reshape(*B.shape, *(1 for _ in self.kernel))
        return A, B


LINEAR = Layout()


def unrolled(
    A: Stored,  # noqa: N803
    B: Stored,  # noqa: N803
) -> tuple[Layout, Stored, Stored] | None:
    """Layout, A and B as matrices, from the shapes under ``lora_A.weight`` and ``lora_B.weight``.

    Returns:
        None where the shapes are those of no layer that has a LoRA.
    """
    if A.ndim == B.ndim == 2:
        return LINEAR, A, B
    if 3 <= A.ndim <= 5 and A.ndim == B.ndim and set(B.shape[2:]) == {1} and 0 not in A.shape:
        return Layout("conv", A.shape[2:]), A.reshape(A.shape[0], -1), B.reshape(B.shape[:2])
    return None


def block_diagonal(stacked: npt.NDArray[np.float32], blocks: int) -> npt.NDArray[np.float32]:
    """The matrix whose diagonal blocks are stored one below the other.

    Args:
        stacked: blocks * p x q.
        blocks: How many; divides the rows.

    Returns:
        blocks * p x blocks * q.
    """
    p, q = stacked.shape[0] // blocks, stacked.shape[1]
    full = np.zeros((blocks * p, blocks * q), stacked.dtype)
    for i in range(blocks):
        full[i * p : (i + 1) * p, i * q : (i + 1) * q] = stacked[i * p : (i + 1) * p]
    return full
