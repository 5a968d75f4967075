"""A policy file as a ``Policy``, or every mistake in it at once.

Three passes, whose mistakes are collected before any is reported, each with file and line:

1. ``source``: YAML that has one reading;
2. ``policy.schema.json``, which editors can use as well: which keys there are, of which type and range;
3. what a schema cannot say: ids are unique, metrics are known, a rule names a split exactly if its metric is measured
   on items, waivers name a rule that can be waived and the instant they expire, some rule denies.

Example:
    ``load_policy(Path("policies/release.yaml")).rules[0].id == "STA-001"``
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from ecology.contracts.evidence import SuiteKind
from ecology.contracts.identity import Json
from ecology.contracts.policy import Policy
from ecology.errors import EcologyError, PolicyError
from ecology.kernel.codec import structure
from ecology.kernel.verdicts import NEVER_WAIVED, instant
from ecology.policy.layers import policy_digest, tighten
from ecology.policy.metrics import Metric, known_metrics, split_is_needed
from ecology.policy.source import Mistake, Source, parse_source, read_source, refuse

__all__ = ["load_policy", "parse_policy", "schema", "tighten"]

SCHEMA_FILE = Path(__file__).with_name("policy.schema.json")


def load_policy(path: Path, suites: Mapping[str, SuiteKind] | None = None) -> Policy:
    """Reads a policy file.

    Args:
        path: ``policies/release.yaml``.
        suites: Ids and kinds of suites beyond the shipped ones, whose metrics rules may name.

    Raises:
        ConfigError: There is no such file.
        PolicyError: It is not a policy; the message lists every mistake with file and line.
    """
    return _policy(read_source(path), suites)


def parse_policy(data: bytes, name: str = "policy", suites: Mapping[str, SuiteKind] | None = None) -> Policy:
    """A policy from bytes, such as those that a report carries.

    Args:
        data: YAML; JSON is YAML.
        name: For messages.
        suites: Ids and kinds of suites beyond the shipped ones.

    Raises:
        PolicyError: It is not a policy; the message lists every mistake with its line.
    """
    return _policy(parse_source(data, name), suites)


def schema() -> Mapping[str, Json]:
    """The JSON Schema (Draft 2020-12) of a policy file, as shipped beside this module."""
    return cast(Mapping[str, Json], json.loads(SCHEMA_FILE.read_bytes()))


def shape_mistakes(source: Source, validator: Any) -> Iterator[Mistake]:
    """Where the data is not what a JSON Schema says, worded for people.

    Args:
        source: The document.
        validator: A ``jsonschema`` validator.
    """
    for error in validator.iter_errors(source.data):
        place = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            known = sorted(error.schema.get("properties", {}))
            for key in sorted(set(error.instance) - set(known)):
                yield source.mistake((*place, key), f"unknown key; {_near(key, known)}")
        elif error.validator == "required":
            for key in (key for key in error.validator_value if key not in error.instance):
                yield source.mistake(place, f"missing key {key!r}")
        elif error.validator == "type":
            yield source.mistake(place, f"expected {error.validator_value}, found {_short(error.instance)}")
        elif error.validator == "enum":
            choices = ", ".join(str(choice) for choice in error.validator_value)
            yield source.mistake(place, f"expected one of {choices}, found {_short(error.instance)}")
        elif error.validator == "pattern":
            yield source.mistake(place, f"{_short(error.instance)} does not match {error.validator_value}")
        else:
            yield source.mistake(place, error.message[:200])


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator  # noqa: PLC0415  (0.1 s that --help need not wait for)

    return Draft202012Validator(schema())


def _policy(source: Source, suites: Mapping[str, SuiteKind] | None) -> Policy:
    mistakes = [*source.mistakes, *shape_mistakes(source, _validator())]
    if isinstance(source.data, Mapping):
        mistakes += _meaning_mistakes(source, known_metrics(suites))
    refuse(source, mistakes, "the policy")
    defaults = {"owner": "", "signatures": {}, "adapter": {}, "data": {}, "waivers": []}
    try:
        policy = structure(Policy, {**defaults, **source.data, "digest": "sha256:" + 64 * "0"})
    except EcologyError as error:  # the schema is stricter than the types; this is the net under it
        raise PolicyError(error.what, where=f"{source.name}: {error.where}") from error
    return dataclasses.replace(policy, digest=policy_digest(policy))


def _meaning_mistakes(source: Source, metrics: Mapping[str, Metric]) -> Iterator[Mistake]:
    rules = _mappings(source.data.get("rules"))
    first: dict[str, int] = {}
    for index, rule in rules:
        identity = rule.get("id")
        if isinstance(identity, str):
            if identity in first:
                yield source.mistake(
                    ("rules", index, "id"), f"rule {identity!r} stands twice; first as rules[{first[identity]}]"
                )
            first.setdefault(identity, index)
        yield from _rule_mistakes(source, index, rule, metrics)
    if rules and all(rule.get("severity", "deny") != "deny" for _, rule in rules):
        yield source.mistake(("rules",), "no rule has severity deny, so everything would pass")
    named = {rule.get("id"): rule for _, rule in rules}
    for index, waiver in _mappings(source.data.get("waivers")):
        yield from _waiver_mistakes(source, index, waiver, named)


def _rule_mistakes(
    source: Source, index: int, rule: Mapping[str, Json], metrics: Mapping[str, Metric]
) -> Iterator[Mistake]:
    name = rule.get("metric")
    if not isinstance(name, str):
        return
    if name not in metrics:
        yield source.mistake(("rules", index, "metric"), f"unknown metric {name!r}; {_near(name, sorted(metrics))}")
        return
    split, against = rule.get("split", "none"), rule.get("against", "absolute")
    if split_is_needed(name) and split == "none":
        yield source.mistake(("rules", index), f"{name} is measured on items; add split: public, hidden or fresh")
    if not split_is_needed(name) and split != "none":
        yield source.mistake(("rules", index, "split"), f"{name} is not measured on items; leave split out")
    if metrics[name].kind == "count" and against != "absolute":
        yield source.mistake(("rules", index, "against"), f"{name} is a count, which is compared with nothing")
    if metrics[name].kind != "count" and rule.get("comparator") == "==":
        yield source.mistake(("rules", index, "comparator"), f"{name} has an interval, so it can be >= or <= only")


def _waiver_mistakes(
    source: Source, index: int, waiver: Mapping[str, Json], rules: Mapping[Any, Mapping[str, Json]]
) -> Iterator[Mistake]:
    name = waiver.get("rule")
    if isinstance(name, str) and name not in rules:
        known = sorted(str(rule) for rule in rules)
        yield source.mistake(("waivers", index, "rule"), f"there is no rule {name!r}; {_near(name, known)}")
    elif isinstance(name, str) and rules[name].get("metric") == NEVER_WAIVED:
        yield source.mistake(("waivers", index, "rule"), "a missing signature cannot be waived")
    if isinstance(expires := waiver.get("expires"), str):
        try:
            instant(expires)
        except PolicyError as error:
            yield source.mistake(("waivers", index, "expires"), f"{error.what}; {error.todo}")


def _mappings(value: Json) -> list[tuple[int, Mapping[str, Json]]]:
    items: Iterable[Json] = value if isinstance(value, list) else ()
    return [(index, item) for index, item in enumerate(items) if isinstance(item, Mapping)]


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}? Known: {', '.join(known)}" if close else f"known: {', '.join(known)}"


def _short(value: Json) -> str:
    kinds = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    kind = kinds.get(type(value), type(value).__name__)
    return kind if isinstance(value, (dict, list)) or value is None else f"{kind} {value!r:.60}"
