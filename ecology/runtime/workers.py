"""Batches side by side: one thread a core, each with a batch of its own.

The usual way gives one batch to all cores, which then meet at the end of every matrix product, thousands of times a
second. When another process takes one of the cores for a moment the others spin until it comes back: on two cores with
one busy neighbour, a product of 1 ms was measured at 16 ms. Batches that have nothing to do with each other never
wait. Their numbers do not depend on how many threads there are either, so PyTorch is told to use one thread in each.

The model is shared and only read. Work is dealt out in a fixed way and results come back by place, so a run is
repeatable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from ecology.contracts.ports import Step

T = TypeVar("T")


def dealt(lengths: Sequence[int], size: int, workers: int) -> list[list[int]]:
    """Indices in batches of at most ``size``, of about equal length inside, longest first.

    Neighbours in length are dealt out to the workers in turn, in as few rounds as there can be and all rounds alike, so
    that everyone has as much to do until the end.
    """
    rounds = -(-len(lengths) // (size * workers))
    size = -(-len(lengths) // (rounds * workers)) if rounds else size
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches = []
    for start in range(0, len(order), size * workers):
        group = order[start : start + size * workers]
        batches += [part for worker in range(workers) if (part := group[worker::workers])]
    return batches


def side_by_side(work: Callable[[list[int]], T], batches: Sequence[list[int]], workers: int) -> Iterator[T]:
    """Results of all batches in their order, computed by ``workers`` threads under inference mode.

    The first error stops what has not begun and is raised.
    """

    def one(batch: list[int]) -> T:
        with torch.inference_mode():
            return work(batch)

    if workers == 1 or len(batches) == 1:
        yield from map(one, batches)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="batch") as pool:
        futures = [pool.submit(one, batch) for batch in batches]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.exception() for future in done):
            pool.shutdown(cancel_futures=True)
        for future in futures:
            if not future.cancelled():
                yield future.result()


class LockedStep:
    """A progress bar that several threads may advance."""

    def __init__(self, step: Step | None) -> None:
        """Wraps a bar, or none."""
        self._step = step
        self._lock = threading.Lock()

    def advance(self, amount: int = 1, note: str = "") -> None:
        """As the bar's."""
        if self._step is not None:
            with self._lock:
                self._step.advance(amount, note)
