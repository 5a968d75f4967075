"""Identity merge on folders: one parent of weight 1 comes back as it was, whatever PEFT wrote into its configuration.

A small model, an adapter under the flag, trained by random steps and saved by PEFT. Its outputs are the truth. Then
the adapter is merged alone at weight 1, by us and by PEFT, the child is saved, loaded by PEFT onto the base as it was,
and its outputs are compared:

    error = ||outputs of the child - outputs of the parent|| / ||outputs of the parent - outputs of the base||

so 0 is the same adapter, 1 is as far off as leaving the adapter away. PEFT merges a single adapter linearly; for
``cat`` and ``svd`` a second adapter without effect stands beside it at weight 0.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ecology.breeder.breed import Parent, breed
from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.errors import UnsupportedAdapter
from ecology.store.adapters import describe

_ZEROS = Digest("sha256:" + "0" * 64)


@dataclasses.dataclass(frozen=True, slots=True)
class Flag:
    """A kind of adapter."""

    base: str
    """``llama``, ``gpt2`` or ``convolution``."""
    options: Mapping[str, Any]
    """Of ``LoraConfig``, beyond rank 4 and alpha 6."""
    saving: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Of ``save_pretrained``."""


_LLAMA = {"target_modules": ["q_proj", "v_proj"]}
_ALONE = {"save_embedding_layers": False}

FLAGS: Mapping[str, Flag] = types.MappingProxyType(
    {
        "none": Flag("llama", _LLAMA),
        "lora_alpha": Flag("llama", {**_LLAMA, "lora_alpha": 16}),
        "use_rslora": Flag("llama", {**_LLAMA, "use_rslora": True}),
        "rank_pattern": Flag("llama", {**_LLAMA, "rank_pattern": {"v_proj": 2}}),
        "alpha_pattern": Flag("llama", {**_LLAMA, "alpha_pattern": {"v_proj": 2}}),
        "rank_pattern and use_rslora": Flag("llama", {**_LLAMA, "rank_pattern": {"v_proj": 6}, "use_rslora": True}),
        "layers_to_transform": Flag("llama", {**_LLAMA, "layers_to_transform": [1]}),
        "exclude_modules": Flag("llama", {"target_modules": "all-linear", "exclude_modules": ["up_proj"]}),
        "fan_in_fan_out (Conv1D)": Flag("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
        "embedding": Flag("llama", {"target_modules": ["embed_tokens", "q_proj"]}, _ALONE),
        "convolution": Flag("convolution", {"target_modules": ["two"], "task_type": None}),
        "use_bdlora": Flag(
            "llama", {**_LLAMA, "use_bdlora": {"target_modules_bd_a": ["q_proj", "v_proj"], "nblocks": 2}}
        ),
        "init_lora_weights=orthogonal": Flag("llama", {**_LLAMA, "init_lora_weights": "orthogonal"}),
        "init_lora_weights=pissa": Flag("llama", {**_LLAMA, "init_lora_weights": "pissa"}),
        "init_lora_weights=olora": Flag("llama", {**_LLAMA, "init_lora_weights": "olora"}),
        "use_dora": Flag("llama", {**_LLAMA, "use_dora": True}),
        "lora_bias": Flag("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "lora_bias": True}),
        "bias=all": Flag("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "bias": "all"}),
        "modules_to_save": Flag("llama", {**_LLAMA, "modules_to_save": ["lm_head"]}),
        "trainable_token_indices": Flag("llama", {**_LLAMA, "trainable_token_indices": [1, 2, 3]}),
        "target_parameters": Flag("llama", {"target_modules": [], "target_parameters": ["q_proj.weight"]}),
        "alora_invocation_tokens": Flag("llama", {**_LLAMA, "alora_invocation_tokens": [3]}),
    }
)
"""By what the table calls it; every row of the pitfalls that one adapter can show."""

Outcome = float | str
"""The error, or why there is no child."""


def ours(flag: Flag) -> Outcome:
    """The error of ``linear``, or the field for which the parent is refused."""
    with _trained(flag) as (base, model, folder):
        identity = CompatibilityIdentity("toy", _ZEROS, _ZEROS, _ZEROS, _ZEROS)
        parent = Parent("parent", folder, describe(folder), None, identity)
        try:
            breed("linear", {"weights": [1.0]}, [parent], folder.parent / "child", 0, {})
        except UnsupportedAdapter as error:
            return f"refused: {error.field}"
        return _error(flag, base, model, folder.parent / "child")


def theirs(flag: Flag, combination: str) -> Outcome:
    """The error of ``add_weighted_adapter``, or what it raised."""
    with _trained(flag) as (base, model, folder):
        names, weights = ["default"], [1.0]
        wanted = _outputs(flag, model)
        try:
            if combination != "linear":
                model.add_adapter("idle", copy.deepcopy(model.peft_config["default"]))
                names, weights = ["default", "idle"], [1.0, 0.0]
            model.add_weighted_adapter(names, weights, "child", combination_type=combination, svd_full_matrices=False)
            model.set_adapter("child")
            model.save_pretrained(folder.parent, selected_adapters=["child"], **flag.saving)
        except (ValueError, RuntimeError, KeyError, AttributeError, TypeError, NotImplementedError) as error:
            return f"raises {type(error).__name__}"
        try:
            return _error(flag, base, wanted, folder.parent / "child")
        except (ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
            return f"loading raises {type(error).__name__}"


class _trained:  # noqa: N801
    """A temporary folder with a trained adapter: (base, PEFT model, folder)."""

    def __init__(self, flag: Flag) -> None:
        self.flag, self.folder = flag, tempfile.TemporaryDirectory()

    def __enter__(self) -> tuple[Any, Any, Path]:
        import torch  # noqa: PLC0415
        from peft import LoraConfig, get_peft_model  # noqa: PLC0415
        from peft.tuners.lora.config import BdLoraConfig  # noqa: PLC0415

        self.quiet = warnings.catch_warnings()
        self.quiet.__enter__()
        warnings.simplefilter("ignore")
        options = {"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", **copy.deepcopy(dict(self.flag.options))}
        if "use_bdlora" in options:
            options["use_bdlora"] = BdLoraConfig(**options["use_bdlora"])
        torch.manual_seed(1)
        base = _base(self.flag.base)
        model = get_peft_model(copy.deepcopy(base), LoraConfig(**options)).eval()
        generator = torch.Generator().manual_seed(2)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        folder = Path(self.folder.name) / "parent"
        model.save_pretrained(folder, **self.flag.saving)
        return base, model, folder

    def __exit__(self, *error: object) -> None:
        self.quiet.__exit__(None, None, None)
        self.folder.cleanup()


def _base(kind: str) -> Any:
    import torch  # noqa: PLC0415
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    if kind == "llama":
        config = LlamaConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            vocab_size=64,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        llama: Any = LlamaForCausalLM(config)
        return llama.eval()
    if kind == "gpt2":
        small = GPT2Config(
            n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=32, bos_token_id=0, eos_token_id=0
        )
        gpt2: Any = GPT2LMHeadModel(small)
        return gpt2.eval()

    class Convolution(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = torch.nn.Conv2d(4, 6, (3, 2))

        def forward(self, x: Any) -> Any:
            return self.two(x)

    return Convolution().eval()


def _outputs(flag: Flag, model: Any) -> Any:
    import torch  # noqa: PLC0415

    with torch.no_grad():
        if flag.base == "convolution":
            return model(torch.linspace(-1, 1, 2 * 4 * 5 * 5).reshape(2, 4, 5, 5)).double()
        return model(torch.arange(12)[None]).logits.double()


def _error(flag: Flag, base: Any, parent: Any, child: Path) -> float:
    from peft import PeftModel  # noqa: PLC0415

    bare = _outputs(flag, base)
    wanted = parent if hasattr(parent, "norm") else _outputs(flag, parent)
    found = _outputs(flag, PeftModel.from_pretrained(copy.deepcopy(base), str(child)).eval())
    return float((found - wanted).norm() / (wanted - bare).norm())


CONTENDERS: Mapping[str, Callable[[Flag], Outcome]] = types.MappingProxyType(
    {
        "linear (ours)": ours,
        "linear": lambda flag: theirs(flag, "linear"),
        "cat": lambda flag: theirs(flag, "cat"),
        "svd": lambda flag: theirs(flag, "svd"),
    }
)
"""Column of the table to what fills it."""
