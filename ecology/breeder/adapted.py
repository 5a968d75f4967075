"""The half of ``parametrisation`` that imports torch and PEFT: a model with an adapter in it, and what is read from it.

The SVD comes from ``basis`` and not from PEFT: while a TinyLoRA is put in, its layers' ``_init_svd`` is ours, which
does what PEFT's does (B = U S^1/2, A = S^1/2 V^T) with vectors that are kept and have a sign. A LoRA-XS is PEFT's PSOFT
without its rotation and its magnitudes, dW = U S (R - I) V^T with R = I at the start, and is given the same vectors.

Every trained number is float32, whatever the base is.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import IA3Config, LNTuningConfig, LoraConfig, PsoftConfig, TinyLoraConfig, get_peft_model
from peft.tuners.tinylora.layer import TinyLoraLayer

from ecology.breeder.basis import Leading, bases
from ecology.breeder.parametrisation import (
    PARAMETRISATIONS,
    Ia3Options,
    LnTuningOptions,
    LoraOptions,
    LoraXsOptions,
    TinyLoraOptions,
    even,
    tying,
)
from ecology.contracts.identity import Digest
from ecology.errors import ConfigError, UnsupportedAdapter
from ecology.runtime.kernels import forget_gradients
from ecology.store.layouts import LINEAR
from ecology.store.tinylora import Basis, TinyLora

Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""B with the scale folded in, (outputs, r), and A, (r, inputs)."""
NAME = "default"
"""PEFT's name of the adapter."""

_inject = threading.Lock()


class Adapted:
    """A model with an adapter in it; a context manager that takes it out again."""

    def __init__(self, model: Any, peft: Any, kind: str, options: Any, modules: Sequence[str]) -> None:
        """Reads what PEFT made; ``wrap`` is what callers use."""
        self.model, self.peft, self.kind, self.options = model, peft, kind, options
        self.modules = tuple(modules)
        """Full names of the adapted modules, in the order of the base."""
        self.trained: Mapping[str, torch.nn.Parameter] = {
            name: parameter for name, parameter in sorted(peft.named_parameters()) if parameter.requires_grad
        }
        """What is trained, by PEFT's names, sorted; float32."""
        for parameter in self.trained.values():
            parameter.data = parameter.data.float()

    @property
    def count(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.trained.values())

    @property
    def bytes(self) -> int:
        """What those numbers take, as they are stored."""
        return self.count * (2 if self._bfloat16 else 4)

    @property
    def first_layer(self) -> int:
        """Index of the first decoder layer with an adapted module: below it nothing depends on the adapter."""
        layers = getattr(self.model.base_model, "layers", None)
        if layers is None:
            return 0
        names = {id(module): name for name, module in self.model.named_modules()}
        prefixes = [f"{names[id(layer)]}." for layer in layers]
        return next(i for i, prefix in enumerate(prefixes) if any(m.startswith(prefix) for m in self.modules))

    def __enter__(self) -> Adapted:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unwrap()

    def unwrap(self) -> None:
        """Takes the adapter out: the model is the base again."""
        self.model = self.peft.unload()
        forget_gradients(self.model)
        for mark in ("peft_config", "_hf_peft_config_loaded"):
            self.model.__dict__.pop(mark, None)
        self.model.eval().requires_grad_(False)

    @contextlib.contextmanager
    def bypassed(self) -> Iterator[None]:
        """The base answers inside the context, with the adapter passed over."""
        with self.peft.disable_adapter():
            yield

    @contextlib.contextmanager
    def merged(self) -> Iterator[None]:
        """The change is computed into copies of the weights inside the context.

        The base's own tensors come back as they were, so nothing drifts. Where a change is no sum (ia3, ln_tuning) the
        adapter stays beside the weights.

        On an accelerator most of a decoding step is the launching of kernels, and unmerged adapters launch most.
        """
        with contextlib.ExitStack() as stack, torch.no_grad():
            if PARAMETRISATIONS[self.kind].exact_lora:
                for name in self.modules:
                    layer = self.model.get_submodule(name)
                    weight = layer.get_base_layer().weight
                    own = weight.data
                    weight.data = own + layer.get_delta_weight(NAME)
                    layer.merged_adapters.append(NAME)
                    stack.callback(_put_back, layer, weight, own)
            yield

    def settle(self) -> None:
        """Rounds every number to what it is stored as; called after each step of an optimiser."""
        if self._bfloat16:
            with torch.no_grad():
                for parameter in self.trained.values():
                    parameter.copy_(parameter.bfloat16().float())

    def numbers(self) -> dict[str, torch.Tensor]:
        """Copies of what is trained, on the CPU."""
        return {name: parameter.detach().to("cpu", copy=True) for name, parameter in self.trained.items()}

    def load(self, numbers: Mapping[str, torch.Tensor]) -> None:
        """Sets what is trained.

        Raises:
            ConfigError: Other names or shapes.
        """
        if {n: t.shape for n, t in numbers.items()} != {n: t.shape for n, t in self.trained.items()}:
            raise ConfigError("these numbers are of another adapter", where=self.kind)
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(numbers[name])

    def factors(self) -> Mapping[str, Pair]:
        """The LoRA that is exactly the same function, by module; products in float64, rounded once.

        Raises:
            UnsupportedAdapter: There is none.
        """
        if not PARAMETRISATIONS[self.kind].exact_lora:
            raise UnsupportedAdapter(
                f"no change of low rank is the same function as {self.kind}",
                field="peft_type",
                where=self.kind,
                todo="it is a baseline of the benchmarks; to store and breed, train tinylora, lora_xs or lora",
            )
        return {name: _PAIR[self.kind](self.model.get_submodule(name)) for name in self.modules}

    def tiny(self) -> TinyLora:
        """The TinyLoRA as PEFT would save it.

        Raises:
            UnsupportedAdapter: It is none.
        """
        if self.kind != "tinylora":
            raise UnsupportedAdapter(f"{self.kind} is no TinyLoRA", field="peft_type", where=self.kind)
        found = {}
        for name in sorted(self.modules):
            layer = self.model.get_submodule(name)
            A, B, P = (_array(getattr(layer, f"tinylora_{x}")[NAME]) for x in "ABP")  # noqa: N806
            found[name] = Basis(A, B, P, int(layer._tinylora_v_key[NAME]))
        options: TinyLoraOptions = self.options
        settings = {
            "r": options.r,
            "u": options.u,
            "weight_tying": tying(len(self.modules), options.n_tie, options.groups).weight_tying,
            "projection_seed": options.projection_seed,
        }
        vectors = {
            int(name.rpartition(".")[2]): _array(parameter).astype(np.float64)
            for name, parameter in self.trained.items()
        }
        frozen = types.MappingProxyType
        return TinyLora(
            frozen(settings), frozen(found), frozen(dict(sorted(vectors.items()))), frozen(dict.fromkeys(found, LINEAR))
        )

    @property
    def _bfloat16(self) -> bool:
        return getattr(self.options, "storage", "float32") == "bfloat16"


def wrap(model: Any, kind: str, options: Any, *, base_weights: Digest, cache: Path | None, seed: int) -> Adapted:
    """What ``parametrisation.adapt`` says."""
    modules = chosen(model, options.targets, options.layers, kind)
    names = list(modules)
    with _inject, torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)  # PEFT draws the initial A of a LoRA from the global generator
        config, given = _CONFIG[kind](options, names, modules, base_weights, cache)
        with _vectors(given if kind == "tinylora" else {}), _plain(modules if kind == "lora_xs" else {}):
            peft = get_peft_model(model, config)
        if kind == "lora_xs":
            _use(modules, model, given)
        peft.to(next(model.parameters()).device)  # PEFT makes some of what it adds on the CPU
    return Adapted(model, peft, kind, options, names)


def chosen(model: Any, targets: Sequence[str], layers: int, where: str) -> dict[str, Any]:
    """The modules of the last ``layers`` decoder layers whose names end so, by full name, in the base's order.

    Raises:
        ConfigError: The model has no list of layers, or a target has no module.
    """
    stack = getattr(model.base_model, "layers", None)
    if stack is None:
        raise ConfigError(f"{type(model).__name__} has no list of decoder layers", where=f"{where}.layers")
    inside = {id(m) for layer in stack[-layers if layers else 0 :] for m in layer.modules()}
    found = {
        name: module
        for name, module in model.named_modules()
        if id(module) in inside and name.rpartition(".")[2] in targets
    }
    if missing := sorted(set(targets) - {name.rpartition(".")[2] for name in found}):
        known = {n.rpartition(".")[2] for n, m in stack[-1].named_modules() if getattr(m, "weight", None) is not None}
        raise ConfigError(
            f"the base has no module {missing[0]!r}",
            where=f"{where}.targets",
            todo=f"choose among {', '.join(sorted(known))}",
        )
    return found


def _tinylora(
    options: TinyLoraOptions, names: list[str], modules: Mapping[str, Any], base: Digest, cache: Path | None
) -> tuple[Any, Mapping[str, Leading]]:
    tied = even(tying(len(names), options.n_tie, options.groups))
    config = TinyLoraConfig(
        r=options.r,
        u=options.u,
        weight_tying=tied.weight_tying,
        projection_seed=options.projection_seed,
        target_modules=names,
        init_weights=True,
        task_type="CAUSAL_LM",
    )
    return config, bases(modules, options.r, base, cache)


def _lora_xs(
    options: LoraXsOptions, names: list[str], modules: Mapping[str, Any], base: Digest, cache: Path | None
) -> tuple[Any, Mapping[str, Leading]]:
    config = PsoftConfig(
        r=options.r,
        psoft_alpha=options.r,
        psoft_orth=False,
        psoft_mag_a=False,
        psoft_mag_b=False,
        ab_svd_init="psoft_init",
        psoft_svd="lowrank",
        psoft_svd_lowrank_niter=0,  # replaced at once by the kept vectors
        target_modules=names,
        task_type="CAUSAL_LM",
    )
    return config, bases(modules, options.r, base, cache)


def _lora(options: LoraOptions, names: list[str], *rest: Any) -> tuple[Any, Mapping[str, Leading]]:
    del rest
    config = LoraConfig(
        r=options.r, lora_alpha=options.alpha, lora_dropout=0.0, target_modules=names, task_type="CAUSAL_LM"
    )
    return config, {}


def _ia3(options: Ia3Options, names: list[str], *rest: Any) -> tuple[Any, Mapping[str, Leading]]:
    del rest
    inputs = [name for name in names if name.rpartition(".")[2] in options.inputs]
    return IA3Config(target_modules=names, feedforward_modules=inputs, task_type="CAUSAL_LM"), {}


def _ln_tuning(options: LnTuningOptions, names: list[str], *rest: Any) -> tuple[Any, Mapping[str, Leading]]:
    del options, rest
    return LNTuningConfig(target_modules=names, task_type="CAUSAL_LM"), {}


_CONFIG: Mapping[str, Any] = {
    "tinylora": _tinylora,
    "lora_xs": _lora_xs,
    "lora": _lora,
    "ia3": _ia3,
    "ln_tuning": _ln_tuning,
}


@contextlib.contextmanager
def _vectors(given: Mapping[str, Leading]) -> Iterator[None]:
    """PEFT's layers take these vectors, in the order in which it makes them, instead of decomposing weights."""
    if not given:
        yield
        return
    waiting = iter(given.values())
    theirs = TinyLoraLayer._init_svd

    @functools.wraps(theirs)
    def ours(layer: Any, adapter: str, r: int, fan_in_fan_out: bool) -> None:
        vectors, weight = next(waiting), layer.get_base_layer().weight
        if (vectors.U.shape[0], vectors.V.shape[1]) != tuple(weight.shape) or fan_in_fan_out:
            raise ConfigError(f"vectors of {tuple(vectors.U.shape)} for a weight of {tuple(weight.shape)}")
        root = vectors.S.sqrt()
        layer.tinylora_A[adapter] = (root[:, None] * vectors.V).to(weight.device)
        layer.tinylora_B[adapter] = (vectors.U * root).to(weight.device)
        layer.r[adapter] = len(root)

    TinyLoraLayer._init_svd = ours
    try:
        yield
    finally:
        TinyLoraLayer._init_svd = theirs
    if (left := sum(1 for _ in waiting)) > 0:
        raise ConfigError(f"{left} target modules were not adapted", where="tinylora.targets")


@contextlib.contextmanager
def _plain(modules: Mapping[str, Any]) -> Iterator[None]:
    """Weights in the usual order while PEFT decomposes them, which it cannot do to weights laid out for the kernels."""
    laid = {name: module.weight for name, module in modules.items() if module.weight.is_mkldnn}
    for name, weight in laid.items():
        modules[name].weight = torch.nn.Parameter(weight.detach().to_dense(), requires_grad=False)
    try:
        yield
    finally:
        for name, weight in laid.items():
            modules[name].weight = weight


def _use(modules: Mapping[str, Any], model: Any, given: Mapping[str, Leading]) -> None:
    """Gives the layers of a LoRA-XS the kept vectors."""
    for name in modules:
        layer, vectors = model.get_submodule(name), given[name]
        device = layer.get_base_layer().weight.device
        layer._set_psoft_ab_cache_buffers(
            NAME, vectors.V.to(device), (vectors.U * vectors.S / layer.scaling[NAME]).to(device)
        )


def _put_back(layer: Any, weight: torch.Tensor, own: torch.Tensor) -> None:
    weight.data = own
    layer.merged_adapters.clear()


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = tensor.detach().to("cpu", torch.float32).numpy()
    return found


def _rounded(B: npt.NDArray[np.float64], A: npt.NDArray[np.float32]) -> Pair:  # noqa: N803
    return np.ascontiguousarray(B, np.float32), np.ascontiguousarray(A, np.float32)


def _tinylora_pair(layer: Any) -> Pair:
    v = _array(layer.tinylora_v[NAME][layer._tinylora_v_key[NAME]]).astype(np.float64)
    R = np.tensordot(v, _array(layer.tinylora_P[NAME]).astype(np.float64), axes=1)  # noqa: N806
    return _rounded(_array(layer.tinylora_B[NAME]).astype(np.float64) @ R, _array(layer.tinylora_A[NAME]))


def _lora_xs_pair(layer: Any) -> Pair:
    A, B = (_array(M) for M in layer._get_psoft_ab_cache_buffers(NAME))  # noqa: N806
    R = _array(layer._get_R_matrix(NAME)).astype(np.float64) - np.eye(len(A))  # noqa: N806
    return _rounded(layer.scaling[NAME] * (B.astype(np.float64) @ R), A)


def _lora_pair(layer: Any) -> Pair:
    A, B = _array(layer.lora_A[NAME].weight), _array(layer.lora_B[NAME].weight)  # noqa: N806
    return _rounded(layer.scaling[NAME] * B.astype(np.float64), A)


_PAIR: Mapping[str, Any] = {"tinylora": _tinylora_pair, "lora_xs": _lora_xs_pair, "lora": _lora_pair}
