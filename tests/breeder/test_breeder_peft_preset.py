"""The ``peft`` preset is PEFT's arithmetic, and no other code here merges B and A apart."""

from __future__ import annotations

import ast
import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecology.breeder.operators import OPERATORS
from ecology.breeder.peft_preset import COMBINATIONS, PeftOptions, peft
from ecology.errors import ConfigError
from ecology.lowrank.lowrank import LowRank, Stored, canonical
from ecology.store.adapters import read_adapter
from ecology.testing.operators import population, regauged

torch = pytest.importorskip("torch")
library = pytest.importorskip("peft")

ROOT = Path(__file__).parents[2]
TARGETS = ["q_proj", "v_proj"]
"""In an order in which the base's own is the sorted one, so that both draw alike."""


@pytest.fixture(scope="module")
def base() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)).eval()


def _adapters(base: Any, folder: Path, configs: Sequence[dict[str, Any]]) -> tuple[Any, list[LowRank]]:
    """A PEFT model with one random adapter for each configuration, and the same adapters as our reader sees them."""
    model = None
    for i, options in enumerate(configs):
        config = library.LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": TARGETS, **options})
        if model is None:
            model = library.get_peft_model(copy.deepcopy(base), config, adapter_name="parent0")
        else:
            model.add_adapter(f"parent{i}", config)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    read = [read_adapter(folder / f"parent{i}") for i in range(len(configs))]
    return model, [LowRank.of({n: Stored(f.B, f.A, f.scale) for n, f in one.modules.items()}) for one in read]


def _theirs(model: Any, count: int, options: PeftOptions) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.add_weighted_adapter(
            [f"parent{i}" for i in range(count)],
            list(options.weights),
            "child",
            combination_type=options.combination_type,
            svd_rank=options.svd_rank,
            density=options.density,
            majority_sign_method=options.majority_sign_method,
        )
    layers = {n: m for n, m in model.base_model.model.named_modules() if hasattr(m, "lora_A") and "child" in m.lora_A}
    found = {n: m.get_delta_weight("child").detach().double().numpy() for n, m in layers.items()}
    model.delete_adapter("child")
    return found


def _same(ours: LowRank, theirs: dict[str, np.ndarray], tolerance: float = 1e-4) -> None:
    assert set(ours.modules) == set(theirs)
    for name, wanted in theirs.items():
        error = np.linalg.norm(ours.modules[name].dense() - wanted)
        assert error <= tolerance * np.linalg.norm(wanted) + 1e-6, name


def _options(combination: Any, weights: tuple[float, ...], **more: Any) -> PeftOptions:
    rule = combination.removesuffix("_svd")
    density = None if rule in ("linear", "cat", "svd") else more.pop("density", 0.6)
    more.pop("density", None)
    return PeftOptions(combination, weights, density=density, **more)


@pytest.fixture
def draws(monkeypatch: Any) -> Any:
    """Makes PEFT draw its masks from the stream that the preset draws from with seed 3."""
    generator = np.random.Generator(np.random.PCG64(3))

    def bernoulli(shares: Any) -> Any:
        return torch.from_numpy((generator.random(tuple(shares.shape)) < shares.numpy()).astype(np.float32))

    monkeypatch.setattr(torch, "bernoulli", bernoulli)


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, -0.3, 1.7)])
def test_it_is_pefts_arithmetic(
    combination: Any, weights: tuple[float, ...], base: Any, draws: None, tmp_path: Path
) -> None:
    model, parents = _adapters(base, tmp_path, [{}, {"lora_alpha": 2}, {"alpha_pattern": {"v_proj": 9}}])
    options = _options(combination, weights)
    _same(peft(parents, options, 3), _theirs(model, 3, options))


@pytest.mark.parametrize("combination", ["ties", "ties_svd", "dare_ties", "dare_ties_svd"])
def test_the_election_by_frequency_is_pefts(combination: Any, base: Any, draws: None, tmp_path: Path) -> None:
    model, parents = _adapters(base, tmp_path, [{}, {}, {}])
    options = _options(combination, (1.0, 0.4, 2.0), majority_sign_method="frequency")
    _same(peft(parents, options, 3), _theirs(model, 3, options))


@pytest.mark.parametrize("combination", ["magnitude_prune", "ties", "magnitude_prune_svd", "ties_svd"])
@pytest.mark.parametrize("density", [0.0, 0.01, 1.0])
def test_the_ends_of_density_are_pefts(combination: Any, density: float, base: Any, tmp_path: Path) -> None:
    model, parents = _adapters(base, tmp_path, [{}, {}])
    options = _options(combination, (1.0, 0.5), density=density)
    _same(peft(parents, options, 3), _theirs(model, 2, options))


@pytest.mark.parametrize("combination", ["cat", "svd", "ties_svd", "magnitude_prune_svd"])
@pytest.mark.parametrize("svd_rank", [None, 2])
def test_ranks_may_differ_where_pefts_may(combination: Any, svd_rank: int | None, base: Any, tmp_path: Path) -> None:
    model, parents = _adapters(base, tmp_path, [{"r": 3}, {"r": 5, "target_modules": ["v_proj"]}])
    options = _options(combination, (1.0, 0.5), svd_rank=svd_rank if combination != "cat" else None)
    _same(peft(parents, options, 3), _theirs(model, 2, options))


@pytest.mark.parametrize("combination", ["linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"])
def test_ranks_may_not_differ_where_pefts_may_not(combination: Any, base: Any, tmp_path: Path) -> None:
    model, parents = _adapters(base, tmp_path, [{"r": 3}, {"r": 5}])
    options = _options(combination, (1.0, 0.5))
    with pytest.raises(ConfigError, match="parents of one rank"):
        peft(parents, options, 3)
    with pytest.raises(ValueError, match="same r"):
        _theirs(model, 2, options)


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_one_parent_is_merged_linearly_whatever_is_asked(combination: Any, base: Any, tmp_path: Path) -> None:
    model, parents = _adapters(base, tmp_path, [{}])
    options = _options(combination, (0.7,))
    _same(peft(parents, options, 3), _theirs(model, 1, options))


def test_masks_follow_the_seed() -> None:
    parents = population(2)
    options = _options("dare_linear", (1.0, 1.0))
    one, same, other = (peft(parents, options, seed).modules["model.layers.0.q"].dense() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"combination_type": "ties"}, "needs a density"),
        ({"combination_type": "dare_ties", "density": 0.0}, "density"),
        ({"combination_type": "ties", "density": 1.1}, "density"),
        ({"combination_type": "svd", "svd_rank": 0}, "svd_rank"),
        ({"combination_type": "svd", "weights": ()}, "weights"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        PeftOptions(**{"weights": (1.0,), **options})


# --- it is the only place


def test_it_alone_promises_nothing_about_other_factors_and_rightly_so() -> None:
    assert [name for name, row in OPERATORS.items() if "gauge" not in row.claims] == ["peft"]
    parents = population(2)
    other = [regauged(parents[0]), parents[1]]
    for combination in COMBINATIONS:
        options = _options(combination, (1.0, 1.0), density=1.0)
        one, two = peft(parents, options, 0), peft(other, options, 0)
        gaps = [np.linalg.norm(one.modules[n].dense() - two.modules[n].dense()) for n in one.modules]
        norm = np.linalg.norm([np.linalg.norm(f.dense()) for f in one.modules.values()])
        exact = combination == "cat" or combination.endswith("svd")
        assert (np.linalg.norm(gaps) <= 1e-9 * norm) == exact, combination


def test_no_config_makes_it_a_default() -> None:
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert "combination_type" not in path.read_text(), path


FACTORS = {"A", "B"}
SUMS = {"add", "average", "einsum", "mean", "median", "nanmean", "nansum", "sum", "tensordot"}


def _apart(tree: ast.AST) -> list[int]:
    """Lines that add or average factors of one side: ``sum(f.A for ..)``, ``x.B + y.B``, ``np.mean([f.B ..])``."""

    def bare(node: ast.AST) -> bool:
        """Whether a factor is in ``node`` other than as part of a matrix product or as the base of an attribute."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            return False
        if isinstance(node, ast.Attribute):
            return node.attr in FACTORS
        if isinstance(node, ast.Name):
            return node.id in FACTORS
        if isinstance(node, ast.Constant):
            return isinstance(node.value, str) and ("lora_A" in node.value or "lora_B" in node.value)
        return any(bare(child) for child in ast.iter_child_nodes(node))

    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in SUMS and any(bare(one) for one in (*node.args, *(k.value for k in node.keywords))):
                found.append(node.lineno)
        sides = ()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = (node.left, node.right)
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            sides = (node.target, node.value)
        if sides and all(map(bare, sides)):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    "code",
    [
        "child = sum(f.A for f in parents)",
        "np.mean([f.B for f in parents], axis=0)",
        "np.tensordot(weights, np.stack([p.A for p in parents]), axes=1)",
        "merged = w * x.B + v * y.B",
        "A += weight * other.A",
        "total = torch.sum(torch.stack([t['lora_A.weight'] for t in states]), 0)",
    ],
)
def test_the_search_finds_what_it_looks_for(code: str) -> None:
    assert _apart(ast.parse(code))


def test_nothing_else_merges_b_and_a_apart() -> None:
    found = {}
    for path in sorted([*(ROOT / "ecology").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]):
        if lines := _apart(ast.parse(path.read_text())):
            found[path.relative_to(ROOT).as_posix()] = lines
    assert found == {}, "merge dW, not its factors; PEFT's way is in breeder/peft_preset.py"


def test_the_child_in_canonical_form_is_the_same_function() -> None:
    child = peft(population(2), _options("linear", (1.0, 1.0)), 0)
    for name, factors in canonical(child).modules.items():
        np.testing.assert_allclose(factors.dense(), child.modules[name].dense(), atol=1e-12)
