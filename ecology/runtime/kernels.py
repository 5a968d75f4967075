"""The two products that nearly all time goes into, done the way a CPU likes them.

*Linear layers.* oneDNN can lay a weight out once in the blocks that its kernels read. A product with 32 rows then runs
at the machine's full rate, where the general routine, which lays it out again at each call, reaches 60 to 85 % of it,
and with 4 rows a third to two thirds. What is laid out is a copy: the base's own weights are never written to, and an
adapter that is merged gets a copy of base plus dW, which is dropped when the adapter goes.

*Attention.* With fewer key-value heads than heads transformers repeats keys and values for every head as soon as there
is a mask. The kernel can share them itself: 4 times faster for 20 tokens behind 400.

Layers are changed by giving the instance a ``forward`` of its own, so hooks, PEFT and shallow copies of the model see
an ordinary module. Where a gradient goes through the ordinary product is used, since the other has none.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from ecology.errors import BackendError

GROUPED = "grouped_query"
"""Name of our attention in transformers' table."""
TYPICAL_ROWS = 64
"""For what the layout is chosen; one for 64 rows is as good as the best for 4, 32 and 512 (measured)."""


class FrozenProduct:
    """``x W^T + b`` of one layer, with a laid-out weight that can be exchanged."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        """Lays out the layer's weight."""
        self._layer = layer
        self._own = lay_out(layer.weight)
        self._used = self._own

    @property
    def is_own(self) -> bool:
        """Whether the layer's own weight is used."""
        return self._used is self._own

    def use(self, weight: torch.Tensor) -> None:
        """Uses another weight until ``restore``."""
        self._used = lay_out(weight)

    def restore(self) -> None:
        """Uses the layer's own weight again."""
        self._used = self._own

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output, (..., out).

        Raises:
            BackendError: A gradient is wanted while another weight is used.
        """
        if x.requires_grad:
            if not self.is_own:
                raise BackendError("gradients are those of the bare base", todo="train with no adapter attached")
            return torch.nn.functional.linear(x, self._layer.weight, self._layer.bias)
        if not self._used.is_mkldnn:
            return torch.nn.functional.linear(x, self._used, self._layer.bias)
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._used, self._layer.bias, "none", [], "")
        return found


def lay_out(weight: torch.Tensor) -> torch.Tensor:
    """A copy in the kernels' own layout; the weight itself where there is no oneDNN or no fp32."""
    if weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return weight
    laid: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), TYPICAL_ROWS)
    return laid


def freeze_products(model: Any) -> dict[int, FrozenProduct]:
    """Gives every linear layer of a model its ``FrozenProduct``, by the layer's ``id``."""
    found = {}
    for layer in model.modules():
        if type(layer) is torch.nn.Linear:
            found[id(layer)] = FrozenProduct(layer)
            layer.__dict__["forward"] = found[id(layer)]
    return found


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
