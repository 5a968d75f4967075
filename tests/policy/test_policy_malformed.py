"""What a reader of a malformed policy or waiver is told, to the letter: each message is a golden file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ecology.contracts.policy import Policy
from ecology.errors import PolicyError
from ecology.policy.reader import load_policy, parse_policy
from ecology.policy.waivers import read_waiver

Golden = Callable[[str, bytes], None]
NOW = "2026-06-01T00:00:00Z"
KEY = (
    "-----BEGIN PUBLIC KEY-----\\n"
    + "MCowBQYDK2VwAyEAiojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="
    + "\\n-----END PUBLIC KEY-----\\n"
)
HEAD = "id: small\nversion: 1\ntitle: Small\n"
RULES = """\
rules:
  - {id: A, title: files, metric: static.files, comparator: "==", threshold: 0}
  - {id: S, title: signed, metric: static.signature, comparator: "==", threshold: 0}
  - {id: B, title: skill, metric: orders.exact, comparator: ">=", threshold: 0.9, split: hidden, min_samples: 100}
"""
TERMS = f'waiver_rules: {{approvers: [{{name: ann, public_key: "{KEY}"}}], max_days: 30, never: [A]}}\n'

POLICIES = {
    "empty": "",
    "not-a-mapping": "- a\n- b\n",
    "not-yaml": "id: [\n",
    "not-utf8": b"\xff\xfe",
    "alias": "id: &a small\ntitle: *a\n",
    "two-documents": "id: a\n---\nid: b\n",
    "twice": HEAD + "id: again\n" + RULES,
    "unknown-key": HEAD + "rule: []\n" + RULES,
    "no-rules": HEAD,
    "empty-rules": HEAD + "rules: []\n",
    "no-version": "id: a\ntitle: b\n" + RULES,
    "version-text": HEAD.replace("version: 1", "version: one") + RULES,
    "id-with-space": HEAD.replace("small", "a b") + RULES,
    "unknown-metric": HEAD + RULES.replace("orders.exact", "orders.exakt"),
    "unknown-comparator": HEAD + RULES.replace('">="', '">"'),
    "no-split": HEAD + RULES.replace("split: hidden, ", ""),
    "needless-split": HEAD + RULES.replace("threshold: 0}", "threshold: 0, split: public}", 1),
    "count-compared": HEAD + RULES.replace("threshold: 0}", "threshold: 0, against: base}", 1),
    "equality-of-a-rate": HEAD + RULES.replace('">="', '"=="'),
    "confidence-of-one": HEAD + RULES.replace("min_samples: 100", "confidence: 1.0"),
    "infinite-threshold": HEAD + RULES.replace("0.9", "1e400"),
    "threshold-text": HEAD + RULES.replace("0.9", "ninety"),
    "two-rules-of-one-id": HEAD + RULES.replace("id: B", "id: A"),
    "nothing-denies": HEAD + RULES.replace("}", ", severity: warn}"),
    "old-waivers": HEAD + RULES + "waivers: []\n",
    "never-unknown": HEAD + RULES + "waiver_rules: {never: [C]}\n",
    "too-many-approvals": HEAD + RULES + f'approvals: {{required: 2, approvers: [{{name: a, public_key: "{KEY}"}}]}}\n',
    "approvals-of-nobody": HEAD + RULES + "approvals: {required: 1, approvers: []}\n",
    "key-that-is-none": HEAD + RULES + "signatures: {trusted: [{name: a, public_key: ssh-rsa AAAA}]}\n",
    "extends-bytes": HEAD + "extends: baseline.yaml\n",
    "tighten-alone": HEAD + RULES + "tighten: {B: {threshold: 0.95}}\n",
    "canary-out-of-range": HEAD + RULES + "canary: {max_alpha: 0.9, max_alerts: -1}\n",
}
LAYERS = {
    "loosens-a-threshold": "tighten: {B: {threshold: 0.5}}\n",
    "loosens-everything": "tighten: {B: {threshold: 0.5, min_samples: 10, severity: warn}}\n"
    "adapter: {max_rank: 128, dtypes: [F32, F16, BF16]}\ndata: {forbid_no_train: false, max_overlap: 0.5}\n",
    "tightens-what-is-not-there": "tighten: {C: {threshold: 0.5}}\n",
    "repeats-a-rule": "rules:\n"
    "- {id: B, title: t, metric: orders.exact, split: hidden, comparator: '>=', threshold: 1}\n",
    "trusts-more": f'signatures: {{trusted: [{{name: a, public_key: "{KEY}"}}]}}\n',
    "waives-more": TERMS,
}
GOOD = {
    "rule": "B",
    "subject": "sha256:" + "1" * 64,
    "reason": "known and harmless here",
    "approver": "ann",
    "ticket": "T-1",
    "expires": "2026-06-20T00:00:00Z",
}
WAIVERS = {
    "unknown-rule": {"rule": "Z"},
    "never-this-rule": {"rule": "A"},
    "the-signature": {"rule": "S"},
    "no-expiry": {"expires": None},
    "a-date": {"expires": "2026-06-20"},
    "too-long": {"expires": "2026-09-01T00:00:00Z"},
    "over-before-it-began": {"expires": "2026-05-01T00:00:00Z"},
    "short-digest": {"subject": "sha256:1234"},
    "no-reason": {"reason": "''"},
    "unknown-key": {"until": "2026-06-20T00:00:00Z"},
}


def policy(text: str = HEAD + TERMS + RULES) -> Policy:
    return parse_policy(text.encode(), "small.yaml")


def waiver(changes: dict[str, str | None]) -> bytes:
    lines = {**GOOD, **changes}
    return "".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None).encode()


@pytest.mark.parametrize("name", POLICIES)
def test_a_malformed_policy(name: str, golden: Golden) -> None:
    data = POLICIES[name]
    with pytest.raises(PolicyError) as caught:
        parse_policy(data if isinstance(data, bytes) else data.encode(), f"{name}.yaml")
    golden(f"policy/malformed/{name}.txt", f"{caught.value}\n".encode())


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_loosens(name: str, golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "outer.yaml").write_text(HEAD + "adapter: {max_rank: 64, dtypes: [F32]}\n" + RULES, "utf-8")
    (tmp_path / "inner.yaml").write_text(
        "id: inner\nversion: 1\ntitle: Inner\nextends: outer\n" + LAYERS[name], "utf-8"
    )
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path / "inner.yaml")
    golden(f"policy/malformed/layer-{name}.txt", f"{caught.value}\n".encode())


@pytest.mark.parametrize("name", WAIVERS)
def test_a_malformed_waiver(name: str, golden: Golden, tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        read_waiver(written(tmp_path / f"{name}.yaml", WAIVERS[name]), policy(), NOW)
    golden(f"policy/malformed/waiver-{name}.txt", f"{caught.value}\n".encode())


def written(path: Path, changes: dict[str, str]) -> Path:
    path.write_bytes(waiver(changes))
    return path


def test_nobody_may_waive_where_no_section_says_who(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="has no section waiver_rules"):
        read_waiver(written(tmp_path / "waiver.yaml", {}), policy(HEAD + RULES), NOW)


def test_a_waiver_that_is_right_is_read(tmp_path: Path) -> None:
    found = read_waiver(written(tmp_path / "waiver.yaml", {}), policy(), NOW)
    assert (found.rule, found.issued, found.expires) == ("B", NOW, "2026-06-20T00:00:00Z")
    assert found.proof == ""


def test_layers_in_a_ring_and_layers_elsewhere_are_refused(tmp_path: Path) -> None:
    for name, outer in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"id: {name}\nversion: 1\ntitle: t\nextends: {outer}\n", "utf-8")
    with pytest.raises(PolicyError, match="extends this policy in its turn"):
        load_policy(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("id: a\nversion: 1\ntitle: t\nextends: ../../etc/x.yaml\n", "utf-8")
    with pytest.raises(PolicyError, match="is a path"):
        load_policy(tmp_path / "a.yaml")
