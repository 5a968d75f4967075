"""The two products that nearly all time goes into, done the way a CPU likes them.

*Linear layers.* oneDNN can lay a weight out once in the blocks that its kernels read. A product with 32 rows then runs
at the machine's full rate, where the general routine, which lays it out again at each call, reaches 60 to 85 % of it,
and with 4 rows a third to two thirds. The laid-out weight takes the place of the plain one, so the base is in memory
once; the plain one can be had back, bit by bit. It is never written to: an adapter that is merged gets a copy of base
plus dW, which is dropped when the adapter goes. A gradient goes back through the transposed weight, laid out when
training first asks for it and dropped when training ends.

*bfloat16, on request.* A second copy of the base's weights in bfloat16 halves the time of a product of any number of
rows on a CPU with the instructions for it (``docs/evaluation.md``). Products alone are rounded so; sums along layers,
norms and attention stay in fp32, and so does an adapter, which stands beside the weights.

*Attention.* With fewer key-value heads than heads transformers repeats keys and values for every head as soon as there
is a mask. The kernel can share them itself: 4 times faster for 20 tokens behind 400.

Layers are changed by giving the instance a ``forward`` of its own, so hooks, PEFT and shallow copies of the model see
an ordinary module.
"""

from __future__ import annotations

import ctypes
import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from ecology.errors import BackendError, IntegrityError

GROUPED = "grouped_query"
"""Name of our attention in transformers' table."""
TYPICAL_ROWS = 64
"""For what the layout is chosen; one for 64 rows is as good as the best for 4, 32 and 512 (measured)."""


@dataclasses.dataclass
class Precision:
    """In what the products of one model are computed now; shared by all its layers."""

    reduced: bool = False
    """Whether in bfloat16, where there are such weights."""


class FrozenProduct:
    """``x W^T + b`` of one layer, with a laid-out weight that can be exchanged."""

    def __init__(self, layer: torch.nn.Linear, precision: Precision, *, keep: bool, reduced: bool) -> None:
        """Lays out the layer's weight.

        Args:
            layer: Its weight becomes the laid-out one.
            precision: Of the moment.
            keep: Leave the plain weight in its place, because another module uses it too.
            reduced: Make a copy in bfloat16 as well.
        """
        self._layer, self._precision = layer, precision
        self._own = lay_out(layer.weight)
        self._reduced = lay_out(layer.weight.detach().to(torch.bfloat16)) if reduced else None
        self._used = self._own
        self._back: torch.Tensor | None = None
        if self._own.is_mkldnn and not keep:
            layer.weight = torch.nn.Parameter(self._own, requires_grad=False)

    @property
    def own(self) -> tuple[torch.Tensor, ...]:
        """The base's weight as it is computed with, and that in bfloat16 if there is one."""
        return (self._own,) if self._reduced is None else (self._own, self._reduced)

    @property
    def is_own(self) -> bool:
        """Whether the layer's own weight is used."""
        return self._used is self._own

    @property
    def plain(self) -> torch.Tensor:
        """The layer's own weight, (out, in), in the usual order; a copy where it is laid out."""
        return self._own.to_dense() if self._own.is_mkldnn else self._own

    def use(self, laid: torch.Tensor) -> None:
        """Uses another weight, as ``lay_out`` gave it, until ``restore``."""
        self._used = laid

    def restore(self) -> None:
        """Uses the layer's own weight again."""
        self._used = self._own

    def forget(self) -> None:
        """Drops what only gradients need."""
        self._back = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output, (..., out).

        Raises:
            BackendError: A gradient is wanted while another weight is used.
        """
        if x.requires_grad and torch.is_grad_enabled():
            if not self.is_own:
                raise BackendError("gradients are those of the bare base", todo="train with no adapter attached")
            found: torch.Tensor = _Through.apply(x, self)  # type: ignore[no-untyped-call]
            return found
        if self._precision.reduced and self._reduced is not None and self.is_own:
            return _product(x.to(torch.bfloat16), self._reduced, None).float().add_(_bias(self._layer))
        return _product(x, self._used, self._layer.bias)

    def back(self, gradient: torch.Tensor) -> torch.Tensor:
        """Gradient at the input, (..., in), of one at the output, (..., out)."""
        if self._back is None:  # two threads may both do it, with the same result
            self._back = lay_out(self.plain.T.contiguous())
        return _product(gradient.contiguous(), self._back, None)


class _Through(torch.autograd.Function):
    """The product, with the gradient of its input alone: the weight is frozen."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, product: FrozenProduct) -> torch.Tensor:
        """``x W^T + b``."""
        ctx.product = product
        with torch.no_grad():
            return product(x.detach())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """``g W``."""
        with torch.no_grad():
            return ctx.product.back(gradient), None


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if not weight.is_mkldnn:
        return torch.nn.functional.linear(x, weight, bias)
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


def _bias(layer: torch.nn.Linear) -> torch.Tensor | float:
    bias: torch.Tensor | None = layer.bias
    return 0.0 if bias is None else bias


def bfloat16_helps() -> bool:
    """Whether this CPU multiplies bfloat16 numbers itself, and there is a kernel for it."""
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(there and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def lay_out(weight: torch.Tensor) -> torch.Tensor:
    """A copy in the kernels' own layout; the weight itself where oneDNN is not there or cannot."""
    known = weight.dtype in (torch.float32, torch.bfloat16)
    if not known or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return weight
    laid: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), TYPICAL_ROWS)
    return laid


def raw(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    """The bytes that a tensor lies in, not a copy; of a laid-out one with whatever padding its layout has."""
    if not tensor.is_mkldnn:
        found: npt.NDArray[np.uint8] = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        return found
    size, place = torch.ops.mkldnn._nbytes(tensor), torch.ops.mkldnn.data_ptr(tensor)
    return np.frombuffer((ctypes.c_uint8 * size).from_address(place), dtype=np.uint8)


def freeze_products(model: Any, precision: Precision, *, reduced: bool = False) -> dict[str, FrozenProduct]:
    """Gives every linear layer of a model its ``FrozenProduct``, by the layer's name.

    Args:
        model: Its plain weights are given up where no other module uses them.
        precision: Shared by the layers.
        reduced: Make copies in bfloat16 as well.

    Raises:
        IntegrityError: A weight is another once it is laid out.
    """
    uses: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    found = {}
    for name, layer in model.named_modules():
        if type(layer) is torch.nn.Linear:
            weight = layer.weight
            found[name] = FrozenProduct(layer, precision, keep=uses[id(weight)] > 1, reduced=reduced)
            if not torch.equal(found[name].plain, weight):  # before the only copy in the usual order is dropped
                raise IntegrityError("the laid-out weight is not the loaded one", where=f"{name}.weight")
            layer.__dict__["forward"] = found[name]
    return found


def forget_gradients(model: Any) -> None:
    """Drops what only training needs."""
    for layer in model.modules():
        if isinstance(product := layer.__dict__.get("forward"), FrozenProduct):
            product.forget()


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention, (rows, heads, tokens, size) -> (rows, tokens, heads, size).

    Without a mask it is causal, unless the query is a single token.
    """
    causal = settings.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", True)
    found = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        is_causal=bool(causal) and attention_mask is None and query.shape[2] > 1,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found.transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)
