"""Rewards that a program can check, each 1 or 0: the answers of ``verifier`` and nothing that a model has to judge.

A reward names the columns of a row that it reads. A row without one of them is an error: the trainers of today hand a
reward whatever columns are left, and a reward that finds nothing to compare with gives 0 to everybody, which looks like
a task that is too hard and trains nothing.
"""

from __future__ import annotations

import dataclasses
import decimal
import re
import types
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import numpy as np

from ecology.errors import ConfigError
from ecology.verifier.exact import is_exact
from ecology.verifier.numeric import is_number

Columns = Mapping[str, str]
"""A row of a corpus: ``prompt``, ``completion``, and what else it has."""
ANSWER = "completion"
"""Where a corpus keeps the right answer."""
SHUFFLE = 1
"""Stream of the control's draws, beside those of the replies."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reward:
    """One row of the table."""

    function: Callable[[str, Columns], bool]
    """(reply, row) -> whether it is right."""
    columns: tuple[str, ...] = (ANSWER,)
    """What it reads."""


def _number(row: Columns) -> Decimal:
    text = row[ANSWER].rpartition("####")[2].strip().replace(",", "")  # GSM8K writes its answer behind ####
    try:
        return Decimal(text)
    except decimal.InvalidOperation as error:
        raise ConfigError(
            f"{text[:40]!r} is no number", where=f"column {ANSWER}", todo="choose another reward"
        ) from error


def _first_line(reply: str) -> str:
    return reply.split("\n", 1)[0]


REWARDS: Mapping[str, Reward] = types.MappingProxyType(
    {
        "number": Reward(lambda reply, row: is_number(reply, _number(row))),
        "number_in_first_line": Reward(lambda reply, row: is_number(_first_line(reply), _number(row))),
        "number_alone": Reward(
            lambda reply, row: bool(re.fullmatch(r"\s*[-+]?\d+\s*", reply)) and is_number(reply, _number(row))
        ),
        "exact": Reward(lambda reply, row: is_exact(reply, row[ANSWER])),
    }
)
"""``number``: the last number of the reply is the answer. ``number_in_first_line``: of its first line.
``number_alone``: the reply is that number and nothing else. ``exact``: the reply is the answer, case and ends aside."""


def reward(name: str) -> Reward:
    """The row of that name.

    Raises:
        ConfigError: There is none.
    """
    if name not in REWARDS:
        raise ConfigError(f"unknown reward {name!r}", where="reward", todo=f"choose one of {', '.join(REWARDS)}")
    return REWARDS[name]


def check_columns(name: str, rows: Sequence[Columns], where: str) -> None:
    """That every row has what the reward reads.

    Args:
        name: Of the reward.
        rows: Of the corpus.
        where: For messages.

    Raises:
        ConfigError: A column is missing or empty; names the first row.
    """
    for number, row in enumerate(rows, 1):
        for column in reward(name).columns:
            if not row.get(column):
                raise ConfigError(
                    f"the reward {name} reads the column {column!r}, which is missing or empty",
                    where=f"{where}: row {number}",
                    todo="a reward without it would be 0 for every reply and train nothing",
                )


def score(name: str, replies: Sequence[str], rows: Sequence[Columns]) -> list[float]:
    """1.0 for each right reply and 0.0 for the others.

    Args:
        name: Of the reward.
        replies: What the model said.
        rows: One a reply.

    Raises:
        ConfigError: A column is missing, or the answer is none that the reward can read.
    """
    chosen = reward(name)
    check_columns(name, rows, "reward")
    return [1.0 if chosen.function(reply, row) else 0.0 for reply, row in zip(replies, rows, strict=True)]


def dealt(rewards: Sequence[float], seed: int, step: int) -> list[float]:
    """The rewards of one step in an order by lot: the control that a real gain has to beat.

    Args:
        rewards: One a reply.
        seed: Of the training.
        step: From 0; each has a lot of its own.
    """
    random = np.random.Generator(np.random.PCG64([seed, step, SHUFFLE]))
    return [float(r) for r in random.permutation(np.asarray(rewards))]
