"""PEFT's ``add_weighted_adapter`` as an operator that the cases can be run on.

For each child a small model of linear layers is built, the parents are put into it as LoRA adapters in float64 (so
that what the table shows is arithmetic and not rounding), PEFT merges them, and the child's change is read off the
layers by PEFT's own ``get_delta_weight``. Nothing of ours is in between.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecology.breeder.operators import Claim, Operator
from ecology.breeder.peft_preset import COMBINATIONS, Combination
from ecology.lowrank.lowrank import Factors, LowRank
from ecology.testing import NonconformingError
from ecology.testing.operators.cases import Subject

_PROMISES: Mapping[str, frozenset[Claim]] = {
    "linear": frozenset({"equivariant", "gauge", "in_span"}),
    "cat": frozenset({"equivariant", "gauge", "in_span"}),
    "svd": frozenset({"equivariant", "gauge", "in_span"}),
    "ties": frozenset({"equivariant", "gauge"}),
    "dare_linear": frozenset({"equivariant", "gauge", "unbiased"}),
    "dare_ties": frozenset({"equivariant", "gauge"}),
    "magnitude_prune": frozenset({"equivariant", "gauge"}),
}
"""What a merge of that name has to keep to be a function of what its parents do; the promises of our own rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class LibraryOptions:
    """Arguments of ``add_weighted_adapter``."""

    combination_type: Combination
    weights: tuple[float, ...] | None = None
    """None: 1/N each, and 1 each where PEFT divides by the number of parents itself (ties)."""
    density: float | None = 0.5
    svd_rank: int | None = None


def library_subjects() -> Mapping[str, Subject]:
    """One subject for each combination type, held to what ours of the same name promise."""
    return {name: _subject(name) for name in COMBINATIONS}


def _subject(name: Combination) -> Subject:
    rule = name.removesuffix("_svd")
    whole = LibraryOptions(name, density=1.0, svd_rank=64 if name.endswith("svd") else None)
    options = dataclasses.replace(whole, density=0.5)
    exact = rule in ("linear", "cat", "svd")
    promises = _PROMISES[rule]
    row = Operator(_merge, LibraryOptions, 1, None, "peft, add_weighted_adapter", promises)
    ends = () if exact else (0.0, 1.0)
    return Subject(
        row,
        options,
        commutes=not rule.startswith("dare"),
        identity=dataclasses.replace(whole, weights=None),
        weighted=(lambda weights: dataclasses.replace(options, weights=weights)) if exact else None,
        oracle=_mean if exact else None,
        edges=tuple(dataclasses.replace(options, density=density) for density in ends),
        projected=(lambda rank: dataclasses.replace(options, svd_rank=rank)) if name == "svd" else None,
        claims=promises,
        one_rank=name not in ("cat",) and not name.endswith("svd"),
        draws_for_zeros=rule.startswith("dare"),
        through_file=_through_file,
    )


def _mean(parents: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    names = {name: like for parent in parents for name, like in parent.items()}
    return {n: sum(p.get(n, np.zeros_like(like)) for p in parents) / len(parents) for n, like in names.items()}


def _merge(parents: Sequence[LowRank], options: LibraryOptions, seed: int) -> LowRank:
    """The child of ``parents``.

    Raises:
        NonconformingError: PEFT changed a parent.
    """
    import torch  # noqa: PLC0415

    model = _model_of(parents)
    names = [f"parent{i}" for i in range(len(parents))]
    before = {k: v.clone() for k, v in model.state_dict().items() if ".lora_" in k}
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.add_weighted_adapter(
            names,
            list(options.weights or [1.0 if "ties" in options.combination_type else 1 / len(parents)] * len(parents)),
            "child",
            combination_type=options.combination_type,
            density=options.density,
            svd_rank=options.svd_rank,
            svd_full_matrices=False,  # with True, its default, a rank beyond the matrix ends in a shape error
        )
    after = model.state_dict()
    if any(not torch.equal(after[k], v) for k, v in before.items()):
        raise NonconformingError("a parent's adapter was changed")
    return _read_off(model, "child")


def _model_of(parents: Sequence[LowRank]) -> Any:
    """A PEFT model of float64 layers of the parents' shapes, each parent an adapter of scale 1."""
    import torch  # noqa: PLC0415
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415

    shapes = {name: f.shape for parent in parents for name, f in parent.modules.items()}
    root = torch.nn.Module()
    for name, (m, n) in sorted(shapes.items()):
        *above, last = name.split(".")
        place = root
        for part in above:
            if not hasattr(place, part):
                place.add_module(part, torch.nn.Module())
            place = getattr(place, part)
        place.add_module(last, torch.nn.Linear(n, m, bias=False, dtype=torch.float64))
    model: Any = None
    for i, parent in enumerate(parents):
        ranks = {name: max(1, f.rank) for name, f in parent.modules.items()}
        rank = max(ranks.values())
        lower = {re.escape(name): r for name, r in ranks.items() if r != rank}
        config = LoraConfig(
            r=rank, lora_alpha=rank, rank_pattern=lower, alpha_pattern=dict(lower), target_modules=sorted(ranks)
        )
        if model is None:
            model = get_peft_model(root, config, adapter_name=f"parent{i}")
        else:
            model.add_adapter(f"parent{i}", config)
        layers = dict(model.base_model.model.named_modules())
        for name, factors in parent.modules.items():
            _put(layers[name], f"parent{i}", factors)
    return model


def _put(layer: Any, adapter: str, factors: Factors) -> None:
    import torch  # noqa: PLC0415

    (m, n), rank = factors.shape, max(1, factors.rank)
    left, right = np.zeros((m, rank)), np.zeros((rank, n))
    left[:, : factors.rank], right[: factors.rank] = factors.B, factors.A
    layer.lora_A[adapter].weight.data = torch.from_numpy(right)
    layer.lora_B[adapter].weight.data = torch.from_numpy(left)


def _read_off(model: Any, adapter: str) -> LowRank:
    found = {}
    for name, layer in model.base_model.model.named_modules():
        if hasattr(layer, "lora_A") and adapter in layer.lora_A:
            delta = layer.get_delta_weight(adapter).detach().numpy()
            if not np.isfinite(delta).all():
                raise NonconformingError(f"{name} holds NaN or infinity")
            found[name] = (delta, np.eye(delta.shape[1]))
    return LowRank.of(found)


def _through_file(child: LowRank) -> LowRank:
    """``child`` as an adapter that PEFT saves and loads again."""
    import torch  # noqa: PLC0415
    from peft import PeftModel  # noqa: PLC0415

    model = _model_of([child])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
        bare = model.unload()
        again = PeftModel.from_pretrained(bare, f"{folder}/parent0", autocast_adapter_dtype=False)
        torch.manual_seed(0)
        return _read_off(again, "default")
