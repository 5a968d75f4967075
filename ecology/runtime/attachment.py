"""An adapter on the resident base, in two ways that must agree.

*Merged*: the changed layers compute with a copy of W + dW, which is dropped at the end; answers then cost what the
base's cost, which is how candidates are evaluated, and the base's own weights are never written to. *Unmerged*: a hook
adds ``s (x A^T) B^T`` to the output of each target, as a server with many adapters in one batch does; latency and
liveness are measured so.

Keys are strict. PEFT only warns about a key that it misses and goes on with initial values, and vLLM answers as the
bare base when prefixes differ, so an adapter that was never applied passes for a harmless one. Here every module must
be a linear layer of the base, of the right shape, and nothing else may be there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecology.errors import BackendError, MalformedArtifact, UnsupportedAdapter
from ecology.runtime.kernels import FrozenProduct, lay_out
from ecology.runtime.workers import side_by_side
from ecology.store.adapters import read_adapter


@dataclasses.dataclass(frozen=True, slots=True)
class Delta:
    """One target and its change, dW = ``scale`` B A."""

    layer: torch.nn.Linear
    B: torch.Tensor
    A: torch.Tensor
    scale: float

    @property
    def norm(self) -> float:
        """Frobenius norm of dW, by tr(B^T B A A^T), without forming it."""
        square = ((self.B.T.double() @ self.B.double()) * (self.A.double() @ self.A.T.double())).sum()
        return abs(self.scale) * math.sqrt(max(float(square), 0.0))


def read_deltas(model: Any, folder: Path) -> Mapping[str, Delta]:
    """The adapter's changes by module name, each fitted to its layer.

    Raises:
        UnsupportedAdapter: A module is an embedding, a convolution or something else that is no linear layer.
        MalformedArtifact: A module is not in the base, has another shape or shares its weight.
    """
    read = read_adapter(folder)
    if read.layouts:
        name, layout = next(iter(read.layouts.items()))
        raise UnsupportedAdapter(
            f"it changes {'an embedding' if layout.kind == 'embedding' else 'a convolution'}",
            field="target_modules",
            where=f"{folder.name}: {name}",
            todo="this engine adds to linear layers alone; serve it with one that adds to the others, or train it "
            "without them among the targets",
        )
    layers = dict(model.named_modules())
    shared = _shared_weights(model)
    deltas = {}
    for name, factors in read.modules.items():
        layer = layers.get(name)
        where, todo = f"{folder.name}: {name}", "train the adapter on this base"
        if layer is None:
            raise MalformedArtifact("the base has no such module", where=where, todo=todo)
        if not isinstance(layer, torch.nn.Linear):
            raise UnsupportedAdapter(
                f"it is a {type(layer).__name__}, not a linear layer",
                field="target_modules",
                where=where,
                todo="this engine adds to linear layers alone, and Transformers' Conv1D keeps its weight turned",
            )
        if id(layer.weight) in shared:
            raise MalformedArtifact("its weight is shared with another module, which would change too", where=where)
        found = (factors.B.shape[0], factors.A.shape[1])
        if found != tuple(layer.weight.shape) or factors.B.shape[1] != factors.A.shape[0]:
            raise MalformedArtifact(
                f"B {factors.B.shape} and A {factors.A.shape} do not fit the weight {tuple(layer.weight.shape)}",
                where=where,
                todo=todo,
            )
        # Copies, since a read-only memory map cannot be a tensor.
        pair = torch.from_numpy(np.array(factors.B)), torch.from_numpy(np.array(factors.A))
        deltas[name] = Delta(layer, *pair, float(factors.scale))
    return deltas


def merge(deltas: Mapping[str, Delta], workers: int = 1) -> Mapping[str, torch.Tensor]:
    """W + dW of each target, laid out; W itself is not written to.

    Args:
        deltas: Of one adapter.
        workers: Threads that make the copies.
    """
    names = list(deltas)

    def add(chosen: list[int]) -> list[tuple[str, torch.Tensor]]:
        return [(names[place], lay_out(_sum(deltas[names[place]]))) for place in chosen]

    shares = [part for worker in range(workers) if (part := list(range(len(names)))[worker::workers])]
    return dict(itertools.chain.from_iterable(side_by_side(add, shares, workers)))


def _sum(delta: Delta) -> torch.Tensor:
    weight, product = delta.layer.weight, _product(delta)
    if weight.is_mkldnn:  # what comes out of the layout is a copy already
        return product.plain.addmm_(delta.B, delta.A, alpha=delta.scale)
    return torch.addmm(product.plain, delta.B, delta.A, alpha=delta.scale)


@contextlib.contextmanager
def merged(deltas: Mapping[str, Delta], weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Computes with W + dW, as ``merge`` gave it, inside the block."""
    products = {name: _product(delta) for name, delta in deltas.items()}
    try:
        for name, product in products.items():
            product.use(weights[name])
        yield
    finally:
        for product in products.values():
            product.restore()


def alike(one: Mapping[str, Delta], other: Mapping[str, Delta]) -> bool:
    """Whether two adapters hold the same numbers for the same layers."""
    return one.keys() == other.keys() and all(
        a.layer is b.layer and a.scale == b.scale and torch.equal(a.A, b.A) and torch.equal(a.B, b.B)
        for a, b in ((one[name], other[name]) for name in one)
    )


class Standing:
    """Whether an adapter stands beside the weights, for all threads."""

    def __init__(self) -> None:
        """It does, at first."""
        self.on = True


class Switch(threading.local):
    """Whether an adapter that stands beside the weights counts; each thread has its own, on at first."""

    on = True


@contextlib.contextmanager
def unmerged(deltas: Mapping[str, Delta], switch: Switch | Standing | None = None) -> Iterator[None]:
    """Adds ``scale (x A^T) B^T`` to the outputs inside the block, in threads where the switch is on.

    No weight is touched.
    """
    on = switch or Standing()
    handles = [delta.layer.register_forward_hook(_beside(delta, on)) for delta in deltas.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _product(delta: Delta) -> FrozenProduct:
    product = delta.layer.forward
    if not isinstance(product, FrozenProduct):
        raise BackendError("the base's layers are not prepared", todo="call kernels.freeze_products on the model first")
    return product


def _beside(delta: Delta, switch: Switch | Standing) -> Any:
    A, B = delta.A.T.contiguous(), (delta.scale * delta.B).T.contiguous()  # noqa: N806

    def add(_layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output + (inputs[0] @ A) @ B if switch.on else output

    return add


def _shared_weights(model: Any) -> frozenset[int]:
    seen: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        seen[id(parameter)] = seen.get(id(parameter), 0) + 1
    return frozenset(key for key, count in seen.items() if count > 1)
