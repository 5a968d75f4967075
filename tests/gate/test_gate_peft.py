"""Folders that PEFT itself wrote, on a tiny Llama: benign ones are accepted, and what PEFT makes of hostile ones."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecology.contracts.evidence import Count
from ecology.contracts.policy import AdapterLimits
from ecology.gate import tensors
from ecology.gate.static import static_evidence
from ecology.gate.weighing import weigh
from ecology.store.header import header_of
from ecology.testing import gates
from ecology.testing.benign import OPTIONS, base, save, submit

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


def judged(folder: Path, home: Path) -> dict[str, tuple[str, ...]]:
    evidence = static_evidence(*submit(folder, home))
    return {m.metric: m.statistic.details for m in evidence if isinstance(m.statistic, Count) and m.statistic.count}


def test_there_are_enough_of_them() -> None:
    assert len(OPTIONS) >= 15


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_peft_writes_is_accepted(options: dict[str, Any], tmp_path: Path) -> None:
    assert judged(save(tmp_path / "adapter", **options), tmp_path / "home") == {}


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
def test_what_peft_writes_beyond_a_plain_lora_is_refused(options: dict[str, Any], metric: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "adapter", **options)
    assert metric in judged(folder, tmp_path / "home")


def test_a_readme_is_prose_or_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "adapter", target_modules=["q_proj"])
    assert "---" in (folder / "README.md").read_text("utf-8")  # front matter
    for data in (b"PK\x03\x04", b"\x80\x04c", "\u202e".encode(), "x".encode("utf-16"), b"x" * 300_000):
        (folder / "README.md").write_bytes(data)
        assert "README.md" in judged(folder, tmp_path / "home")["static.files"][0]


@pytest.mark.parametrize("options", [{"r": 4}, {"r": 4, "use_rslora": True}, {"u": 5, "r": 2, "weight_tying": 0.5}])
def test_the_norms_are_those_of_pefts_own_deltas(options: dict[str, Any], tmp_path: Path) -> None:
    folder = save(tmp_path / "adapter", target_modules="all-linear", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(base(), str(folder))
    data = (folder / "adapter_model.safetensors").read_bytes()
    stream = io.BytesIO(data)
    header = header_of(stream, len(data), folder)
    said = json.loads((folder / "adapter_config.json").read_bytes())
    schema = {name: tuple(tensor.shape) for name, tensor in base().state_dict().items()}
    meant, _ = tensors.implied(said, schema, "c")
    found = {change.module.name: change for change in weigh(stream, header, meant, AdapterLimits()).changes}
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


def test_the_hole_that_is_closed_is_there(tmp_path: Path) -> None:
    """A key of the base in a LoRA's weights changes the base for good, and PEFT says nothing."""
    folder = save(tmp_path / "adapter", target_modules=["q_proj", "v_proj"])
    name = "base_model.model.lm_head.weight"
    held = gates.read_tensors(folder)
    gates.write_tensors(folder, {**held, name: ("F32", (16, 8), b"\0" * 512)})
    model = base()
    before = model.lm_head.weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # what PEFT would warn with
        loaded = peft.PeftModel.from_pretrained(model, str(folder))
    assert not torch.equal(loaded.unload().lm_head.weight, before)
    (violation,) = judged(folder, tmp_path / "home")["static.tensors"]
    assert "overwrites lm_head.weight of the base" in violation


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("cancelled", [True, False])
def test_what_the_bounds_let_pass_peft_computes(kind: str, cancelled: bool) -> None:
    """At the bound on the factors' norms, cancelling or not: finite, and off by less than is allowed."""
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(64, 48, bias=False))
    wrapped = peft.get_peft_model(layer, peft.LoraConfig(r=8, lora_alpha=8, target_modules=["0"]))
    weight, tuned = float(layer[0].weight.norm()), wrapped.base_model.model[0]
    a, b = torch.randn(4, 64), torch.randn(48, 4)
    a, b = torch.cat([a, a]), torch.cat([b, -b if cancelled else b], 1)
    share = 64 * weight / float(a.norm() * b.norm())
    a, b = (a * share**0.5).to(getattr(torch, kind)), (b * share**0.5).to(getattr(torch, kind))
    x = torch.randn(256, 64).to(getattr(torch, kind))
    with torch.no_grad():
        tuned.to(getattr(torch, kind))
        tuned.lora_A["default"].weight.copy_(a)
        tuned.lora_B["default"].weight.copy_(b)
        computed = (tuned(x) - tuned.base_layer(x)).double()
    exact = x.double() @ a.double().T @ b.double().T
    assert computed.isfinite().all()
    off = (computed - exact).norm(dim=1) / x.double().norm(dim=1)
    assert float(off.max()) <= weight
