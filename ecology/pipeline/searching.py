"""What is wrong with a search over weights, told with all other mistakes and before anything is trained."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Collection, Iterator

from ecology.breeder.operators import find
from ecology.errors import ConfigError
from ecology.pipeline.settings import OptimiseSettings


def search_mistakes(wanted: OptimiseSettings, members: Collection[str], suites: Collection[str]) -> Iterator[str]:
    """One sentence a mistake.

    Args:
        wanted: The search.
        members: Names of those who may be parents.
        suites: Ids of the suites that are asked.
    """
    if not (math.isfinite(wanted.low) and math.isfinite(wanted.high) and wanted.low < wanted.high):
        yield f"optimise.low: {wanted.low} is not below high, which is {wanted.high}"
    try:
        options = find(wanted.operator).options
    except ConfigError as error:
        yield f"optimise.{error}"
    else:
        if "weights" not in {field.name for field in dataclasses.fields(options)}:
            yield f"optimise.operator: {wanted.operator} takes no weights; choose linear or svd"
    for parent in wanted.parents:
        if parent not in members:
            yield f"optimise.parents: no parent {parent!r}; known: {', '.join(members)}"
    for name in wanted.objective:
        suite, _, score = name.partition(".")
        if suite not in suites or not score:
            known = ", ".join(f"{one}.*" for one in suites)
            yield f"optimise.objective: no metric {name!r} here; name scores of {known}"
    if wanted.method == "optuna" and importlib.util.find_spec("optuna") is None:
        yield "optimise.method: Optuna is not installed; pip install 'tiny-ecology[optimise]', or take method=random"
