r"""Which modules a PEFT configuration means, by PEFT's own rules, on text that a stranger wrote.

PEFT decides by name: a target list matches a module whose name equals an entry or ends with ``.`` and an entry; a
target string is a regular expression over the whole name; keys of ``rank_pattern`` and ``alpha_pattern`` are regular
expressions behind an optional ``.``-ended prefix, the first that matches wins (peft 0.21.2,
``tuners_utils.check_target_module_exists``, ``utils.other.get_pattern_key``). We match alike, since a module that we
leave out or scale otherwise is another function.

Patterns are matched by ``store.automaton``, in bounded time. A key is parsed by itself and in the place where PEFT puts
it, between ``(.*\.)?(`` and ``)$``: the text ``a)|(b`` is a pattern there and none here, and is refused.
``layers_pattern`` may hold names only: in a pattern, which index is the layer's would depend on the order in which
``re`` backtracks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ecology.contracts.identity import Json
from ecology.errors import MalformedArtifact
from ecology.store.automaton import MAX_PATTERN_CHARACTERS, Budget, ending_matches, full_matches

MOST_PATTERNS = 256
"""Entries of ``rank_pattern`` or ``alpha_pattern`` that are allowed for a base of few modules."""
MOST_LAYERS_PATTERNS = 16
"""Names in ``layers_pattern``; models have one or two."""

_NAME = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")
_PLAIN = re.compile(r"(?:[A-Za-z0-9_.]|\\\.)+")
"""A name, its dots escaped or not: it has one length, and matches in one way at most."""


def targeted(
    config: Mapping[str, Json], names: Iterable[str], where: str, budget: Budget | None = None
) -> frozenset[str]:
    """Those of ``names`` that PEFT would put a LoRA on.

    Args:
        config: Parsed ``adapter_config.json``.
        names: Module names.
        where: File name for messages.
        budget: What its patterns may cost; one of their own by default.

    Raises:
        MalformedArtifact: ``target_modules`` or one of its companions is missing, of the wrong type or unsafe.
    """
    names, budget = tuple(names), budget or Budget()
    target = config.get("target_modules")
    layers, layers_pattern = config.get("layers_to_transform"), config.get("layers_pattern")
    if isinstance(target, str):
        if layers is not None or layers_pattern:
            raise MalformedArtifact("layers_to_transform goes with a list of target_modules only", where=where)
        # PEFT resolves all-linear against the base; what was saved is what it resolved to
        whole = target == "all-linear"
        chosen = set(names if whole else full_matches(target, names, f"{where}: target_modules", budget))
    elif _strings(target) and target:
        entries, suffixes = frozenset(target), tuple(f".{entry}" for entry in target)
        pick = _layer_filter(layers, layers_pattern, where)
        chosen = {name for name in names if name in entries or (name.endswith(suffixes) and pick(name))}
    else:
        raise MalformedArtifact(
            "target_modules names no module", where=where, todo="save the adapter with PEFT, which records its targets"
        )
    return frozenset(chosen - _excluded(config.get("exclude_modules"), names, where, budget))


class _LayerFilter:
    """``layers_to_transform`` and ``layers_pattern``: whether a name's layer index is among the wanted."""

    def __init__(self, wanted: frozenset[int] | None, expressions: tuple[re.Pattern[str], ...]) -> None:
        self.wanted, self.expressions = wanted, expressions

    def __call__(self, name: str) -> bool:
        if self.wanted is None:
            return True
        match = next((found for e in self.expressions if (found := e.match(name))), None)
        return match is not None and int(match["idx"]) in self.wanted


def _layer_filter(layers: Json, patterns: Json, where: str) -> _LayerFilter:
    if layers is None or layers == []:
        return _LayerFilter(None, ())
    wanted = [layers] if type(layers) is int else layers
    if not isinstance(wanted, list) or not all(type(layer) is int for layer in wanted):
        raise MalformedArtifact("layers_to_transform is neither a layer nor a list of layers", where=where)
    patterns = [patterns] if isinstance(patterns, str) and patterns else patterns or []
    if not _strings(patterns):
        raise MalformedArtifact("layers_pattern is neither a name nor a list of names", where=where)
    if len(patterns) > MOST_LAYERS_PATTERNS:
        raise MalformedArtifact(f"layers_pattern has {len(patterns)} names", where=where)
    for pattern in patterns:
        if len(pattern) > 256 or not _NAME.fullmatch(pattern):
            raise MalformedArtifact(f"layers_pattern {pattern!a:.120} is no name", where=where)
    sources = [rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\." for pattern in patterns] or [r".*?\.[^.]*\.(?P<idx>\d+)\."]
    return _LayerFilter(frozenset(wanted), tuple(map(re.compile, sources)))


def _excluded(exclude: Json, names: tuple[str, ...], where: str, budget: Budget) -> set[str]:
    if not exclude:
        return set()
    if isinstance(exclude, str):
        return set(full_matches(exclude, names, f"{where}: exclude_modules", budget))
    if not _strings(exclude):
        raise MalformedArtifact("exclude_modules is neither a pattern nor a list of names", where=where)
    suffixes = tuple(f".{entry}" for entry in exclude)
    return {name for name in names if name in exclude or name.endswith(suffixes)}


def pattern_values(
    config: Mapping[str, Json],
    key: str,
    default: float,
    names: Iterable[str],
    where: str,
    budget: Budget | None = None,
) -> Mapping[str, Json]:
    """The value of ``rank_pattern`` or ``alpha_pattern`` for each of ``names``, ``default`` where no key matches.

    Args:
        config: Parsed ``adapter_config.json``.
        key: ``rank_pattern`` or ``alpha_pattern``.
        default: The configuration's ``r`` or ``lora_alpha``.
        names: Module names.
        where: File name for messages.
        budget: What its patterns may cost; one of their own by default.

    Raises:
        MalformedArtifact: It is not a mapping, or a key is no safe pattern.
    """
    names, budget = tuple(names), budget or Budget()
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise MalformedArtifact(f"{key} is not a mapping", where=where)
    if len(patterns) > max(MOST_PATTERNS, 2 * len(names)):
        raise MalformedArtifact(f"{key} has {len(patterns)} entries for {len(names)} modules", where=where)
    values = dict.fromkeys(names, default)
    left = dict.fromkeys(names)
    for pattern, value in patterns.items():  # in file order: the first match wins
        if len(pattern) <= MAX_PATTERN_CHARACTERS and _PLAIN.fullmatch(pattern):
            found = _named(pattern, left)
        else:
            found = ending_matches(pattern, left, f"{where}: {key}", budget)
        for name in found:
            values[name] = value
            del left[name]
    return values


def _named(pattern: str, names: Iterable[str]) -> list[str]:
    """What ``ending_matches`` finds for a name, without an automaton: rank and alpha of every module are often said."""
    expression, length = re.compile(pattern), len(pattern.replace("\\.", "."))
    ends = ((name, len(name) - length) for name in names)
    return [n for n, at in ends if (at == 0 or (at > 0 and n[at - 1] == ".")) and expression.fullmatch(n, max(at, 0))]


def _strings(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
