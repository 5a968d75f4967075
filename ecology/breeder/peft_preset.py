"""PEFT's own merges, for migration: what ``add_weighted_adapter`` would have made of the same parents.

A compatibility preset and never a default. Seven of its eleven combinations average B and A apart, or trim and drop
their entries: they add cross terms B_i A_j, and the same parents in other factors breed another child. This is the
only place here where that happens, so that it can be compared and left behind.

``linear``                               B = sum sqrt|w s| B_i, A = sum sign(w s) sqrt|w s| A_i
``magnitude_prune, dare_linear``         the same of factors that are trimmed, or dropped at random and rescaled
``ties, dare_ties``                      a sign is elected for each entry of the bare factors, then the mean over those
                                         that agree, by count, of factors times sqrt|w s|
``cat``                                  the exact weighted sum, of the sum of ranks
``svd``                                  the exact weighted sum at its best approximation of ``svd_rank``
``ties_svd, dare_linear_svd, ...``       the same rules on the entries of dW, then as ``svd``

What is reproduced is the arithmetic. What PEFT loses around it is not: ``use_rslora``, DoRA's magnitudes, biases and
saved modules, which it drops or misreads in silence, are read right or refused before they come here. Random masks
come from NumPy by ``seed``: the same distribution, other draws. ``svd_clamp`` is left out: it depends on the arbitrary
signs of singular vectors.

Source: peft 0.21.2, ``tuners/lora/model.py`` (add_weighted_adapter) and ``utils/merge_utils.py``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ecology.breeder.options import check_range, check_rank, check_weights, weights_for
from ecology.errors import ConfigError
from ecology.lowrank.lowrank import LowRank, module_names

Array = npt.NDArray[Any]
Combination = Literal[
    "linear",
    "cat",
    "svd",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
]
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)
"""``combination_type`` of ``add_weighted_adapter``."""


@dataclasses.dataclass(frozen=True, slots=True)
class PeftOptions:
    """Options of ``peft``, named as PEFT names them."""

    combination_type: Combination
    """PEFT's own default is ``svd``; here it has to be named."""
    weights: tuple[float, ...]
    """One a parent, any sign."""
    density: float | None = None
    """Share of entries that stay, 0 to 1, and above 0 for ``dare_*``; needed by ties, dare and magnitude_prune."""
    majority_sign_method: Literal["total", "frequency"] = "total"
    """Whether entries vote with their size or one vote each; of use to ties."""
    svd_rank: int | None = None
    """Rank of ``*svd``, 1 to 4096; None: the largest of the parents'."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_weights(self.weights, "peft.weights")
        check_rank(self.svd_rank, "peft.svd_rank")
        rule = self.combination_type.removesuffix("_svd")
        if rule in ("linear", "cat", "svd"):
            return
        if self.density is None:
            raise ConfigError(f"{rule} needs a density", where="peft.density", todo="give the share of entries to keep")
        check_range(self.density, 0, 1, "peft.density", open_low=rule.startswith("dare"))


Raw = tuple[Array, Array, float]
"""B, A and scale."""


def peft(parents: Sequence[LowRank], options: PeftOptions, seed: int) -> LowRank:
    """What PEFT's arithmetic makes of the parents' factors as they are stored.

    Args:
        parents: Their factors and scales matter here, and not only what they do; a module that a parent lacks is
            passed over.
        options: The combination and its settings.
        seed: Of the masks of ``dare_*``; modules draw in sorted order, A of every parent before B.

    Raises:
        ConfigError: Not one weight a parent, or ranks differ where PEFT demands that they be equal.
    """
    weights = weights_for(options.weights, len(parents), 1.0, "peft.weights")
    # One parent is merged linearly, whatever was asked for.
    combination: str = options.combination_type if len(parents) > 1 else "linear"
    ranks = [parent.max_rank for parent in parents]
    generator = np.random.Generator(np.random.PCG64(seed))
    modules: dict[str, tuple[Array, Array]] = {}
    lost: dict[str, float] = {}
    for name in module_names(parents):
        present = [
            (w, parent.modules[name].raw())
            for w, parent in zip(weights, parents, strict=True)
            if name in parent.modules
        ]
        if combination == "cat":
            modules[name] = (
                np.concatenate([B for _, (B, _, _) in present], axis=1),
                np.concatenate([w * s * A.astype(np.float64) for w, (_, A, s) in present], axis=0),
            )
        elif combination.endswith("svd"):
            deltas = [s * (B.astype(np.float64) @ A.astype(np.float64)) for _, (B, A, s) in present]
            rule = _RULES[combination.removesuffix("svd").removesuffix("_") or "linear"]
            merged = rule(deltas, [w for w, _ in present], options, generator)
            modules[name], lost[name] = _truncated(merged, options.svd_rank or max(ranks))
        else:
            if len({*ranks, *(A.shape[0] for _, (_, A, _) in present)}) != 1:
                raise ConfigError(
                    f"{combination} of PEFT takes parents of one rank, these have {sorted(set(ranks))}",
                    where=name,
                    todo="choose cat or svd, or an operator that works on dW",
                )
            modules[name] = _apart(combination, present, options, generator)
    return LowRank.of(modules, lost)


def _apart(
    combination: str, present: Sequence[tuple[float, Raw]], options: PeftOptions, generator: np.random.Generator
) -> tuple[Array, Array]:
    """B and A, each merged by itself."""
    rule = _RULES[combination]
    roots = [math.sqrt(abs(w * s)) for w, (_, _, s) in present]
    signed = [math.copysign(root, w * s) for root, (w, (_, _, s)) in zip(roots, present, strict=True)]
    A = rule([A.astype(np.float64) for _, (_, A, _) in present], signed, options, generator)  # noqa: N806
    B = rule([B.astype(np.float64) for _, (B, _, _) in present], roots, options, generator)  # noqa: N806
    return B, A


def _truncated(delta: Array, rank: int) -> tuple[tuple[Array, Array], float]:
    U, s, Vt = np.linalg.svd(delta, full_matrices=False)  # noqa: N806
    return (U[:, :rank] * s[:rank], Vt[:rank]), float(np.sum(s[rank:] ** 2))


def _magnitude(tensor: Array, density: float) -> Array:
    if density >= 1:
        return tensor
    flat = np.zeros(tensor.size)
    keep = int(density * tensor.size)
    chosen = np.argsort(-np.abs(tensor).reshape(-1), kind="stable")[:keep]
    flat[chosen] = tensor.reshape(-1)[chosen]
    return flat.reshape(tensor.shape)


def _random(tensor: Array, density: float, generator: np.random.Generator) -> Array:
    if density >= 1:
        return tensor
    kept: Array = tensor * (generator.random(tensor.shape) < density) / density
    return kept


def _sum(tensors: Sequence[Array], weights: Sequence[float]) -> Array:
    total: Array = np.tensordot(np.asarray(weights), np.stack(tensors), axes=1)
    return total


def _elect(tensors: Sequence[Array], weights: Sequence[float], method: str) -> Array:
    stack = np.stack(tensors)
    balance = (stack if method == "total" else np.sign(stack)).sum(axis=0)
    agrees = np.sign(stack) == np.where(balance >= 0, 1, -1)
    count = np.maximum(agrees.sum(axis=0), 1)
    mean: Array = np.tensordot(np.asarray(weights), stack * agrees, axes=1) / count
    return mean


_Rule = Callable[[Sequence[Array], Sequence[float], PeftOptions, np.random.Generator], Array]


def _thin(random: bool, elect: bool) -> _Rule:
    def rule(
        tensors: Sequence[Array], weights: Sequence[float], options: PeftOptions, generator: np.random.Generator
    ) -> Array:
        density = options.density or 0.0
        thinned = [_random(t, density, generator) if random else _magnitude(t, density) for t in tensors]
        return _elect(thinned, weights, options.majority_sign_method) if elect else _sum(thinned, weights)

    return rule


_RULES: Mapping[str, _Rule] = {
    "linear": lambda tensors, weights, options, generator: _sum(tensors, weights),
    "magnitude_prune": _thin(random=False, elect=False),
    "ties": _thin(random=False, elect=True),
    "dare_linear": _thin(random=True, elect=False),
    "dare_ties": _thin(random=True, elect=True),
}
