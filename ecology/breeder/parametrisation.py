"""Ways to write a change of the base with few numbers: the table that every operator that learns chooses from.

| kind | dW of a module | numbers | an exact LoRA |
|---|---|---|---|
| ``tinylora`` | U S^1/2 (sum_i v_i P_i) S^1/2 V^T, v shared by a group of modules | u a group | yes, rank r |
| ``lora_xs`` | U S (R - I) V^T | r^2 a module | yes, rank r |
| ``lora`` | alpha / r B A | r (m + n) a module | yes, rank r |
| ``ia3`` | diag(l) W - W, or W diag(l) - W | m or n a module | no: full rank |
| ``ln_tuning`` | the norms themselves | the norms' weights | no: no linear layer |

U S V^T is the truncated SVD of the module's own frozen weight. What has an exact LoRA is stored, signed, gated and bred
as that LoRA; the two that have none are baselines of the benchmarks, and their export is refused by name.

How many modules share a v (``n_tie``) is not PEFT's ``weight_tying``. With N modules there are G = ceil(N / n_tie)
groups, hence ``weight_tying = 1 - G / N``; 1 - 1 / n_tie would give 12 groups for N = 196 and n_tie = 16, where the
paper has 13. PEFT cuts groups of N // G and gives the rest to the last one, so some G make one group many times as
large as the others (N = 196, G = 100: ninety-nine of 1 and one of 97); those are refused.

Sources: arXiv:2602.04118 (TinyLoRA), arXiv:2405.17604 (LoRA-XS), arXiv:2106.09685 (LoRA), arXiv:2205.05638 (IA3),
arXiv:2312.11420 (LN-tuning), peft 0.21.2. This file needs neither torch nor PEFT; ``adapted`` does.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ecology.breeder.options import check_range, check_rank
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError
from ecology.kernel.codec import structure

if TYPE_CHECKING:
    from ecology.breeder.adapted import Adapted

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear modules of a Llama layer; PEFT's own default is q and v alone."""
MOST_UNEVEN = 2.0
"""Largest over smallest group that is let through."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tying:
    """How N modules, in the order of the base, share vectors."""

    sizes: tuple[int, ...]
    """Modules of each group, as PEFT cuts them."""

    @property
    def groups(self) -> int:
        """How many vectors there are."""
        return len(self.sizes)

    @property
    def weight_tying(self) -> float:
        """PEFT's setting that gives these groups."""
        return 1.0 - self.groups / sum(self.sizes)

    @property
    def unevenness(self) -> float:
        """Largest group over smallest, at least 1."""
        return max(self.sizes) / min(self.sizes)


def tying(modules: int, n_tie: int = 0, groups: int = 0) -> Tying:
    """The groups that PEFT will make.

    Args:
        modules: N, at least 1.
        n_tie: Modules that share one vector, at least 1; 0 with ``groups`` 0 ties all of them.
        groups: G itself, 1 to N; then ``n_tie`` has to be 0.

    Raises:
        ConfigError: Both are given, or G is out of range.
    """
    if n_tie and groups:
        raise ConfigError("n_tie and groups are two ways to say one thing", where="n_tie", todo="give one of them")
    count = groups or (math.ceil(modules / n_tie) if n_tie else 1)
    if not 1 <= count <= modules:
        raise ConfigError(f"{count} groups of {modules} modules", where="groups", todo=f"choose 1 to {modules}")
    # peft 0.21.2, tuners/tinylora/model.py
    made = max(1, round(modules * (1.0 - (1.0 - count / modules))))
    size = modules // made
    return Tying((size,) * (made - 1) + (modules - size * (made - 1),))


def even(tied: Tying) -> Tying:
    """The same groups, if no one is much larger than another.

    Raises:
        ConfigError: The largest is more than ``MOST_UNEVEN`` times the smallest.
    """
    if tied.unevenness > MOST_UNEVEN:
        total = sum(tied.sizes)
        near = sorted(range(1, total + 1), key=lambda g: (abs(g - tied.groups), g))
        good = next(g for g in near if tying(total, groups=g).unevenness <= MOST_UNEVEN)
        raise ConfigError(
            f"{total} modules in {tied.groups} groups: PEFT makes one of {max(tied.sizes)} beside others of "
            f"{min(tied.sizes)}",
            where="n_tie",
            todo=f"groups={good} is the nearest number that divides evenly enough",
        )
    return tied


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TinyLoraOptions:
    """A few numbers over a random basis inside each module's leading singular space."""

    u: int = 1
    """Numbers a vector; a module's change has at most min(u, r^2) directions."""
    n_tie: int = 0
    """Modules that share one vector; 0 with ``groups`` 0: all."""
    groups: int = 0
    """Vectors, instead of ``n_tie``."""
    r: int = 2
    """Rank of the truncated SVD."""
    projection_seed: int = 42
    """Of the random P; module i draws with this plus i."""
    targets: tuple[str, ...] = SEVEN
    """Last part of the names of the linear modules that are adapted."""
    layers: int = 0
    """How many of the last decoder layers are adapted; 0 is all of them."""
    storage: Literal["float32", "bfloat16"] = "float32"
    """What a number is rounded to after each step; the second halves the bytes and is there to compare."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        for name, low, high in (("u", 1, 10**6), ("n_tie", 0, 10**6), ("groups", 0, 10**6), ("layers", 0, 4096)):
            check_range(getattr(self, name), low, high, f"tinylora.{name}")
        check_range(self.projection_seed, 0, 2**31, "tinylora.projection_seed")
        check_rank(self.r, "tinylora.r")
        _check_targets(self.targets, "tinylora.targets")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoraXsOptions:
    """A full r x r matrix inside each module's leading singular space."""

    r: int = 2
    targets: tuple[str, ...] = SEVEN
    layers: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_rank(self.r, "lora_xs.r")
        check_range(self.layers, 0, 4096, "lora_xs.layers")
        _check_targets(self.targets, "lora_xs.targets")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoraOptions:
    """Two trained factors a module."""

    r: int = 1
    alpha: float = 2.0
    """Scale is ``alpha / r``; folded into B where the adapter is written."""
    targets: tuple[str, ...] = SEVEN
    layers: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_rank(self.r, "lora.r")
        check_range(self.alpha, 0.0, 1e4, "lora.alpha", open_low=True)
        check_range(self.layers, 0, 4096, "lora.layers")
        _check_targets(self.targets, "lora.targets")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ia3Options:
    """One factor for each output of keys and values and each input of the MLP's last product."""

    targets: tuple[str, ...] = ("k_proj", "v_proj", "down_proj")
    inputs: tuple[str, ...] = ("down_proj",)
    """Those of the targets whose inputs are scaled."""
    layers: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_range(self.layers, 0, 4096, "ia3.layers")
        _check_targets(self.targets, "ia3.targets")
        if not set(self.inputs) <= set(self.targets):
            raise ConfigError("scales inputs of a module that is no target", where="ia3.inputs")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LnTuningOptions:
    """The weights of the norms."""

    targets: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    """Last part of the names of the norms inside a decoder layer."""
    layers: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError for values out of range."""
        check_range(self.layers, 0, 4096, "ln_tuning.layers")
        _check_targets(self.targets, "ln_tuning.targets")


@dataclasses.dataclass(frozen=True, slots=True)
class Parametrisation:
    """One row of the table."""

    options: type
    """Frozen dataclass; its fields are the keys of ``adapter`` in a configuration."""
    exact_lora: bool
    """Whether what is trained is exactly a LoRA, and can be stored and bred."""
    source: str

    def of(self, options: object, kind: str) -> Any:
        """Options as the row's dataclass.

        Raises:
            ConfigError: Unknown key, wrong type or a value out of range.
        """
        return options if isinstance(options, self.options) else structure(self.options, options, kind)


PARAMETRISATIONS: Mapping[str, Parametrisation] = types.MappingProxyType(
    {
        "tinylora": Parametrisation(TinyLoraOptions, True, "arXiv:2602.04118"),
        "lora_xs": Parametrisation(LoraXsOptions, True, "arXiv:2405.17604"),
        "lora": Parametrisation(LoraOptions, True, "arXiv:2106.09685"),
        "ia3": Parametrisation(Ia3Options, False, "arXiv:2205.05638"),
        "ln_tuning": Parametrisation(LnTuningOptions, False, "arXiv:2312.11420"),
    }
)


def parametrisation(kind: str) -> Parametrisation:
    """The row of that name.

    Raises:
        ConfigError: There is none.
    """
    if kind not in PARAMETRISATIONS:
        raise ConfigError(f"unknown kind {kind!r}", where="adapter", todo=f"choose {', '.join(PARAMETRISATIONS)}")
    return PARAMETRISATIONS[kind]


def adapt(
    model: Any, kind: str, options: object, *, base_weights: Digest, cache: Path | None = None, seed: int = 0
) -> Adapted:
    """Wraps a model so that only the adapter's own numbers are trained.

    Args:
        model: A causal language model of transformers, all frozen.
        kind: A row of ``PARAMETRISATIONS``.
        options: A mapping, or the row's dataclass.
        base_weights: Digest of the model's weights; the SVD is cached under it.
        cache: Folder of cached SVDs; None computes them.
        seed: Of what starts at random (A of a LoRA).

    Returns:
        A context manager that takes the adapter out again; the model answers as before until the first step.

    Raises:
        ConfigError: Unknown kind or option, no such module, or groups that PEFT cannot cut evenly.
        IntegrityError: The cached SVD is damaged.
    """
    row = parametrisation(kind)
    from ecology.breeder.adapted import wrap  # noqa: PLC0415  (torch and PEFT, when there is something to train)

    return wrap(model, kind, row.of(options, kind), base_weights=base_weights, cache=cache, seed=seed)


def _check_targets(targets: tuple[str, ...], where: str) -> None:
    if not targets:
        raise ConfigError("no module is named", where=where, todo="name at least one")
