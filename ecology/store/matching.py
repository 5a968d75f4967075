r"""Which modules a PEFT configuration means, by PEFT's own rules, on text that a stranger wrote.

PEFT decides by name: a target list matches a module whose name equals an entry or ends with ``.`` and an entry; a
target string is a regular expression over the whole name; keys of ``rank_pattern`` and ``alpha_pattern`` are regular
expressions behind an optional ``.``-ended prefix, the first that matches wins (peft 0.21.2,
``tuners_utils.check_target_module_exists``, ``utils.other.get_pattern_key``). We match alike, since a module that we
leave out or scale otherwise is another function.

Python's regular expressions can take exponential time, so a pattern is refused before it is run when it repeats a
group, refers back or looks around, or when the bound on its backtracking (the sum over names of len(name)^q / q!, with
q repeats in its longest alternative) exceeds ``MAX_STEPS``. Patterns that people write, such as
``.*layers\.[0-3]\..*(q|v)_proj``, are far below it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from ecology.contracts.identity import Json
from ecology.errors import MalformedArtifact

MAX_PATTERN_CHARACTERS = 2048
MAX_STEPS = 1e9
"""About ten seconds in the worst case."""

_ESCAPED = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_DANGEROUS = re.compile(r"\)[*+{]|\(\?(?!:)|\}[*+{]")


def compile_pattern(pattern: str, names: Iterable[str], where: str) -> re.Pattern[str]:
    """``pattern`` as a regular expression that is safe to run on ``names``.

    Raises:
        MalformedArtifact: It is no regular expression, or its cost has no acceptable bound.
    """
    todo = "name the modules in full"
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise MalformedArtifact(f"a pattern of {len(pattern)} characters", where=where, todo=todo)
    if re.search(r"\\[1-9]", pattern):
        raise MalformedArtifact(f"pattern {pattern!r:.120} refers back to a group", where=where, todo=todo)
    bare = _ESCAPED.sub("x", pattern)
    if _DANGEROUS.search(bare):
        raise MalformedArtifact(f"pattern {pattern!r:.120} repeats a group or looks around", where=where, todo=todo)
    repeats = max(len(re.findall(r"[*+]|\{\d*,\d*\}", part)) for part in bare.split("|")) + 1  # and PEFT's own prefix
    if sum(float(len(name)) ** repeats / math.factorial(repeats) for name in names) > MAX_STEPS:
        raise MalformedArtifact(f"pattern {pattern!r:.120} is too costly to match", where=where, todo=todo)
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise MalformedArtifact(f"pattern {pattern!r:.120} is no regular expression: {error}", where=where) from error


def targeted(config: Mapping[str, Json], names: Iterable[str], where: str) -> frozenset[str]:
    """Those of ``names`` that PEFT would put a LoRA on.

    Args:
        config: Parsed ``adapter_config.json``.
        names: Module names.
        where: File name for messages.

    Raises:
        MalformedArtifact: ``target_modules`` or one of its companions is missing, of the wrong type or unsafe.
    """
    names = tuple(names)
    target = config.get("target_modules")
    layers, layers_pattern = config.get("layers_to_transform"), config.get("layers_pattern")
    if isinstance(target, str):
        if layers is not None or layers_pattern:
            raise MalformedArtifact("layers_to_transform goes with a list of target_modules only", where=where)
        if target == "all-linear":  # PEFT resolves it against the base; what was saved is what it resolved to
            chosen = set(names)
        else:
            expression = compile_pattern(target, names, f"{where}: target_modules")
            chosen = {name for name in names if expression.fullmatch(name)}
    elif _strings(target) and target:
        entries, suffixes = frozenset(target), tuple(f".{entry}" for entry in target)
        pick = _layer_filter(layers, layers_pattern, names, where)
        chosen = {name for name in names if name in entries or (name.endswith(suffixes) and pick(name))}
    else:
        raise MalformedArtifact(
            "target_modules names no module", where=where, todo="save the adapter with PEFT, which records its targets"
        )
    return frozenset(chosen - _excluded(config.get("exclude_modules"), names, where))


class _LayerFilter:
    """``layers_to_transform`` and ``layers_pattern``: whether a name's layer index is among the wanted."""

    def __init__(self, wanted: frozenset[int] | None, expressions: tuple[re.Pattern[str], ...]) -> None:
        self.wanted, self.expressions = wanted, expressions

    def __call__(self, name: str) -> bool:
        if self.wanted is None:
            return True
        match = next((found for e in self.expressions if (found := e.match(name))), None)
        return match is not None and int(match["idx"]) in self.wanted


def _layer_filter(layers: Json, patterns: Json, names: Iterable[str], where: str) -> _LayerFilter:
    if layers is None or layers == []:
        return _LayerFilter(None, ())
    wanted = [layers] if type(layers) is int else layers
    if not isinstance(wanted, list) or not all(type(layer) is int for layer in wanted):
        raise MalformedArtifact("layers_to_transform is neither a layer nor a list of layers", where=where)
    patterns = [patterns] if isinstance(patterns, str) and patterns else patterns or []
    if not _strings(patterns):
        raise MalformedArtifact("layers_pattern is neither a name nor a list of names", where=where)
    for pattern in patterns:
        compile_pattern(pattern, names, f"{where}: layers_pattern")
    sources = [rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\." for pattern in patterns] or [r".*?\.[^.]*\.(?P<idx>\d+)\."]
    try:
        return _LayerFilter(frozenset(wanted), tuple(map(re.compile, sources)))
    except re.error as error:
        raise MalformedArtifact(f"layers_pattern is no regular expression: {error}", where=where) from error


def _excluded(exclude: Json, names: tuple[str, ...], where: str) -> set[str]:
    if not exclude:
        return set()
    if isinstance(exclude, str):
        expression = compile_pattern(exclude, names, f"{where}: exclude_modules")
        return {name for name in names if expression.fullmatch(name)}
    if not _strings(exclude):
        raise MalformedArtifact("exclude_modules is neither a pattern nor a list of names", where=where)
    suffixes = tuple(f".{entry}" for entry in exclude)
    return {name for name in names if name in exclude or name.endswith(suffixes)}


def pattern_values(
    config: Mapping[str, Json], key: str, default: float, names: Iterable[str], where: str
) -> Mapping[str, Json]:
    """The value of ``rank_pattern`` or ``alpha_pattern`` for each of ``names``, ``default`` where no key matches.

    Args:
        config: Parsed ``adapter_config.json``.
        key: ``rank_pattern`` or ``alpha_pattern``.
        default: The configuration's ``r`` or ``lora_alpha``.
        names: Module names.
        where: File name for messages.

    Raises:
        MalformedArtifact: It is not a mapping, or a key is no safe pattern.
    """
    names = tuple(names)
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise MalformedArtifact(f"{key} is not a mapping", where=where)
    if len(patterns) * len(names) > 1_000_000:
        raise MalformedArtifact(f"{key} has {len(patterns)} entries for {len(names)} modules", where=where)
    values = dict.fromkeys(names, default)
    open_names = dict.fromkeys(names)
    for pattern, value in patterns.items():  # in file order: the first match wins
        compile_pattern(pattern, open_names, f"{where}: {key}")
        expression = re.compile(rf"(.*\.)?({pattern})$")
        for name in [name for name in open_names if expression.match(name)]:
            values[name] = value
            del open_names[name]
    return values


def _strings(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
