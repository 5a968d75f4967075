"""The list of facts that a TinyLoRA has to satisfy, on the toy base and on shapes without weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel, TinyLoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ecology.breeder.adapted import Adapted
from ecology.breeder.basis import bases, leading
from ecology.breeder.parametrisation import MOST_UNEVEN, PARAMETRISATIONS, SEVEN, adapt, even, tying
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError, IntegrityError, UnsupportedAdapter
from ecology.store.tinylora import projection
from ecology.store.writer import write_tinylora
from ecology.testing.toys import toy_base

IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
EXACT = [("tinylora", {"u": 3, "groups": 7}), ("lora_xs", {"r": 2}), ("lora", {"r": 2})]
NOT = [("ia3", {}), ("ln_tuning", {})]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return toy_base(tmp_path_factory.mktemp("home"), layers=3)


@pytest.fixture
def model(base: Any) -> Any:
    found = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    return found.eval().requires_grad_(False)


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def _moved(adapted: Adapted, seed: int = 0, size: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapted.trained.values():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)


def _hash(model: Any, skip: str = "tinylora_v") -> str:
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if skip not in name:
            whole.update(name.encode() + tensor.numpy().tobytes())
    return whole.hexdigest()


# Counts


@pytest.mark.parametrize(
    ("n_tie", "count"), [(1, 196), (2, 98), (4, 49), (8, 25), (16, 13), (32, 7), (64, 4), (128, 2), (256, 1), (0, 1)]
)
def test_counts_of_seven_billion(n_tie: int, count: int) -> None:
    assert tying(196, n_tie).groups == count


def test_the_naive_share_would_give_another_count_than_the_paper() -> None:
    naive = max(1, round(196 * (1.0 - (1 - 1 / 16))))
    assert (naive, tying(196, 16).groups) == (12, 13)
    assert tying(196, 16).weight_tying == pytest.approx(0.933673, abs=1e-6)


@pytest.mark.parametrize(
    ("modules", "n_tie", "u", "count"),
    [(252, 16, 1, 16), (252, 4, 1, 63), (252, 1, 1, 252), (252, 1, 2, 504), (210, 15, 1, 14), (210, 16, 1, 14),
     (210, 1, 1, 210), (210, 1, 4, 840), (196, 0, 13, 13)],
)  # fmt: skip
def test_counts_of_other_shapes(modules: int, n_tie: int, u: int, count: int) -> None:
    assert even(tying(modules, n_tie)).groups * u == count


def _shape(layers: int, hidden: int, inner: int, heads: int, kv: int) -> Any:
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        vocab_size=100,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("shape", "options", "count"),
    [
        ((28, 3584, 18944, 28, 4), {"u": 1, "n_tie": 16}, 13),
        ((28, 3584, 18944, 28, 4), {"u": 13}, 13),
        ((36, 2048, 11008, 16, 2), {"u": 1, "n_tie": 16}, 16),
        ((30, 576, 1536, 9, 3), {"u": 1, "n_tie": 16}, 14),
        ((30, 576, 1536, 9, 3), {"u": 4, "n_tie": 1}, 840),
        ((30, 576, 1536, 9, 3), {"u": 1, "groups": 14, "layers": 10}, 14),
    ],
)
def test_peft_makes_as_many_numbers_as_were_counted(
    shape: Any, options: Mapping[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On models without weights: PEFT's own injection, with vectors of the right shapes instead of an SVD."""
    from ecology.breeder import adapted as module
    from ecology.breeder.basis import Leading

    def shapes(modules: Any, rank: int, *rest: Any) -> Any:
        return {
            name: Leading(torch.zeros(m.weight.shape[0], rank), torch.ones(rank), torch.zeros(rank, m.weight.shape[1]))
            for name, m in modules.items()
        }

    monkeypatch.setattr(module, "bases", shapes)
    big = _shape(*shape).requires_grad_(False)
    with adapt(big, "tinylora", options, base_weights=Digest("sha256:" + "0" * 64)) as adapted:
        assert adapted.count == count
        assert adapted.bytes == 4 * count
        assert len(adapted.modules) == 7 * (options.get("layers") or shape[0])
        groups = {int(big.get_submodule(n)._tinylora_v_key["default"]) for n in adapted.modules}
        assert len(groups) * options["u"] == count


@given(st.integers(1, 400), st.integers(1, 400))
def test_groups_are_what_peft_cuts(modules: int, groups: int) -> None:
    if groups > modules:
        with pytest.raises(ConfigError):
            tying(modules, groups=groups)
        return
    found = tying(modules, groups=groups)
    wanted = max(1, round(modules * (1.0 - found.weight_tying)))
    assert wanted == found.groups == groups
    size = max(1, modules // wanted)
    counted = [0] * wanted
    for place in range(modules):
        counted[min(place // size, wanted - 1)] += 1
    assert tuple(counted) == found.sizes


def test_uneven_groups_are_refused_and_the_nearest_even_ones_named() -> None:
    assert max(tying(196, groups=100).sizes) == 97
    with pytest.raises(ConfigError, match="groups=98 is the nearest"):
        even(tying(196, groups=100))
    with pytest.raises(ConfigError, match="one of 28 beside others of 7"):
        even(tying(196, n_tie=8))
    for groups in range(1, 197):
        tied = tying(196, groups=groups)
        if tied.unevenness <= MOST_UNEVEN:
            assert even(tied) is tied
    with pytest.raises(ConfigError, match="two ways"):
        tying(10, n_tie=2, groups=5)


# At the start, and while it is trained


@pytest.mark.parametrize(("kind", "options"), [*EXACT, *NOT])
def test_it_starts_as_the_base_bit_for_bit_and_ends_as_the_base(
    base: Any, model: Any, kind: str, options: Mapping[str, Any]
) -> None:
    before, untouched = _logits(model), _hash(model)
    with adapt(model, kind, options, base_weights=base.identity.base_weights) as adapted:
        assert torch.equal(_logits(model), before)
        assert all(p.dtype == torch.float32 for p in adapted.trained.values())
        assert {n for n, p in adapted.peft.named_parameters() if p.requires_grad} == set(adapted.trained)
        _moved(adapted)
        assert not torch.equal(_logits(model), before)
        with adapted.bypassed():
            assert torch.equal(_logits(model), before)
    assert torch.equal(_logits(model), before)
    assert _hash(model) == untouched
    assert not any(p.requires_grad for p in model.parameters())


def test_numbers_are_float32_on_a_bfloat16_base(base: Any) -> None:
    low = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.bfloat16).eval().requires_grad_(False)
    with adapt(low, "tinylora", {"groups": 7}, base_weights=base.identity.base_weights) as adapted:
        assert {p.dtype for p in adapted.trained.values()} == {torch.float32}


def test_a_step_moves_the_numbers_alone(base: Any, model: Any) -> None:
    with adapt(model, "tinylora", {"u": 2, "groups": 7}, base_weights=base.identity.base_weights) as adapted:
        _moved(adapted)
        frozen = _hash(adapted.peft)
        start = adapted.numbers()
        optimiser = torch.optim.Adam(list(adapted.trained.values()), lr=0.1)
        model(input_ids=IDS).logits.square().mean().backward()
        assert {n for n, p in adapted.peft.named_parameters() if p.grad is not None} == set(adapted.trained)
        optimiser.step()
        assert _hash(adapted.peft) == frozen  # base, A, B and P
        assert all(not torch.equal(start[n], p.detach()) for n, p in adapted.trained.items())


def test_the_gradient_is_the_inner_product_with_the_bases_own(base: Any, model: Any) -> None:
    """dL/dv_i = sum over the group of <dL/dW, B P_i A>, and central differences agree."""
    double = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float64).eval().requires_grad_(False)
    with adapt(model, "tinylora", {"u": 2, "groups": 3}, base_weights=base.identity.base_weights) as adapted:
        _moved(adapted)
        loss = model(input_ids=IDS).logits.square().mean()
        own = torch.autograd.grad(loss, list(adapted.trained.values()))
        tiny, pairs = adapted.tiny(), adapted.factors()

        def lost(vectors: Mapping[int, Any]) -> tuple[float, dict[str, torch.Tensor]]:
            weights = {}
            for name, one in tiny.modules.items():
                weight = double.get_submodule(name).weight
                R = np.tensordot(vectors[one.group], one.P.astype(np.float64), axes=1)
                delta = torch.from_numpy(one.B.astype(np.float64) @ R @ one.A.astype(np.float64))
                weights[f"{name}.weight"] = (weight + delta).requires_grad_()
            out = torch.func.functional_call(double, weights, (), {"input_ids": IDS}).logits.square().mean()
            grads = torch.autograd.grad(out, list(weights.values()))
            return float(out.detach()), dict(zip(tiny.modules, grads, strict=True))

        _, whole = lost(tiny.vectors)
        for place, (name, _) in enumerate(adapted.trained.items()):
            group = int(name.rpartition(".")[2])
            for i in range(2):
                wanted = sum(
                    float((whole[n].numpy() * (m.B.astype(np.float64) @ m.P[i] @ m.A)).sum())
                    for n, m in tiny.modules.items()
                    if m.group == group
                )
                assert float(own[place][i]) == pytest.approx(wanted, rel=1e-3, abs=1e-6)
                step = np.zeros(2)
                step[i] = 5e-3  # norms compute in float32, so a smaller one would measure rounding
                up, down = (lost({**tiny.vectors, group: tiny.vectors[group] + sign * step})[0] for sign in (1, -1))
                assert wanted == pytest.approx((up - down) / 1e-2, rel=1e-2, abs=1e-4)
        assert set(pairs) == set(adapted.modules)


# What it is exactly


@pytest.mark.parametrize(("kind", "options"), EXACT)
def test_the_exported_lora_is_the_same_function(
    base: Any, model: Any, tmp_path: Path, kind: str, options: Mapping[str, Any]
) -> None:
    from ecology.store.adapters import write_adapter

    with adapt(model, kind, options, base_weights=base.identity.base_weights) as adapted:
        _moved(adapted)
        moved, pairs = _logits(model), adapted.factors()
        with adapted.merged():
            assert torch.allclose(_logits(model), moved, atol=1e-5)
    assert all(np.linalg.matrix_rank(B @ A) <= 2 for B, A in pairs.values())
    write_adapter(tmp_path / "lora", pairs, "toy", base.identity.base_weights)
    loaded = PeftModel.from_pretrained(model, tmp_path / "lora").eval()
    assert torch.allclose(_logits(loaded), moved, atol=1e-5)
    if kind == "tinylora":  # the other side of PEFT's own conversion: lora_A is A, lora_B is B R
        assert all(A.shape[0] == 2 for _, A in pairs.values())


@pytest.mark.parametrize(("kind", "options"), NOT)
def test_what_is_no_lora_is_refused_by_name(base: Any, model: Any, kind: str, options: Mapping[str, Any]) -> None:
    with adapt(model, kind, options, base_weights=base.identity.base_weights) as adapted:
        with pytest.raises(UnsupportedAdapter, match=kind):
            adapted.factors()
        with pytest.raises(UnsupportedAdapter):
            adapted.tiny()
    assert not PARAMETRISATIONS[kind].exact_lora


def test_a_hundred_merges_leave_no_trace(base: Any, model: Any) -> None:
    before = _hash(model)
    with adapt(model, "tinylora", {"groups": 7}, base_weights=base.identity.base_weights) as adapted:
        _moved(adapted)
        moved = _logits(model)
        for _ in range(100):
            with adapted.merged():
                pass
        assert torch.equal(_logits(model), moved)
    assert _hash(model) == before


def test_the_papers_formula_is_ours_after_a_change_of_basis(base: Any, model: Any) -> None:
    """B R A = U S (S^-1/2 R S^1/2) V^T: PEFT shares S out over both sides, the paper leaves it on the left."""
    found = leading(model.get_submodule("model.layers.0.self_attn.q_proj").weight, 2)
    U, S, V = (M.double().numpy() for M in (found.U, found.S, found.V))
    R = np.random.default_rng(0).standard_normal((2, 2))
    root = np.sqrt(S)
    ours = (U * root) @ R @ (root[:, None] * V)
    theirs = (U * S) @ (R * root / root[:, None]) @ V
    assert np.allclose(ours, theirs, atol=1e-12)


def test_changes_add_as_their_numbers_do(base: Any, model: Any) -> None:
    with adapt(model, "tinylora", {"u": 2, "groups": 7}, base_weights=base.identity.base_weights) as adapted:
        found = []
        for seed in (1, 2):
            _moved(adapted, seed)
            found.append((adapted.numbers(), {n: B @ A for n, (B, A) in adapted.factors().items()}))
        mixed = {n: 0.3 * found[0][0][n] - 2.0 * found[1][0][n] for n in adapted.trained}
        adapted.load(mixed)
        for name, (B, A) in adapted.factors().items():
            assert np.allclose(B @ A, 0.3 * found[0][1][name] - 2.0 * found[1][1][name], atol=1e-5)
        with pytest.raises(ConfigError, match="another adapter"):
            adapted.load({n: t[:1] for n, t in mixed.items()})


def test_the_basis_tells_bases_apart(base: Any, model: Any) -> None:
    digests = set()
    for options in ({"groups": 7}, {"groups": 3}, {"groups": 7, "projection_seed": 1}, {"groups": 7, "u": 2}):
        with adapt(model, "tinylora", options, base_weights=base.identity.base_weights) as adapted:
            digests.add(adapted.tiny().basis)
    assert len(digests) == 4


# What PEFT and other processes make of it


def test_peft_reads_the_folder_back(base: Any, model: Any, tmp_path: Path) -> None:
    with adapt(model, "tinylora", {"u": 2, "groups": 7}, base_weights=base.identity.base_weights) as adapted:
        _moved(adapted)
        moved = _logits(model)
        write_tinylora(tmp_path / "peft", adapted.tiny(), "toy", base.identity.base_weights)
    loaded = PeftModel.from_pretrained(model, tmp_path / "peft").eval()
    assert torch.allclose(_logits(loaded), moved, atol=1e-5)


def test_it_is_what_peft_would_have_made_up_to_signs(base: Any, model: Any) -> None:
    other = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32).eval()
    theirs = get_peft_model(other, TinyLoraConfig(r=2, u=2, weight_tying=2 / 3, target_modules=list(SEVEN)))
    with adapt(model, "tinylora", {"u": 2, "groups": 7}, base_weights=base.identity.base_weights) as adapted:
        for place, name in enumerate(adapted.modules):
            ours, peer = model.get_submodule(name), theirs.base_model.model.get_submodule(name)
            A, B = ours.tinylora_A["default"], ours.tinylora_B["default"]
            assert torch.allclose(A.abs(), peer.tinylora_A["default"].abs(), atol=1e-4)
            assert torch.allclose(B.abs(), peer.tinylora_B["default"].abs(), atol=1e-4)
            assert torch.equal(ours.tinylora_P["default"], peer.tinylora_P["default"])
            assert ours._tinylora_v_key == peer._tinylora_v_key
            drawn = projection(42 + place, 2, 2)
            assert np.allclose(ours.tinylora_P["default"].numpy(), drawn, atol=1e-5)


def test_two_adapters_on_one_model_are_tied_as_each_would_be_alone(base: Any) -> None:
    """peft 3422: a second adapter on overlapping targets took over the first one's groups."""
    first, second = ["q_proj", "v_proj", "up_proj"], ["v_proj", "down_proj"]

    def keys(targets: list[str], others: list[str]) -> dict[str, str]:
        fresh = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
        peft = None
        for name, chosen in (("other", others), ("mine", targets)):
            if not chosen:
                continue
            config = TinyLoraConfig(r=2, u=1, weight_tying=0.5, target_modules=chosen)
            if peft is None:
                peft = get_peft_model(fresh, config, adapter_name=name)
            else:
                peft.add_adapter(name, config)
        return {
            n: m._tinylora_v_key["mine"]
            for n, m in fresh.named_modules()
            if "mine" in getattr(m, "_tinylora_v_key", {})
        }

    assert keys(second, first) == keys(second, [])


def test_singular_vectors_have_a_sign_and_are_kept(base: Any, model: Any, tmp_path: Path) -> None:
    modules = {n: m for n, m in model.named_modules() if n.endswith("q_proj")}
    digest = base.identity.base_weights
    once = bases(modules, 2, digest, tmp_path)
    flipped = {}
    for name, module in modules.items():
        U, S, Vh = torch.linalg.svd(module.weight)
        signs = torch.tensor([-1.0, 1.0])
        assert torch.allclose((U[:, :2] * S[:2]) @ Vh[:2], (once[name].U * once[name].S) @ once[name].V, atol=1e-5)
        flipped[name] = (U[:, :2] * signs, Vh[:2] * signs[:, None])
        largest = once[name].U.abs().argmax(0)
        assert (once[name].U[largest, torch.arange(2)] > 0).all()
    (file,) = tmp_path.glob("svd-*.safetensors")
    stamp = file.stat().st_mtime_ns
    again = bases(modules, 2, digest, tmp_path)
    assert file.stat().st_mtime_ns == stamp
    assert all(torch.equal(once[n].U, again[n].U) and torch.equal(once[n].V, again[n].V) for n in modules)
    assert all(once[n].U.shape[1] == 1 for n, once in ((n, bases(modules, 1, digest, tmp_path)) for n in modules))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match="damaged"):
        bases(modules, 2, digest, tmp_path)


def test_bfloat16_numbers_are_rounded_after_each_step(base: Any, model: Any) -> None:
    options = {"groups": 7, "storage": "bfloat16"}
    with adapt(model, "tinylora", options, base_weights=base.identity.base_weights) as adapted:
        _moved(adapted)
        adapted.settle()
        assert adapted.bytes == 14
        assert all(torch.equal(p, p.bfloat16().float()) for p in adapted.trained.values())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("tinylora", {"targets": ("qproj",)}),
        ("tinylora", {"u": 0}),
        ("tinylora", {"groups": 12}),
        ("tinylora", {"size": 5}),
        ("lora", {"alpha": 0.0}),
        ("lora", {"targets": ()}),
        ("ia3", {"inputs": ("o_proj",)}),
        ("ln_tuning", {"layers": -1}),
        ("prefix", {}),
    ],
)
def test_mistakes_are_named(base: Any, model: Any, kind: str, options: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError):
        adapt(model, kind, options, base_weights=base.identity.base_weights)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
