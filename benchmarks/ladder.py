"""The runs behind ``learning.py --ladder``: what each one trains, how it is judged, and a pool of processes.

Task: "What is a+b? Answer with only the number.", sums of two numbers of one range. Unordered pairs are dealt out to
training and test by the grammar's own draws, so no test sum is a training sum turned round. The range is the first of
``RANGES`` at which the base earns a reward between 0.1 and 0.6 of the time when it samples; nothing else was looked at.

Each row's learning rate is the one of its grid with the highest training reward (SFT: lowest training loss) in the last
ten steps of a run with a seed that is not reported. Then three seeds. Every run sees the same number of replies: 60
steps of 8 prompts with 8 replies of at most 16 tokens, which is room for the whole sentence that the base likes to
answer with (an evolution strategy: 16 members on 4 prompts; SFT: 64 right answers a step). Fewer steps, prompts and
seeds may be asked for; the file says how many there were.
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing as mp
import os
import queue
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RANGES = ((1, 30), (1, 20), (1, 15), (1, 12), (1, 9))
WINDOW = (0.1, 0.6)
STEPS, PROMPTS, GROUP, TOKENS = 60, 8, 8, 16
TESTED = 200
PILOT, SEEDS = 100, (0, 1, 2)
BEST = 10
"""Last steps by which a learning rate is chosen."""
TEMPLATE = "What is {a}+{b}? Answer with only the number."

GRID = (0.003, 0.01, 0.03)
SMALL = (0.0003, 0.001, 0.003)
ALL = {"kind": "tinylora", "u": 1}
LADDER: Mapping[str, Mapping[str, Any]] = {
    "TinyLoRA 1": {"adapter": {**ALL}, "grid": (0.01, 0.1)},
    "TinyLoRA 14": {"adapter": {**ALL, "n_tie": 15}, "grid": (0.01, 0.03, 0.1)},
    "TinyLoRA 210": {"adapter": {**ALL, "n_tie": 1}, "grid": (0.01, 0.03)},
    "TinyLoRA 840": {"adapter": {**ALL, "u": 4, "n_tie": 1}, "grid": GRID},
    "LoRA-XS 840": {"adapter": {"kind": "lora_xs", "r": 2}, "grid": (0.01, 0.03)},
    "LoRA r=1": {"adapter": {"kind": "lora", "r": 1}, "grid": SMALL},
    "IA3": {"adapter": {"kind": "ia3"}, "grid": (0.003, 0.01, 0.03)},
    "LN-tuning": {"adapter": {"kind": "ln_tuning"}, "grid": (0.001, 0.003, 0.01)},
    "ES 14": {"adapter": {**ALL, "n_tie": 15}, "how": "es", "grid": GRID[1:]},
    "ES 840": {"adapter": {**ALL, "u": 4, "n_tie": 1}, "how": "es", "grid": GRID[:2]},
    "SFT 1": {"adapter": {**ALL}, "how": "sft", "grid": GRID},
    "SFT 14": {"adapter": {**ALL, "n_tie": 15}, "how": "sft", "grid": GRID},
    "SFT 210": {"adapter": {**ALL, "n_tie": 1}, "how": "sft", "grid": GRID},
    "SFT 840": {"adapter": {**ALL, "u": 4, "n_tie": 1}, "how": "sft", "grid": GRID},
    "SFT LoRA r=1": {"adapter": {"kind": "lora", "r": 1}, "how": "sft", "grid": SMALL},
    "shuffled 14": {"adapter": {**ALL, "n_tie": 15}, "how": "shuffled", "as": "TinyLoRA 14"},
    "shuffled 840": {"adapter": {**ALL, "u": 4, "n_tie": 1}, "how": "shuffled", "as": "TinyLoRA 840"},
    "shuffled LoRA r=1": {"adapter": {"kind": "lora", "r": 1}, "how": "shuffled", "as": "LoRA r=1"},
}
"""Experiment 1. ``as``: takes the learning rate of another row."""
TABLE: Mapping[str, Mapping[str, Any]] = {
    "14: u=14, one group": {"adapter": {**ALL, "u": 14}, "as": "TinyLoRA 14", "u": 14},
    "14: u=7, 2 groups": {"adapter": {**ALL, "u": 7, "groups": 2}, "as": "TinyLoRA 14", "u": 7},
    "14: u=2, 7 groups": {"adapter": {**ALL, "u": 2, "groups": 7}, "as": "TinyLoRA 14", "u": 2},
    "14: last 10 layers": {"adapter": {**ALL, "groups": 14, "layers": 10}, "as": "TinyLoRA 14"},
    "14: last 2 layers, untied": {"adapter": {**ALL, "n_tie": 1, "layers": 2}, "as": "TinyLoRA 14"},
    "210: u=15, 14 groups": {"adapter": {**ALL, "u": 15, "n_tie": 15}, "as": "TinyLoRA 210", "u": 15},
    "210: u=210, one group": {"adapter": {**ALL, "u": 210}, "as": "TinyLoRA 210", "u": 210},
    "14, bfloat16 (28 bytes)": {"adapter": {**ALL, "n_tie": 15, "storage": "bfloat16"}, "as": "TinyLoRA 14"},
    "7 (28 bytes)": {"adapter": {**ALL, "n_tie": 30}, "as": "TinyLoRA 14"},
    "210, bfloat16 (420 bytes)": {"adapter": {**ALL, "n_tie": 1, "storage": "bfloat16"}, "as": "TinyLoRA 210"},
    "105 (420 bytes)": {"adapter": {**ALL, "n_tie": 2}, "as": "TinyLoRA 210"},
    "14, r=1": {"adapter": {**ALL, "n_tie": 15, "r": 1}, "as": "TinyLoRA 14"},
    "14, r=4": {"adapter": {**ALL, "n_tie": 15, "r": 4}, "as": "TinyLoRA 14"},
    "210, r=1": {"adapter": {**ALL, "n_tie": 1, "r": 1}, "as": "TinyLoRA 210"},
    "210, r=4": {"adapter": {**ALL, "n_tie": 1, "r": 4}, "as": "TinyLoRA 210"},
}
"""Experiment 2; the rate of the row it is compared with, divided by the root of ``u``."""
ROWS = {**LADDER, **TABLE}
SLOW_FIRST = sorted(ROWS, key=lambda name: (name in TABLE, ROWS[name].get("how") != "es"))
"""The order in which several processes are done soonest."""


def tasks(low: int, high: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Training and test rows of a range; both orders of a pair fall on one side."""
    from ecology.evaluator.grammar import Draw

    pairs = [(a, b) for a in range(low, high + 1) for b in range(a, high + 1)]
    draw = Draw(f"addition {low} {high}")
    mixed = [pairs.pop(draw.below(len(pairs))) for _ in range(len(pairs))]
    sides = []
    for side in (mixed[::2], mixed[1::2]):
        both = [p for a, b in side for p in dict.fromkeys([(a, b), (b, a)])]
        sides.append([{"prompt": TEMPLATE.format(a=a, b=b), "completion": str(a + b)} for a, b in both])
    return sides[0], sides[1][:TESTED]


def pairs_of(low: int, high: int) -> int:
    """How many prompts a range gives."""
    return (high - low + 1) ** 2


class Bench:
    """A base on one device, and the runs on it; one a process."""

    def __init__(self, base: Path, device: str, cache: Path, samples: int = 2) -> None:
        """Loads the base; ``samples`` replies are drawn to each test sum beside the greedy one, 0 or more."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from ecology.backend.bases import Folder, ensure
        from ecology.breeder.rollout import stop_tokens
        from ecology.runtime.chat import chat_format, encode_prompts, encode_texts
        from ecology.telemetry.progress import SilentProgress

        torch.set_num_threads(1)
        self.torch, self.cache, self.device = torch, cache, device
        self.tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True).to(device)
        self.model.eval().requires_grad_(False)
        self.base_weights = ensure(
            Folder(name="benched", path=str(base)), cache, SilentProgress()
        ).identity.base_weights
        frame = chat_format(self.tokenizer)
        self.encode = lambda texts: encode_prompts(self.tokenizer, frame, texts)
        self.answers = lambda texts: encode_texts(self.tokenizer, texts)
        self.eos = int(self.tokenizer.eos_token_id)
        vocabulary = min(len(self.tokenizer), self.model.config.vocab_size)
        self.ends = frozenset({self.eos}) | stop_tokens(vocabulary, self.decode, "\n")
        self.samples = samples

    def decode(self, tokens: Sequence[int]) -> str:
        """Text without special tokens."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def policy(self, cut: int = 0, temperature: float = 1.0, ends: frozenset[int] | None = None) -> Any:
        """The model as it is now."""
        from ecology.breeder.rollout import Policy

        return Policy(self.model, self.ends if ends is None else ends, self.decode, cut, temperature)

    def prepare(self, rows: Any) -> None:
        """Decomposes what any row needs, so that processes find it."""
        from ecology.breeder.adapted import chosen
        from ecology.breeder.basis import bases
        from ecology.breeder.parametrisation import parametrisation

        self.torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
        for row in rows:
            given = dict(row["adapter"])
            kind = given.pop("kind")
            if kind in ("tinylora", "lora_xs"):
                options = parametrisation(kind).of(given, kind)
                bases(
                    chosen(self.model, options.targets, options.layers, kind), options.r, self.base_weights, self.cache
                )

    def judged(self, rows: Sequence[Mapping[str, str]], samples: int) -> dict[str, Any]:
        """Greedy and sampled replies to test rows; strings of 0 and 1, one character an item."""
        from ecology.breeder.rewards import score
        from ecology.breeder.rollout import sample, uniforms

        prompts = self.encode([row["prompt"] for row in rows])
        found: dict[str, Any] = {}
        for how, group, temperature in (("greedy", 1, 1e-4), ("sampled", samples, 1.0)):
            if not group:
                continue
            numbers = uniforms(9, group, len(rows) * group, TOKENS)
            rolled = sample(self.policy(temperature=temperature), prompts, group, TOKENS, numbers)
            texts = [self.decode([t for t in reply if t not in self.ends]) for reply in rolled.replies]
            asked = [row for row in rows for _ in range(group)]
            found[how] = _bits(score("number_in_first_line", texts, asked))
            found[f"{how}_strict"] = _bits(score("number_alone", texts, asked))
            found[f"{how}_length"] = round(float(np.mean([len(r) for r in rolled.replies])), 3)
        return found

    def run(
        self, job: Mapping[str, Any], train: Sequence[dict[str, str]], test: Sequence[dict[str, str]]
    ) -> dict[str, Any]:
        """One training, and what it can do afterwards."""
        from ecology.breeder.grpo import GrpoOptions
        from ecology.breeder.grpo_steps import Steps
        from ecology.breeder.parametrisation import adapt

        start = time.monotonic()
        given = dict(job["adapter"])
        kind, how = given.pop("kind"), job.get("how", "grpo")
        options = GrpoOptions(
            corpus="addition",
            adapter=job["adapter"],
            control="shuffled" if how == "shuffled" else "none",
            steps=job["steps"],
            prompts=job.get("prompts", PROMPTS),
            group=GROUP,
            max_new_tokens=TOKENS,
            learning_rate=job["rate"],
            divergence_steps=job["steps"] - 1 or 1,
        )
        with adapt(
            self.model, kind, given, base_weights=self.base_weights, cache=self.cache, seed=job["seed"]
        ) as adapted:
            policy = self.policy(adapted.first_layer)
            prompts = self.encode([row["prompt"] for row in train])
            with Steps(policy, adapted, prompts, train, options, job["seed"]) as steps:
                if how in ("grpo", "shuffled"):
                    told = [steps.step(number) for number in range(options.steps)]
                    curve = [round(t.reward, 4) for t in told]
                    extra = {
                        "divergence": told[-1].divergence,
                        "uniform": round(float(np.mean([t.uniform for t in told])), 3),
                    }
                elif how == "sft":
                    curve, extra = self._taught(adapted, policy, prompts, train, options, job["seed"]), {}
                else:
                    curve, extra = self._evolved(adapted, prompts, train, options, job["seed"]), {}
            numbers = self.torch.cat([p.detach().flatten() for p in adapted.trained.values()])
            with adapted.merged() if self.device != "cpu" else contextlib.nullcontext():
                after = self.judged(test, self.samples)
            found = {
                **job,
                "trained": adapted.count,
                "bytes": adapted.bytes,
                "curve": curve,
                **extra,
                **after,
                "largest": round(float(numbers.abs().max()), 5),
            }
        return {**found, "seconds": round(time.monotonic() - start, 2)}

    def _taught(self, adapted: Any, policy: Any, prompts: Any, rows: Any, options: Any, seed: int) -> list[float]:
        """Supervised: the right answer and the end token; as many of them a step as a step of GRPO has replies."""
        from ecology.breeder.policy_gradient import log_probabilities
        from ecology.breeder.rollout import Rollouts

        torch = self.torch
        optimiser = torch.optim.Adam(list(adapted.trained.values()), lr=options.learning_rate, foreach=False)
        answers = [(*ids, self.eos) for ids in self.answers([row["completion"] for row in rows])]
        random = np.random.Generator(np.random.PCG64([seed, 7]))
        curve = []
        for _ in range(options.steps):
            chosen = random.choice(len(rows), size=options.prompts * options.group)
            rolled = Rollouts(tuple(tuple(prompts[i]) for i in chosen), 1, tuple(answers[i] for i in chosen))
            logps = torch.cat(log_probabilities(policy, rolled, range(len(chosen))))
            loss = -logps.mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(adapted.trained.values()), options.clip_norm)
            optimiser.step()
            adapted.settle()
            curve.append(round(float(loss.detach()), 4))
        return curve

    def _evolved(self, adapted: Any, prompts: Any, rows: Any, options: Any, seed: int) -> list[float]:
        """An evolution strategy on the same numbers (arXiv:1703.03864): mirrored draws, ranks by standard score, Adam.

        All members answer in one batch; each row of it has the numbers of its member.
        """
        from ecology.breeder.rewards import score
        from ecology.breeder.rollout import sample, uniforms

        torch, members, sigma = self.torch, 16, 0.1
        asked = options.prompts * options.group // members
        names, parameters = list(adapted.trained), list(adapted.trained.values())
        optimiser = torch.optim.Adam(parameters, lr=options.learning_rate, foreach=False)
        random = np.random.Generator(np.random.PCG64([seed, 8]))
        curve = []
        for step in range(options.steps):
            half = [random.standard_normal((members // 2, p.numel())) for p in parameters]
            noise = [torch.tensor(np.concatenate([h, -h]), dtype=torch.float32, device=self.device) for h in half]
            chosen = random.choice(len(rows), size=asked)
            tried = {
                n: p.detach()[None] + sigma * e.view(members, *p.shape)
                for n, p, e in zip(names, parameters, noise, strict=True)
            }
            numbers = np.tile(uniforms(seed, step, asked, TOKENS), (members, 1))  # the same luck for every member
            with _each_its_own(adapted, tried, asked):
                rolled = sample(
                    self.policy(ends=frozenset()), [prompts[i] for i in chosen] * members, 1, TOKENS, numbers
                )
            texts = [self.decode(self._until_end(reply)) for reply in rolled.replies]
            earned = np.asarray(score("number_in_first_line", texts, [rows[i] for i in chosen] * members))
            fitness = earned.reshape(members, asked).mean(1)
            curve.append(round(float(fitness.mean()), 4))
            if fitness.std() == 0:
                continue
            weights = torch.tensor((fitness - fitness.mean()) / fitness.std(), dtype=torch.float32, device=self.device)
            for parameter, e in zip(parameters, noise, strict=True):
                parameter.grad = -(weights[:, None] * e).mean(0).view_as(parameter) / sigma
            torch.nn.utils.clip_grad_norm_(parameters, options.clip_norm)
            optimiser.step()
        return curve

    def _until_end(self, reply: Sequence[int]) -> list[int]:
        end = next((place for place, token in enumerate(reply) if token in self.ends), len(reply))
        return list(reply[:end])


@contextlib.contextmanager
def _each_its_own(adapted: Any, tried: Mapping[str, Any], rows: int) -> Iterator[None]:
    """Inside, each ``rows`` rows of a batch are answered by a TinyLoRA with numbers of their own."""
    import torch

    layers = [adapted.model.get_submodule(name) for name in adapted.modules]

    def forward(layer: Any) -> Any:
        down, up, fixed = (getattr(layer, f"tinylora_{x}")["default"] for x in "ABP")
        key = next(n for n in tried if n.endswith(f".{layer._tinylora_v_key['default']}"))
        inner = torch.einsum("mu,uij->mij", tried[key], fixed.to(down)).repeat_interleave(rows, 0)

        def run(x: Any) -> Any:
            return layer.base_layer(x) + torch.einsum("bsi,bji->bsj", x @ down.T, inner) @ up.T

        return run

    for layer in layers:
        layer.__dict__["forward"] = forward(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _bits(scores: Sequence[float]) -> str:
    return "".join("1" if s else "0" for s in scores)


def _work(number: int, said: Any, heard: Any, settings: Mapping[str, Any]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        bench = Bench(Path(settings["base"]), settings["device"], Path(settings["cache"]), settings["samples"])
    except Exception:
        heard.put((number, None, {"error": traceback.format_exc()[-2000:]}))
        return
    while (job := said.get()) is not None:
        try:
            train, test = tasks(*job["range"])
            if job["name"] == "base":
                found = {**job, **bench.judged(test, bench.samples)}
            elif job["name"] == "scout":
                got = bench.judged(train[:64], samples=8)
                found = {**job, "reward": np.mean([int(c) for c in got["sampled"]]), **got}
            else:
                found = bench.run(job, train, test)
        except Exception:
            found = {**job, "error": traceback.format_exc()[-2000:]}
        heard.put((number, job, found))


class Pool:
    """Processes that take runs until the time is over; what is finished is on disk at once."""

    def __init__(self, settings: Mapping[str, Any], workers: int, out: Path, seconds: float) -> None:
        """Starts the processes.

        Args:
            settings: Arguments of ``Bench``.
            workers: How many.
            out: JSON file of finished runs; those in it are not run again.
            seconds: Nothing is begun that would probably end later.
        """
        self.out, self.until = out, time.monotonic() + seconds
        self.done: list[dict[str, Any]] = json.loads(out.read_text()) if out.exists() else []
        context = mp.get_context("spawn")
        self._said, self._heard = context.Queue(), context.Queue()
        self._processes = [
            context.Process(target=_work, args=(i, self._said, self._heard, dict(settings)), daemon=True)
            for i in range(workers)
        ]
        for process in self._processes:
            process.start()
        self.last = 0.0

    def run(self, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Runs what was not run before; returns all that is finished of these."""
        keys = {key_of(job) for job in jobs}
        known = {key_of(one) for one in self.done if "error" not in one}
        waiting = [job for job in jobs if key_of(job) not in known]
        busy = 0
        while busy < len(self._processes) and waiting and self._room():
            self._said.put(waiting.pop(0))
            busy += 1
        while busy:
            try:
                _, job, found = self._heard.get(timeout=max(1.0, self.until + 20 - time.monotonic()))
            except queue.Empty:
                print("out of time", flush=True)
                break
            if job is None:
                raise RuntimeError(found["error"])
            busy -= 1
            if "error" in found:
                print(f"FAILED {job['name']}: {found['error'][-600:]}", flush=True)
            self.done.append(found)
            self.last = found.get("seconds", self.last)  # one that stood still says nothing of the next for long
            self.out.write_text(json.dumps(self.done))
            print(_line(found), f"[{len(waiting)} wait, {self.until - time.monotonic():.0f} s left]", flush=True)
            if waiting and self._room():
                self._said.put(waiting.pop(0))
                busy += 1
        if waiting:
            print(f"{len(waiting)} runs were not begun", flush=True)
        return [one for one in self.done if key_of(one) in keys and "error" not in one]

    def end(self) -> None:
        """Lets the processes go."""
        for process in self._processes:
            process.terminate()

    def _room(self) -> bool:
        return time.monotonic() + self.last < self.until


def key_of(job: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells two runs apart."""
    return (job["name"], tuple(job["range"]), job.get("seed"), job.get("rate"), job.get("steps"))


def _line(found: Mapping[str, Any]) -> str:
    greedy = found.get("greedy", "")
    curve = found.get("curve") or [math.nan]
    return (
        f"{found['name']:<26} seed {found.get('seed')} rate {found.get('rate')} n {found.get('trained')} "
        f"greedy {_share(greedy):.3f} strict {_share(found.get('greedy_strict', '')):.3f} sampled "
        f"{_share(found.get('sampled', '')):.3f} train {np.mean(curve[:5]):.2f} -> {np.mean(curve[-BEST:]):.2f} "
        f"{found.get('seconds', 0):.0f} s"
    )


def _share(bits: str) -> float:
    return sum(c == "1" for c in bits) / len(bits) if bits else math.nan


def climb(
    pool: Pool,
    rows: Mapping[str, Any],
    *,
    steps: int,
    prompts: int,
    ranges: Sequence[tuple[int, int]] = RANGES,
    seeds: Sequence[int] = SEEDS,
    like: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Everything in its order: the range, the base, the rates, and the rows, one seed of all before the next.

    Args:
        pool: Of processes.
        rows: Of ``ROWS``, in the order in which they are run.
        steps: Of a run.
        prompts: A step.
        ranges: Of the numbers that are added; the first that is neither too hard nor too easy is taken.
        seeds: Reported.
        like: Runs of an earlier ladder; the range and the rates are those that its pilots found, and none is run here.
    """
    scouts = like or pool.run([{"name": "scout", "range": list(r)} for r in ranges])
    chosen = range_of(scouts)
    common = {"range": chosen, "steps": steps, "prompts": prompts}
    pool.run([{"name": "base", "range": chosen}])

    def job(name: str, seed: int, rate: float) -> dict[str, Any]:
        row = rows[name]
        return {
            "name": name,
            "seed": seed,
            "rate": rate,
            "adapter": row["adapter"],
            "how": row.get("how", "grpo"),
            **common,
        }

    pilots = like or pool.run([job(n, PILOT, rate) for n in rows for rate in rows[n].get("grid", ())])
    rates = rates_of(pilots)
    pool.run([job(name, seed, rates[name]) for seed in seeds for name in rows if name in rates])
    return pool.done


def range_of(runs: Sequence[Mapping[str, Any]]) -> list[int]:
    """The first range of numbers at which the sampling base's reward is in ``WINDOW``, else the easiest."""
    scouts = sorted(
        (one for one in runs if one["name"] == "scout"),
        key=lambda s: RANGES.index(r) if (r := tuple(s["range"])) in RANGES else len(RANGES),
    )
    good = [s for s in scouts if WINDOW[0] <= s["reward"] <= WINDOW[1]]
    chosen = list((good[0] if good else max(scouts, key=lambda s: s["reward"]))["range"])
    print("range", chosen, {tuple(s["range"]): round(float(s["reward"]), 3) for s in scouts}, flush=True)
    return chosen


def rates_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The best learning rate of every row that was piloted, and of those that take it from another row."""
    rates: dict[str, float] = {}
    for name, row in ROWS.items():
        tried = [r for r in runs if r["name"] == name and r.get("seed") == PILOT and "error" not in r]
        if tried:
            sign = -1 if row.get("how") == "sft" else 1
            rates[name] = max(tried, key=lambda p: sign * float(np.mean(p["curve"][-BEST:])))["rate"]
    for name, row in ROWS.items():
        if "as" in row and row["as"] in rates:
            rates[name] = rates[row["as"]] / math.sqrt(row.get("u", 1))
    return rates
