"""Suites on disk: read, checked, expanded.

A suite is `suites/<id>/suite.yaml`, a grammar with a public split (its seed stands in the file) and a hidden one (its
seed is secret and comes from the caller). What was read is immutable and knows its digest, so that a score can say what
it was measured on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ecology.contracts.evidence import Item, Suite
from ecology.contracts.identity import Json
from ecology.errors import ConfigError
from ecology.evaluator import grammar
from ecology.evaluator.attacks import ATTACKS, attacked
from ecology.evaluator.cells import answer_of, cells_of, prompt_of
from ecology.evaluator.fields import read_yaml, refuse, shape_mistakes
from ecology.evaluator.suite_rules import BY_LIKELIHOOD, TOP, TOP_OPTIONAL, grammar_mistakes, suite_mistakes
from ecology.kernel.canonical import canonical, digest, digest_bytes

OPTIONS = 4
_ATTACKED = {
    "id": str, "version": int, "title": str, "licence": str, "capability": str, "of": str, "attacks": list,
    "splits": dict,
}  # fmt: skip


def load_suite(path: Path) -> Suite:
    """Read one suite.

    Args:
        path: A `suite.yaml`, or the folder that holds one.

    Raises:
        ConfigError: If the file cannot be read or does not describe a suite; all mistakes are listed.
    """
    path = path / "suite.yaml" if path.is_dir() else path
    data, raw = read_yaml(path, "the suite")
    if isinstance(data, dict) and "attacks" in data:
        return _attacked(path, data, raw)
    errors = [*shape_mistakes(data, TOP, TOP_OPTIONAL, ""), *(grammar_mistakes(data) if isinstance(data, dict) else ())]
    if not errors:
        errors += suite_mistakes(data)
    refuse(path, errors)
    return Suite(
        id=data["id"],
        version=data["version"],
        title=data["title"],
        licence=data["licence"],
        kind=data["kind"],
        capability=data["capability"],
        digest=digest_bytes(raw),
        max_new_tokens=data.get("max_new_tokens", 0),
        schema=data.get("schema", {}),
        grammar={
            key: value
            for key, value in data.items()
            if key in {"expect", "wrap", "answer", "splits", "symbols", "cells", "canary", "calibrated"}
        },
    )


def _attacked(path: Path, data: Mapping[str, Json], raw: bytes) -> Suite:
    """A suite that asks the items of another one in disguise."""
    errors = shape_mistakes(data, _ATTACKED, {}, "")
    errors += [f"attacks: {kind!r} is unknown; known: {', '.join(ATTACKS)}" for kind in data["attacks"]
               if kind not in ATTACKS] if not errors else []  # fmt: skip
    refuse(path, errors)
    of = load_suite(path.parent.parent / data["of"])
    splits = {name: {**plan, "items": data["splits"].get(name, plan["items"])} for name, plan in
              of.grammar["splits"].items()}  # fmt: skip
    return Suite(
        id=data["id"],
        version=data["version"],
        title=data["title"],
        licence=data["licence"],
        kind=of.kind,
        capability=data["capability"],
        digest=digest([digest_bytes(raw), of.digest]),
        max_new_tokens=of.max_new_tokens,
        schema={},
        grammar={"of": of, "attacks": list(data["attacks"]), "splits": splits, "expect": of.grammar.get("expect")},
    )


def items(suite: Suite, split: str, seed: str | None = None, n: int | None = None) -> tuple[Item, ...]:
    """Expand one split of a suite.

    Args:
        suite: What `load_suite` returned.
        split: Name of a split of its grammar, `public` or `hidden`.
        seed: The secret seed; None takes the one in the file.
        n: How many items; None takes the number in the file. With one seed, fewer items are a prefix of more.

    Raises:
        ConfigError: If the split is unknown, has no seed, or cannot give so many distinct items.
    """
    where = f"suite {suite.id}: splits.{split}"
    if "records" in suite.grammar and split == "public":
        return tuple(suite.grammar["records"][:n])
    if split not in suite.grammar.get("splits", {}):
        known = ", ".join(suite.grammar.get("splits", ("public",)))
        raise ConfigError("there is no such split", where=where, todo=f"known: {known}")
    plan = suite.grammar["splits"][split]
    seed = plan.get("seed") if seed is None else seed
    if seed is None:
        raise ConfigError("this split has no seed of its own", where=where, todo="give the secret seed")
    wanted = plan["items"] if n is None else n
    if kinds := suite.grammar.get("attacks"):
        plain = items(suite.grammar["of"], split, seed, wanted)
        return tuple(attacked(item, kinds[place % len(kinds)], seed) for place, item in enumerate(plain))
    derived = grammar.expand(cells_of(suite.grammar, split), seed, wanted)
    return tuple(_item(suite, derivation, seed) for derivation in derived)


def has_hidden(suite: Suite) -> bool:
    """Whether a suite has items that nobody can have seen; what others published has none."""
    return "hidden" in suite.grammar.get("splits", {})


def _item(suite: Suite, derivation: grammar.Derivation, seed: str) -> Item:
    answer, choices = "", tuple[str, ...]()
    if suite.kind in BY_LIKELIHOOD:
        choices, place = grammar.options(derivation, seed, OPTIONS)
        answer = str(place)
    elif suite.kind == "numeric":
        answer = str(grammar.fill(derivation.cell.answer, derivation.bindings))
    elif suite.kind == "instruction":
        told = derivation.cell.constraints.items()
        filled = {key: grammar.fill(text, derivation.bindings) if isinstance(text, str) else text for key, text in told}
        answer = canonical(filled).decode()
    elif suite.kind == "extraction":
        answer = canonical(answer_of(suite.grammar, derivation)).decode()
    prompt = prompt_of(suite.grammar, derivation)
    category = derivation.cell.category
    name = digest([prompt, answer, choices, category])[7:23]
    family = f"{derivation.cell.id}: {derivation.template}"
    return Item(name, prompt, answer, choices, category, derivation.cell.difficulty, family)
