"""What the parents' folders have to agree on before their changes are added, and how the child is to be written.

``kernel.merging`` has compared birth certificates. A folder from outside has none, and the base that somebody vouches
for is not always the base it was trained on; so what the folders themselves say is compared too. None of it proves
anything, and any of it that disagrees is a reason to stop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePath

import numpy as np

from ecology.contracts.identity import Digest
from ecology.errors import IncompatibleParents
from ecology.store.adapters import BASE_KEY, AdapterFolder
from ecology.store.layouts import LINEAR, Layout
from ecology.store.tinylora import TinyLora

DISTIL = "distil the others into an adapter of the one base, or leave them out"


@dataclasses.dataclass(frozen=True, slots=True)
class Manner:
    """How a child is written."""

    layouts: Mapping[str, Layout]
    """Of modules that are no linear layers."""
    task_type: str
    fan_in_fan_out: bool


def agree(folders: Mapping[str, AdapterFolder], base_weights: Digest) -> Manner:
    """The manner that follows from all folders.

    Args:
        folders: By the parents' names.
        base_weights: Digest of the weights of the base that is vouched for.

    Raises:
        IncompatibleParents: Two folders name different bases, revisions or tasks, one names another base than is
            vouched for, or a module has two layouts; carries the fields.
    """
    for name, folder in folders.items():
        if (claimed := folder.metadata.get(BASE_KEY, base_weights)) != base_weights:
            raise IncompatibleParents(
                f"{name} was written for the base {claimed}, not for {base_weights}",
                fields=("base_weights",),
                where=name,
                todo=DISTIL,
            )
    base = _one(folders, "base_model_name_or_path", lambda value: PurePath(value).name)
    if base is not None:
        _one(folders, "revision", str)
    task = _one(folders, "task_type", str)
    layouts: dict[str, Layout] = {}
    for name, folder in folders.items():
        for module in folder.modules:
            layout = folder.layouts.get(module, LINEAR)
            if layouts.setdefault(module, layout) != layout:
                raise IncompatibleParents(
                    f"{module} is {layout.kind} {layout.kernel} in {name}, and {layouts[module].kind} "
                    f"{layouts[module].kernel} in another",
                    fields=("tensor_schema",),
                    where=name,
                    todo=DISTIL,
                )
    turned = any(folder.config.get("fan_in_fan_out") is True for folder in folders.values())
    return Manner({m: layout for m, layout in layouts.items() if layout != LINEAR}, task or "CAUSAL_LM", turned)


def _one(folders: Mapping[str, AdapterFolder], key: str, shorten: object) -> str | None:
    """The one value that all folders which name any agree on."""
    said = {name: folder.config.get(key) for name, folder in folders.items()}
    named = {name: shorten(value) for name, value in said.items() if isinstance(value, str) and value}  # type: ignore[operator]
    if len(set(named.values())) > 1:
        told = ", ".join(f"{name} says {said[name]!r:.80}" for name in named)
        raise IncompatibleParents(f"{key} differs: {told}", fields=(key,), where=", ".join(named), todo=DISTIL)
    return next(iter(named.values()), None)


def add_vectors(folders: Sequence[AdapterFolder], weights: Sequence[float]) -> TinyLora | None:
    """The TinyLoRA whose vectors are the weighted sum, where the parents' bases are one to the bit.

    dW is linear in v, so this is the exact weighted sum of the changes, of the same rank and as few numbers.

    Returns:
        None where a parent is no TinyLoRA or has another basis: then only the expanded changes add.
    """
    tinies = [folder.tiny for folder in folders]
    present = [tiny for tiny in tinies if tiny is not None]
    if len(present) != len(tinies) or len({tiny.basis for tiny in present}) != 1:
        return None
    first = present[0]
    return first.with_vectors(
        {
            group: np.sum([w * tiny.vectors[group] for w, tiny in zip(weights, present, strict=True)], axis=0)
            for group in first.vectors
        }
    )
