"""Which modules PEFT would go through on a base, as far as a tensor schema and known architectures tell.

PEFT asks of every module of the base, not only of linear layers, whether the configuration targets it. What it finds
and cannot put factors on ends the loading. What it finds, can put factors on and has no tensors for starts as
``init_lora_weights`` says, and nobody is told: a target pattern that reaches a tied ``lm_head`` or an embedding does
more than the file holds. So targets are matched against all names here, and must match linear layers alone.

A schema names what owns a tensor. Beside that there are modules without tensors of their own: heads that share the
embedding's, activations, dropouts. The tables have those of the causal models of transformers 5; a test builds models
and looks for names that are missing here. They can be incomplete for a class of model that nobody has listed, so
``configuration`` admits beside a pattern only starts under which a factor without a tensor changes nothing.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping

HEADS = ("lm_head", "embed_out", "output", "output_projection", "score", "classifier", "qa_outputs", "proj_out")
"""What stands beside or directly in the model and may share the embedding's weight."""
_MODEL = ("embed_tokens", "wte", "rotary_emb", "norm", "drop", "dropout", "emb_dropout", "embed_dropout", *HEADS)
_LAYER = (
    *("input_layernorm", "post_attention_layernorm", "dropout", "resid_dropout", "resid_attn_dropout"),
    *("resid_mlp_dropout", "post_attention_dropout", "post_mlp_dropout", "activation_fn"),
)
_INNER = ("act", "act_fn", "activation_fn", "gelu_impl", "dropout")
_CHILDREN: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
    {
        "attn": ("attn_dropout", "resid_dropout"),
        "self_attention": ("attention_dropout",),
        **dict.fromkeys(("mlp", "experts", "feed_forward", "ffn", "block_sparse_moe"), _INNER),
    }
)


def prefixes(names: Iterable[str]) -> frozenset[str]:
    """All beginnings of dotted names that end before a dot, and the names themselves."""
    found: set[str] = set()
    for name in names:
        left = name
        while left and left not in found:
            found.add(left)
            left = left.rpartition(".")[0]
    return frozenset(found)


def module_names(schema: Iterable[str]) -> frozenset[str]:
    """Names of the modules that PEFT may come across.

    Args:
        schema: Names of the base's tensors.
    """
    owners = prefixes(name.rpartition(".")[0] for name in schema)
    found = {*owners, *HEADS}
    inner = {name.rpartition(".")[0] for name in owners}
    for name in owners:
        last = name.rpartition(".")[2]
        children = _LAYER if last.isdecimal() else _CHILDREN.get(last, ())
        if name in inner and name.count(".") < 2 and not last.isdecimal():  # the model itself, or its decoder
            children = (*children, *_MODEL)
        found.update(f"{name}.{child}" for child in children)
    return frozenset(found)
