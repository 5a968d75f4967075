"""What PEFT really saves, for every option: it breeds to the same function, or is refused by the right key.

The oracle is PEFT's own forward pass: the adapter as it was trained, against the child of one parent at weight 1,
written by us and loaded by PEFT onto the base as it was before any adapter touched it.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecology.breeder.breed import Bred, Parent, breed
from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.errors import IncompatibleParents, MalformedArtifact, UnsupportedAdapter
from ecology.store.adapters import describe, read_adapter
from ecology.store.peft_config import LORA

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

SHA = Digest("sha256:" + "c" * 64)
IDENTITY = CompatibilityIdentity("toy", SHA, SHA, SHA, SHA)
BASES: dict[str, Any] = {}


class Convolutions(torch.nn.Module):  # type: ignore[misc]
    """A convolution of each dimension and a grouped one."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Conv1d(4, 6, 3)
        self.two = torch.nn.Conv2d(4, 6, (3, 2))
        self.three = torch.nn.Conv3d(4, 6, 2)
        self.grouped = torch.nn.Conv2d(8, 8, 3, groups=4)

    def forward(self, x: Any) -> Any:
        grid = x[:, :, None, :5].expand(-1, -1, 5, -1)
        parts = self.one(x), self.two(grid), self.three(grid[:, :, None].expand(-1, -1, 5, -1, -1))
        return torch.cat([*(part.flatten() for part in parts), self.grouped(grid.repeat(1, 2, 1, 1)).flatten()])


class Experts(torch.nn.Module):  # type: ignore[misc]
    """A mixture whose experts are one bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = torch.nn.Module()
        self.experts.up = torch.nn.Parameter(torch.randn(3, 8, 8) * 0.3)
        self.experts.forward = lambda x: torch.einsum("bi,eij->bj", x, self.experts.up)

    def forward(self, x: Any) -> Any:
        return self.experts(x)


class Attention(torch.nn.Module):  # type: ignore[misc]
    """PyTorch's own attention, whose first projection is one packed parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.attn(x, x, x)[0]


def _base(kind: str) -> Any:
    if kind not in BASES:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        BASES[kind] = _make(kind).eval()
    return copy.deepcopy(BASES[kind])


def _make(kind: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if kind in ("llama", "tied"):
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": kind == "tied"}
        return LlamaForCausalLM(LlamaConfig(**sizes, **heads))
    if kind == "gpt2":
        ends = {"bos_token_id": 0, "eos_token_id": 0}
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=32, **ends))
    if kind == "neox":
        from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
        return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, num_attention_heads=4))
    return {"conv": Convolutions, "experts": Experts, "attention": Attention}[kind]()


def _outputs(kind: str, model: Any) -> Any:
    torch.manual_seed(3)
    with torch.no_grad():
        if kind == "conv":
            return model(torch.randn(2, 4, 9))
        if kind == "attention":
            return model(torch.randn(2, 5, 8))
        if kind == "experts":
            return model(torch.randn(2, 8))
        return model(torch.arange(12)[None]).logits


def _train(model: Any, seed: int) -> None:
    """Random steps: every number that is trained moves, as far as its neighbours are large."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            step = torch.randn(parameter.shape, generator=generator) * 0.3
            parameter.data += step.to(parameter.dtype) if parameter.numel() else 0


def _config(**options: Any) -> Any:
    defaults = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    return peft.LoraConfig(**{**defaults, **options})


def _trained(kind: str, config: Any, folder: Path, seed: int = 1, **saving: Any) -> Any:
    """Wraps, trains and saves; returns the outputs of the adapter in PEFT."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(_base(kind), config).eval()
        _train(model, seed)
        model.save_pretrained(folder, **saving)
    return _outputs(kind, model)


def _breed(folders: list[Path], out: Path, operator: str = "linear", **options: Any) -> Bred:
    parents = [Parent(f.name, f, describe(f), None, IDENTITY) for f in folders]
    return breed(operator, options, parents, out, 1, {})


def _loaded(kind: str, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")  # said of the parent as well
        return _outputs(kind, peft.PeftModel.from_pretrained(_base(kind), str(folder)).eval())


def _close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    assert float(torch.max(torch.abs(found - wanted))) <= tolerance * max(1.0, float(torch.max(torch.abs(wanted))))


CONVERTED: Mapping[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "plain": ("llama", _config, {}),
    "rank 1, alpha 32": ("neox", lambda: _config(r=1, lora_alpha=32, target_modules=["query_key_value"]), {}),
    "alpha": ("llama", lambda: _config(lora_alpha=16), {}),
    "rslora": ("llama", lambda: _config(use_rslora=True), {}),
    "rank_pattern": ("llama", lambda: _config(rank_pattern={"v_proj": 2}), {}),
    "alpha_pattern": ("llama", lambda: _config(alpha_pattern={r"layers\.0\..*": 3, "q_proj": 1}), {}),
    "patterns and rslora": (
        "llama",
        lambda: _config(use_rslora=True, rank_pattern={r"1.*v_proj": 6}, alpha_pattern={"v_proj": 5}),
        {},
    ),
    "layers_to_transform": ("llama", lambda: _config(layers_to_transform=[1]), {}),
    "layers_pattern": ("llama", lambda: _config(layers_to_transform=0, layers_pattern="layers"), {}),
    "target pattern": ("llama", lambda: _config(target_modules=r".*layers\.0\..*(q|v)_proj"), {}),
    "all-linear": ("llama", lambda: _config(target_modules="all-linear"), {}),
    "exclude_modules": ("llama", lambda: _config(target_modules="all-linear", exclude_modules=["up_proj"]), {}),
    "lm_head": ("llama", lambda: _config(target_modules=["q_proj", "lm_head"]), {"save_embedding_layers": False}),
    "dropout": ("llama", lambda: _config(lora_dropout=0.2), {}),
    "gaussian": ("llama", lambda: _config(init_lora_weights="gaussian"), {}),
    "no initialisation": ("llama", lambda: _config(init_lora_weights=False), {}),
    "orthogonal": ("llama", lambda: _config(init_lora_weights="orthogonal"), {}),
    "mica": ("llama", lambda: _config(init_lora_weights="mica"), {}),
    "eva": ("llama", lambda: _config(init_lora_weights="eva", eva_config=peft.EvaConfig()), {}),
    "velora": ("llama", lambda: _config(velora_config=_sub("Velora", num_groups=4)), {}),
    "monteclora": ("llama", lambda: _config(monteclora_config=_sub("Monteclora")), {}),
    "bdlora": (
        "llama",
        lambda: _config(
            use_bdlora=_sub("BdLora", target_modules_bd_a=["q_proj"], target_modules_bd_b=["v_proj"], nblocks=2)
        ),
        {},
    ),
    "bdlora on some": (
        "llama",
        lambda: _config(use_bdlora=_sub("BdLora", target_modules_bd_b=["q_proj"], nblocks=4, match_strict=False)),
        {},
    ),
    "embedding": (
        "llama",
        lambda: _config(target_modules=["embed_tokens", "q_proj"]),
        {"save_embedding_layers": False},
    ),
    "embedding of a tied base": (
        "tied",
        lambda: _config(target_modules=["embed_tokens", "q_proj"]),
        {"save_embedding_layers": False},
    ),
    "output of a tied base": (
        "tied",
        lambda: _config(target_modules=["lm_head", "q_proj"]),
        {"save_embedding_layers": False},
    ),
    "fan_in_fan_out": ("gpt2", lambda: _config(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True), {}),
    "Conv1D with embeddings": (
        "gpt2",
        lambda: _config(target_modules=["c_attn", "wte", "wpe"], fan_in_fan_out=True),
        {"save_embedding_layers": False},
    ),
    "convolutions": ("conv", lambda: _config(target_modules=["one", "two", "three"], task_type=None), {}),
    "convolution, rslora": ("conv", lambda: _config(target_modules=["two"], use_rslora=True, task_type=None), {}),
}
"""Name -> base, configuration, options of saving."""


def _sub(name: str, **options: Any) -> Any:
    from peft.tuners.lora import config

    return getattr(config, f"{name}Config")(**options)


@pytest.mark.parametrize("case", CONVERTED)
def test_it_breeds_to_the_same_function(case: str, tmp_path: Path) -> None:
    kind, config, saving = CONVERTED[case]
    wanted = _trained(kind, config(), tmp_path / "parent", **saving)
    parent = Parent("p", tmp_path / "parent", describe(tmp_path / "parent"), None, IDENTITY, _tensors(kind))
    breed("linear", {"weights": [1.0]}, [parent], tmp_path / "child", 1, {})
    assert float(torch.max(torch.abs(wanted - _outputs(kind, _base(kind))))) > 1e-2
    _close(_loaded(kind, tmp_path / "child"), wanted)


def _tensors(kind: str) -> dict[str, tuple[int, ...]]:
    """As a checkpoint has them: what is tied is there once."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in _base(kind).state_dict().items()
        if not (name == "lm_head.weight" and kind == "tied")
    }


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("gpt2", {}, "the base has no such module"),
        ("llama", {"model.layers.1.self_attn.v_proj.weight": (16, 31)}, r"has \(16, 31\) weights there"),
        ("llama", {"model.layers.1.self_attn.v_proj.weight": (32, 16)}, r"has \(32, 16\) weights there"),
    ],
)
def test_a_bare_folder_has_to_fit_the_base_that_is_vouched_for(
    kind: str, changes: dict[str, tuple[int, ...]], message: str, tmp_path: Path
) -> None:
    _trained("llama", _config(), tmp_path / "p")
    parent = Parent("p", tmp_path / "p", describe(tmp_path / "p"), None, IDENTITY, {**_tensors(kind), **changes})
    with pytest.raises(IncompatibleParents, match=message) as caught:
        breed("linear", {}, [parent], tmp_path / "child", 1, {})
    assert (caught.value.fields, caught.value.where) == (("tensor_schema",), "p")
    assert not (tmp_path / "child").exists()


@pytest.mark.parametrize("prefix", ["", "outer."])
def test_a_checkpoint_may_have_been_saved_without_its_outer_class(prefix: str, tmp_path: Path) -> None:
    _trained("gpt2", _config(target_modules=["c_attn"], fan_in_fan_out=True), tmp_path / "p")
    tensors = {
        prefix + name if prefix else name.removeprefix("transformer."): t for name, t in _tensors("gpt2").items()
    }
    parent = Parent("p", tmp_path / "p", describe(tmp_path / "p"), None, IDENTITY, tensors)
    assert breed("linear", {}, [parent], tmp_path / "child", 1, {}).artifact.size_bytes


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_2", "olora", "corda"])
@pytest.mark.parametrize("rslora", [False, True])
def test_an_initialisation_that_moved_the_base_breeds_once_saved_against_it(
    init: str, rslora: bool, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config, base = _config(init_lora_weights=init, use_rslora=rslora), _base("llama")
        if init == "corda":  # looks at activations first
            from peft.tuners.lora.corda import preprocess_corda

            config.corda_config = _sub("Corda", corda_method="kpm")
            preprocess_corda(base, config, run_model=lambda: [base(torch.arange(i, i + 12)[None]) for i in range(8)])
        model = peft.get_peft_model(base, config).eval()
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(tmp_path / "start")
        model.peft_config["default"].init_lora_weights = init
        _train(model, 1)
        model.save_pretrained(tmp_path / "raw")
        wanted = _outputs("llama", model)
        model.save_pretrained(tmp_path / "saved", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    with pytest.raises(UnsupportedAdapter, match="changed the base") as caught:
        read_adapter(tmp_path / "raw")
    assert caught.value.field == "init_lora_weights"
    _breed([tmp_path / "saved"], tmp_path / "child", weights=[1.0])
    _close(_loaded("llama", tmp_path / "child"), wanted, 1e-4)


REFUSED: Mapping[str, tuple[str, str, Callable[[], Any], dict[str, Any]]] = {
    "dora": ("use_dora", "llama", lambda: _config(use_dora=True), {}),
    "dora, rslora": ("use_dora", "llama", lambda: _config(use_dora=True, use_rslora=True), {}),
    "lora_bias": ("lora_bias", "gpt2", lambda: _config(target_modules=["c_attn"], lora_bias=True), {}),
    "bias all": ("bias", "gpt2", lambda: _config(target_modules=["c_attn"], bias="all"), {}),
    "bias lora_only": ("bias", "gpt2", lambda: _config(target_modules=["c_attn"], bias="lora_only"), {}),
    "modules_to_save": ("modules_to_save", "llama", lambda: _config(modules_to_save=["lm_head"]), {}),
    "trainable tokens": ("trainable_token_indices", "llama", lambda: _config(trainable_token_indices=[1, 2]), {}),
    "trainable tokens by name": (
        "trainable_token_indices",
        "llama",
        lambda: _config(trainable_token_indices={"embed_tokens": [1]}),
        {},
    ),
    "whole embedding beside it": ("target_modules", "llama", lambda: _config(target_modules=["embed_tokens"]), {}),
    "whole embedding asked for": ("modules_to_save", "llama", _config, {"save_embedding_layers": True}),
    "tied adapters": (
        "ensure_weight_tying",
        "tied",
        lambda: _config(target_modules=["embed_tokens"], ensure_weight_tying=True),
        {"save_embedding_layers": False},
    ),
    "experts": (
        "target_parameters",
        "experts",
        lambda: _config(target_modules=[], target_parameters=["experts.up"], task_type=None),
        {},
    ),
    "parameter of a layer": (
        "target_parameters",
        "llama",
        lambda: _config(target_modules=[], target_parameters=["q_proj.weight"]),
        {},
    ),
    "layer replication": (
        "layer_replication",
        "llama",
        lambda: _config(layer_replication=[(0, 2), (0, 2)]),
        {},
    ),
    "alora": ("alora_invocation_tokens", "llama", lambda: _config(alora_invocation_tokens=[3]), {}),
    "kasa": ("kasa_config", "llama", lambda: _config(kasa_config=_sub("Kasa")), {}),
    "pissa": ("init_lora_weights", "llama", lambda: _config(init_lora_weights="pissa"), {}),
    "olora": ("init_lora_weights", "llama", lambda: _config(init_lora_weights="olora"), {}),
    "OLoRA": ("init_lora_weights", "llama", lambda: _config(init_lora_weights="OLoRA"), {}),
    "grouped convolution": ("target_modules", "conv", lambda: _config(target_modules=["grouped"], task_type=None), {}),
    "packed attention": (
        "target_modules",
        "attention",
        lambda: _config(target_modules=["attn"], task_type=None),
        {},
    ),
    "tinylora without projections": (
        "save_projection",
        "llama",
        lambda: peft.TinyLoraConfig(u=3, target_modules=["q_proj"], save_projection=False),
        {},
    ),
    "tinylora with saved modules": (
        "modules_to_save",
        "llama",
        lambda: peft.TinyLoraConfig(u=3, target_modules=["q_proj"], modules_to_save=["lm_head"]),
        {},
    ),
    "another method": ("peft_type", "llama", lambda: peft.VeraConfig(target_modules=["q_proj"]), {}),
    "another method, no dW": (
        "peft_type",
        "llama",
        lambda: peft.IA3Config(target_modules=["q_proj"], feedforward_modules=[]),
        {},
    ),
}
"""Name -> field, base, configuration, options of saving."""


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_by_parent_and_field_and_says_what_to_do(case: str, tmp_path: Path) -> None:
    field, kind, config, saving = REFUSED[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = config()
    _trained(kind, made, tmp_path / "the parent", **saving)
    with pytest.raises(UnsupportedAdapter) as caught:
        _breed([tmp_path / "the parent"], tmp_path / "child", weights=[1.0])
    assert caught.value.field == field
    assert "the parent" in caught.value.where
    assert caught.value.todo
    assert not (tmp_path / "child").exists()


KEY_ALONE = (
    "init_lora_weights",
    "alora_invocation_tokens",
    "layer_replication",
    "ensure_weight_tying",
    "target_parameters",
)
"""Fields whose adapters hold tensors like a plain LoRA's, under the same names: only the key tells."""
TELLTALE = [case for case, (field, *_) in REFUSED.items() if field in LORA and field not in (*KEY_ALONE, "peft_type")]


@pytest.mark.parametrize("case", TELLTALE)
def test_hiding_the_key_does_not_help_where_the_tensors_tell(case: str, tmp_path: Path) -> None:
    field, kind, config, saving = REFUSED[case]
    _trained(kind, config(), tmp_path / "p", **saving)
    path = tmp_path / "p" / "adapter_config.json"
    hidden = json.loads(path.read_text())
    if field != "target_modules":
        hidden[field] = LORA[field].default
    path.write_text(json.dumps(hidden))
    with pytest.raises(MalformedArtifact):
        read_adapter(tmp_path / "p")


OTHERS = sorted({kind.value for kind in peft.PeftType} - {"LORA", "TINYLORA"})


@pytest.mark.parametrize("kind", OTHERS)
def test_every_other_method_of_peft_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": kind, "target_modules": ["q_proj"]}))
    with pytest.raises(UnsupportedAdapter, match=f"peft_type is '{kind}'") as caught:
        read_adapter(tmp_path)
    assert caught.value.field == "peft_type"
    assert "LORA" in caught.value.todo


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_narrow_factors_are_widened_as_peft_widens_them(dtype: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _trained("llama", _config(), tmp_path / "parent")
    path = tmp_path / "parent" / "adapter_model.safetensors"
    save_file({k: t.to(getattr(torch, dtype)) for k, t in load_file(path).items()}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(_base("llama"), str(tmp_path / "parent")).eval()
    wanted = _outputs("llama", model)
    _breed([tmp_path / "parent"], tmp_path / "child", weights=[1.0])
    _close(_loaded("llama", tmp_path / "child"), wanted)


@pytest.mark.parametrize("dtype", ["float64", "int8"])
def test_other_dtypes_are_refused_by_name(dtype: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _trained("llama", _config(), tmp_path / "parent")
    path = tmp_path / "parent" / "adapter_model.safetensors"
    save_file({k: t.to(getattr(torch, dtype)) for k, t in load_file(path).items()}, path)
    with pytest.raises(MalformedArtifact, match="store it as F32"):
        read_adapter(tmp_path / "parent")


# --- parents that do not match


def _pair(tmp_path: Path, second: Any, **changes: Any) -> list[Path]:
    _trained("llama", _config(), tmp_path / "first", 1)
    _trained("llama", second, tmp_path / "second", 2)
    path = tmp_path / "second" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return [tmp_path / "first", tmp_path / "second"]


def _sum_of_deltas(folders: list[Path], weights: list[float]) -> dict[str, np.ndarray]:
    total: dict[str, np.ndarray] = {}
    for folder, weight in zip(folders, weights, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.PeftModel.from_pretrained(_base("llama"), str(folder))
        for name, layer in model.base_model.model.named_modules():
            if hasattr(layer, "get_delta_weight") and "default" in layer.lora_A:
                delta = layer.get_delta_weight("default").detach().double().numpy()
                total[name] = total.get(name, 0.0) + weight * delta
    return total


def test_ranks_targets_and_flags_that_differ_add_exactly(tmp_path: Path) -> None:
    other = _config(r=7, use_rslora=True, target_modules=["v_proj", "up_proj"], rank_pattern={"up_proj": 3})
    folders = _pair(tmp_path, other)
    _breed(folders, tmp_path / "child", weights=[0.7, -1.3])
    child = read_adapter(tmp_path / "child").modules
    for name, wanted in _sum_of_deltas(folders, [0.7, -1.3]).items():
        found = child[name].scale * (child[name].B.astype(np.float64) @ child[name].A)
        assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"base_model_name_or_path": "org/other"}, ("base_model_name_or_path",)),
        ({"base_model_name_or_path": "toy", "revision": "v2"}, ("revision",)),
        ({"task_type": "SEQ_2_SEQ_LM"}, ("task_type",)),
    ],
)
def test_folders_that_contradict_each_other_are_refused(
    changes: dict[str, Any], fields: tuple[str, ...], tmp_path: Path
) -> None:
    folders = _pair(tmp_path, _config(), **changes)
    path = folders[0] / "adapter_config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "org/toy", "revision": "v1"})
    )
    with pytest.raises(IncompatibleParents, match=r"first says .* second says") as caught:
        _breed(folders, tmp_path / "child")
    assert caught.value.fields == fields
    assert "distil" in caught.value.todo


def test_one_base_under_a_path_and_a_name_is_one_base(tmp_path: Path) -> None:
    folders = _pair(tmp_path, _config(), base_model_name_or_path="/home/me/toy")
    path = folders[0] / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "org/toy"}))
    assert _breed(folders, tmp_path / "child").genome.identity == IDENTITY


def test_an_adapter_written_for_another_base_is_refused(tmp_path: Path) -> None:
    _trained("llama", _config(), tmp_path / "p")
    _breed([tmp_path / "p"], tmp_path / "child")
    other = CompatibilityIdentity("toy", Digest("sha256:" + "d" * 64), SHA, SHA, SHA)
    parent = Parent("child", tmp_path / "child", describe(tmp_path / "child"), None, other)
    with pytest.raises(IncompatibleParents, match="was written for the base") as caught:
        breed("linear", {}, [parent], tmp_path / "grandchild", 1, {})
    assert caught.value.fields == ("base_weights",)


def test_a_module_cannot_be_an_embedding_in_one_parent_and_a_layer_in_another(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    options = {"target_modules": ["embed_tokens"]}
    for name in ("first", "second"):
        _trained("llama", _config(**options), tmp_path / name, save_embedding_layers=False)
    path = tmp_path / "second" / "adapter_model.safetensors"
    renamed = {
        k.replace("lora_embedding_A", "lora_A.weight").replace("lora_embedding_B", "lora_B.weight"): t
        for k, t in load_file(path).items()
    }
    save_file(renamed, path)
    with pytest.raises(IncompatibleParents) as caught:
        _breed([tmp_path / "first", tmp_path / "second"], tmp_path / "child")
    assert caught.value.fields == ("tensor_schema",)
