"""Experiment 3: one GRPO step of ours against one of TRL's, on the same machine, in one process, in turns.

A step is rollouts and gradient: 4 prompts, 8 replies each, of exactly 16 tokens, 14 numbers in the last ten layers of
the default base. Both draw from the same policy; ends are switched off so that both draw equally many tokens. Equal
loss is checked first: TRL's ``_compute_loss`` on our rollouts differs from ours by less than 1e-5. Both have all cores:
TRL as threads of one step, ours as parts of a step of one thread each.

A round is one step of each, and the first round is thrown away. Rounds are kept as they end, so that an interrupted
measurement goes on.

Peers: TRL with its defaults (gradient checkpointing among them), but in fp32, because its bf16 would compute another
loss and decodes several times slower on a CPU; and TRL without checkpointing. One row leaves out a saving of ours.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

TOKENS, PROMPTS, GROUP = 16, 4, 8
OURS = "ours"


def measure(repeats: int, *, toy: bool, kept: Path | None = None) -> list[dict[str, Any]]:
    """Rows of the benchmark.

    Args:
        repeats: Steps of each, after one that is thrown away.
        toy: On a random base of as many layers (30), width 256 and 259 tokens.
        kept: JSON file of rounds that were measured, gone on from if it is there; None keeps nothing.
    """
    from ecology.pipeline.house import open_house

    found = json.loads(kept.read_text()) if kept is not None and kept.exists() else {"apart": None, "rounds": []}
    home = Path(open_house(None, quiet=True).home)
    base, model, tokenizer = _loaded(home, toy)
    with (
        tempfile.TemporaryDirectory() as folder,
        _Table(base, model, tokenizer, Path(folder), home / "kept" / "svd") as table,
    ):
        if found["apart"] is None:
            found["apart"] = table.apart()
            _keep(found, kept)
            print(f"losses differ by {found['apart']:.1e}", file=sys.stderr, flush=True)
        for number in range(-1, repeats):
            if number >= 0 and number < len(found["rounds"]):
                continue
            start = time.perf_counter()
            times = {name: one() for name, one in table.steps().items()}
            told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in times.items())
            print(
                f"round {number + 1}/{repeats}: {told}; {time.perf_counter() - start:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            if number >= 0:
                found["rounds"].append(times)
                _keep(found, kept)
    return _rows(found)


def _keep(found: Mapping[str, Any], kept: Path | None) -> None:
    if kept is not None:
        kept.write_text(json.dumps(found))


def _rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    mine = [times[OURS] for times in found["rounds"]]
    rows = []
    for name in (n for n in found["rounds"][0] if n != OURS):
        seconds = [times[name] for times in found["rounds"]]
        rows.append(
            {
                "what": f"one GRPO step, {PROMPTS * GROUP} replies of {TOKENS} tokens",
                "ours": round(statistics.median(mine), 3),
                "peer": round(statistics.median(seconds), 3),
                "peer_name": name,
                "ratio": round(statistics.median(b / a for a, b in zip(mine, seconds, strict=True)), 2),
                "unit": "s",
                "samples": {"ours": [round(x, 3) for x in mine], "peer": [round(x, 3) for x in seconds]},
            }
        )
    rows.append(
        {
            "what": "loss on the same rollouts, largest difference",
            "ours": found["apart"],
            "peer": 1e-5,
            "peer_name": "allowed",
            "ratio": None,
            "unit": "",
            "samples": 1,
        }
    )
    return rows


class _Table:
    """The base with an adapter in it, and one step of each who is compared."""

    def __init__(self, base: Any, model: Any, tokenizer: Any, folder: Path, cache: Path) -> None:
        import torch

        from ecology.breeder.grpo import GrpoOptions
        from ecology.breeder.parametrisation import adapt
        from ecology.runtime.chat import chat_format, encode_prompts

        frame = chat_format(tokenizer)
        self.model, self.tokenizer, self.folder = model, tokenizer, folder
        self.cores = len(os.sched_getaffinity(0))
        self.random = torch.Generator().manual_seed(0)
        self.rows = [
            {"prompt": f"What is {a}+{b}? Answer with only the number.", "completion": str(a + b)}
            for a, b in ((3, 4), (12, 5), (9, 9), (7, 14))
        ]
        self.encode = lambda texts: encode_prompts(tokenizer, frame, texts)
        self.decode = lambda tokens: str(tokenizer.decode(list(tokens), skip_special_tokens=True))
        self.prompts = self.encode([row["prompt"] for row in self.rows])
        self.options = GrpoOptions(
            corpus="c",
            reward="number",
            steps=64,
            prompts=PROMPTS,
            group=GROUP,
            max_new_tokens=TOKENS,
            stop="",
            divergence_steps=10**6,
        )
        adapter, weights = {"groups": 14, "layers": 10}, base.identity.base_weights
        self.adapted = adapt(model, "tinylora", adapter, base_weights=weights, cache=cache)
        self._place = iter(range(1, 10**6))

    def __enter__(self) -> _Table:
        self.adapted.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.adapted.__exit__(*error)

    def steps(self) -> Mapping[str, Callable[[], float]]:
        """Who is compared: each takes one step and says how many seconds it was."""
        return {
            OURS: lambda: self._ours(self.adapted.first_layer),
            "TRL, its defaults in fp32": lambda: self._theirs(gradient_checkpointing=True),
            "TRL, no gradient checkpointing": lambda: self._theirs(gradient_checkpointing=False),
            "ours, frozen layers run again": lambda: self._ours(0),
        }

    def _rewards(self, prompts: Any, completions: Any, **rest: Any) -> list[float]:
        import torch

        del prompts, rest
        return torch.randint(0, 2, (len(completions),), generator=self.random).float().tolist()

    def _ours(self, cut: int) -> float:
        import torch

        from ecology.breeder.grpo_steps import Steps
        from ecology.breeder.policy_gradient import advantages
        from ecology.breeder.rollout import Policy

        torch.set_num_threads(1)  # each core has a part of the step of its own
        policy = Policy(self.model, frozenset(), self.decode, cut)
        place = next(self._place) % self.options.steps
        with Steps(policy, self.adapted, self.prompts, self.rows, self.options, 1, self.cores) as steps:
            start = time.perf_counter()
            parts = steps.drawn(place)
            count = sum(len(part.replies) for part in parts)
            steps._descend(parts, advantages(self._rewards(None, [0] * count), GROUP, scale=True), place + 1)
            return time.perf_counter() - start

    def _theirs(self, **change: Any) -> float:
        import torch
        from transformers import TrainerCallback

        from ecology.breeder.reference import build, unpatched

        torch.set_num_threads(self.cores)  # TRL gives a step to all cores at once
        found: list[float] = []

        class Watch(TrainerCallback):  # type: ignore[misc]
            """Seconds of a step, rollouts and gradient."""

            def on_step_begin(self, *args: Any, **rest: Any) -> None:
                del args, rest
                self.start = time.perf_counter()

            def on_step_end(self, *args: Any, **rest: Any) -> None:
                del args, rest
                found.append(time.perf_counter() - self.start)

        change = {"max_steps": 1, "generation_kwargs": {"min_new_tokens": TOKENS}, **change}
        with unpatched(self.model):
            trainer = build(
                self.adapted.peft,
                self.tokenizer,
                self.encode,
                self.rows,
                self.options,
                1,
                self.folder / "trl",
                change=change,
            )
            trainer.reward_funcs = [self._rewards]
            trainer.add_callback(Watch())
            trainer.train()
        return found[0]

    def apart(self) -> float:
        """How far our loss is from TRL's on the same rollouts."""
        from ecology.breeder.reference import unpatched

        with unpatched(self.model):
            return _apart(
                self.adapted,
                self.model,
                self.prompts,
                self.decode,
                self.encode,
                self.tokenizer,
                self.rows,
                self.options,
                self.folder,
            )


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


def _loaded(home: Path, toy: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ecology.backend.bases import ensure
    from ecology.pipeline.bench import preset
    from ecology.telemetry.progress import SilentProgress
    from ecology.testing.toys import toy_base

    base = toy_base(home, hidden=256, layers=30) if toy else ensure(preset("smollm2-135m"), home, SilentProgress())
    tokenizer = AutoTokenizer.from_pretrained(base.folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32, local_files_only=True)
    model.eval().requires_grad_(False)
    return base, model, tokenizer
