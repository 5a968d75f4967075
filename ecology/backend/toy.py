"""A base model of some ten thousand random parameters, for tests that take seconds.

It is a Llama with a byte-level tokenizer and the chat template of the real default base, written by NumPy and
``tokenizers`` alone, so a seed gives the same bytes on every machine. Nobody has taught it anything; what it says is
noise, but it is the same noise every time, adapters change it, and every code path of a real base is taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ecology.errors import ConfigError
from ecology.kernel.canonical import canonical

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a toy<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build(
    folder: Path,
    seed: int,
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    tokenizer: Callable[[Path], int] | None = None,
) -> None:
    """Writes config, weights, tokenizer and chat template of a toy base.

    Args:
        folder: An existing empty folder.
        seed: Of the weights.
        hidden: Width, a multiple of ``2 * heads``.
        layers: Number of decoder layers, at least 1.
        heads: Attention heads, a multiple of ``kv_heads``.
        kv_heads: Heads of keys and values, at least 1.
        tokenizer: Writes tokenizer and chat template and tells the size of the vocabulary, whose token 1 begins and
            whose token 2 ends a turn; None writes one token a byte.

    Raises:
        ConfigError: The numbers do not fit together.
    """
    from safetensors.numpy import save_file  # noqa: PLC0415  (a static gate knows this base and builds none)

    if min(hidden, layers, heads, kv_heads) < 1 or hidden % (2 * heads) or heads % kv_heads:
        raise ConfigError(
            f"a toy of hidden={hidden}, layers={layers}, heads={heads}, kv_heads={kv_heads} cannot be built",
            todo="hidden must be a multiple of 2 * heads, heads a multiple of kv_heads, and all at least 1",
        )
    vocabulary = (tokenizer or _tokenizer)(folder)
    inner, size = 2 * hidden, hidden // heads
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "head_dim": size,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "max_position_embeddings": 2048,
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": True,
        "dtype": "float32",
        "use_cache": True,
        "vocab_size": vocabulary,
    }
    (folder / "config.json").write_bytes(canonical(config))
    (folder / "generation_config.json").write_bytes(
        canonical({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})
    )
    random = np.random.Generator(np.random.PCG64(seed))

    def matrix(rows: int, columns: int) -> np.ndarray:
        # variance 1/fan-in keeps activations of unit size, so that logits are neither flat nor one-hot
        drawn = random.standard_normal((rows, columns)) / np.sqrt(columns)
        return np.asarray(drawn, np.float32)

    ones = np.ones(hidden, np.float32)
    # embeddings are tied to the output, so their scale sets how sure of itself the toy is
    tensors = {"model.embed_tokens.weight": (1.5 * matrix(vocabulary, hidden)).astype(np.float32)}
    for layer in range(layers):
        here = f"model.layers.{layer}"
        tensors |= {
            f"{here}.input_layernorm.weight": ones,
            f"{here}.self_attn.q_proj.weight": matrix(hidden, hidden),
            f"{here}.self_attn.k_proj.weight": matrix(kv_heads * size, hidden),
            f"{here}.self_attn.v_proj.weight": matrix(kv_heads * size, hidden),
            f"{here}.self_attn.o_proj.weight": matrix(hidden, hidden),
            f"{here}.post_attention_layernorm.weight": ones,
            f"{here}.mlp.gate_proj.weight": matrix(inner, hidden),
            f"{here}.mlp.up_proj.weight": matrix(inner, hidden),
            f"{here}.mlp.down_proj.weight": matrix(hidden, inner),
        }
    tensors["model.norm.weight"] = ones
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _tokenizer(folder: Path) -> int:
    """One token a byte, after the special ones; returns the size of the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415  (only who builds one)

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    write_tokenizer(folder, tokenizer.to_str(), SPECIAL, CHAT_TEMPLATE)
    return len(vocabulary)


def write_tokenizer(folder: Path, tokenizer: str, special: tuple[str, str, str], template: str) -> None:
    """The three files of a fast tokenizer.

    Args:
        folder: Of the base.
        tokenizer: As ``tokenizers`` writes it.
        special: Unknown, begin of a turn, end of a turn: tokens 0, 1 and 2.
        template: Of a chat, Jinja.
    """
    unknown, begin, end = special
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": end,
        "pad_token": end,
        "unk_token": unknown,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    (folder / "tokenizer.json").write_bytes(canonical(json.loads(tokenizer)))
    (folder / "tokenizer_config.json").write_bytes(canonical(settings))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
