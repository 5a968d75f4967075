"""The half of ``lmeval`` that imports lm-eval, which takes five seconds."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import datasets
import lm_eval.utils as lm_eval_utils
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate as lm_evaluate
from lm_eval.tasks import TaskManager

from ecology.contracts.ports import Progress, Step
from ecology.errors import ConfigError, EcologyError
from ecology.evaluator.functions import loaded
from ecology.evaluator.lmeval import MAX_NEW_TOKENS, TaskScores, TokenEngine, check_greedy
from ecology.evaluator.templates import render
from ecology.runtime.packing import Question

FEWSHOT_SEED = 1234
"""Of the choice of worked examples; lm-eval's own default."""


class EngineLM(LM):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval's view of an engine: raw text in, no chat template, greedy replies."""

    def __init__(self, engine: TokenEngine, progress: Progress) -> None:
        """Wraps an engine as it stands, adapter included."""
        super().__init__()
        self._engine = engine
        self._progress = progress

    @property
    def tokenizer_name(self) -> str:
        """Names the engine in lm-eval's records."""
        return self._engine.fingerprint

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy) of each continuation behind its context.

        Requests of one context share a forward pass.
        """
        del disable_tqdm
        pairs = [self.split(*request.args) for request in requests]
        grouped: dict[tuple[int, ...], list[int]] = {}
        for place, (context, _) in enumerate(pairs):
            grouped.setdefault(context, []).append(place)
        questions = [Question(context, tuple(pairs[i][1] for i in places)) for context, places in grouped.items()]
        results: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        with self._progress.track("lm-eval: likelihoods", len(questions), "contexts") as bar:
            scored = self._engine.score_tokens(questions, bar)
        for places, scores in zip(grouped.values(), scored, strict=True):
            for place, found in zip(places, scores, strict=True):
                results[place] = (found.logprob, found.greedy)
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, in windows of what the base can hold, each token scored once."""
        del disable_tqdm
        window = self._engine.max_tokens - 1
        questions: list[Question] = []
        owners: list[int] = []
        for place, request in enumerate(requests):
            tokens = tuple(self._engine.encode_raw(request.args[0]))
            for start in range(0, len(tokens), window):
                # after the first window one token of context, as lm-eval's make_disjoint_window with context_len=1
                context = tokens[start - 1 : start] if start else (self._start(),)
                questions.append(Question(context, (tokens[start : start + window],)))
                owners.append(place)
        totals = [0.0] * len(requests)
        with self._progress.track("lm-eval: texts", len(questions), "windows") as bar:
            for owner, (found,) in zip(owners, self._engine.score_tokens(questions, bar), strict=True):
                totals[owner] += found.logprob
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy replies up to a stop string or the task's length.

        Raises:
            ConfigError: A request asks for sampling.
        """
        del disable_tqdm
        replies = [""] * len(requests)
        groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(_settings(request.args[1]), []).append(place)
        for (stops, length), places in groups.items():
            room = self._engine.max_tokens - length
            contexts = [(self._engine.encode_raw(requests[i].args[0]) or [self._start()])[-room:] for i in places]
            with self._progress.track("lm-eval: replies", len(places), "replies") as bar:
                said = self._engine.continue_tokens(contexts, length, bar, stops)
            for place, tokens in zip(places, said, strict=True):
                replies[place] = _cut(self._engine.decode(tokens), stops)
        return replies

    def split(self, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tokens of both, split as lm-eval's own models do: spaces between belong to the continuation."""
        head = context.rstrip()
        continuation = context[len(head) :] + continuation
        if not head:
            return (self._start(),), tuple(self._engine.encode_raw(continuation))
        start = tuple(self._engine.encode_raw(head))
        return start, tuple(self._engine.encode_raw(head + continuation))[len(start) :]

    def _start(self) -> int:
        """Stands before a text that has no context."""
        return min(self._engine.ends, default=0)


def evaluate(
    engine: TokenEngine, configs: Mapping[str, Mapping[str, Any]], limit: int | None, progress: Progress, scratch: str
) -> tuple[TaskScores, ...]:
    """Runs checked task configurations; ``scratch`` is a folder that nobody needs afterwards.

    Raises:
        ConfigError: lm-eval refuses a task.
    """
    logger, bars = logging.getLogger("lm_eval"), datasets.are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    through = _Through(progress, sys.stderr)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),  # functions of tasks print
            _sandboxed(),
        ):
            warnings.simplefilter("ignore")  # of datasets and lm-eval
            # datasets caches by path and time stamp; a folder of our own makes every run read the file
            tasks = [
                loaded({**config, "dataset_kwargs": {**config["dataset_kwargs"], "cache_dir": scratch}})
                for config in configs.values()
            ]
            found_tasks = TaskManager(include_defaults=False).load(tasks)
            for task in found_tasks["tasks"].values():
                if task.get_config("num_fewshot") is None:
                    task.set_config(key="num_fewshot", value=0)
                task.set_fewshot_seed(seed=FEWSHOT_SEED)
            # simple_evaluate, one floor up, would also seed every global generator and look for a git repository
            found = lm_evaluate(
                EngineLM(engine, through), found_tasks, limit=limit, bootstrap_iters=0, log_samples=True
            )
    except EcologyError:
        raise
    except Exception as error:  # a task's functions may raise anything, a tokenizer's missing data for one
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"lm-eval refuses the task: {why}", where=", ".join(configs)) from error
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
    return tuple(_scores(task, found) for task in configs)


@contextlib.contextmanager
def _sandboxed() -> Iterator[None]:
    """All templates of lm-eval go through one function of one module, which is ours inside the block."""
    theirs = lm_eval_utils.apply_template
    lm_eval_utils.apply_template = render
    try:
        yield
    finally:
        lm_eval_utils.apply_template = theirs


class _Through:
    """Our progress on the real stderr, while that of lm-eval goes nowhere."""

    def __init__(self, progress: Progress, stream: TextIO) -> None:
        self._progress, self._stream = progress, stream

    @contextlib.contextmanager
    def track(self, what: str, total: int, unit: str = "it") -> Iterator[Step]:
        with contextlib.redirect_stderr(self._stream), self._progress.track(what, total, unit) as bar:
            yield bar


def _scores(task: str, found: Mapping[str, Any]) -> TaskScores:
    scores: dict[str, dict[str, float]] = {}
    for sample in found["samples"][task]:
        for metric in sample["metrics"]:
            value = sample[metric]
            if isinstance(value, (bool, int, float)):  # corpus metrics keep intermediate tuples here
                label = metric if sample["filter"] == "none" else f"{metric},{sample['filter']}"
                scores.setdefault(label, {})[str(sample["doc_id"])] = float(value)
    figures = {
        name.removesuffix(",none"): float(value)
        for name, value in found["results"][task].items()
        if isinstance(value, (int, float)) and "_stderr" not in name and "," in name
    }
    return TaskScores(task, scores, figures)


def _settings(asked: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    check_greedy(asked, "request")
    until = asked.get("until") or []
    stops = tuple([until] if isinstance(until, str) else until)
    return stops, int(asked.get("max_gen_toks") or MAX_NEW_TOKENS)


def _cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min(itertools.chain((text.find(stop) for stop in stops if stop in text), (len(text),)))]
