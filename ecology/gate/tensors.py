"""Which tensors there may be: those that the configuration implies on this base.

PEFT loads any key that it finds by name, so a "LoRA" with a key of the base overwrites the base, silently and for good
(peft 0.21.2; ``disable_adapter`` and ``unload`` do not undo it). Hence no list of what is forbidden: from
``peft_type``, ``target_modules``, ranks and the base's tensor schema follows the one set of keys and shapes that is
allowed, and nothing may be missing from it. Targets may reach nothing but linear layers of the base (``reach``): what
else PEFT finds by them has no tensors in the file. What the values do is ``weights``' business.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

from ecology.contracts.artifact import BASE_KEY, WEIGHTS_FILE
from ecology.contracts.identity import Json
from ecology.contracts.policy import AdapterLimits
from ecology.gate.reach import module_names
from ecology.gate.violation import Violation, show
from ecology.store.automaton import Budget
from ecology.store.header import Header
from ecology.store.matching import pattern_values, targeted

METADATA: Mapping[str, str] = {"format": "pt"}
"""What ``__metadata__`` may hold, besides the base's digest, which is the business of ``provenance``."""

_PREFIX = "base_model.model."
_VECTOR = "base_model.tinylora_v."
_FACTOR = re.compile(
    r"base_model\.model\.(.+)\.(?:lora_[AB]\.weight|lora_magnitude_vector|tinylora_[ABP])|base_model\.tinylora_v\.\d+"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Module:
    """One targeted module and what the configuration says about it."""

    name: str
    """As in the base: ``model.layers.0.self_attn.q_proj``."""
    inputs: int
    outputs: int
    rank: int
    scale: float
    """alpha / r, or alpha / sqrt(r); 1 for TinyLoRA."""
    magnitudes: bool = False
    """Whether it is a DoRA."""
    projections: int = 0
    """Length u of a TinyLoRA's vectors; 0 for a LoRA."""

    @property
    def a(self) -> str:
        """Key of the factor A, rank x inputs."""
        return f"{_PREFIX}{self.name}.{'tinylora_A' if self.projections else 'lora_A.weight'}"

    @property
    def b(self) -> str:
        """Key of the factor B, outputs x rank."""
        return f"{_PREFIX}{self.name}.{'tinylora_B' if self.projections else 'lora_B.weight'}"

    @property
    def m(self) -> str:
        """Key of a DoRA's magnitudes."""
        return f"{_PREFIX}{self.name}.lora_magnitude_vector"

    @property
    def p(self) -> str:
        """Key of a TinyLoRA's projections, u x rank x rank."""
        return f"{_PREFIX}{self.name}.tinylora_P"

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Key and shape of its tensors."""
        found: dict[str, tuple[int, ...]] = {self.a: (self.rank, self.inputs), self.b: (self.outputs, self.rank)}
        if self.magnitudes:
            found[self.m] = (self.outputs,)
        if self.projections:
            found[self.p] = (self.projections, self.rank, self.rank)
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Implied:
    """What a configuration means on a base."""

    modules: tuple[Module, ...]
    vectors: Mapping[str, tuple[int, ...]]
    """Key and shape of what TinyLoRA modules share."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key and shape of every tensor that there has to be."""
        return {key: shape for module in self.modules for key, shape in module.shapes.items()} | dict(self.vectors)


def linear_modules(schema: Mapping[str, tuple[int, ...]]) -> Mapping[str, tuple[int, int]]:
    """Name to (outputs, inputs) of what a LoRA may be put on: matrices that are not embeddings.

    Args:
        schema: Name and shape of every tensor of the base.
    """
    return {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in schema.items()
        if name.endswith(".weight") and len(shape) == 2 and not _is_embedding(name.removesuffix(".weight"))
    }


def implied(
    config: Mapping[str, Json], schema: Mapping[str, tuple[int, ...]], where: str
) -> tuple[Implied, list[Violation]]:
    """The modules that a checked configuration targets on this base, and what is wrong with its targets.

    Args:
        config: In which ``configuration`` found nothing.
        schema: Name and shape of every tensor of the base.
        where: File name for messages.

    Raises:
        MalformedArtifact: A pattern that cannot be matched in bounded time, or no target.
    """
    linear, budget, targets = linear_modules(schema), Budget(), config["target_modules"]
    modules_of_base = sorted(module_names(schema) | set(linear))
    reached = targeted(config, modules_of_base, where, budget)
    chosen = sorted(reached & set(linear))
    problems = []
    if not chosen:
        problems.append(_target(where, targets, "what matches a linear module of the base"))
    if beyond := sorted(reached - set(linear)):
        said = f"{show(targets)}, which reaches {show(beyond[0], 200)}"
        problems.append(_said(where, said, "what reaches linear modules alone: PEFT would fill in the rest"))
    endings = {name[at:] for name in linear for at in (0, *(i + 1 for i, c in enumerate(name) if c == "."))}
    for entry in targets if isinstance(targets, list) else ():
        if entry not in endings:
            problems.append(_target(where, entry, "the name of a linear module of the base, or the end of one"))
        elif entry in linear and config.get("layers_to_transform") not in (None, []):
            # PEFT passes a full name by the list of layers, unless it has shortened a list of twenty
            problems.append(_target(where, entry, "the end of a name beside layers_to_transform"))
    if config["peft_type"] == "TINYLORA":
        return _tiny(config, linear, chosen), problems
    ranks = pattern_values(config, "rank_pattern", config["r"], chosen, where, budget)
    alphas = pattern_values(config, "alpha_pattern", config["lora_alpha"], chosen, where, budget)
    stabilised, dora = config.get("use_rslora", False), bool(config.get("use_dora", False))
    modules = []
    for name in chosen:
        outputs, inputs = linear[name]
        rank, alpha = ranks[name], alphas[name]
        scale = alpha / math.sqrt(rank) if stabilised else alpha / rank
        modules.append(Module(name, inputs, outputs, rank, scale, dora))
    return Implied(tuple(modules), {}), problems


def _tiny(config: Mapping[str, Json], linear: Mapping[str, tuple[int, int]], chosen: list[str]) -> Implied:
    """PEFT's own arithmetic of groups (peft 0.21.2, ``tuners/tinylora/model.py``, ``_create_and_replace``)."""
    u, count = config["u"], len(chosen)
    modules = tuple(
        Module(name, linear[name][1], linear[name][0], min(config["r"], *linear[name]), 1.0, projections=u)
        for name in chosen
    )
    groups = max(1, round(count * (1.0 - config.get("weight_tying", 0.0))))
    size = max(1, count // groups)
    used = {min(index // size, groups - 1) for index in range(count)}
    return Implied(modules, {f"{_VECTOR}{group}": (u,) for group in sorted(used)})


def check_keys(
    header: Header, meant: Implied | None, schema: Mapping[str, tuple[int, ...]], limits: AdapterLimits
) -> list[Violation]:
    """Tensors that are superfluous, missing, misshapen or of another type.

    Args:
        header: Of the weights file.
        meant: What the configuration implies; None where it implies nothing that can be trusted, and then only what
            no configuration could allow is found.
        schema: Name and shape of every tensor of the base.
        limits: The policy's bounds; ``dtypes`` is read here.
    """
    found = []
    for key, value in header.metadata.items():
        if key != BASE_KEY and METADATA.get(key) != value:
            found.append(_of("container", f"__metadata__: {show(key)}", show(value), f"format: pt, and {BASE_KEY}"))
    linear = linear_modules(schema)
    expected = meant.shapes if meant is not None else {}
    for name, info in header.tensors.items():
        factor = _FACTOR.fullmatch(name)
        possible = name in expected if meant is not None else factor and (factor[1] is None or factor[1] in linear)
        if not possible:
            found.append(_trespass(name, schema, len(expected)))
        elif name in expected and info.shape != expected[name]:
            allowed = f"{list(expected[name])}, which configuration and base imply"
            found.append(_of("shape", name, f"shape {list(info.shape)}", allowed))
        if info.dtype not in limits.dtypes:
            found.append(_of("dtype", name[:200], info.dtype, ", ".join(limits.dtypes)))
    for key, shape in expected.items():
        if key not in header.tensors:
            found.append(_of("missing factor", key, "no such tensor", f"one of shape {list(shape)}"))
    return found


def check_sizes(modules: tuple[Module, ...], limits: AdapterLimits) -> list[Violation]:
    """Ranks and scales out of bounds."""
    found = []
    for module in modules:
        if module.rank > limits.max_rank:
            found.append(_of("magnitude", module.name, f"rank {module.rank}", f"at most {limits.max_rank}"))
        if not abs(module.scale) <= limits.max_scale:
            found.append(_of("magnitude", module.name, f"scale {module.scale:g}", f"at most {limits.max_scale:g}"))
    return found


def _is_embedding(module: str) -> bool:
    last = module.rsplit(".", 1)[-1]
    return "embed" in last or last in ("wte", "wpe")


def _of(threat: str, key: str, found: str, allowed: str) -> Violation:
    return Violation(threat, WEIGHTS_FILE, key, found, allowed)


def _target(where: str, entry: Json, allowed: str) -> Violation:
    return _said(where, show(entry), allowed)


def _said(where: str, found: str, allowed: str) -> Violation:
    return Violation("undeclared module", where, "target_modules", found, allowed)


def _trespass(name: str, schema: Mapping[str, tuple[int, ...]], expected: int) -> Violation:
    """What an unexpected tensor would do."""
    allowed = f"the {expected} tensors that the configuration implies on this base"
    bare = name.removeprefix(_PREFIX).replace(".base_layer.", ".").replace(".modules_to_save.", ".")
    shown = name[:200]
    if bare in schema:
        effect = f"a tensor that overwrites {bare} of the base, also while the adapter is disabled"
        return _of("base overwrite", shown, effect, allowed)
    for mark in (".lora_", ".tinylora_"):
        if mark in name:
            module = bare.split(mark, 1)[0]
            known = f"{module}.weight" in schema
            what = "no declared target" if known else "no module of the base"
            said = f"a tensor of {show(module, 200)}, which is {what}"
            return _of("undeclared module", shown, said, allowed)
    return _of("undeclared module", shown, "a tensor that is no factor of anything", allowed)
