"""The table of operators that breed by teaching: they need parents, and a base that learns.

Those of ``operators`` need parents alone and are pure; those of ``learners`` need a corpus and no parents. Everything
else is alike: options that are checked, limits of reproduction, a genome with lineage and corpora, the same gates.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

from ecology.breeder.distill import DistillOptions
from ecology.breeder.operators import Operator, find, known
from ecology.breeder.recover import RecoverOptions
from ecology.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class School:
    """One way to breed by teaching."""

    options: type
    """Frozen dataclass; its fields are the operator's keys in a configuration."""
    parents_min: int
    parents_max: int | None
    """None: any number."""
    same_base: bool
    """Whether all parents have to be of the base that learns."""
    source: str


SCHOOLS: Mapping[str, School] = types.MappingProxyType(
    {
        "distill": School(DistillOptions, 1, None, False, "arXiv:1606.07947, arXiv:2306.13649"),
        "recover": School(RecoverOptions, 1, 1, True, "merge, add noise, fine-tune, gate"),
    }
)


def breeder_of(name: str) -> School | Operator:
    """The row of whatever breeds from parents: a school, or an operator of the algebra.

    Raises:
        ConfigError: There is none of that name; lists all.
    """
    if name in SCHOOLS:
        return SCHOOLS[name]
    if name not in (everybody := known()):
        names = ", ".join(sorted((*everybody, *SCHOOLS)))
        raise ConfigError(f"unknown operator {name!r}", where="operator", todo=f"choose one of {names}")
    return find(name)
