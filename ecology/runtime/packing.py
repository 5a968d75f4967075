"""Many sequences in one row, each beginning that they share computed once.

To score answers a model has to read every context and, of each answer, all tokens but the last. Written as a tree of
tokens most of that is the same: the four answers of a question stand behind one context, "The answer is" begins all of
them, and questions of one suite begin with the same words. A row holds such a tree: a token sees its ancestors and
itself and nothing else, and its position is its depth, so its numbers are those of its own sequence read alone (tree
attention as in SpecInfer, arXiv:2305.09781, there for drafts of one sequence).

Questions are put into rows in lexicographic order, where those that begin alike are neighbours, and rows are filled to
about the same number of tokens, so that a batch of rows has hardly any padding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

ROW_TOKENS = 128
"""Tokens that a row is filled to: a longer one spends more of its attention on what is masked."""
ROW_LEAST = 48
"""Tokens below which a row is not split for the sake of another worker."""


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A context and the answers to be scored behind it, as token ids; the context is at least one token."""

    context: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """Where one question stands in its row."""

    number: int
    """Which of the questions it is."""
    nodes: tuple[int, ...]
    """Its tokens, each once: the context's, then those of the answers as they come."""
    before: tuple[tuple[int, ...], ...]
    """Of each answer, the node before each of its tokens."""


class Row:
    """One tree of tokens; a node's parent always comes before it."""

    def __init__(self) -> None:
        """An empty tree."""
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.placed: list[Placed] = []
        self._nodes: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, number: int, context: Sequence[int], answers: Sequence[Sequence[int]]) -> None:
        """Hangs one question into the tree."""
        nodes: dict[int, None] = {}  # ordered
        end = -1
        for token in context:
            end = self._step(end, token, nodes)
        before = []
        for answer in answers:
            path = [end] if answer else []
            for token in answer[:-1]:  # what follows the last one is not asked
                path.append(self._step(path[-1], token, nodes))
            before.append(tuple(path))
        self.placed.append(Placed(number, tuple(nodes), tuple(before)))

    def _step(self, parent: int, token: int, nodes: dict[int, None]) -> int:
        node = self._nodes.setdefault((parent, token), len(self.tokens))
        if node == len(self.tokens):
            self.tokens.append(token)
            self.parents.append(parent)
        nodes[node] = None
        return node


def fill_rows(questions: Sequence[Question], skip: int, workers: int) -> list[Row]:
    """Trees of about ``ROW_TOKENS`` nodes each that hold all questions.

    Args:
        questions: What to score.
        skip: Tokens of each context that are computed apart, fewer than any context has.
        workers: At least so many rows, where there is enough to do.
    """
    order = sorted(range(len(questions)), key=lambda i: (questions[i].context, i))
    costs = _costs(questions, order, skip)
    total = sum(costs)
    count = max(-(-total // ROW_TOKENS), min(workers, total // ROW_LEAST), 1)
    rows, begun = [Row()], 0.0
    for number, cost in zip(order, costs, strict=True):
        if len(rows[-1]) and begun + cost / 2 > len(rows) * total / count:  # the nearer end
            rows.append(Row())
        begun += cost
        question = questions[number]
        rows[-1].add(number, question.context[skip:], question.answers)
    return rows


def _costs(questions: Sequence[Question], order: Sequence[int], skip: int) -> list[int]:
    """Tokens that each question, in this order, adds to what its neighbour has brought already."""
    costs = []
    former: tuple[int, ...] = ()
    for number in order:
        context = questions[number].context[skip:]
        alike = next((i for i, (a, b) in enumerate(zip(context, former, strict=False)) if a != b), None)
        known = min(len(context), len(former)) if alike is None else alike
        answers = {answer[: i + 1] for answer in questions[number].answers for i in range(len(answer) - 1)}
        costs.append(len(context) - known + len(answers))
        former = context
    return costs


def table(rows: Sequence[Row], before: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a model is given for these rows, padded on the right.

    Args:
        rows: Of one batch.
        before: Tokens of a shared beginning in the cache, which all see.

    Returns:
        Token ids and positions, both (rows, longest), and what may be seen, (rows, 1, longest, before + longest).
    """
    length = max(map(len, rows))
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    positions = torch.zeros((len(rows), length), dtype=torch.long)
    seen = torch.zeros((len(rows), length, before + length), dtype=torch.bool)
    seen[:, :, :before] = True
    own = seen[:, :, before:]
    own[:, range(length), range(length)] = True  # padding sees itself: no softmax over nothing
    for number, row in enumerate(rows):
        depths: list[int] = []
        mask = own[number].numpy()  # shares its memory
        for node, parent in enumerate(row.parents):
            depths.append(depths[parent] + 1 if parent >= 0 else before)
            if parent >= 0:
                mask[node] |= mask[parent]
        ids[number, : len(row)] = torch.tensor(row.tokens, dtype=torch.long)
        positions[number, : len(row)] = torch.tensor(depths, dtype=torch.long)
    return ids, positions, seen[:, None]
