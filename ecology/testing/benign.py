"""Adapters that PEFT itself writes, with options that people use: what a gate that refuses everything refuses wrongly.

They are made of a Llama of two layers in a moment; torch and PEFT are imported when they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecology.contracts.artifact import Submission
from ecology.contracts.policy import AdapterLimits, DataPolicy
from ecology.gate.context import StaticContext
from ecology.signer.keys import LocalSigner
from ecology.signer.statements import genome_statement
from ecology.store.folders import describe
from ecology.testing import gates

OPTIONS: tuple[Mapping[str, Any], ...] = (
    {"target_modules": ["q_proj", "v_proj"]},
    {"target_modules": "all-linear", "r": 4},
    {"target_modules": ["q_proj"], "use_rslora": True, "lora_alpha": 16, "lora_dropout": 0.1},
    {"target_modules": r".*layers\.1\..*(q|up)_proj", "init_lora_weights": "gaussian"},
    {"target_modules": ["down_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {"k_proj": 2}},
    {"target_modules": ["q_proj", "k_proj"], "alpha_pattern": {r"0\.self_attn\.q_proj": 4}},
    {"target_modules": ["o_proj"], "exclude_modules": ["layers.0.self_attn.o_proj"]},
    {"target_modules": ["model.layers.0.self_attn.q_proj"], "init_lora_weights": True},
    {"target_modules": ["q_proj"], "use_dora": True},
    {"target_modules": "all-linear", "use_dora": True, "use_rslora": True, "r": 3},
    {"target_modules": ["q_proj"], "task_type": None},  # PEFT then names the class of the base
    {"target_modules": ["up_proj"], "init_lora_weights": "orthogonal", "r": 2},
    {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": 0},
    {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {r".*layers\.[01]\..*(q|k)_proj": 3, "v_proj": 1}},
    {"target_modules": ["q_proj"], "lora_alpha": 32, "r": 16},
    {"target_modules": ".*mlp.*_proj", "exclude_modules": r".*\.0\..*"},
    {"target_modules": ["q_proj", "k_proj"], "u": 14, "weight_tying": 1.0},
    {"target_modules": ["q_proj", "k_proj"], "u": 3, "weight_tying": 0.5},
    {"target_modules": "all-linear", "u": 2, "r": 1},
    {"target_modules": ["q_proj"], "u": 5, "layers_to_transform": [1], "task_type": None},
)
"""Of ``LoraConfig``, or with ``u`` of ``TinyLoraConfig``."""


def base() -> Any:
    """The toy base, always the same."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=gates.VOCABULARY,
        hidden_size=gates.HIDDEN,
        intermediate_size=gates.INNER,
        num_hidden_layers=gates.LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
    )
    return transformers.LlamaForCausalLM(config)


def save(folder: Path, **options: Any) -> Path:
    """What ``save_pretrained`` leaves for these options, its README.md included.

    Args:
        folder: Is made.
        options: One of ``OPTIONS``.
    """
    import peft  # noqa: PLC0415
    import torch  # noqa: PLC0415

    kind = peft.TinyLoraConfig if "u" in options else peft.LoraConfig
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a tied lm_head, projections that are not saved
        wrapped = peft.get_peft_model(base(), kind(**{"task_type": "CAUSAL_LM", **options}))
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_B" in name or "tinylora_v" in name:
                    parameter.normal_(std=0.01)
        wrapped.save_pretrained(str(folder))
    return folder


def submit(folder: Path, home: Path) -> tuple[Submission, StaticContext]:
    """A folder of ``save`` with a birth certificate, and what a gate is given with it.

    Args:
        folder: Result of ``save``.
        home: Holds the key that signs.
    """
    signer, artifact = LocalSigner.open(home), describe(folder)
    claims = (signer.sign(genome_statement(artifact, gates.genome_of(artifact, folder), gates.NOW)),)
    state = base().state_dict()
    context = StaticContext(
        identity=gates.IDENTITY,
        tensor_schema={name: tuple(tensor.shape) for name, tensor in state.items()},
        weight_norms={name: float(tensor.norm()) for name, tensor in state.items()},
        limits=AdapterLimits(peft_types=("LORA", "TINYLORA"), max_relative_norm=10.0),
        data=DataPolicy(),
        trusted=(signer.public_key,),
        development=(),
        corpora={gates.CORPUS.digest: 0.0},
        revoked={},
    )
    return Submission("peft", str(folder), artifact, claims), context
