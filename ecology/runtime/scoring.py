"""Log-likelihoods of several answers to one context, of many questions at once.

What is read: each context once, the answers behind it as a tree, and what questions begin with alike once for all of
them that share a row (``packing``). What is not: the last token of an answer, since nobody asks what follows it. What
all questions begin with is computed apart (``beginnings``), what no adapter changes once for all adapters (``trunk``).

Hidden states are gathered at scored positions before the head, which for a small model is a fifth of all weights, and
the head runs on a few positions at a time, so that a table of logits (200 kB a position) stays in the cache.

Rows go into batches by tokens and not by number: what a matrix product likes is 256 to 1024 rows, however short the
questions are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache

from ecology.contracts.ports import Step
from ecology.runtime.beginnings import Beginnings
from ecology.runtime.packing import ROW_TOKENS, Question, Row, fill_rows, table
from ecology.runtime.prefix import Prefix, additive
from ecology.runtime.trunk import Head, Trunk
from ecology.runtime.workers import LockedStep, dealt, side_by_side

BATCH_TOKENS = 512
"""Tokens of a batch, where no question alone is longer."""
HEAD_ROWS = 64
"""Positions that the head computes at a time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """How likely one answer is."""

    logprob: float
    """Sum over the answer's tokens, nats; 0 for an empty answer."""
    greedy: bool
    """Whether each token is the most likely one."""


@torch.inference_mode()
def score(
    model: Any,
    questions: Sequence[Question],
    batch_size: int,
    progress: Step | None = None,
    trunk: Trunk | None = None,
    workers: int = 1,
    beginnings: Beginnings | None = None,
) -> tuple[tuple[Score, ...], ...]:
    """Scores every answer of every question.

    Args:
        model: A causal language model of transformers.
        questions: What to score.
        batch_size: Rows at a time at most; fewer where they are long.
        progress: Advanced by one for each question.
        trunk: Given where it holds for the weights as they are now.
        workers: Batches computed side by side.
        beginnings: What was computed before of the same weights; nothing where none are given.
    """
    results: list[tuple[Score, ...]] = [()] * len(questions)
    prefix = (beginnings or Beginnings(model, trunk, workers)).of([q.context for q in questions])
    rows = fill_rows(questions, len(prefix), workers)
    head, bar = Head(model), LockedStep(progress)

    def ask(chosen: list[int]) -> list[tuple[int, tuple[Score, ...]]]:
        some = [rows[i] for i in chosen]
        found = _read(head, _hidden(model, prefix, some, questions, trunk), some, questions)
        bar.advance(len(found))
        return found

    longest = max(map(len, rows), default=1)
    size = max(1, min(batch_size, BATCH_TOKENS // max(longest, ROW_TOKENS)))
    batches = dealt([len(row) for row in rows], size, workers) if questions else []
    for found in side_by_side(ask, batches, workers):
        for number, scores in found:
            results[number] = scores
    return tuple(results)


def _hidden(
    model: Any, prefix: Prefix, rows: Sequence[Row], questions: Sequence[Question], trunk: Trunk | None
) -> torch.Tensor:
    """Hidden states behind the last norm, (rows, longest, width)."""
    ids, positions, seen = table(rows, len(prefix))
    mask = additive(seen)
    layers = prefix.layers(model.config.num_hidden_layers, len(rows), len(prefix) + ids.shape[1])
    if trunk is None:
        found: torch.Tensor = model.base_model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=Cache(layers=list(layers))
        ).last_hidden_state
        return found
    placed = [(number, one) for number, row in enumerate(rows) for one in row.placed]
    places = [(number, torch.tensor(one.nodes)) for number, one in placed]
    keys = [("score", prefix.tokens, questions[one.number].context, questions[one.number].answers) for _, one in placed]
    readings = trunk.recall(keys)
    if readings is None:
        readings = trunk.read(prefix, ids, mask, positions, places, decode=False)
        trunk.keep(keys, readings)
    return trunk.go_on(readings, places, mask, positions, layers)


def _read(
    head: Head, hidden: torch.Tensor, rows: Sequence[Row], questions: Sequence[Question]
) -> list[tuple[int, tuple[Score, ...]]]:
    """Scores of the questions in these rows, with their numbers."""
    spots: dict[tuple[int, int], int] = {}  # (row, node) -> line of the table of logits
    lines: list[int] = []
    targets: list[int] = []
    ends: list[int] = []
    for number, row in enumerate(rows):
        for one in row.placed:
            for answer, before in zip(questions[one.number].answers, one.before, strict=True):
                lines += [spots.setdefault((number, node), len(spots)) for node in before]
                targets += answer
                ends.append(len(lines))
    logprobs, greedy = _table(head, hidden, list(spots), torch.tensor(lines), torch.tensor(targets))
    found, start, answers = [], 0, iter(ends)
    for row in rows:
        for one in row.placed:
            scores = []
            for end in (next(answers) for _ in one.before):
                span = slice(start, end)
                scores.append(Score(float(logprobs[span].sum()), bool(greedy[span].all())))
                start = end
            found.append((one.number, tuple(scores)))
    return found


def _table(
    head: Head, hidden: torch.Tensor, spots: Sequence[tuple[int, int]], lines: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each target at its line, nats, fp64, and whether it is the likeliest token there."""
    logprobs = torch.zeros(len(targets), dtype=torch.float64)
    greedy = torch.ones(len(targets), dtype=torch.bool)
    if not spots:
        return logprobs, greedy
    place = torch.tensor(spots)
    gathered = hidden[place[:, 0], place[:, 1]]
    for start in range(0, len(spots), HEAD_ROWS):
        logits = head(gathered[start : start + HEAD_ROWS])
        mine = ((lines >= start) & (lines < start + HEAD_ROWS)).nonzero()[:, 0]
        line, token = lines[mine] - start, targets[mine]
        largest, likeliest = logits.max(dim=-1)
        chosen = logits[line, token].double()
        total = (logits - largest[:, None]).exp_().sum(dim=-1).double().log() + largest.double()
        logprobs[mine] = chosen - total[line]
        greedy[mine] = likeliest[line] == token
    return logprobs, greedy
