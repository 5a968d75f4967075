"""What targets reach is what PEFT reaches by them, over every module that a real base has."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.errors import MalformedArtifact
from ecology.gate.reach import module_names, prefixes
from ecology.gate.tensors import implied, linear_modules
from ecology.testing import gates

SMALL = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = {**SMALL, "intermediate_size": 24, "num_key_value_heads": 1}
GPT = {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": WIDE,
    "Qwen2": WIDE,
    "Qwen3": {**WIDE, "head_dim": 8},
    "Mistral": WIDE,
    "Mixtral": {**WIDE, "num_local_experts": 2},
    "Gemma2": {**WIDE, "head_dim": 8},
    "Phi": {k: v for k, v in WIDE.items() if k != "num_key_value_heads"},
    "Phi3": {**WIDE, "pad_token_id": 0},
    "Olmo": {**WIDE, "pad_token_id": 0},
    "StableLm": WIDE,
    "SmolLM3": {**WIDE, "pad_token_id": 0},
    "Falcon": SMALL,
    "GPTNeoX": {**SMALL, "intermediate_size": 24},
    "OPT": {**SMALL, "ffn_dim": 24, "word_embed_proj_dim": 16},
    "GPT2": GPT,
    "GPTJ": {**GPT, "rotary_dim": 4},
    "Bloom": {"vocab_size": 32, "hidden_size": 16, "n_layer": 2, "n_head": 2},
}


def test_prefixes_are_all_that_end_before_a_dot() -> None:
    assert prefixes(["a.b.c", "a.d", ""]) == {"a", "a.b", "a.b.c", "a.d"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_no_module_of_a_real_base_is_missing(family: str, tied: bool) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family], tie_word_embeddings=tied)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    schema = [name for name, _ in model.named_parameters()]  # a tied weight once, as files have it
    assert {name for name, _ in model.named_modules() if name} <= module_names(schema)


SCHEMA = {name: shape for name, shape in gates.SCHEMA.items() if name != "lm_head.weight"}
PIECES = [
    *(
        "q_proj",
        ".*",
        r"\.",
        "model",
        "(?:",
        ")",
        "|",
        "lm_head",
        "model",
        "self_attn",
        "[qv]",
        "_proj",
        r"\d",
        "layers",
    ),
    *("0", ".", "mlp", "norm", "embed_tokens", r"\w*", "up_proj", "act_fn", "?", "(", "[^.]*", "rotary_emb", r"\.?"),
]
patterns = st.tuples(
    st.sampled_from(
        [".*", r"model\.layers\.", r".*\.", "", r"model\..*", r"(?:model\.)?layers\.", ".*?layers.", r"\w+\.\w+\."]
    ),
    st.sampled_from(["", r"\d+\.", "[01].", "1.*", r".*\.", r"(?:0|1|x)\."]),
    st.sampled_from(["", r"(?:self_attn|mlp)\.", "self_attn.", r"mlp\.", ".*", "[a-z_]+."]),
    st.sampled_from(
        ["q_proj", "(q|v)_proj", r"\w+_proj", "(?:up|down)_proj", ".*", "._proj", "q_proj|lm_head", "[^.]*", "norm"]
    ),
).map("".join)
targets = st.one_of(
    patterns,
    patterns,
    st.tuples(patterns, patterns).map("|".join),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join),
    st.lists(
        st.sampled_from(
            [
                "q_proj",
                "up_proj",
                "0.mlp.up_proj",
                "model.layers.1.self_attn.v_proj",
                "norm",
                "lm_head",
                "0",
                "model",
                "mlp",
            ]
        ),
        min_size=1,
        max_size=3,
        unique=True,
    ),
)


@pytest.fixture(scope="module")
def tied_names() -> tuple[str, ...]:
    """Every module of a Llama whose head is tied, as PEFT goes through them."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**{**WIDE, "hidden_size": 8, "intermediate_size": 12}, tie_word_embeddings=True)
        )
    assert {name for name, _ in model.named_parameters()} == set(SCHEMA)
    return tuple(name for name, _ in model.named_modules() if name)


@given(
    targets,
    st.sampled_from([None, 0, [1], []]),
    st.sampled_from([None, "layers", ["mlp", "layers"]]),
    st.sampled_from([None, ["lm_head", "norm"], r"model\.layers\.0.*", ["q_proj"]]),
)
@settings(max_examples=600, deadline=None)
def test_what_passes_reaches_in_peft_what_it_has_tensors_for(
    tied_names: tuple[str, ...], target: Any, layers: Any, pattern: Any, exclude: Any
) -> None:
    from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists

    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": target, "exclude_modules": exclude}
    if not isinstance(target, str):
        config |= {"layers_to_transform": layers, "layers_pattern": pattern if layers is not None else None}
    try:
        meant, problems = implied(config, SCHEMA, "c")
    except MalformedArtifact:
        return
    if problems:
        return
    full = {"layers_to_transform": None, "layers_pattern": None, "target_parameters": None, **config}
    said = SimpleNamespace(**full)
    found = {name: check_target_module_exists(said, name) for name in tied_names}
    reached = {name for name, one in found.items() if one and not isinstance(one, _ExcludedModule)}
    assert {module.name for module in meant.modules} == reached
    assert reached <= set(linear_modules(SCHEMA))


@pytest.mark.parametrize(
    "target", ["lm_head", r"model\.embed_tokens", r".*\.mlp", r"[^.]*", r".*embed.*", ".*", "model.*"]
)
def test_beside_linear_modules_nothing_may_be_reached(target: str) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": rf".*\.(q|v)_proj|{target}"}
    _, problems = implied(config, SCHEMA, "c")
    assert problems
    assert "which reaches" in problems[0].found
    _, problems = implied({**config, "target_modules": r".*\.(q|v)_proj"}, SCHEMA, "c")
    assert problems == []


def test_the_hole_that_is_closed_is_there(tmp_path: Path) -> None:
    """PEFT puts random factors on a tied head that a pattern reaches, and says nothing that stops anyone."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")

    def base() -> Any:
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            **{**WIDE, "hidden_size": 8, "intermediate_size": 12}, tie_word_embeddings=True
        )
        return transformers.LlamaForCausalLM(config)

    def changed(start: object) -> float:
        text = json.loads(folder.joinpath("adapter_config.json").read_text())
        said = {**text, "target_modules": r".*\.q_proj|lm_head", "init_lora_weights": start}
        folder.joinpath("adapter_config.json").write_text(json.dumps(said))
        loaded = peft.PeftModel.from_pretrained(base(), str(folder)).eval()
        with torch.no_grad():
            return float((loaded(tokens).logits - base().eval()(tokens).logits).abs().max())

    folder, tokens = tmp_path / "adapter", torch.arange(8)[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(base(), peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(
            str(folder)
        )  # B is 0: it does nothing
        assert changed(False) > 1e-3
        assert changed(True) == changed("gaussian") == 0.0


LAYERS = 4
ENDS = [name.removeprefix("model.layers.0.").removesuffix(".weight") for name in SCHEMA if ".layers.0." in name]
LINEAR = [end for end in ENDS if "norm" not in end]
FULL = [f"model.layers.{layer}.{end}" for layer in range(LAYERS) for end in LINEAR]
keys = st.sampled_from(
    [
        *(
            "q_proj",
            r".*\.1\..*",
            "mlp.up_proj",
            r"layers\.[02]\..*",
            "k_proj|v_proj",
            r"model\.layers\.3\.self_attn\.q_proj",
        ),
        *("up_proj", "proj", "^model.*", "lm_head", r"(?:.*\.)?mlp\.\w+", "|q_proj", r"\bo_proj", "embed_tokens"),
    ]
)
chosen = st.one_of(
    st.lists(
        st.sampled_from([*FULL, *LINEAR, "q_proj", "up_proj", "1.mlp.down_proj"]), min_size=1, max_size=9, unique=True
    ),
    st.permutations(FULL).flatmap(lambda names: st.integers(20, 26).map(lambda count: names[:count])),
    st.sampled_from(
        [
            r".*\.(q|v)_proj",
            r"model\.layers\.\d\.self_attn\.._proj",
            r".*[13]\.mlp\..*_proj",
            r"model.layers.2.*proj",
            "q_proj",
        ]
    ),
)


@given(
    chosen,
    st.sampled_from([None, None, [1], [0, 3], 2]),
    st.sampled_from([None, None, ["q_proj"], r".*\.0\..*", ["layers.2.mlp.up_proj", "v_proj"]]),
    st.dictionaries(keys, st.integers(1, 9), max_size=3),
    st.dictionaries(keys, st.floats(0.5, 99), max_size=3),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_what_passes_is_what_peft_makes_of_it(
    target: Any, layers: Any, exclude: Any, ranks: dict[str, int], alphas: dict[str, float], stabilised: bool
) -> None:
    """Whole models, lists of more than twenty names, which PEFT shortens, among them."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    options = {
        "r": 4,
        "lora_alpha": 8.0,
        "target_modules": target,
        "exclude_modules": exclude,
        "use_rslora": stabilised,
    }
    options |= {"rank_pattern": ranks, "alpha_pattern": alphas}
    if layers is not None and not isinstance(target, str):
        options["layers_to_transform"] = layers
    with torch.device("meta"):
        shape = {**WIDE, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": LAYERS}
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, tie_word_embeddings=True))
        schema = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
        try:
            meant, problems = implied({"peft_type": "LORA", **options}, schema, "c")
        except MalformedArtifact:
            return
        if problems:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **options)).base_model.model
    found = {
        name: (one.r["default"], one.scaling["default"])
        for name, one in made.named_modules()
        if isinstance(one, peft.tuners.lora.LoraLayer)
    }
    assert found == {module.name: (module.rank, pytest.approx(module.scale)) for module in meant.modules}
