"""The operators that are installed, each as a subject: by default what its row claims, and where we know more, that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecology.breeder.operators import find, known
from ecology.testing.operators.cases import Dense, Subject

REQUIRED: Mapping[str, Mapping[str, Any]] = {
    "prune": {"rank": 2},
    "svd": {"rank": 64},
}
"""Options that have no default."""
WITHOUT_LOSS: Mapping[str, Mapping[str, Any]] = {
    "breadcrumbs": {"density": 1.0, "gamma": 0.0},
    "crossover": {},
    "dare": {"density": 1.0},
    "della": {"density": 1.0, "epsilon": 0.0},
    "linear": {},
    "mutate": {"spectrum": 0.0, "noise": 0.0},
    "prune": {"energy": 1.0, "rank": None},
    "sce": {},
    "slerp": {},
    "svd": {},
    "ties": {"density": 1.0},
    "tsv": {},
}
"""Options under which an operator that claims ``identity`` drops nothing."""
EDGES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "breadcrumbs": ({"density": 1e-9}, {"density": 1.0, "gamma": 0.0}),
    "dare": ({"density": 1e-9}, {"density": 1.0}),
    "della": ({"density": 1e-9, "epsilon": 0.0}, {"density": 1.0, "epsilon": 0.0}),
    "linear": ({"weights": (0.0, 0.0, 0.0)}, {"rank": 1}, {"rank": 4096}),
    "mutate": ({"spectrum": 1.0, "noise": 1.0},),
    "negate": ({"scale": 100.0},),
    "prune": ({"rank": 1}, {"rank": 4096}, {"rank": None, "energy": 1e-9}),
    "sce": ({"density": 1e-9}, {"density": 1.0}),
    "slerp": ({"t": 0.0}, {"t": 1.0}),
    "svd": ({"rank": 1}, {"rank": 4096}),
    "ties": ({"density": 1e-9}, {"density": 1.0}),
}
"""Densities are above 0 by their options' own check, and the smallest of them keeps one entry or none."""


def installed_subjects() -> Mapping[str, Subject]:
    """Every operator of ours and of plug-ins, sorted by name; the ``peft`` preset is left to its differential test."""
    return {name: _subject(name) for name in known() if name != "peft"}


def _subject(name: str) -> Subject:
    row = find(name)
    given = dict(REQUIRED.get(name, {}))
    options = row.options(**given)
    has = {field.name for field in dataclasses.fields(row.options)}
    claims = row.claims

    def changed(**changes: Any) -> Any:
        return row.options(**{**given, **changes})

    whole = WITHOUT_LOSS.get(name)
    linear = "linear" in claims and "weights" in has
    return Subject(
        row,
        options,
        commutes="commutes" in claims,
        identity=changed(**whole) if whole is not None and "identity" in claims else None,
        weighted=(lambda weights: changed(weights=weights, **({"rank": 64} if "rank" in has else {})))
        if linear
        else None,
        oracle={"linear": _mean, "svd": _mean, "negate": _minus}.get(name),
        edges=tuple(changed(**edge) for edge in EDGES.get(name, ())),
        projected=(lambda rank: changed(rank=rank)) if name in ("linear", "svd") else None,
    )


def _mean(parents: Sequence[Dense]) -> Dense:
    names = {name: like for parent in parents for name, like in parent.items()}
    return {
        n: np.sum([p.get(n, np.zeros_like(like)) for p in parents], axis=0) / len(parents) for n, like in names.items()
    }


def _minus(parents: Sequence[Dense]) -> Dense:
    return {name: -delta for name, delta in parents[0].items()}
