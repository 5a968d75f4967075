"""Many linear children of the same parents, in one batch, without building any of them.

A linear child is dW = sum_i g_i dW_i over its parents. With the parents' factors stacked, B = [s_1 B_1 ... s_k B_k] and
A = [A_1; ...; A_k], the child's layer is ``y = x W^T + ((x A^T) * g) B^T``, g repeated over each parent's rank. So rows
of one batch may belong to different children: each row brings its own g. What they have in common, the base's product,
is computed for all of them at once.

Where it pays: where each child is asked so few things that its own batch would not fill the matrix products, and a
search over mixing weights decodes a few items a point. Where it does not: likelihoods, whose rows fill products anyway,
and batches that are large already; the extra products cost a sixth of all time (``docs/evaluation.md``).

Rows leave a batch when they are finished, so which row belongs to whom changes while it is computed; each thread has a
batch, and gates, of its own.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from ecology.errors import ConfigError
from ecology.runtime.attachment import Delta


class Gates(threading.local):
    """Weights of the parents, row by row, for the batch that this thread computes."""

    def __init__(self, weights: Sequence[Sequence[float]], owners: Sequence[int]) -> None:
        """No batch yet.

        Args:
            weights: Of each child, one for each parent.
            owners: Of each sequence, the child that it is asked of.
        """
        self._weights = torch.tensor(weights, dtype=torch.float32).reshape(len(weights), -1)
        self._owners = torch.tensor(owners, dtype=torch.long)
        self.rows = self._weights[:0]
        """(rows, parents)."""

    def choose(self, sequences: Sequence[int]) -> None:
        """From now on the batch's rows are these sequences."""
        self.rows = self._weights[self._owners[list(sequences)]]


@contextlib.contextmanager
def stacked(parents: Sequence[Mapping[str, Delta]], gates: Gates) -> Iterator[None]:
    """Adds each row's own mixture of the parents to the outputs inside the block; no weight is touched.

    Raises:
        ConfigError: There are no parents.
    """
    if not parents:
        raise ConfigError("a mixture has at least one parent")
    handles = []
    try:
        for name in sorted({name for parent in parents for name in parent}):
            own = [(place, parent[name]) for place, parent in enumerate(parents) if name in parent]
            handles.append(own[0][1].layer.register_forward_hook(_beside(own, gates)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _beside(own: Sequence[tuple[int, Delta]], gates: Gates) -> Any:
    A = torch.cat([delta.A for _, delta in own]).T.contiguous()  # noqa: N806
    B = torch.cat([delta.scale * delta.B for _, delta in own], dim=1).T.contiguous()  # noqa: N806
    spread = torch.tensor([place for place, delta in own for _ in range(delta.A.shape[0])])

    def add(_layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output + ((inputs[0] @ A) * gates.rows[:, spread][:, None, :]) @ B

    return add
