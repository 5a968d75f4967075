"""What the parents' folders have to agree on before their changes are added, and how the child is to be written.

``kernel.merging`` has compared birth certificates. A folder from outside has none, and the base that somebody vouches
for is not always the base it was trained on; so what the folders themselves say is compared too. None of it proves
anything, and any of it that disagrees is a reason to stop.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath

import numpy as np

from ecology.breeder.linear import LinearOptions
from ecology.breeder.negate import NegateOptions
from ecology.breeder.options import weights_for
from ecology.contracts.artifact import BASE_KEY, CONFIG_FILE
from ecology.contracts.identity import Digest
from ecology.errors import IncompatibleParents
from ecology.store.adapters import AdapterFolder
from ecology.store.layouts import LINEAR, Layout
from ecology.store.tinylora import TinyLora

DISTIL = "`ecology breed distill` teaches an adapter of one base by all of them; or leave the others out"


@dataclasses.dataclass(frozen=True, slots=True)
class Manner:
    """How a child is written."""

    layouts: Mapping[str, Layout]
    """Of modules that are no linear layers."""
    task_type: str | None
    """None where no parent names one."""
    fan_in_fan_out: bool


def agree(names: Sequence[str], folders: Sequence[AdapterFolder], base_weights: Digest) -> Manner:
    """The manner that follows from all folders.

    Args:
        names: Of the parents, for messages.
        folders: Theirs.
        base_weights: Digest of the weights of the base that is vouched for.

    Raises:
        IncompatibleParents: Two folders name different bases, revisions or tasks, one names another base than is
            vouched for, or a module has two layouts; carries the fields.
    """
    told = tuple(zip(names, folders, strict=True))
    for name, folder in told:
        if (claimed := folder.metadata.get(BASE_KEY, base_weights)) != base_weights:
            raise IncompatibleParents(
                f"{name} was written for the base {claimed}, not for {base_weights}",
                fields=("base_weights",),
                where=name,
                todo=DISTIL,
            )
    _one(told, "base_model_name_or_path")
    _one(told, "revision")
    task = _one(told, "task_type")
    layouts: dict[str, Layout] = {}
    for name, folder in told:
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
    turned = any(folder.config.get("fan_in_fan_out") is True for folder in folders)
    return Manner({m: layout for m, layout in layouts.items() if layout != LINEAR}, task, turned)


def fit(name: str, folder: AdapterFolder, tensors: Mapping[str, tuple[int, ...]]) -> None:
    """That every module of a folder is a weight of the base that is vouched for, of the shape that it changes.

    A name may lack a prefix on either side, since a checkpoint may have been saved without its outer class; an output
    layer without a tensor of its own is tied to an embedding.

    Args:
        name: Of the parent, for messages.
        folder: Its.
        tensors: Name and shape of every tensor of the base.

    Raises:
        IncompatibleParents: It was made for another base; names the module.
    """
    stems = {tensor.removesuffix(".weight"): shape for tensor, shape in tensors.items() if len(shape) > 1}
    ends = {f".{stem}": shape for stem, shape in stems.items()}
    tied = {shape for stem, shape in stems.items() if stem.endswith(("embed_tokens", "embed_in", "wte"))}
    turned = folder.config.get("fan_in_fan_out") is True
    for module, factors in folder.modules.items():
        found = stems.get(module) or next(
            (shape for end, shape in ends.items() if end.endswith(f".{module}") or f".{module}".endswith(end)), None
        )
        m, n = factors.left.shape[0], factors.right.shape[1]
        layout = folder.layouts.get(module, LINEAR)
        if layout.kind == "conv":
            wanted = {(m, n // math.prod(layout.kernel), *layout.kernel)}
        elif layout.kind == "embedding":
            wanted = {(n, m)}
        else:
            wanted = {(m, n), (n, m)} if turned else {(m, n)}
        if not wanted & ({found} if found is not None else tied):
            held = f"has {found} weights there" if found is not None else "has no such module"
            raise IncompatibleParents(
                f"{module} changes {m} x {n} weights, and the base {held}",
                fields=("tensor_schema",),
                where=name,
                todo="name the base that it was made for",
            )


def _one(told: Sequence[tuple[str, AdapterFolder]], key: str) -> str | None:
    """The one value on which all folders that name any agree; of a path its last part, the rest is a machine's."""
    said = [(name, value) for name, folder in told if isinstance(value := folder.config.get(key), str) and value]
    named = {PurePath(value).name: (name, value) for name, value in reversed(said)}
    if len(named) > 1:
        differing = ", ".join(f"{name} says {value!r:.80}" for name, value in reversed(named.values()))
        raise IncompatibleParents(
            f"{key} differs: {differing}",
            fields=(key,),
            where=", ".join(name for name, _ in said),
            todo=f"{DISTIL}; where both names mean one base, write one of them into every {CONFIG_FILE}",
        )
    return next(iter(named), None)


def add_vectors(folders: Sequence[AdapterFolder], options: object) -> TinyLora | None:
    """The TinyLoRA whose vectors are the weighted sum, where the parents' bases are one to the bit.

    dW is linear in v, so this is the exact weighted sum of the changes, of the same rank and as few numbers.

    Args:
        folders: The parents'.
        options: The operator's.

    Returns:
        None where a parent is no TinyLoRA or has another basis, or where the operator is no weighted sum of at least
        the basis' rank: then the expanded changes are bred.
    """
    tinies = [folder.tiny for folder in folders if folder.tiny is not None]
    if len(tinies) != len(folders) or len({tiny.basis for tiny in tinies}) != 1:
        return None
    first = tinies[0]
    if isinstance(options, LinearOptions) and (options.rank is None or options.rank >= int(str(first.settings["r"]))):
        weights: Sequence[float] = weights_for(options.weights, len(tinies), 1 / len(tinies), "linear.weights")
    elif isinstance(options, NegateOptions):
        weights = [-options.scale]
    else:
        return None
    return first.with_vectors(
        {
            group: np.sum([w * tiny.vectors[group] for w, tiny in zip(weights, tinies, strict=True)], axis=0)
            for group in first.vectors
        }
    )
