"""TinyLoRA: read as PEFT means it, expanded exactly, written so that PEFT reads it back."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecology.breeder.breed import Parent, breed
from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.errors import ConfigError, MalformedArtifact, UnsupportedAdapter
from ecology.store.adapters import describe, read_adapter
from ecology.store.tinylora import projection
from ecology.store.writer import write_tinylora

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

SHA = Digest("sha256:" + "c" * 64)
IDENTITY = CompatibilityIdentity("toy", SHA, SHA, SHA, SHA)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)).eval()


def _save(base: Any, folder: Path, seed: int, **options: Any) -> Any:
    """Saves a TinyLoRA with random vectors; returns its logits in PEFT."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.TinyLoraConfig(**{"u": 3, "target_modules": ALL, "task_type": "CAUSAL_LM", **options})
        model = peft.get_peft_model(copy.deepcopy(base), config).eval()
        generator = torch.Generator().manual_seed(seed)
        for v in model.base_model.tinylora_v["default"].values():
            v.data = torch.randn(v.shape, generator=generator) * 3
        model.save_pretrained(folder, save_embedding_layers=False)
    return _logits(model)


def _logits(model: Any) -> Any:
    with torch.no_grad():
        return model(torch.arange(12)[None]).logits


def _loaded(base: Any, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)
        return peft.PeftModel.from_pretrained(copy.deepcopy(base), str(folder)).eval()


def _child(folders: list[Path], out: Path, operator: str = "linear", **options: Any) -> Any:
    parents = [Parent(f.name, f, describe(f), None, IDENTITY) for f in folders]
    return breed(operator, options, parents, out, 1, {})


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


CASES: dict[str, dict[str, Any]] = {
    "untied": {},
    "fully tied": {"weight_tying": 1.0},
    "tied by two": {"weight_tying": 0.5},
    "tied unevenly": {"weight_tying": 0.7},
    "u 1": {"u": 1, "weight_tying": 0.5},
    "u 64": {"u": 64},
    "r 3": {"r": 3, "u": 5, "weight_tying": 0.4},
    "another seed": {"projection_seed": 2**33 + 5, "weight_tying": 0.5},
    "few targets": {"target_modules": ["v_proj", "q_proj"], "weight_tying": 0.5},
    "one layer": {"layers_to_transform": [1], "weight_tying": 0.5},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"], "weight_tying": 0.4},
    "r beyond the matrix": {"r": 40, "u": 2, "target_modules": ["q_proj"]},
}


@pytest.mark.parametrize("case", CASES)
def test_the_expansion_is_what_peft_computes(case: str, base: Any, tmp_path: Path) -> None:
    wanted = _save(base, tmp_path / "tiny", 1, **CASES[case])
    assert float(torch.max(torch.abs(wanted - _logits(base)))) > 1e-3
    _save(base, tmp_path / "other", 2, **{**CASES[case], "projection_seed": 7})  # another basis: no sum of vectors
    _child([tmp_path / "tiny", tmp_path / "other"], tmp_path / "lora", weights=[1.0, 0.0])
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["r"] <= CASES[case].get("r", 2)
    torch.testing.assert_close(_logits(_loaded(base, tmp_path / "lora")), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_vectors_add_on_one_basis_and_the_child_is_a_tinylora(case: str, base: Any, tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        _save(base, tmp_path / name, seed, **CASES[case])
    bred = _child([tmp_path / "a", tmp_path / "b"], tmp_path / "child", weights=[0.7, -1.2])
    a, b, child = (read_adapter(tmp_path / name).tiny for name in ("a", "b", "child"))
    assert a is not None
    assert b is not None
    assert child is not None
    assert a.basis == b.basis == child.basis
    assert bred.genome.resource_profile.max_rank <= CASES[case].get("r", 2)
    for group, v in child.vectors.items():
        np.testing.assert_allclose(v, 0.7 * a.vectors[group] - 1.2 * b.vectors[group], rtol=1e-6)
    model = _loaded(base, tmp_path / "child")
    expanded = {n: f.B.astype(np.float64) @ f.A for n, f in read_adapter(tmp_path / "child").modules.items()}
    parents = [{n: f.B.astype(np.float64) @ f.A for n, f in x.expand().items()} for x in (a, b)]
    embeddings = {n for n, layout in child.layouts.items() if layout.kind == "embedding"}
    for name, delta in expanded.items():
        np.testing.assert_allclose(delta, 0.7 * parents[0][name] - 1.2 * parents[1][name], rtol=1e-4, atol=1e-6)
        found = model.base_model.model.get_submodule(name).get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose(found.T if name in embeddings else found, delta, rtol=1e-4, atol=1e-6)


def test_negation_stays_a_tinylora_and_other_operators_expand(base: Any, tmp_path: Path) -> None:
    _save(base, tmp_path / "a", 1)
    _child([tmp_path / "a"], tmp_path / "minus", "negate", scale=0.5)
    minus, plus = read_adapter(tmp_path / "minus").tiny, read_adapter(tmp_path / "a").tiny
    assert minus is not None
    assert plus is not None
    for group, v in minus.vectors.items():
        np.testing.assert_allclose(v, -0.5 * plus.vectors[group], rtol=1e-6)
    _child([tmp_path / "a"], tmp_path / "pruned", "prune", rank=1)
    assert read_adapter(tmp_path / "pruned").tiny is None
    _child([tmp_path / "a", tmp_path / "a"], tmp_path / "cut", weights=[1.0, 1.0], rank=1)
    assert read_adapter(tmp_path / "cut").tiny is None
    assert max(f.B.shape[1] for f in read_adapter(tmp_path / "cut").modules.values()) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"projection_seed": 43},
        {"u": 4},
        {"r": 1},
        {"weight_tying": 0.5},
        {"target_modules": ["q_proj"]},
    ],
)
def test_another_basis_is_expanded(other: dict[str, Any], base: Any, tmp_path: Path) -> None:
    _save(base, tmp_path / "a", 1)
    _save(base, tmp_path / "b", 2, **other)
    _child([tmp_path / "a", tmp_path / "b"], tmp_path / "child", weights=[1.0, 1.0])
    child = read_adapter(tmp_path / "child")
    assert child.tiny is None
    a, b = (read_adapter(tmp_path / name).modules for name in "ab")
    for name, factors in child.modules.items():
        wanted = a[name].B.astype(np.float64) @ a[name].A
        if name in b:
            wanted = wanted + b[name].B.astype(np.float64) @ b[name].A
        np.testing.assert_allclose(factors.B @ factors.A, wanted, rtol=1e-3, atol=1e-6)


def test_flipped_signs_of_the_decomposition_are_another_basis(base: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for name in "ab":
        _save(base, tmp_path / name, 1)
    path = tmp_path / "b" / "adapter_model.safetensors"
    tensors = load_file(path)
    key = next(key for key in tensors if key.endswith("q_proj.tinylora_A"))
    tensors[key][0] *= -1
    tensors[key.replace("tinylora_A", "tinylora_B")][:, 0] *= -1
    save_file(tensors, path)
    a, b = (read_adapter(tmp_path / name).tiny for name in "ab")
    assert a is not None
    assert b is not None
    assert a.basis != b.basis


def test_a_tinylora_and_a_lora_breed_a_lora(base: Any, tmp_path: Path) -> None:
    _save(base, tmp_path / "tiny", 1)
    model = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(r=3, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "lora")
    _child([tmp_path / "tiny", tmp_path / "lora"], tmp_path / "child", weights=[1.0, 1.0])
    tiny, lora, child = (read_adapter(tmp_path / name).modules for name in ("tiny", "lora", "child"))
    for name, factors in child.items():
        wanted = tiny[name].B.astype(np.float64) @ tiny[name].A
        if name in lora:
            wanted = wanted + lora[name].scale * lora[name].B.astype(np.float64) @ lora[name].A
        np.testing.assert_allclose(factors.B @ factors.A, wanted, rtol=1e-3, atol=1e-6)


def test_written_bytes_repeat_and_hold_the_basis(base: Any, tmp_path: Path) -> None:
    _save(base, tmp_path / "a", 1, weight_tying=0.5)
    tiny = read_adapter(tmp_path / "a").tiny
    assert tiny is not None
    one = write_tinylora(tmp_path / "one", tiny, "tests/toy", SHA)
    again = read_adapter(tmp_path / "one").tiny
    assert again is not None
    assert again.basis == tiny.basis
    assert write_tinylora(tmp_path / "two", again, "tests/toy", SHA) == one
    with pytest.raises(ConfigError, match="other groups"):
        tiny.with_vectors({0: np.ones(3)})


@pytest.mark.parametrize("seed", [0, 42, 2**31 + 7, 2**33 + 5, -3])
@pytest.mark.parametrize(("u", "r"), [(1, 1), (1, 2), (3, 2), (4, 2), (5, 2), (64, 2), (7, 3), (13, 1), (17, 1)])
def test_projections_are_drawn_as_torch_draws_them(seed: int, u: int, r: int) -> None:
    drawn = torch.normal(0.0, 1.0 / r**0.5, (u, r, r), generator=torch.Generator().manual_seed(seed)).numpy()
    np.testing.assert_allclose(projection(seed, u, r), drawn, rtol=1e-4, atol=1e-6)


# --- what is refused


def _tamper(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def _key(tensors: dict[str, Any], end: str) -> str:
    return next(key for key in tensors if key.endswith(end))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop(_key(t, "q_proj.tinylora_A")), "alone"),
        (lambda t: t.pop("base_model.tinylora_v.3"), "vectors"),
        (lambda t: t.update({"base_model.tinylora_v.99": torch.ones(3)}), "vectors"),
        (lambda t: t.update({"base_model.tinylora_v.0": torch.ones(4)}), "vectors"),
        (lambda t: t.update({"base_model.tinylora_v.0": torch.full((3,), float("nan"))}), "NaN"),
        (lambda t: t.update({_key(t, "q_proj.tinylora_B"): torch.ones(32, 3)}), "no basis of rank 2"),
        (lambda t: t.update({_key(t, "q_proj.tinylora_P"): torch.ones(2, 2, 2)}), "no basis of rank 2"),
        (lambda t: t.update({"base_model.model.x.weight": torch.ones(2)}), "no part of a TinyLoRA"),
        (lambda t: t.clear(), "no tensors"),
    ],
)
def test_malformed_weights(change: Any, match: str, base: Any, tmp_path: Path) -> None:
    _save(base, tmp_path / "a", 1)
    _tamper(tmp_path / "a", change)
    with pytest.raises(MalformedArtifact, match=match):
        read_adapter(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"u": 4}, "no basis"),
        ({"r": 1}, "no basis"),
        ({"r": 0}, "r is 0"),
        ({"u": "3"}, "u is '3'"),
        ({"weight_tying": 1.5}, "weight_tying is 1.5"),
        ({"weight_tying": 0.5}, "vectors"),
        ({"projection_seed": True}, "projection_seed is True"),
        ({"target_modules": ["q_proj"]}, "is no target module"),
    ],
)
def test_malformed_settings(changes: dict[str, Any], match: str, base: Any, tmp_path: Path) -> None:
    _save(base, tmp_path / "a", 1)
    _edit(tmp_path / "a", **changes)
    with pytest.raises(MalformedArtifact, match=match):
        read_adapter(tmp_path / "a")


def test_projections_of_another_seed_do_not_say_whose_vector_is_whose(base: Any, tmp_path: Path) -> None:
    _save(base, tmp_path / "a", 1)
    _edit(tmp_path / "a", projection_seed=41)
    with pytest.raises(UnsupportedAdapter, match="which vector") as caught:
        read_adapter(tmp_path / "a")
    assert caught.value.field == "projection_seed"
    _save(base, tmp_path / "tied", 1, weight_tying=1.0)  # one vector: nothing to tell apart
    _edit(tmp_path / "tied", projection_seed=41)
    assert read_adapter(tmp_path / "tied").tiny is not None


def test_projections_of_an_adapter_beside_another_are_refused_where_they_repeat(base: Any, tmp_path: Path) -> None:
    """PEFT draws the second adapter's projections with the first one's count where both have a module."""
    model = peft.get_peft_model(copy.deepcopy(base), peft.TinyLoraConfig(u=3, target_modules=["v_proj"]))
    model.add_adapter("second", peft.TinyLoraConfig(u=3, target_modules=["q_proj", "v_proj"]))
    model.save_pretrained(tmp_path / "a")
    with pytest.raises(UnsupportedAdapter, match="which vector"):
        read_adapter(tmp_path / "a" / "second")


def test_too_many_projections_to_draw_are_refused(monkeypatch: Any, base: Any, tmp_path: Path) -> None:
    _save(base, tmp_path / "a", 1)
    monkeypatch.setattr("ecology.store.tinylora.MOST_DRAWN", 100)
    with pytest.raises(UnsupportedAdapter, match="too many"):
        read_adapter(tmp_path / "a")
