"""Experiment 3: one GRPO step of ours against one of TRL's, on the same machine, in one process, in turns.

A step is rollouts and gradient: 6 prompts, 8 replies each, of exactly 16 tokens, 14 numbers in the last ten layers of
the default base. Both draw from the same policy; ends are switched off so that both draw equally many tokens. Equal
loss is checked first: TRL's ``_compute_loss`` on our rollouts differs from ours by less than 1e-5.

Peers: TRL with its defaults (gradient checkpointing among them), but in fp32, because its bf16 would compute another
loss and decodes several times slower on a CPU; and TRL without checkpointing. One row leaves out a saving of ours.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKENS = 16


def measure(repeats: int, *, toy: bool) -> list[dict[str, Any]]:  # noqa: PLR0915
    """Rows of the benchmark.

    Args:
        repeats: Steps of each, after one that is thrown away.
        toy: On a random base of as many layers (30), width 256 and 259 tokens.
    """
    import torch

    from ecology.breeder.grpo import GrpoOptions
    from ecology.breeder.grpo_steps import Steps
    from ecology.breeder.parametrisation import adapt
    from ecology.breeder.policy_gradient import advantages
    from ecology.breeder.reference import build, unpatched
    from ecology.breeder.rollout import Policy
    from ecology.runtime.chat import chat_format, encode_prompts

    base, model, tokenizer = _loaded(toy)
    frame = chat_format(tokenizer)
    rows = [
        {"prompt": f"What is {a}+{b}? Answer with only the number.", "completion": str(a + b)}
        for a, b in ((3, 4), (12, 5), (9, 9), (7, 14), (2, 2), (15, 1))
    ]
    options = GrpoOptions(
        corpus="c",
        reward="number",
        steps=64,
        prompts=6,
        group=8,
        max_new_tokens=TOKENS,
        stop="",
        divergence_steps=10**6,
    )

    def encode(texts: Any) -> Any:
        return encode_prompts(tokenizer, frame, texts)

    def decode(tokens: Any) -> str:
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True))

    random_rewards = torch.Generator().manual_seed(0)

    def any_reward(prompts: Any, completions: Any, **rest: Any) -> list[float]:
        del prompts, rest
        return torch.randint(0, 2, (len(completions),), generator=random_rewards).float().tolist()

    adapter = {"groups": 14, "layers": 10}
    with (
        tempfile.TemporaryDirectory() as folder,
        adapt(model, "tinylora", adapter, base_weights=base.identity.base_weights, cache=Path(folder)) as adapted,
    ):
        prompts = encode([row["prompt"] for row in rows])

        def steps_of(cut: int) -> Steps:
            policy = Policy(model, frozenset(), decode, cut)
            steps = Steps(policy, adapted, prompts, rows, options, 1, len(os.sched_getaffinity(0)))
            return steps

        def ours(cut: int) -> Callable[[], None]:
            steps, number = steps_of(cut), iter(range(64))

            def one() -> None:
                place = next(number)
                parts = steps.drawn(place)
                count = sum(len(part.replies) for part in parts)
                advantage = advantages(any_reward(None, [0] * count), 8, scale=True)
                steps._descend(parts, advantage, place + 1)

            steps.__enter__()
            return one

        def timed_steps() -> list[float]:
            torch.set_num_threads(1)  # each core has a part of the step of its own
            one, found = ours(adapted.first_layer), []
            for _ in range(repeats + 1):
                start = time.perf_counter()
                one()
                found.append(time.perf_counter() - start)
            return found[1:]

        def whole_stack() -> list[float]:
            torch.set_num_threads(1)
            one, found = ours(0), []
            for _ in range(repeats + 1):
                start = time.perf_counter()
                one()
                found.append(time.perf_counter() - start)
            return found[1:]

        def theirs(name: str, **change: Any) -> list[float]:
            from transformers import TrainerCallback

            torch.set_num_threads(len(os.sched_getaffinity(0)))  # TRL gives a step to all cores at once
            found: list[float] = []

            class Watch(TrainerCallback):  # type: ignore[misc]
                """Seconds of every step, rollouts and gradient."""

                def on_step_begin(self, *args: Any, **rest: Any) -> None:
                    del args, rest
                    self.start = time.perf_counter()

                def on_step_end(self, *args: Any, **rest: Any) -> None:
                    del args, rest
                    found.append(time.perf_counter() - self.start)

            change = {"max_steps": repeats + 1, "generation_kwargs": {"min_new_tokens": TOKENS}, **change}
            with unpatched(model):
                trainer = build(adapted.peft, tokenizer, encode, rows, options, 1, Path(folder) / name, change=change)
                trainer.reward_funcs = [any_reward]
                trainer.add_callback(Watch())
                trainer.train()
            return found[1:]

        with unpatched(model):
            apart = _apart(adapted, model, prompts, decode, encode, tokenizer, rows, options, Path(folder))
        times = {
            "ours": timed_steps(),
            "TRL, its defaults in fp32": theirs("defaults", gradient_checkpointing=True),
            "TRL, no gradient checkpointing": theirs("quick", gradient_checkpointing=False),
            "ours, frozen layers run again": whole_stack(),
        }
        times["ours"] += timed_steps()  # at both ends, so that a machine that changes its speed shows
    found = []
    mine = times["ours"]
    for name, seconds in times.items():
        if name == "ours":
            continue
        ratio = statistics.median(seconds) / statistics.median(mine)
        found.append(
            {
                "what": "one GRPO step, 48 replies of 16 tokens",
                "ours": round(statistics.median(mine), 3),
                "peer": round(statistics.median(seconds), 3),
                "peer_name": name,
                "ratio": round(ratio, 2),
                "unit": "s",
                "samples": {"ours": [round(x, 3) for x in mine], "peer": [round(x, 3) for x in seconds]},
            }
        )
    found.append(
        {
            "what": "loss on the same rollouts, largest difference",
            "ours": apart,
            "peer": 1e-5,
            "peer_name": "allowed",
            "ratio": None,
            "unit": "",
            "samples": 1,
        }
    )
    return found


def _apart(
    adapted: Any,
    model: Any,
    prompts: Any,
    decode: Any,
    encode: Any,
    tokenizer: Any,
    rows: Any,
    options: Any,
    folder: Path,
) -> float:
    """How far our loss is from TRL's on the same rollouts."""
    import torch

    from ecology.breeder.policy_gradient import Normaliser, advantages, loss_of
    from ecology.breeder.reference import build
    from ecology.breeder.rollout import Policy, padded_left, sample, uniforms

    policy = Policy(model, frozenset(), decode, adapted.first_layer)
    rolled = sample(policy, prompts, 8, TOKENS, uniforms(1, 0, len(prompts) * 8, TOKENS))
    count = len(rolled.replies)
    generator = torch.Generator().manual_seed(5)
    advantage = advantages(torch.randint(0, 2, (count,), generator=generator).float().tolist(), 8, scale=True)
    normaliser = Normaliser(options.loss, count, sum(map(len, rolled.replies)), TOKENS)
    ours = loss_of(policy, rolled, advantage, normaliser)
    trainer = build(adapted.peft, tokenizer, encode, rows, options, 1, folder / "apart")
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    ids, real = padded_left([prompt for prompt in prompts for _ in range(8)], torch.device("cpu"))
    replies = torch.tensor(rolled.replies)
    theirs = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": ids,
            "prompt_mask": real.long(),
            "completion_ids": replies,
            "completion_mask": torch.ones_like(replies),
            "advantages": torch.tensor(advantage),
            "num_items_in_batch": torch.tensor(replies.numel()),
        },
    )
    if ours is None:
        raise RuntimeError("no group had an advantage")
    return abs(float(ours.detach()) - float(theirs.detach()))


def _loaded(toy: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ecology.backend.bases import ensure
    from ecology.pipeline.bench import preset
    from ecology.pipeline.house import open_house
    from ecology.telemetry.progress import SilentProgress
    from ecology.testing.toys import toy_base

    home = Path(open_house(None, quiet=True).home)
    base = toy_base(home, hidden=256, layers=30) if toy else ensure(preset("smollm2-135m"), home, SilentProgress())
    tokenizer = AutoTokenizer.from_pretrained(base.folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32, local_files_only=True)
    model.eval().requires_grad_(False)
    return base, model, tokenizer
