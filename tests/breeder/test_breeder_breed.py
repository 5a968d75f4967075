"""From parents' folders to a child that plain PEFT loads and that is base + dW."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecology.breeder.breed import Parent, breed
from ecology.breeder.operators import OPERATORS
from ecology.breeder.replay import replay
from ecology.contracts.artifact import Corpus
from ecology.contracts.genome import INTERFACE_VERSION, Genome, Lineage, ResourceProfile
from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.errors import ConfigError, IncompatibleParents, IntegrityError
from ecology.kernel.canonical import canonical, digest
from ecology.lowrank.lowrank import LowRank
from ecology.store.adapters import read_adapter, write_adapter

torch = pytest.importorskip("torch")

SHAPES = {
    "self_attn.q_proj": (32, 32),
    "self_attn.v_proj": (16, 32),
    "mlp.up_proj": (48, 32),
    "mlp.down_proj": (32, 48),
}
MODULES = {f"model.layers.{i}.{name}": shape for i in (0, 1) for name, shape in SHAPES.items()}


def _digest(text: str) -> Digest:
    return digest(text)


IDENTITY = CompatibilityIdentity("llama", _digest("weights"), _digest("shape"), _digest("tokens"), _digest("schema"))


def _corpus(name: str, *, no_train: bool = False) -> Corpus:
    return Corpus(name, _digest(name), "MIT", "train", no_train, 10)


def _parent(folder: Path, seed: int, rank: int = 3, skip: str = "none", corpora: tuple[Corpus, ...] = ()) -> Parent:
    generator = np.random.Generator(np.random.PCG64(seed))
    modules = {
        name: (generator.standard_normal((m, rank)) * 0.1, generator.standard_normal((rank, n)) * 0.1)
        for name, (m, n) in MODULES.items()
        if skip not in name
    }
    artifact = write_adapter(folder, modules, "tests/tiny", IDENTITY.base_weights)
    lineage = Lineage((), "finetune", {}, seed, corpora, 0, {})
    genome = Genome(IDENTITY, INTERFACE_VERSION, (f"skill-{seed}",), lineage, ResourceProfile(0, 0, 0, 0, 1.0))
    return Parent(folder.name, folder, artifact, genome)


@pytest.fixture
def parents(tmp_path: Path) -> list[Parent]:
    return [
        _parent(tmp_path / "a", 1, 3, corpora=(_corpus("z"), _corpus("a"))),
        _parent(tmp_path / "b", 2, 2, skip="mlp", corpora=(_corpus("a"),)),
    ]


@pytest.fixture(scope="module")
def base() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)  # tiny matrices: more threads only wait for each other
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
    )
    return LlamaForCausalLM(config).eval()


RECIPES: dict[str, dict[str, Any]] = {
    "crossover": {},
    "dare": {"density": 0.7},
    "linear": {"weights": [0.8, 0.6]},
    "mutate": {},
    "negate": {},
    "peft": {"combination_type": "svd", "weights": [0.8, 0.6], "svd_rank": 3},
    "prune": {"rank": 2},
    "svd": {"rank": 2},
    "ties": {},
}


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_child_loads_in_plain_peft_as_base_plus_delta(
    operator: str, parents: list[Parent], base: Any, tmp_path: Path
) -> None:
    import copy

    from peft import PeftModel

    chosen = parents[: OPERATORS[operator].parents_max]
    bred = breed(operator, RECIPES.get(operator, {}), chosen, tmp_path / "child", 5, {})
    adapters = [
        LowRank.of({n: (f.scale * f.B, f.A) for n, f in read_adapter(p.folder).modules.items()}) for p in chosen
    ]
    row = OPERATORS[operator]
    options = bred.genome.lineage.parameters
    child = row.function(
        adapters, row.options(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}), 5
    )
    expected = copy.deepcopy(base)
    state = expected.state_dict()
    for name, factors in child.modules.items():
        state[f"{name}.weight"] += torch.from_numpy(factors.dense()).float()
    tokens = torch.arange(12)[None]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(copy.deepcopy(base), str(bred.folder)).eval()
        found, wanted = model(tokens).logits, expected(tokens).logits
    assert torch.max(torch.abs(found - wanted)) < 1e-5
    assert torch.max(torch.abs(wanted - base(tokens).logits)) > 1e-3


def test_same_inputs_give_the_same_bytes(parents: list[Parent], tmp_path: Path) -> None:
    for operator, options in RECIPES.items():
        chosen = parents[: OPERATORS[operator].parents_max]
        one = breed(operator, options, chosen, tmp_path / f"{operator}-1", 5, {"cpu": "x"})
        two = breed(operator, options, chosen, tmp_path / f"{operator}-2", 5, {"cpu": "x"})
        assert one.artifact == two.artifact
        assert canonical(one.genome) == canonical(two.genome)


def test_genome_says_how_to_make_it_again(parents: list[Parent], tmp_path: Path) -> None:
    bred = breed("ties", {"density": 0.5, "rank": 3}, parents, tmp_path / "child", 11, {"b": "2", "a": "1"})
    genome = bred.genome
    assert genome.lineage.parents == (parents[0].artifact.digest, parents[1].artifact.digest)
    assert genome.lineage.parameters == {
        "density": 0.5, "weights": None, "scale": 1.0, "space": "core", "sign_weighting": "weighted",
        "normalise": "weights", "trim_scope": "module", "rank": 3,
    }  # fmt: skip
    assert genome.lineage.seed == 11
    assert genome.lineage.generation == 1
    assert genome.lineage.corpora == tuple(sorted((_corpus("a"), _corpus("z")), key=lambda corpus: corpus.digest))
    assert list(genome.lineage.environment) == ["a", "b"]
    assert genome.capabilities == ("skill-1", "skill-2")
    assert genome.identity == IDENTITY
    assert genome.resource_profile.size_bytes == bred.artifact.size_bytes
    assert genome.resource_profile.max_rank == 3
    assert 0 < genome.resource_profile.retained_energy < 1
    replayed = breed("ties", genome.lineage.parameters, parents, tmp_path / "again", genome.lineage.seed, {})
    assert replayed.artifact == bred.artifact
    grandchild = breed(
        "mutate", {}, [Parent("child", bred.folder, bred.artifact, genome)], tmp_path / "grandchild", 1, {}
    )
    assert grandchild.genome.lineage.generation == 2


def test_parents_of_other_bases_are_refused_with_the_fields(parents: list[Parent], tmp_path: Path) -> None:
    genome = parents[1].genome
    assert genome is not None
    other = dataclasses.replace(
        genome, identity=dataclasses.replace(IDENTITY, base_weights=_digest("o"), tokenizer=_digest("p"))
    )
    with pytest.raises(IncompatibleParents) as caught:
        breed("linear", {}, [parents[0], dataclasses.replace(parents[1], genome=other)], tmp_path / "child", 0, {})
    assert caught.value.fields == ("base_weights", "tokenizer")
    assert not (tmp_path / "child").exists()


def test_outsider_breeds_when_someone_vouches_for_its_base(parents: list[Parent], tmp_path: Path) -> None:
    bare = dataclasses.replace(parents[1], genome=None)
    with pytest.raises(IncompatibleParents, match="says nothing sure about its base"):
        breed("linear", {}, [parents[0], bare], tmp_path / "child", 0, {})
    vouched = dataclasses.replace(bare, identity=IDENTITY)
    bred = breed("linear", {}, [parents[0], vouched], tmp_path / "child", 0, {})
    assert bred.genome.lineage.parents[1] == bare.artifact.digest
    assert read_adapter(bred.folder).config["base_model_name_or_path"] == "tests/tiny"


def test_shapes_that_differ_are_incompatible(parents: list[Parent], tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj"
    folder = tmp_path / "odd"
    artifact = write_adapter(folder, {name: (np.ones((8, 1)), np.ones((1, 8)))}, "tests/tiny", IDENTITY.base_weights)
    odd = dataclasses.replace(parents[0], name="odd", folder=folder, artifact=artifact)
    with pytest.raises(IncompatibleParents) as caught:
        breed("linear", {}, [parents[0], odd], tmp_path / "child", 0, {})
    assert caught.value.fields == ("tensor_schema",)


def test_changed_parent_is_an_integrity_error(parents: list[Parent], tmp_path: Path) -> None:
    (parents[0].folder / "note.txt").write_text("x")
    with pytest.raises(IntegrityError, match="should be sha256"):
        breed("linear", {}, parents, tmp_path / "child", 0, {})


@pytest.mark.parametrize(("operator", "count"), [("mutate", 2), ("crossover", 1), ("linear", 0)])
def test_number_of_parents(operator: str, count: int, parents: list[Parent], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"was given {count}"):
        breed(operator, {}, parents[:count], tmp_path / "child", 0, {})


def test_child_of_no_effect_is_written_as_zeros(parents: list[Parent], tmp_path: Path) -> None:
    bred = breed("linear", {"weights": [0.0, 0.0]}, parents, tmp_path / "child", 0, {})
    ((name, factors),) = read_adapter(bred.folder).modules.items()
    assert name in MODULES
    assert not factors.B.any()


def test_path_of_a_base_is_not_handed_on(parents: list[Parent], tmp_path: Path) -> None:
    import json

    config = parents[0].folder / "adapter_config.json"
    data = json.loads(config.read_text())
    data["base_model_name_or_path"] = "/home/someone/models/tiny"
    config.write_text(json.dumps(data))
    from ecology.store.adapters import describe

    parent = dataclasses.replace(parents[0], artifact=describe(parents[0].folder))
    bred = breed("negate", {}, [parent], tmp_path / "child", 0, {})
    assert read_adapter(bred.folder).config["base_model_name_or_path"] == "tiny"
    named = breed("negate", {}, [parent], tmp_path / "named", 0, {}, base_id="org/tiny")
    assert read_adapter(named.folder).config["base_model_name_or_path"] == "org/tiny"


def test_replay_gives_the_same_bytes(parents: list[Parent], tmp_path: Path) -> None:
    for operator in sorted(OPERATORS):
        chosen = parents[: OPERATORS[operator].parents_max]
        bred = breed(operator, RECIPES.get(operator, {}), chosen, tmp_path / operator, 9, {"numpy": "2"}, base_id="b")
        folder = tmp_path / f"{operator}-again"
        again = replay(bred.artifact, bred.genome, bred.folder, parents[::-1], folder, {"numpy": "2"})
        assert again.same_bytes, operator
        assert again.same_genome, operator
        assert again.differing == ()


def test_replay_tells_what_is_not_the_same(parents: list[Parent], tmp_path: Path) -> None:
    bred = breed("linear", {}, parents, tmp_path / "child", 0, {"numpy": "2"})
    lied = dataclasses.replace(
        bred.genome, lineage=dataclasses.replace(bred.genome.lineage, parameters={"weights": [1.0, 0.0], "rank": None})
    )
    again = replay(bred.artifact, lied, bred.folder, parents, tmp_path / "again", {"numpy": "3", "torch": "2"})
    assert not again.same_bytes
    assert again.differing == ("numpy", "torch")
    with pytest.raises(ConfigError, match="is missing"):
        replay(bred.artifact, bred.genome, bred.folder, parents[:1], tmp_path / "no", {})
    founder = parents[0]
    assert founder.genome is not None
    with pytest.raises(ConfigError, match="not bred from parents"):
        replay(founder.artifact, founder.genome, founder.folder, parents, tmp_path / "no", {})


def test_child_is_canonical_and_tells_what_each_module_kept(parents: list[Parent], tmp_path: Path) -> None:
    bred = breed("svd", {"rank": 2}, parents, tmp_path / "child", 0, {})
    retained = bred.genome.resource_profile.retained
    assert retained
    whole = breed("linear", {}, parents, tmp_path / "whole", 0, {})
    assert whole.genome.resource_profile.retained == {}
    children = [read_adapter(one.folder).modules for one in (bred, whole)]
    for name, factors in children[0].items():
        kept = (
            np.linalg.norm(factors.B @ factors.A) ** 2 / np.linalg.norm(children[1][name].B @ children[1][name].A) ** 2
        )
        assert retained.get(name, 1.0) == pytest.approx(kept, abs=2e-6)
        np.testing.assert_allclose(factors.B.T @ factors.B, factors.A @ factors.A.T, atol=1e-6)  # balanced
        assert (factors.B[np.abs(factors.B).argmax(0), range(factors.B.shape[1])] > 0).all()


def test_threads_of_the_process_do_not_change_the_bytes(parents: list[Parent], tmp_path: Path) -> None:
    from threadpoolctl import threadpool_limits

    made = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            made.append(breed("svd", {"rank": 2}, parents, tmp_path / str(threads), 0, {}).artifact.digest)
    assert made[0] == made[1]
