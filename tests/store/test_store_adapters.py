"""PEFT folders: what is read, what is refused and why, and what we write."""

from __future__ import annotations

import copy
import json
import os
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecology.contracts.artifact import MAX_CLAIMS, MAX_CLAIMS_BYTES, MAX_WIDE_CLAIMS_BYTES
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError, MalformedArtifact
from ecology.kernel.canonical import canonical, digest
from ecology.store.adapters import describe, read_adapter, read_claims, write_adapter
from ecology.store.folders import claims_beside
from ecology.store.header import read_header

torch = pytest.importorskip("torch")

BASE = Digest("sha256:" + "b" * 64)
LAYER = "model.layers.{}.self_attn.q_proj"


def _modules() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    first = (np.arange(6.0).reshape(3, 2) / 4, np.arange(8.0).reshape(2, 4) - 3)
    second = (np.array([[1.0], [0.0], [-0.5]]), np.array([[2.0, 0.0, 1.0, 0.25]]))
    return {LAYER.format(1): second, LAYER.format(0): first}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_adapter(tmp_path / "adapter", _modules(), "tests/tiny", BASE)
    return tmp_path / "adapter"


@pytest.fixture(scope="module")
def base() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)).eval()


def _alter(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- writing


def test_written_bytes_are_golden(folder: Path, golden: Callable[[str, bytes], None]) -> None:
    golden("store/adapter_config.json", (folder / "adapter_config.json").read_bytes())
    golden("store/adapter_model.safetensors", (folder / "adapter_model.safetensors").read_bytes())


def test_bytes_follow_from_the_weights_alone(folder: Path, tmp_path: Path) -> None:
    reverse = dict(reversed(_modules().items()))
    fortran = {name: (np.asfortranarray(B), A.astype(np.float32)) for name, (B, A) in reverse.items()}
    assert write_adapter(tmp_path / "other place", fortran, "tests/tiny", BASE) == describe(folder)
    assert write_adapter(folder, _modules(), "tests/tiny", BASE) == describe(folder)  # again, in place


def test_header_is_aligned_and_names_the_base(folder: Path) -> None:
    header = read_header(folder / "adapter_model.safetensors")
    assert header.data_offset % 8 == 0
    assert header.metadata == {"base": BASE, "format": "pt"}
    assert (folder / "adapter_config.json").read_bytes() == canonical(
        json.loads((folder / "adapter_config.json").read_text())
    )


def test_library_reads_what_we_write(folder: Path) -> None:
    from safetensors.numpy import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    assert sorted(tensors) == [f"base_model.model.{LAYER.format(i)}.lora_{x}.weight" for i in (0, 1) for x in "AB"]
    for name, (B, A) in _modules().items():
        np.testing.assert_array_equal(tensors[f"base_model.model.{name}.lora_B.weight"], B)
        np.testing.assert_array_equal(tensors[f"base_model.model.{name}.lora_A.weight"], A)


def test_our_reader_reads_what_we_write(folder: Path) -> None:
    adapter = read_adapter(folder)
    assert list(adapter.modules) == sorted(_modules())
    for name, factors in adapter.modules.items():
        assert factors.scale == 1.0
        np.testing.assert_array_equal(factors.B, _modules()[name][0])
        np.testing.assert_array_equal(factors.A, _modules()[name][1])


@pytest.mark.parametrize("ranks", [(2, 2), (1, 3)])
@pytest.mark.parametrize("condensed", [False, True])
def test_plain_peft_loads_it_as_base_plus_delta(
    ranks: tuple[int, int], condensed: bool, base: Any, tmp_path: Path
) -> None:
    """``condensed``: with 20 targets or more PEFT rewrites the list of targets to the shortest that it finds."""
    from peft import PeftModel

    kinds = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    if condensed:
        base = _deeper(base, 6)
    generator = np.random.Generator(np.random.PCG64(1))
    modules = {}
    for name, layer in base.named_modules():
        if name.endswith(kinds) and not name.startswith("model.layers.1."):
            rank = ranks[len(modules) % 2]
            m, n = layer.weight.shape
            modules[name] = generator.standard_normal((m, rank)) * 0.1, generator.standard_normal((rank, n)) * 0.1
    assert (len(modules) >= 20) == condensed
    write_adapter(tmp_path / "a", modules, "tests/tiny", BASE)
    expected = copy.deepcopy(base)
    for name, (B, A) in modules.items():
        expected.get_submodule(name).weight.data += torch.from_numpy(B @ A).float()
    tokens = torch.arange(12)[None]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path / "a")).eval()
        found, wanted = model(tokens).logits, expected(tokens).logits
    assert {name for name, module in model.base_model.model.named_modules() if hasattr(module, "lora_A")} == set(
        modules
    )
    assert torch.max(torch.abs(found - wanted)) < 1e-5
    assert torch.max(torch.abs(wanted - base(tokens).logits)) > 1e-3


def _deeper(base: Any, layers: int) -> Any:
    config = copy.deepcopy(base.config)
    config.num_hidden_layers = layers
    config.layer_types = None
    torch.manual_seed(0)
    return type(base)(config).eval()


@pytest.mark.parametrize(
    ("modules", "match"),
    [
        ({}, "without a module"),
        ({"a": (np.ones((3, 2)), np.ones((1, 4)))}, "no factors"),
        ({"a": (np.ones((3, 0)), np.ones((0, 4)))}, "no factors"),
        ({"a": (np.full((3, 1), 1e39), np.ones((1, 4)))}, "float32 cannot"),
        ({"a": (np.full((3, 1), np.nan), np.ones((1, 4)))}, "float32 cannot"),
        ({"q": (np.ones((3, 1)), np.ones((1, 4))), "model.q": (np.ones((3, 1)), np.ones((1, 4)))}, "cannot tell"),
    ],
)
def test_what_cannot_be_written(modules: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        write_adapter(tmp_path / "a", modules, "tests/tiny", BASE)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("base_id", "base_digest"), [("", BASE), ("/home/x/base", BASE), ("./base", BASE), ("a/b", "sha256:x")]
)
def test_base_is_named_and_not_a_place(base_id: str, base_digest: Digest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not name a base"):
        write_adapter(tmp_path / "a", _modules(), base_id, base_digest)


def test_other_files_in_the_output_are_refused(folder: Path) -> None:
    (folder / "README.md").write_text("hello")
    with pytest.raises(ConfigError, match="holds other files"):
        write_adapter(folder, _modules(), "tests/tiny", BASE)


# --- reading what PEFT writes


@pytest.mark.parametrize(
    "options",
    [
        {"r": 4, "lora_alpha": 8},
        {"r": 4, "lora_alpha": 8, "use_rslora": True},
        {"r": 4, "lora_alpha": 8, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {r"layers\.0\..*": 3}},
        {
            "r": 4,
            "lora_alpha": 8,
            "use_rslora": True,
            "rank_pattern": {r".*1.*q_proj": 6},
            "alpha_pattern": {"up_proj": 5},
        },
        {"r": 2, "lora_alpha": 3, "layers_to_transform": [1]},
        {"r": 2, "lora_alpha": 3, "target_modules": r".*layers\.0\..*(q|v)_proj"},
        {"r": 2, "lora_alpha": 3, "target_modules": "all-linear", "exclude_modules": ["down_proj"]},
        {"r": 2, "init_lora_weights": "gaussian"},
    ],
)
def test_scale_of_every_module_is_peft_s(options: dict[str, Any], base: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**{"target_modules": ["q_proj", "v_proj", "up_proj"], "task_type": "CAUSAL_LM", **options})
    model = get_peft_model(copy.deepcopy(base), config)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "a")
    adapter = read_adapter(tmp_path / "a")
    layers = {n: m for n, m in model.base_model.model.named_modules() if hasattr(m, "lora_A")}
    assert set(adapter.modules) == set(layers)
    for name, factors in adapter.modules.items():
        wanted = layers[name].get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose(factors.scale * factors.B @ factors.A, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_factors_are_widened(dtype: str, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    halves = {name: tensor.to(getattr(torch, dtype)) for name, tensor in load_file(path).items()}
    save_file(halves, path)
    for name, factors in read_adapter(folder).modules.items():
        assert factors.B.dtype == np.float32
        np.testing.assert_array_equal(factors.B, halves[f"base_model.model.{name}.lora_B.weight"].float().numpy())


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"target_modules": ["embed_tokens"]}, "embed_tokens.* is no LoRA factor"),
        ({"layer_replication": [(0, 2), (0, 2)]}, "layer_replication"),
    ],
)
def test_what_the_algebra_cannot_carry_is_refused_by_name(
    options: dict[str, Any], key: str, base: Any, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**{"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        get_peft_model(copy.deepcopy(base), config).save_pretrained(tmp_path / "a")
    with pytest.raises(MalformedArtifact, match=key) as caught:
        read_adapter(tmp_path / "a")
    assert caught.value.todo


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"peft_type": None}, "peft_type is None"),
        ({"init_lora_weights": "corda"}, "init_lora_weights"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights"),
        ({"init_lora_weights": ["pissa"]}, "init_lora_weights"),
        ({"target_parameters": ["experts.w"]}, "target_parameters"),
        ({"arrow_config": {"top_k": 3}}, "arrow_config"),
        ({"some_future_switch": 1}, "some_future_switch"),
        ({"r": 3}, "no factors of rank 3"),
        ({"r": 0}, "rank of .* is 0"),
        ({"r": "2"}, "rank of .* is '2'"),
        ({"r": True}, "rank of .* is True"),
        ({"lora_alpha": None}, "lora_alpha of .* is None"),
        ({"lora_alpha": "x"}, "lora_alpha of .* is 'x'"),
        ({"use_rslora": "yes"}, "use_rslora"),
        ({"target_modules": ["v_proj"]}, "is no target module"),
        ({"exclude_modules": ["layers.0.self_attn.q_proj"]}, "layers.0.* is no target module"),
        ({"target_modules": r"(a)\1"}, "refers back"),
        ({"rank_pattern": {"(?=a)": 2}}, "looks around"),
    ],
)  # fmt: skip
def test_malformed_configurations(changes: dict[str, Any], match: str, folder: Path) -> None:
    _alter(folder, **changes)
    with pytest.raises(MalformedArtifact, match=match):
        read_adapter(folder)


def _save(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    save_file(
        {name: np.ascontiguousarray(t, np.float32) for name, t in tensors.items()}, folder / "adapter_model.safetensors"
    )


KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({}, "no tensors"),
        ({KEY.format("A"): np.ones((2, 4))}, "lora_A alone"),
        ({KEY.format("A"): np.ones((2, 4)), KEY.format("B"): np.full((3, 2), np.inf)}, "NaN or infinity"),
        ({KEY.format("A"): np.ones((2, 4)), KEY.format("B"): np.ones((2, 3))}, "no factors of rank 2"),
        ({KEY.format("A"): np.ones(8), KEY.format("B"): np.ones((3, 2))}, "no factors of rank 2"),
        ({"model.embed_tokens.weight": np.ones((2, 2))}, "is no LoRA factor"),
        ({KEY.format("A").replace("weight", "bias"): np.ones(3)}, "is no LoRA factor"),
        ({KEY.format("magnitude_vector"): np.ones(3)}, "is no LoRA factor"),
        ({"base_model.model." + "x" * 300 + ".lora_A.weight": np.ones((2, 2))}, "is no LoRA factor"),
    ],
)
def test_unexpected_tensors(tensors: dict[str, np.ndarray], match: str, folder: Path) -> None:
    _save(folder, tensors)
    with pytest.raises(MalformedArtifact, match=match):
        read_adapter(folder)


def test_pickles_are_not_read(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(MalformedArtifact, match="pickle"):
        read_adapter(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"r":1,"r":2}', b" " * 2_000_000])
def test_configuration_that_is_no_object(content: bytes, folder: Path) -> None:
    (folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(MalformedArtifact):
        read_adapter(folder)


# --- folders and claims


def test_description_is_the_digest_of_the_records(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "note").write_text("x")
    artifact = describe(folder)
    assert [file.path for file in artifact.files] == ["adapter_config.json", "adapter_model.safetensors", "sub/note"]
    assert artifact.digest == digest(artifact.files)
    assert artifact.size_bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_claims_are_outside_and_read_as_lines(folder: Path) -> None:
    before = describe(folder)
    assert read_claims(folder) == ()
    (folder / "claims.jsonl").write_text("one\n\ntwo \u2028 still two")
    assert describe(folder) == before
    assert read_claims(folder) == ("one", "two \u2028 still two")
    (folder / "claims.jsonl").write_bytes(b"\xff")
    with pytest.raises(MalformedArtifact, match="not UTF-8"):
        read_claims(folder)


def test_folders_with_links_devices_or_strange_names_are_refused(folder: Path, tmp_path: Path) -> None:
    def refused(match: str, make: Callable[[], None], remove: Path) -> None:
        make()
        with pytest.raises(MalformedArtifact, match=match):
            describe(folder)
        remove.unlink()

    refused("is a link", lambda: (folder / "x").symlink_to("adapter_config.json"), folder / "x")
    refused("is a link", lambda: (folder / "claims.jsonl").symlink_to("x"), folder / "claims.jsonl")
    refused("is a link", lambda: (folder / "d").symlink_to(tmp_path), folder / "d")
    refused("not a regular file", lambda: os.mkfifo(folder / "pipe"), folder / "pipe")
    strange = Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))
    refused("not UTF-8", strange.touch, strange)
    (tmp_path / "link").symlink_to(folder)
    for path in (tmp_path / "link", tmp_path / "none", folder / "adapter_config.json"):
        with pytest.raises(MalformedArtifact, match="not a folder"):
            describe(path)


def test_folders_without_end_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a/b/c/d/e").mkdir(parents=True)
    with pytest.raises(MalformedArtifact, match="deeper than 4"):
        describe(folder)
    (folder / "a/b/c/d/e").rmdir()
    monkeypatch.setattr("ecology.store.folders.MAX_FILES", 1)
    with pytest.raises(MalformedArtifact, match="more than 1 files"):
        describe(folder)


def test_folders_count_like_files_and_claims_do_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "claims.jsonl").write_text("{}\n")
    there = len(describe(folder).files)
    (folder / "a/b").mkdir(parents=True)
    (folder / "c").mkdir()
    monkeypatch.setattr("ecology.store.folders.MAX_FILES", there + 3)
    assert len(describe(folder).files) == there
    (folder / "a/d").mkdir()
    with pytest.raises(MalformedArtifact, match="files and folders"):
        describe(folder)


def test_claims_are_bounded_before_they_are_taken_apart(folder: Path) -> None:
    path = folder / "claims.jsonl"
    path.write_bytes(b"{}\n" * MAX_CLAIMS)
    assert claims_beside(folder) == (("{}",) * MAX_CLAIMS, "")
    path.write_bytes(b"{}\n" * MAX_CLAIMS + b"{}")
    assert claims_beside(folder) == ((), f"claims.jsonl has {MAX_CLAIMS + 1} lines; at most {MAX_CLAIMS} are read")
    path.write_bytes(b"ab\n" * (MAX_CLAIMS_BYTES // 3))
    tracemalloc.start()
    assert "lines; at most" in claims_beside(folder)[1]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2.5 * MAX_CLAIMS_BYTES
    path.write_bytes(b"a" * (MAX_CLAIMS_BYTES + 1))
    assert "larger than" in claims_beside(folder)[1]
    path.write_bytes("\u4e00".encode() * (MAX_WIDE_CLAIMS_BYTES // 3 + 1))
    assert "not ASCII" in claims_beside(folder)[1]
    path.write_bytes(b"\xff")
    assert claims_beside(folder) == ((), "claims.jsonl is not UTF-8")
    path.unlink()
    assert claims_beside(folder) == ((), "")
