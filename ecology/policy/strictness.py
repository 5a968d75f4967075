"""Which of two values is the stricter one, for every key of a policy: one table for layers, diff and the review page.

With plain comparators "may only tighten" is decidable key by key. ``compare`` says ``tighter``, ``looser``, ``same``,
``reworded`` (nothing is demanded differently) or ``other`` (neither may be said; a layer may not do it).

Law, property-tested: no evidence is admitted by a policy that is ``tighter`` in some keys and ``same`` in the others,
and refused by the one it was compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ecology.contracts.policy import Rule, TrustedKey
from ecology.policy.metrics import known_metrics

Change = Literal["same", "tighter", "looser", "reworded", "other"]
SEVERITIES = ("info", "warn", "deny")
"""From lax to strict."""
WORDS_ONLY = ("title", "rationale", "owner", "controls", "version")
"""What a rule or a policy says about itself; no verdict depends on it."""


def _ordered(stricter: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Change]:
    def compare_(old: Any, new: Any) -> Change:
        return "tighter" if stricter(old, new) else "looser" if stricter(new, old) else "other"

    return compare_


def _names(values: tuple[Any, ...]) -> frozenset[str]:
    """What makes two entries the same: a key is its key material, whatever it is called."""
    return frozenset(v.public_key.strip() if isinstance(v, TrustedKey) else str(v) for v in values)


LESS = _ordered(lambda old, new: new < old)
MORE = _ordered(lambda old, new: new > old)
FEWER = _ordered(lambda old, new: _names(new) < _names(old))
MORE_OF = _ordered(lambda old, new: _names(new) > _names(old))
SEVERER = _ordered(lambda old, new: SEVERITIES.index(new) > SEVERITIES.index(old))
FREE: Callable[[Any, Any], Change] = lambda old, new: "reworded"  # noqa: E731


def _fewer_or_any(old: tuple[str, ...], new: tuple[str, ...]) -> Change:
    """Where an empty list allows everything."""
    if not old or not new:
        return "tighter" if new else "looser"
    return FEWER(old, new)


SECTIONS: Mapping[str, Mapping[str, Callable[[Any, Any], Change]]] = {
    "signatures": {"allow_development": LESS, "trusted": FEWER, "identities": FEWER, "threshold": MORE},
    "adapter": {
        "peft_types": FEWER,
        "dtypes": FEWER,
        "max_rank": LESS,
        "max_scale": LESS,
        "max_file_bytes": LESS,
        "max_relative_norm": LESS,
        "max_relative_spectral_norm": LESS,
    },
    "data": {"forbid_no_train": MORE, "licences": _fewer_or_any, "max_overlap": LESS, "canaries": MORE_OF},
    "reproduction": {
        "operators": _fewer_or_any,
        "max_parents": LESS,
        "max_generation": LESS,
        "max_children": LESS,
        "max_population": LESS,
        "max_runs_per_day": LESS,
        "max_unapproved_generations": LESS,
        "approved_parents_only": MORE,
        "approvers": FEWER,
        "required": MORE,
    },
    "resources": {"max_candidates": LESS, "max_finalists": LESS},
    "canary": {
        "max_alpha": LESS,
        "max_quality_margin": LESS,
        "max_alerts": LESS,
        "max_latency_ratio": LESS,
        "max_first_weight": LESS,
        "min_requests": MORE,
        "min_harmful": MORE,
    },
    "waiver_rules": {"approvers": FEWER, "max_days": LESS, "soon_days": FREE, "never": MORE_OF},
    "approvals": {"required": MORE, "approvers": FEWER, "severity": SEVERER},
    "decidable": {"drop": LESS, "gain": LESS, "probability": MORE, "discordance": MORE, "design_effect": MORE},
    "evaluation": {"functions": FEWER},
    "error_budget": {"admission": LESS, "denial": FREE},
}
"""Every section of a policy that is not its rules."""
ADDING: Mapping[str, Change] = {"waiver_rules": "looser", "evaluation": "looser"}
"""What it is to add a section that was not there; ``tighter`` for all others, since each only forbids."""


def compare_key(section: str, key: str, old: Any, new: Any) -> Change:
    """How a key of a section changed."""
    if old == new or (isinstance(old, tuple) and isinstance(new, tuple) and _names(old) == _names(new)):
        return "same" if old == new else "reworded"
    return SECTIONS.get(section, {}).get(key, lambda *_: "other")(old, new)


def compare_rule_key(rule: Rule, key: str, new: Any) -> Change:
    """How a key of a rule changed.

    For ``proven`` a higher confidence is stricter; for ``not_refuted`` it is the lower one, because what has to be
    shown with more confidence is the refusal.
    """
    old = getattr(rule, key)
    if old == new:
        return "same"
    if key in WORDS_ONLY:
        return "reworded"
    change: Change = "other"
    if key == "severity":
        change = SEVERER(old, new)
    elif key == "min_samples":
        change = MORE(old, new)
    elif key == "threshold":
        change = {">=": MORE, "<=": LESS, "==": lambda *_: "looser"}[rule.comparator](old, new)
    elif key == "clustered" and getattr(known_metrics().get(rule.metric), "kind", "samples") == "samples":
        change = "other"  # of real values the mean is judged and no quantile any more
    elif key in {"confidence", "anytime", "clustered"}:
        change = MORE(old, new) if rule.decide == "proven" else LESS(old, new)
    elif key == "decide":
        change = "tighter" if new == "proven" else "looser"
    return change
