"""Folders that PEFT itself wrote, on a tiny Llama: benign ones are accepted, and what PEFT makes of hostile ones."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecology.contracts.artifact import Submission
from ecology.contracts.evidence import Count
from ecology.contracts.policy import AdapterLimits, DataPolicy
from ecology.gate import tensors
from ecology.gate.static import StaticContext, static_evidence
from ecology.signer.keys import LocalSigner
from ecology.signer.statements import genome_statement
from ecology.store.adapters import describe
from ecology.store.header import header_of
from ecology.testing import gates

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def config() -> Any:
    return transformers.LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16,
    )  # fmt: skip


def base(config: Any) -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config)


def saved(config: Any, folder: Path, **options: Any) -> Path:
    kind = peft.TinyLoraConfig if "u" in options else peft.LoraConfig
    wrapped = peft.get_peft_model(base(config), kind(**{"task_type": "CAUSAL_LM", **options}))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name or "tinylora_v" in name:
                parameter.normal_(std=0.01)
    wrapped.save_pretrained(str(folder))  # with its README.md
    return folder


def judged(folder: Path, home: Path, config: Any) -> dict[str, tuple[str, ...]]:
    signer, artifact = LocalSigner.open(home), describe(folder)
    claims = (signer.sign(genome_statement(artifact, gates.genome_of(artifact, folder), gates.NOW)),)
    state = base(config).state_dict()
    context = StaticContext(
        identity=gates.IDENTITY,
        tensor_schema={name: tuple(tensor.shape) for name, tensor in state.items()},
        weight_norms={name: float(tensor.norm()) for name, tensor in state.items()},
        limits=dataclasses.replace(AdapterLimits(), max_relative_norm=10.0, peft_types=("LORA", "TINYLORA")),
        data=DataPolicy(),
        trusted=(signer.public_key,),
        development=(),
        corpora={gates.CORPUS.digest: 0.0},
        revoked={},
    )
    evidence = static_evidence(Submission("peft", str(folder), artifact, claims), context)
    return {m.metric: m.statistic.details for m in evidence if isinstance(m.statistic, Count) and m.statistic.count}


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": "all-linear", "r": 4},
        {"target_modules": ["q_proj"], "use_rslora": True, "lora_alpha": 16, "lora_dropout": 0.1},
        {"target_modules": r".*layers\.1\..*(q|up)_proj", "init_lora_weights": "gaussian"},
        {"target_modules": ["down_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
        {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {"k_proj": 2}},
        {"target_modules": ["q_proj", "k_proj"], "alpha_pattern": {r"0\.self_attn\.q_proj": 4}},
        {"target_modules": ["o_proj"], "exclude_modules": ["layers.0.self_attn.o_proj"]},
        {"target_modules": ["model.layers.0.self_attn.q_proj"], "init_lora_weights": False},
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
    ],
    ids=str,
)  # fmt: skip
def test_what_peft_writes_is_accepted(options: dict[str, Any], config: Any, tmp_path: Path) -> None:
    assert judged(saved(config, tmp_path / "adapter", **options), tmp_path / "home", config) == {}


@pytest.mark.parametrize(
    ("options", "metric"),
    [
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "static.config"),
        ({"target_modules": ["q_proj"], "u": 4, "save_projection": False}, "static.config"),
        ({"target_modules": ["q_proj"], "lora_bias": True}, "static.config"),
        ({"target_modules": ["q_proj"], "trainable_token_indices": [1]}, "static.config"),
        ({"target_modules": ["q_proj"], "init_lora_weights": "pissa"}, "static.config"),
        ({"target_modules": ["q_proj"], "bias": "lora_only"}, "static.config"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "static.tensors"),
        ({"target_modules": ["q_proj", "lm_head"]}, "static.tensors"),  # PEFT saves the base's lm_head with it
    ],
    ids=str,
)
def test_what_peft_writes_beyond_a_plain_lora_is_refused(
    options: dict[str, Any], metric: str, config: Any, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = saved(config, tmp_path / "adapter", **options)
    assert metric in judged(folder, tmp_path / "home", config)


def test_a_readme_is_prose_or_refused(config: Any, tmp_path: Path) -> None:
    folder = saved(config, tmp_path / "adapter", target_modules=["q_proj"])
    assert "---" in (folder / "README.md").read_text("utf-8")  # front matter
    for data in (b"PK\x03\x04", b"\x80\x04c", "\u202e".encode(), "x".encode("utf-16"), b"x" * 300_000):
        (folder / "README.md").write_bytes(data)
        assert "README.md" in judged(folder, tmp_path / "home", config)["static.files"][0]


@pytest.mark.parametrize("options", [{"r": 4}, {"r": 4, "use_rslora": True}, {"u": 5, "r": 2, "weight_tying": 0.5}])
def test_the_norms_are_those_of_pefts_own_deltas(options: dict[str, Any], config: Any, tmp_path: Path) -> None:
    folder = saved(config, tmp_path / "adapter", target_modules="all-linear", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(base(config), str(folder))
    data = (folder / "adapter_model.safetensors").read_bytes()
    header = header_of(data, folder)
    said = json.loads((folder / "adapter_config.json").read_bytes())
    schema = {name: tuple(tensor.shape) for name, tensor in base(config).state_dict().items()}
    meant, _ = tensors.implied(said, schema, "c")
    found = {change.module.name: change for change in tensors.changes(data, header, meant)}
    assert len(found) == 14
    layers = dict(loaded.base_model.model.named_modules())
    for name, change in found.items():
        delta = layers[name].get_delta_weight("default").detach().double()
        if change.module.projections:  # which vector is whose is not known to us: the largest change counts
            assert change.norm >= float(delta.norm()) * (1 - 1e-5)
        else:
            assert change.norm == pytest.approx(float(delta.norm()), rel=1e-5)
            wanted = torch.linalg.svdvals(delta)[: change.module.rank].numpy()
            assert np.array(change.spectrum) == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def test_the_hole_that_is_closed_is_there(config: Any, tmp_path: Path) -> None:
    """A key of the base in a LoRA's weights changes the base for good, and PEFT says nothing."""
    folder = saved(config, tmp_path / "adapter", target_modules=["q_proj", "v_proj"])
    name = "base_model.model.lm_head.weight"
    held = gates.read_tensors(folder)
    gates.write_tensors(folder, {**held, name: ("F32", (16, 8), b"\0" * 512)})
    model = base(config)
    before = model.lm_head.weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # what PEFT would warn with
        loaded = peft.PeftModel.from_pretrained(model, str(folder))
    assert not torch.equal(loaded.unload().lm_head.weight, before)
    (violation,) = judged(folder, tmp_path / "home", config)["static.tensors"]
    assert "overwrites lm_head.weight of the base" in violation
