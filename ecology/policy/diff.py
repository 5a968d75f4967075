"""What changed between two policies, in words: ``SAFE-001 tightened: threshold from >= 0.95 to >= 0.98``.

Rules are matched by id and sections by name, each key by the table in ``strictness``, so that a reader sees at once
whether anything was loosened. A rule whose metric, split, comparator or comparison changed demands something else, and
is shown as ``changed``. What only words changed is ``reworded``: no verdict depends on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from ecology.contracts.policy import Policy, Rule
from ecology.kernel.verdicts import demand
from ecology.policy.strictness import ADDING, SECTIONS, WORDS_ONLY, Change, compare_key, compare_rule_key

Kind = Literal["tightened", "loosened", "changed", "reworded"]
KINDS: dict[Change, Kind] = {
    "tighter": "tightened",
    "looser": "loosened",
    "other": "changed",
    "reworded": "reworded",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One change."""

    kind: Kind
    where: str
    """A rule id, ``section.key``, or ``policy``."""
    what: str

    def __str__(self) -> str:
        return f"{self.where} {self.kind}: {self.what}"


def diff(old: Policy, new: Policy) -> tuple[Difference, ...]:
    """Every change from one policy to another: loosened first, reworded last."""
    found = [*_rules(old, new), *_sections(old, new), *_head(old, new)]
    order: Sequence[Kind] = ("loosened", "changed", "tightened", "reworded")
    return tuple(sorted(found, key=lambda difference: order.index(difference.kind)))


def summary(differences: Sequence[Difference]) -> str:
    """``2 loosened, 1 tightened, 3 reworded``; ``nothing changed`` where nothing did."""
    counts = {
        kind: sum(d.kind == kind for d in differences) for kind in ("loosened", "changed", "tightened", "reworded")
    }
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing changed"


def _rules(old: Policy, new: Policy) -> Iterator[Difference]:
    before, after = ({rule.id: rule for rule in policy.rules} for policy in (old, new))
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            gone = before[name]
            kind: Kind = "reworded" if gone.severity == "info" else "loosened"
            yield Difference(kind, name, f"taken out; it demanded {gone.metric} {demand(gone)}")
        elif name not in before:
            rule = after[name]
            kind = "reworded" if rule.severity == "info" else "tightened"
            yield Difference(kind, name, f"added; it demands {rule.metric} {demand(rule)} ({rule.severity})")
        else:
            yield from _rule(before[name], after[name])


def _rule(old: Rule, new: Rule) -> Iterator[Difference]:
    subject: tuple[str, ...] = ("metric", "split", "against", "comparator", "quantile")
    if any(getattr(old, key) != getattr(new, key) for key in subject):
        yield Difference("changed", old.id, f"it demanded {_topic(old)}; now {_topic(new)}")
        subject = (*subject, "threshold")
    for field in dataclasses.fields(Rule):
        key = field.name
        change = compare_rule_key(old, key, getattr(new, key))
        if key in subject or change == "same":
            continue
        before, after = getattr(old, key), getattr(new, key)
        if key == "threshold":
            text = f"threshold from {demand(old)} to {demand(new)}"
        elif key in ("title", "rationale"):
            text = f"{key}: {after!r}"
        else:
            text = f"{key} from {_shown(before)} to {_shown(after)}"
        yield Difference(KINDS[change], old.id, text)


def _topic(rule: Rule) -> str:
    parts = [f"{rule.metric} {demand(rule)}"]
    parts += [f"on {rule.split} items"] if rule.split != "none" else []
    parts += [f"against {rule.against}"] if rule.against != "absolute" else []
    parts += [f"at quantile {rule.quantile:g}"] if rule.metric.startswith("resource.") else []
    return " ".join(parts)


def _sections(old: Policy, new: Policy) -> Iterator[Difference]:
    for section in SECTIONS:
        before, after = getattr(old, section), getattr(new, section)
        if before is None and after is None:
            continue
        if before is None or after is None:
            nobody = section == "waiver_rules" and not (after or before).approvers
            added: Change = "reworded" if nobody else ADDING.get(section, "tighter")
            taken: Change = {"tighter": "looser", "looser": "tighter"}.get(added, added)  # type: ignore[assignment]
            what = "taken out" if after is None else f"added: {_entries(after)}"
            yield Difference(KINDS[taken if after is None else added], section, what)
            continue
        for field in dataclasses.fields(before):
            one, other = getattr(before, field.name), getattr(after, field.name)
            change = compare_key(section, field.name, one, other)
            if change != "same":
                text = f"from {_shown(one)} to {_shown(other)}"
                yield Difference(KINDS[change], f"{section}.{field.name}", text)


def _head(old: Policy, new: Policy) -> Iterator[Difference]:
    for key in ("id", *(word for word in WORDS_ONLY if hasattr(old, word))):
        if getattr(old, key) != getattr(new, key):
            text = f"{key} from {_shown(getattr(old, key))} to {_shown(getattr(new, key))}"
            yield Difference("reworded", "policy", text)


def _entries(section: Any) -> str:
    return ", ".join(f"{f.name} {_shown(getattr(section, f.name))}" for f in dataclasses.fields(section))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(getattr(item, 'name', str(item)) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value) or "nothing"
