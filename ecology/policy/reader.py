"""A policy file as a ``Policy``, or every mistake in it at once.

Three passes, whose mistakes are collected before any is reported, each with file and line:

1. ``source``: YAML that has one reading;
2. ``policy.schema.json``, which editors can use as well: which keys there are, of which type and range;
3. what a schema cannot say: ids are unique, metrics are known, a rule names a split exactly if its metric is measured
   on items, some rule denies, and a layer demands no less than the layer that it ``extends``.

A policy that extends another is compiled: what is returned holds the rules and sections of all layers, tightened, and
names the layers by digest. Waivers are not in the file; ``waivers`` reads them, each signed by itself.

Example:
    ``load_policy(Path("policies/release.yaml")).rules[0].id == "STA-001"``
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from ecology.contracts.evidence import SuiteKind
from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import (
    AdapterLimits,
    ApprovalRules,
    CanaryLimits,
    DataPolicy,
    Decidable,
    ErrorBudget,
    EvaluationPolicy,
    Policy,
    ReproductionLimits,
    ResourceLimits,
    Rule,
    SignaturePolicy,
    WaiverRules,
)
from ecology.documents.source import Mistake, Source, parse_source, read_source, refuse
from ecology.errors import EcologyError, PolicyError
from ecology.kernel.canonical import digest_bytes
from ecology.kernel.codec import structure
from ecology.policy.layers import compiled, layer_of, tighten, tightened_rules, tightened_sections
from ecology.policy.metrics import Metric, known_metrics, split_is_needed
from ecology.policy.shape import near, shape_mistakes, understood

__all__ = ["load_policy", "parse_policy", "schema", "tighten"]

SCHEMA_FILE = Path(__file__).with_name("policy.schema.json")
MAX_LAYERS = 8
MAX_ROOT_BYTES = 1024 * 1024
NOWHERE = "sha256:" + 64 * "0"
SECTION_TYPES: Mapping[str, type] = {
    "signatures": SignaturePolicy,
    "adapter": AdapterLimits,
    "data": DataPolicy,
    "reproduction": ReproductionLimits,
    "resources": ResourceLimits,
    "canary": CanaryLimits,
    "waiver_rules": WaiverRules,
    "approvals": ApprovalRules,
    "decidable": Decidable,
    "evaluation": EvaluationPolicy,
    "error_budget": ErrorBudget,
}


def load_policy(path: Path, suites: Mapping[str, SuiteKind] | None = None) -> Policy:
    """Reads a policy file.

    Args:
        path: ``policies/release.yaml``.
        suites: Ids and kinds of suites beyond the shipped ones, whose metrics rules may name.

    Raises:
        ConfigError: There is no such file.
        PolicyError: It is not a policy; the message lists every mistake with file and line.
    """
    return _load(path, suites, ())


def parse_policy(data: bytes, name: str = "policy", suites: Mapping[str, SuiteKind] | None = None) -> Policy:
    """A policy from bytes, such as those that a report carries.

    Args:
        data: YAML; JSON is YAML.
        name: For messages.
        suites: Ids and kinds of suites beyond the shipped ones.

    Raises:
        PolicyError: It is not a policy, or it extends another, which bytes alone cannot; the message lists every
        mistake
            with its line.
    """
    source = parse_source(data, name, PolicyError)
    if isinstance(source.data, Mapping) and "extends" in source.data:
        alone = source.mistake(("extends",), "only a file can extend the file beside it")
        refuse(source, [*source.mistakes, *shape_mistakes(source, _schema()), alone], "the policy")
    return _policy(source, suites, None)


def schema() -> Mapping[str, Json]:
    """The JSON Schema (Draft 2020-12) of a policy file, as shipped beside this module."""
    return cast(Mapping[str, Json], json.loads(SCHEMA_FILE.read_bytes()))


@functools.cache
def _schema() -> Mapping[str, Json]:
    return understood(schema())


def _load(path: Path, suites: Mapping[str, SuiteKind] | None, inner: tuple[Path, ...]) -> Policy:
    source = read_source(path, PolicyError)
    outer = None
    if isinstance(source.data, Mapping) and isinstance(name := source.data.get("extends"), str):
        target = path.parent / (name if name.endswith(".yaml") else f"{name}.yaml")
        problem = ""
        if Path(name).name != name:
            problem = f"{name!r:.80} is a path; a layer lies beside the file that extends it"
        elif target.resolve() in (p.resolve() for p in (*inner, path)):
            problem = f"{name!r} extends this policy in its turn"
        elif len(inner) >= MAX_LAYERS:
            problem = f"more than {MAX_LAYERS} layers"
        elif not target.is_file():
            known = sorted(p.name for p in path.parent.glob("*.yaml") if not p.name.endswith("_test.yaml"))
            problem = f"there is no {target.name} beside this file; {near(target.name, known)}"
        if problem:
            found = [*source.mistakes, *shape_mistakes(source, _schema()), source.mistake(("extends",), problem)]
            refuse(source, found, "the policy")
        outer = _load(target, suites, (*inner, path))
    return _with_roots(_policy(source, suites, outer), path.parent, source)


def _with_roots(policy: Policy, folder: Path, source: Source) -> Policy:
    """The policy with the trusted roots that its identities name, each compared with its digest."""
    signatures, mistakes, identities = policy.signatures, [], []
    for index, one in enumerate(signatures.identities):
        place = ("signatures", "identities", index, "trusted_root")
        if one.root:  # an outer layer's, read beside that layer
            identities.append(one)
            continue
        try:
            if Path(one.trusted_root).name != one.trusted_root:
                raise PolicyError("it is a path; a trusted root lies beside the policy that names it")
            with (folder / one.trusted_root).open("rb") as file:
                data = file.read(MAX_ROOT_BYTES + 1)
            if (found := digest_bytes(data)) != one.root_digest:
                raise PolicyError(f"this file is {found}, and the policy pins {one.root_digest}")
            identities.append(dataclasses.replace(one, root=data.decode("utf-8")))
        except (OSError, UnicodeDecodeError, PolicyError) as error:
            mistakes.append(source.mistake(place, f"{one.trusted_root!r:.80}: {error}"))
    refuse(source, mistakes, "the policy")
    if not identities:
        return policy
    return compiled(
        dataclasses.replace(policy, signatures=dataclasses.replace(signatures, identities=tuple(identities)))
    )


def _policy(source: Source, suites: Mapping[str, SuiteKind] | None, outer: Policy | None) -> Policy:
    mistakes = [*source.mistakes, *shape_mistakes(source, _schema())]
    if isinstance(source.data, Mapping):
        mistakes += _meaning_mistakes(source, known_metrics(suites), outer)
    refuse(source, mistakes, "the policy")
    try:
        return _compile(source, outer)
    except EcologyError as error:  # the schema is stricter than the types; this is the net under it
        if isinstance(error, PolicyError):
            raise
        raise PolicyError(error.what, where=f"{source.name}: {error.where}") from error


def _compile(source: Source, outer: Policy | None) -> Policy:
    data = source.data
    head = {
        "owner": outer.owner if outer else "",
        **{k: data[k] for k in ("id", "version", "title", "owner") if k in data},
    }
    own: dict[str, Any] = {
        name: structure(kind, data[name], name) for name, kind in SECTION_TYPES.items() if name in data
    }
    rules = structure(tuple[Rule, ...], data.get("rules", []), "rules")
    if outer is None:
        needed = {name: SECTION_TYPES[name]() for name in ("signatures", "adapter", "data") if name not in own}
        return compiled(Policy(**head, **own, **needed, rules=rules, waivers=(), digest=Digest(NOWHERE)))
    given = {name: {key: getattr(section, key) for key in data[name]} for name, section in own.items()}
    sections, loose = tightened_sections(outer, given)
    tight, wrong = tightened_rules(outer, data.get("tighten", {}))
    mistakes = [source.mistake(place, what) for place, what in loose]
    mistakes += [source.mistake(("tighten", *place), what) for place, what in wrong]
    refuse(source, mistakes, "the policy")
    merged = {**own, **sections}
    layers = (*outer.layers, layer_of(outer))
    return compiled(dataclasses.replace(outer, **head, **merged, rules=(*tight, *rules), layers=layers))


def _meaning_mistakes(source: Source, metrics: Mapping[str, Metric], outer: Policy | None) -> Iterator[Mistake]:
    rules = _mappings(source.data.get("rules"))
    inherited = {rule.id for rule in outer.rules} if outer else set()
    first: dict[str, int] = {}
    for index, rule in rules:
        identity = rule.get("id")
        if isinstance(identity, str):
            if identity in first:
                yield source.mistake(
                    ("rules", index, "id"), f"rule {identity!r} stands twice; first as rules[{first[identity]}]"
                )
            if outer and identity in inherited:
                what = f"rule {identity!r} is policy {outer.id}'s; demand more of it under tighten"
                yield source.mistake(("rules", index, "id"), what)
            first.setdefault(identity, index)
        yield from _rule_mistakes(source, index, rule, metrics)
    if rules and not outer and all(rule.get("severity", "deny") != "deny" for _, rule in rules):
        yield source.mistake(("rules",), "no rule has severity deny, so everything would pass")
    yield from _section_mistakes(source, {*inherited, *first})


def _section_mistakes(source: Source, known: set[str]) -> Iterator[Mistake]:
    waiving = source.data.get("waiver_rules")
    never = waiving.get("never") if isinstance(waiving, Mapping) else None
    for index, name in enumerate(never if isinstance(never, list) else ()):
        if isinstance(name, str) and name not in known:
            place = ("waiver_rules", "never", index)
            yield source.mistake(place, f"there is no rule {name!r}; {near(name, sorted(known))}")
    approvals = source.data.get("approvals")
    if isinstance(approvals, Mapping) and isinstance(keys := approvals.get("approvers"), list):
        required = approvals.get("required")
        different = {str(k.get("public_key", "")).strip() for k in keys if isinstance(k, Mapping)}
        if isinstance(required, int) and required > len(different):
            yield source.mistake(
                ("approvals", "required"), f"{required} of {len(different)} different keys can never be reached"
            )


def _rule_mistakes(
    source: Source, index: int, rule: Mapping[str, Json], metrics: Mapping[str, Metric]
) -> Iterator[Mistake]:
    name = rule.get("metric")
    if not isinstance(name, str):
        return
    if name not in metrics:
        yield source.mistake(("rules", index, "metric"), f"unknown metric {name!r}; {near(name, sorted(metrics))}")
        return
    split, against = rule.get("split", "none"), rule.get("against", "absolute")
    if split_is_needed(name) and split == "none":
        yield source.mistake(("rules", index), f"{name} is measured on items; add split: public, hidden or fresh")
    if not split_is_needed(name) and split != "none":
        yield source.mistake(("rules", index, "split"), f"{name} is not measured on items; leave split out")
    if metrics[name].kind == "count" and against != "absolute":
        yield source.mistake(("rules", index, "against"), f"{name} is a count, which is compared with nothing")
    if rule.get("clustered") is True and (split == "none" or metrics[name].kind == "count"):
        yield source.mistake(("rules", index, "clustered"), f"{name} is not measured on items that come in families")
    if rule.get("clustered") is True and rule.get("anytime") is True:
        yield source.mistake(
            ("rules", index, "clustered"), "bounds that hold at any time need independent items; choose one of the two"
        )
    if metrics[name].kind != "count" and rule.get("comparator") == "==":
        yield source.mistake(("rules", index, "comparator"), f"{name} has an interval, so it can be >= or <= only")


def _mappings(value: Json) -> list[tuple[int, Mapping[str, Json]]]:
    items: Iterable[Json] = value if isinstance(value, list) else ()
    return [(index, item) for index, item in enumerate(items) if isinstance(item, Mapping)]
