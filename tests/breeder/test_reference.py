"""The fast step against TRL's own trainer, on the same rollouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ecology.breeder import rewards
from ecology.breeder.breed import Bred
from ecology.breeder.checkpoints import Checkpoints
from ecology.breeder.grpo import GrpoOptions, tinylora_grpo
from ecology.breeder.parametrisation import adapt
from ecology.breeder.policy_gradient import Normaliser, advantages, log_probabilities, loss_of
from ecology.breeder.reference import CLIP, absent, build, reward_function, settings_of, unpatched
from ecology.breeder.rewards import Reward
from ecology.breeder.rollout import Policy, padded_left, sample, uniforms
from ecology.breeder.session import Session
from ecology.contracts.artifact import Corpus
from ecology.errors import BackendError, ConfigError
from ecology.kernel.canonical import digest
from ecology.runtime.chat import chat_format, encode_prompts
from ecology.runtime.engine import TransformersEngine
from ecology.telemetry.progress import SilentProgress
from ecology.testing.toys import toy_base

pytest.importorskip("trl", reason="needs the extra `learn`")

ROWS = [{"prompt": f"say {'very ' * (n % 3)}{n}", "completion": str(n)} for n in range(3)]
OPTIONS = GrpoOptions(corpus="c", reward="number", steps=1, prompts=3, group=4, max_new_tokens=7, stop="")
CORPUS = Corpus("letters", digest("letters"), "Apache-2.0", "train", False, 3)
REWARDS = [1.0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 0]
ENDS = frozenset(range(0, 259, 4))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = toy_base(tmp_path_factory.mktemp("home"), layers=4)
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    model.eval().requires_grad_(False)
    return base, model, tokenizer


@pytest.fixture
def wrapped(toy: Any) -> Iterator[Any]:
    base, model, tokenizer = toy
    with (
        adapt(model, "tinylora", {"groups": 7, "layers": 2}, base_weights=base.identity.base_weights) as adapted,
        unpatched(model),
    ):
        generator = torch.Generator().manual_seed(1)
        for parameter in adapted.trained.values():
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
        yield adapted, model, tokenizer


def _encode(tokenizer: Any) -> Any:
    frame = chat_format(tokenizer)
    return lambda texts: encode_prompts(tokenizer, frame, texts)


def _decode(tokenizer: Any) -> Any:
    return lambda tokens: tokenizer.decode(list(tokens), skip_special_tokens=True)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("loss", ["dr_grpo", "grpo", "dapo", "bnpo"])
def test_loss_and_gradient_are_those_of_trl(
    wrapped: Any, tmp_path: Path, loss: str, beta: float, temperature: float
) -> None:
    adapted, model, tokenizer = wrapped
    options = dataclasses.replace(OPTIONS, loss=loss, beta=beta, temperature=temperature)
    policy = Policy(model, ENDS, _decode(tokenizer), adapted.first_layer, temperature)
    assert policy.cut == 2
    prompts = _encode(tokenizer)([row["prompt"] for row in ROWS])
    rolled = sample(policy, prompts, 4, 7, uniforms(3, 0, 12, 7))
    lengths = [len(reply) for reply in rolled.replies]
    assert min(lengths) < max(lengths)
    advantage = advantages(REWARDS, 4, scale=True)
    assert advantage[4:8] == [0.0] * 4
    reference = None
    if beta:
        with adapted.bypassed(), torch.no_grad():
            reference = log_probabilities(policy, rolled, range(12))
    normaliser = Normaliser(options.loss, 12, sum(lengths), 7)
    ours = loss_of(policy, rolled, advantage, normaliser, beta=beta, reference=reference)
    assert ours is not None
    trained = list(adapted.trained.values())
    our_gradient = torch.cat([g.flatten() for g in torch.autograd.grad(ours, trained)])

    trainer = build(adapted.peft, tokenizer, _encode(tokenizer), ROWS, options, 3, tmp_path)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    ids, real = padded_left([prompt for prompt in prompts for _ in range(4)], torch.device("cpu"))
    replies = torch.zeros((12, max(lengths)), dtype=torch.long)
    mask = torch.zeros((12, max(lengths)), dtype=torch.long)
    for row, reply in enumerate(rolled.replies):
        replies[row, : len(reply)] = torch.tensor(reply)
        mask[row, : len(reply)] = 1
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": real.long(),
        "completion_ids": replies,
        "completion_mask": mask,
        "advantages": torch.tensor(advantage),
        "num_items_in_batch": mask.sum(),
    }
    if reference is not None:
        table = torch.zeros(mask.shape)
        for row, logps in enumerate(reference):
            table[row, : len(logps)] = logps
        inputs["ref_per_token_logps"] = table
    theirs = trainer._compute_loss(trainer.model, inputs)
    their_gradient = torch.cat([g.flatten() for g in torch.autograd.grad(theirs, trained)])
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), abs=1e-5)
    assert torch.allclose(our_gradient, their_gradient, atol=1e-5)
    assert float(our_gradient.abs().max()) > 1e-4


def test_advantages_are_those_of_trl() -> None:
    rewards = torch.tensor(REWARDS).view(-1, 4)
    wanted = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    assert advantages(REWARDS, 4, scale=True) == pytest.approx(wanted.flatten().tolist(), abs=1e-6)
    assert advantages(REWARDS, 4, scale=False) == pytest.approx(
        (rewards - rewards.mean(1, keepdim=True)).flatten().tolist(), abs=1e-6
    )


def test_trl_takes_a_step_and_moves_the_numbers_alone(wrapped: Any, tmp_path: Path, monkeypatch: Any) -> None:
    adapted, model, tokenizer = wrapped
    monkeypatch.setattr(
        rewards, "REWARDS", {**rewards.REWARDS, "number": Reward(lambda reply, row: len(reply) % 2 == 0)}
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = build(adapted.peft, tokenizer, _encode(tokenizer), ROWS, OPTIONS, 3, tmp_path)
    trainer.train()
    after = model.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed <= {name for name in before if "tinylora_v" in name}
    assert any(not torch.equal(p.detach(), q) for p, q in zip(adapted.trained.values(), _start(7), strict=True))


def _start(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.2 * torch.randn(1, generator=generator) for _ in range(count)]


def test_a_dropped_column_is_an_error_and_no_zero_reward() -> None:
    function = reward_function("number")
    assert function(prompts=["p"], completions=["7"], row_completion=["7"]) == [1.0]
    assert function(
        prompts=["p"], completions=[[{"role": "assistant", "content": "it is 8"}]], row_completion=["7"]
    ) == [0.0]
    with pytest.raises(ConfigError, match="did not hand it over"):
        function(prompts=["p"], completions=["7"])


def test_vllm_is_asked_for_tokenwise_truncated_weights(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, trainer="trl", vllm=True)
    said = settings_of(options, 1, tmp_path, cpu=False)
    assert said["vllm_importance_sampling_mode"] == "token_truncate"
    assert said["vllm_importance_sampling_clip_max"] == CLIP
    from trl import GRPOConfig

    assert set(said) <= set(GRPOConfig.__dataclass_fields__)


def test_without_an_accelerator_the_reason_is_said(wrapped: Any, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, trainer="trl", vllm=True)
    if not (why := absent(options)):
        pytest.skip("there are an accelerator and vLLM here")
    adapted, _, tokenizer = wrapped
    with pytest.raises(BackendError, match=why[:20]):
        build(adapted.peft, tokenizer, _encode(tokenizer), ROWS, options, 3, tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_vllm_takes_a_step(wrapped: Any, tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="needs vLLM")
    adapted, _, tokenizer = wrapped
    options = dataclasses.replace(OPTIONS, trainer="trl", vllm=True)
    build(adapted.peft, tokenizer, _encode(tokenizer), ROWS, options, 3, tmp_path).train()


def _by_trl(base: Any, folder: Any, out: str, **change: Any) -> Bred:
    engine = TransformersEngine(base, threads=1, batch_size=8)
    session = Session(
        engine=engine, seed=3, out=folder / out, work=folder / "work", environment={}, progress=SilentProgress(),
        name="letters",
    )  # fmt: skip
    given = {"steps": 4, "prompts": 2, "max_new_tokens": 3, "checkpoint_steps": 2, "learning_rate": 0.1, **change}
    options = dataclasses.replace(
        OPTIONS, reward="parity", trainer="trl", adapter={"kind": "tinylora", "u": 2, "groups": 7}, **given
    )
    rows = [(row["prompt"], row["completion"], False) for row in ROWS]
    return tinylora_grpo(session, CORPUS, rows, options, ("letters",))


def test_by_trl_a_killed_run_goes_on_and_ends_at_the_same_bytes(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parity = Reward(lambda reply, row: len(reply) % 2 == 0)
    monkeypatch.setattr(rewards, "REWARDS", {**rewards.REWARDS, "parity": parity})
    base, _, _ = toy
    whole = _by_trl(base, tmp_path, "whole")
    real, saved = Checkpoints.save, []

    def dies(self: Checkpoints, state: bytes, history: Any) -> None:
        real(self, state, history)
        raise KeyboardInterrupt

    def counts(self: Checkpoints, state: bytes, history: Any) -> None:
        saved.append(len(history))
        real(self, state, history)

    monkeypatch.setattr(Checkpoints, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        _by_trl(base, tmp_path, "killed")
    assert [f.name for f in (tmp_path / "work").glob("*.safetensors")] == ["step-000002.safetensors"]
    monkeypatch.setattr(Checkpoints, "save", counts)
    again = _by_trl(base, tmp_path, "again")
    assert saved == [4]
    assert again.artifact == whole.artifact
    assert again.genome == whole.genome
    assert not (tmp_path / "work").exists()
    control = _by_trl(base, tmp_path, "control", control="shuffled")
    assert control.artifact != whole.artifact
