"""The operators' table: a name in a configuration is a row here, and nothing else can be named.

Left out on purpose: ``finetune`` (needs the base and a corpus, see ``breeder.finetune``); averages of B and A apart,
as PEFT's ``linear`` and LoraHub have them (they add cross terms B_i A_j and depend on the gauge), except in ``peft``,
which is there to compare with and to migrate from.

Others add rows from outside with an entry point of the group ``ecology.operators`` whose object is an ``Operator``;
``ecology.testing.operators`` has the cases that it must pass.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Literal

from ecology.breeder.breadcrumbs import BreadcrumbsOptions, breadcrumbs
from ecology.breeder.crossover import CrossoverOptions, crossover
from ecology.breeder.dare import DareOptions, dare
from ecology.breeder.della import DellaOptions, della
from ecology.breeder.iso_c import IsoCOptions, iso_c
from ecology.breeder.linear import LinearOptions, linear
from ecology.breeder.mutate import MutateOptions, mutate
from ecology.breeder.negate import NegateOptions, negate
from ecology.breeder.peft_preset import PeftOptions, peft
from ecology.breeder.prune import PruneOptions, prune
from ecology.breeder.sce import SceOptions, sce
from ecology.breeder.slerp import SlerpOptions, slerp
from ecology.breeder.svd import SvdOptions, svd
from ecology.breeder.ties import TiesOptions, ties
from ecology.breeder.tsv import TsvOptions, tsv
from ecology.errors import ConfigError
from ecology.kernel.codec import structure
from ecology.lowrank.lowrank import LowRank

GROUP = "ecology.operators"

Claim = Literal["commutes", "equivariant", "gauge", "identity", "in_span", "linear", "unbiased"]
"""What an operator promises, with its default options and all else equal:

``commutes``     the order of the parents does not matter
``equivariant``  parents c times as large breed a child c times as large
``gauge``        parents that are the same functions in other factors breed the same child
``identity``     one parent, alone or several times over, breeds itself where the options drop nothing
``in_span``      the child's columns and rows are combinations of the parents'
``linear``       the child is linear in the weights
``unbiased``     the mean of the children over seeds is the exact weighted sum
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Operator:
    """One way to breed."""

    function: Callable[[Sequence[LowRank], Any, int], LowRank]
    """(parents, options, seed) -> child; pure: equal arguments give an equal child, and none is changed."""
    options: type
    """Frozen dataclass; its fields are the operator's keys in a configuration."""
    parents_min: int
    parents_max: int | None
    """None: any number."""
    source: str
    """Paper, where it is described."""
    claims: frozenset[Claim] = frozenset({"gauge"})
    """What it promises; ``ecology.testing.operators`` holds it to that."""


_ANY: frozenset[Claim] = frozenset({"equivariant", "gauge"})
"""What every row of ours promises."""
_SPAN: frozenset[Claim] = _ANY | {"identity", "in_span"}

OPERATORS: Mapping[str, Operator] = types.MappingProxyType(
    {
        "breadcrumbs": Operator(
            breadcrumbs, BreadcrumbsOptions, 1, None, "arXiv:2312.06795", _ANY | {"commutes", "in_span", "linear"}
        ),
        "crossover": Operator(crossover, CrossoverOptions, 2, None, "Syswerda 1989, on whole modules", _SPAN),
        "dare": Operator(dare, DareOptions, 1, None, "arXiv:2311.03099", _SPAN | {"linear", "unbiased"}),
        "della": Operator(della, DellaOptions, 1, None, "arXiv:2406.11617", _ANY | {"in_span"}),
        "iso_c": Operator(iso_c, IsoCOptions, 1, None, "arXiv:2502.04959", _ANY | {"commutes", "in_span"}),
        "linear": Operator(
            linear, LinearOptions, 1, None, "arXiv:2212.04089, arXiv:2410.13025", _SPAN | {"commutes", "linear"}
        ),
        "mutate": Operator(mutate, MutateOptions, 1, 1, "arXiv:2410.14735", _ANY | {"identity"}),
        "negate": Operator(negate, NegateOptions, 1, 1, "arXiv:2212.04089", _ANY | {"in_span"}),
        "peft": Operator(peft, PeftOptions, 1, None, "peft 0.21.2, add_weighted_adapter", frozenset()),  # for migration
        "prune": Operator(prune, PruneOptions, 1, 1, "Eckart and Young 1936, arXiv:2303.10512", _SPAN),
        "sce": Operator(sce, SceOptions, 1, None, "arXiv:2408.07990", _SPAN | {"commutes"}),
        "slerp": Operator(slerp, SlerpOptions, 2, 2, "Shoemake 1985, mergekit", _SPAN | {"commutes"}),
        "svd": Operator(svd, SvdOptions, 1, None, "Eckart and Young 1936", _SPAN | {"commutes"}),
        "tsv": Operator(tsv, TsvOptions, 1, None, "arXiv:2412.00081", _SPAN | {"commutes"}),
        "ties": Operator(ties, TiesOptions, 1, None, "arXiv:2306.01708, arXiv:2509.17786", _SPAN | {"commutes"}),
    }
)


def known() -> tuple[str, ...]:
    """Names of all operators, those of plug-ins included, sorted."""
    return tuple(sorted({*OPERATORS, *(point.name for point in entry_points(group=GROUP))}))


def find(name: str) -> Operator:
    """The operator of that name; ours before a plug-in's.

    Raises:
        ConfigError: There is none, or a plug-in offers something else than an ``Operator``.
    """
    if name in OPERATORS:
        return OPERATORS[name]
    for point in entry_points(group=GROUP, name=name):
        operator = point.load()
        if not isinstance(operator, Operator):
            raise ConfigError(f"{point.value} is no Operator", where=name, todo="correct or remove the plug-in")
        return operator
    raise ConfigError(f"unknown operator {name!r}", where="operator", todo=f"choose one of {', '.join(known())}")


def options_of(name: str, options: object) -> Any:
    """Options as the operator's dataclass: a mapping is checked and completed, an instance is taken as it is.

    Raises:
        ConfigError: Unknown operator, unknown key, wrong type or a value out of range.
    """
    kind = find(name).options
    return options if isinstance(options, kind) else structure(kind, options, name)
