from __future__ import annotations

import dataclasses
import itertools
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ecology.backend.bases import BaseModel, Folder, ensure
from ecology.contracts.evidence import Turn
from ecology.errors import BackendError, ConfigError, IntegrityError, MalformedArtifact, UnsupportedAdapter
from ecology.runtime import engine as module
from ecology.runtime.attachment import Switch, read_deltas, unmerged
from ecology.runtime.engine import MERGED_FROM, TransformersEngine
from ecology.runtime.kernels import bfloat16_helps, lay_out, raw
from ecology.runtime.packing import Question
from ecology.runtime.workers import side_by_side
from ecology.store.adapters import write_adapter
from ecology.store.layouts import Layout
from ecology.telemetry.memory import measure_serving_memory
from ecology.telemetry.progress import SilentProgress
from ecology.testing.toys import toy_adapter

PROMPTS = ("one", "a second prompt", "3")
Q = "model.layers.0.self_attn.q_proj"


def written(base: BaseModel, folder: Path, name: str, rows: int, columns: int) -> Path:
    write_adapter(folder, {name: (np.ones((rows, 1)), np.ones((1, columns)))}, "toy", base.identity.base_weights)
    return folder


@pytest.mark.parametrize(
    ("name", "rows", "columns", "reason"),
    [
        ("model.layers.9.self_attn.q_proj", 32, 32, "no such module"),
        ("model.layers.0.input_layernorm", 32, 32, "not a linear layer"),
        ("lm_head", 259, 32, "shared with another module"),
        (Q, 31, 32, "do not fit the weight"),
        (Q, 32, 31, "do not fit the weight"),
    ],
)
def test_a_key_that_does_not_fit_is_refused(
    engine: TransformersEngine, base: BaseModel, folder: Path, name: str, rows: int, columns: int, reason: str
) -> None:
    written(base, folder, name, rows, columns)
    with pytest.raises(MalformedArtifact, match=reason), engine.attach(folder):
        pass
    assert reason in engine.liveness(folder, PROMPTS)[0]
    engine.prove_base()


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (Layout("embedding"), "it changes an embedding"),
        (Layout("conv", (2, 2)), "it changes a convolution"),
        (Layout(), "it is a Conv1D, not a linear layer"),
    ],
)
def test_what_is_no_linear_layer_is_refused_with_a_reason_before_anything_is_attached(
    layout: Layout, reason: str, base: BaseModel, folder: Path
) -> None:
    from transformers.pytorch_utils import Conv1D

    model = torch.nn.ModuleDict({"wte": Conv1D(8, 8)})
    factors = {"wte": (np.ones((8, 1)), np.ones((1, 8)))}
    write_adapter(folder, factors, "toy", base.identity.base_weights, layouts={"wte": layout})
    with pytest.raises(UnsupportedAdapter, match=reason) as caught:
        read_deltas(model, folder)
    assert caught.value.field == "target_modules"
    assert caught.value.where == f"{folder.name}: wte"
    assert "linear layers alone" in caught.value.todo


def test_merged_is_the_weight_plus_the_delta(engine: TransformersEngine, base: BaseModel, folder: Path) -> None:
    written(base, folder, Q, 32, 32)
    product = engine.model.get_submodule(Q).forward
    before = product.plain.clone()
    with engine.attach(folder):
        for merge in (False, True):
            if merge:
                engine.score_tokens([Question((3,) * MERGED_FROM, ())])
            assert product.is_own is not merge
            found = engine.model.get_submodule(Q)(torch.eye(32)).T
            assert torch.allclose(found, before + torch.ones(32, 32), atol=1e-6)
        assert torch.equal(product.plain, before), "the base's own weight is never written to"
        assert engine.prove_base() == engine.identity.base_weights
        with pytest.raises(BackendError, match="bare base"):
            engine.model.get_submodule(Q)(torch.eye(32, requires_grad=True))
    assert torch.allclose(engine.model.get_submodule(Q)(torch.eye(32)).T, before, atol=1e-6)


def test_a_changed_weight_and_a_forgotten_adapter_are_noticed(engine: TransformersEngine) -> None:
    product = engine.model.get_submodule(Q).forward
    product.use(lay_out(product.plain + 1))
    with pytest.raises(IntegrityError, match="still computes"):
        engine.prove_base()
    product.restore()
    engine.prove_base()


@pytest.mark.parametrize("name", [f"{Q}.weight", "lm_head.weight"])
def test_one_changed_bit_of_what_is_computed_with_is_noticed(engine: TransformersEngine, name: str) -> None:
    (laid, *_) = engine.model.get_submodule(name.removesuffix(".weight")).forward.own
    raw(laid)[1234] ^= 1
    with pytest.raises(IntegrityError, match=f"{name} .float32, laid out.: 1 of"):
        engine.prove_base()
    raw(laid)[1234] ^= 1
    engine.prove_base()


def test_an_adapter_that_is_put_on_again_is_not_merged_again(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, same = toy_adapter(base, tmp_path / "one", seed=1), toy_adapter(base, tmp_path / "same", seed=1)
    other = toy_adapter(base, tmp_path / "other", seed=2)
    del one, same, other
    engine, fresh = TransformersEngine(base, threads=1), TransformersEngine(base, threads=1)
    merges: list[int] = []
    monkeypatch.setattr(module, "MERGED_FROM", 0)
    real = module.merge
    monkeypatch.setattr(module, "merge", lambda *a: merges.append(len(a[0])) or real(*a))
    for name in ("one", "same", None, "one", "other", "one"):
        with engine.attach(tmp_path / name if name else None):
            found = engine.generate(PROMPTS, 5)
        merged = len(merges)
        with fresh.attach(tmp_path / name if name else None):
            assert found == fresh.generate(PROMPTS, 5)
        del merges[merged:]
    assert len([n for n in merges if n]) == 3, "one, other, and one again"


def test_an_adapter_is_merged_by_the_first_call_that_pays_for_it(
    engine: TransformersEngine, base: BaseModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_adapter(base, folder)
    product = engine.model.get_submodule(Q).forward
    found = []
    for limit in (10**9, 0):
        monkeypatch.setattr(module, "MERGED_FROM", limit)
        with engine.attach(folder):
            found.append((engine.generate(PROMPTS, 5), engine.loglikelihoods(PROMPTS, [("a", "bc")] * len(PROMPTS))))
            assert product.is_own is (limit > 0)
        assert product.is_own
    (beside, likely), (merged, likely_too) = found
    assert beside == merged
    assert torch.allclose(torch.tensor(likely), torch.tensor(likely_too), atol=1e-4)
    assert engine.prove_base() == engine.identity.base_weights


def test_one_adapter_at_a_time(engine: TransformersEngine, base: BaseModel, folder: Path) -> None:
    toy_adapter(base, folder)
    with engine.attach(folder):
        assert engine.attached == folder
        with pytest.raises(BackendError, match="already attached"), engine.attach(folder):
            pass
    assert engine.attached is None


def test_a_base_that_was_changed_behind_our_back_is_noticed(engine: TransformersEngine) -> None:
    weight = engine.model.get_submodule("model.norm").weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight[0] += 1e-6
    with pytest.raises(IntegrityError, match=r"model\.norm"):
        engine.prove_base()
    with torch.no_grad():
        weight.copy_(before)
    engine.prove_base()


def test_weights_that_are_not_those_of_the_identity_are_refused(base: BaseModel) -> None:
    forged = dict(base.tensor_digests) | {f"{Q}.weight": "sha256:" + "0" * 64}
    with pytest.raises(IntegrityError, match="not the one"):
        TransformersEngine(dataclasses.replace(base, tensor_digests=forged), threads=1)
    missing = dict(base.tensor_digests) | {"model.extra.weight": "sha256:" + "0" * 64}
    with pytest.raises(IntegrityError, match="not in the loaded base"):
        TransformersEngine(dataclasses.replace(base, tensor_digests=missing), threads=1)


def test_a_half_precision_base_is_proven_in_its_own_dtype(base: BaseModel, tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    for file in base.folder.iterdir():
        (half / file.name).write_bytes(file.read_bytes())
    (half / "identity.json").unlink()
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(base.folder / "model.safetensors").items()}
    save_file(tensors, half / "model.safetensors", metadata={"format": "pt"})
    found = ensure(Folder(name="half", path=str(half)), tmp_path / "home", SilentProgress())
    engine = TransformersEngine(found, threads=1)
    assert engine.prove_base() == found.identity.base_weights != base.identity.base_weights
    norm = float(tensors[f"{Q}.weight"].double().norm())
    assert found.weight_norms[f"{Q}.weight"] == pytest.approx(norm)


def test_time_is_measured_by_the_injected_clock_in_turns(base: BaseModel, folder: Path) -> None:
    toy_adapter(base, folder)

    class Ticks:
        count = itertools.count()

        def now(self) -> str:
            return ""

        def monotonic(self) -> float:
            return float(next(self.count) ** 2)

    engine = TransformersEngine(base, threads=1, clock=Ticks())
    # the clock is looked at three times a turn, k = 3t, 3t+1, 3t+2, and shows k squared: first token (3t+1)^2 - (3t)^2,
    # last (3t+2)^2 - (3t)^2. Turns 0 and 1 are thrown away; then adapter, base, base, adapter.
    (a, b), (c, d) = engine.time_turns((folder, None), PROMPTS[:2], 2)
    turns = [Turn(6.0 * t + 1, 12.0 * t + 4, 2) for t in range(6)]
    assert [a, b, d, c] == turns[2:]
    assert a.token_ms == 1000.0 * (a.total_s - a.first_s)


def test_three_take_turns_in_going_first(base: BaseModel, tmp_path: Path) -> None:
    toy_adapter(base, tmp_path / "one", seed=1)
    toy_adapter(base, tmp_path / "two", seed=2)
    clock = types.SimpleNamespace(now=str, monotonic=itertools.count(1.0).__next__)
    engine = TransformersEngine(base, threads=1, clock=clock)
    turns = engine.time_turns((tmp_path / "one", None, tmp_path / "two"), PROMPTS, 1)
    assert [[(t.first_s, t.total_s, t.tokens, t.token_ms) for t in one] for one in turns] == [[(1, 2, 1, 0)] * 3] * 3


def test_pairs_side_by_side_keep_adapter_and_base_apart(base: BaseModel, folder: Path) -> None:
    toy_adapter(base, folder)
    engine = TransformersEngine(base, threads=2)
    seen: set[tuple[bool, ...]] = set()
    deltas, switch = read_deltas(engine.model, folder), Switch()
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        bare = engine.model(ids).logits
        with unmerged(deltas, switch):

            def ask(places: list[int]) -> bool:
                switch.on = places[0] % 2 == 0
                return torch.equal(engine.model(ids).logits, bare)

            seen.add(tuple(side_by_side(ask, [[i] for i in range(6)], 2)))
    assert seen == {(False, True) * 3}
    steps: list[int] = []
    step = types.SimpleNamespace(advance=lambda n=1, note="": steps.append(n))
    assert len(engine.time_turns((folder, None), PROMPTS[:3], 2, step)) == sum(steps) == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_served_one_by_one_is_what_is_answered_together(base: BaseModel, folder: Path, threads: int) -> None:
    toy_adapter(base, folder)
    engine = TransformersEngine(base, threads=threads)
    with engine.attach(folder):
        served = engine.serve(PROMPTS, [4] * len(PROMPTS))
        assert [reply for reply, _ in served] == list(engine.generate(PROMPTS, 4))
    assert all(seconds > 0 for _, seconds in served)
    assert engine.serve([], []) == ()


def test_what_is_wrong_at_run_time_is_said(engine: TransformersEngine, base: BaseModel, folder: Path) -> None:
    modules = {
        Q: (np.full((32, 1), 1e-9), np.full((1, 32), 1e-9)),
        "model.layers.1.self_attn.q_proj": (np.zeros((32, 1)), np.ones((1, 32))),
    }
    write_adapter(folder, modules, "toy", base.identity.base_weights)
    dead, idle = engine.liveness(folder, PROMPTS)
    assert "dW is zero" in dead
    assert "no log-probability" in idle
    huge = {Q: (np.full((32, 1), 3e38), np.full((1, 32), 3e38))}
    write_adapter(folder, huge, "toy", base.identity.base_weights)
    assert "not finite" in engine.liveness(folder, PROMPTS)[-1]
    engine.prove_base()


def test_limits(engine: TransformersEngine, base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds 2048"):
        engine.generate(["x"], 3000)
    with pytest.raises(ConfigError, match="at least 1"):
        TransformersEngine(base, threads=0)
    with pytest.raises(BackendError, match="cannot be loaded"):
        TransformersEngine(dataclasses.replace(base, folder=tmp_path))


def test_serving_memory_is_that_of_a_fresh_process(base: BaseModel, folder: Path) -> None:
    toy_adapter(base, folder)
    used = measure_serving_memory(base.folder, folder, ["hello"], max_new_tokens=2, threads=1)
    assert 50e6 < used < 4e9


@pytest.mark.skipif(not bfloat16_helps(), reason="this CPU has no bfloat16 products")
def test_bfloat16_rounds_products_and_nothing_else(base: BaseModel, folder: Path) -> None:
    toy_adapter(base, folder)
    full, half = (TransformersEngine(base, threads=1, dtype=dtype) for dtype in ("float32", "bfloat16"))
    choices = [("a", "bcd")] * len(PROMPTS)
    assert full.fingerprint != half.fingerprint
    for who in (None, folder):
        with full.attach(who), half.attach(who):
            wanted, found = (torch.tensor(engine.loglikelihoods(PROMPTS, choices)) for engine in (full, half))
        assert 0 < float((wanted - found).abs().max()) < 0.3
    assert half.liveness(folder, PROMPTS) == (), "looks in float32"
    layer = half.model.get_submodule(Q)
    x = torch.randn(3, 32)
    assert torch.equal(layer(x), full.model.get_submodule(Q)(x)), "outside of a question products are in float32"
    assert half.prove_base() == base.identity.base_weights


def test_a_dtype_that_cannot_be(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="float16"):
        TransformersEngine(base, dtype="float16")
    monkeypatch.setattr(module, "bfloat16_helps", lambda: False)
    with pytest.raises(BackendError, match="no bfloat16"):
        TransformersEngine(base, dtype="bfloat16")
