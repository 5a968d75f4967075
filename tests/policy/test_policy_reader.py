"""Policy files in, values out, and every mistake at once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ecology.contracts.policy import (
    AdapterLimits,
    ApprovalRules,
    CanaryLimits,
    DataPolicy,
    Decidable,
    Policy,
    ReproductionLimits,
    ResourceLimits,
    Rule,
    SignaturePolicy,
    TrustedKey,
    WaiverRules,
)
from ecology.documents.source import MAX_BYTES
from ecology.errors import ConfigError, EcologyError, PolicyError
from ecology.kernel.canonical import digest, plain
from ecology.policy.metrics import SHIPPED_SUITES, STATIC, known_metrics
from ecology.policy.reader import load_policy, parse_policy, schema

ROOT = Path(__file__).parents[2]
RELEASE = ROOT / "policies" / "release.yaml"
GOOD = """\
id: small
version: 1
title: A small policy
rules:
  - {id: A, title: files, metric: static.files, comparator: "==", threshold: 0}
  - {id: B, title: skill, metric: orders.exact, comparator: ">=", threshold: 0.9, split: hidden, min_samples: 100}
"""


def errors(text: str | bytes) -> str:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text if isinstance(text, bytes) else text.encode(), "small.yaml")
    return str(caught.value)


def test_the_release_policy_is_read_as_it_is_written() -> None:
    policy = load_policy(RELEASE)
    written = yaml.safe_load(RELEASE.read_text(encoding="utf-8"))
    floor = yaml.safe_load(RELEASE.with_name("baseline.yaml").read_text(encoding="utf-8"))
    rules = [*floor["rules"], *written["rules"]]
    assert [rule.id for rule in policy.rules] == [rule["id"] for rule in rules]
    for rule, raw in zip(policy.rules, rules, strict=True):
        assert {key: plain(getattr(rule, key)) for key in raw} == raw
    assert plain(policy.adapter) == floor["adapter"]
    assert plain(policy.data) == floor["data"]
    assert plain(policy.canary) == written["canary"]
    assert [layer.id for layer in policy.layers] == ["baseline"]
    assert policy.signatures == SignaturePolicy(allow_development=True, trusted=())
    assert {rule.metric for rule in policy.rules} >= set(STATIC)


def test_the_digest_is_of_the_policy_without_it() -> None:
    policy = load_policy(RELEASE)
    assert policy.digest == digest({**{k: v for k, v in plain(policy).items() if k != "digest"}, "waivers": []})
    assert load_policy(RELEASE) == policy
    assert parse_policy(GOOD.encode()).digest != parse_policy(GOOD.replace("0.9", "0.8").encode()).digest


def test_comments_and_layout_do_not_change_the_digest() -> None:
    as_json = json.dumps(yaml.safe_load(GOOD)).encode()
    assert parse_policy(as_json).digest == parse_policy(GOOD.encode()).digest
    assert parse_policy(b"# a comment\n" + GOOD.encode()).digest == parse_policy(GOOD.encode()).digest


def test_defaults_are_those_of_the_contracts() -> None:
    policy = parse_policy(GOOD.encode())
    assert (policy.adapter, policy.data, policy.waivers) == (AdapterLimits(), DataPolicy(), ())
    assert policy.rules[0] == Rule("A", "files", "static.files", "==", 0.0)


def test_the_schema_is_a_schema_and_knows_exactly_the_fields_of_the_contracts() -> None:
    found = schema()
    Draft202012Validator.check_schema(found)
    definitions, properties = found["$defs"], found["properties"]
    for kind, shape in (
        (Rule, definitions["rule"]),
        (ReproductionLimits, properties["reproduction"]),
        (ResourceLimits, properties["resources"]),
        (CanaryLimits, properties["canary"]),
        (WaiverRules, properties["waiver_rules"]),
        (ApprovalRules, properties["approvals"]),
        (AdapterLimits, properties["adapter"]),
        (DataPolicy, properties["data"]),
        (Decidable, properties["decidable"]),
        (SignaturePolicy, properties["signatures"]),
        (TrustedKey, definitions["key"]),
    ):
        assert set(shape["properties"]) == {f.name for f in dataclasses.fields(kind)}
        assert shape["additionalProperties"] is False
    compiled = {"digest", "waivers", "layers"}
    assert set(properties) == {f.name for f in dataclasses.fields(Policy)} - compiled | {"extends", "tighten"}


def test_every_mistake_is_reported_with_its_line() -> None:
    text = """\
id: x
id: y
version: "1"
tilte: a
rules:
  - {id: A, title: t, metric: orders.schemavalid, comparator: ">=", threshold: high, severty: deny, severity: warn}
  - {id: A, title: t, metric: static.files, comparator: "==", threshold: .inf, severity: warn, split: hidden}
  - {id: C, title: t, metric: orders.exact, comparator: "==", threshold: 1, severity: warn}
waivers: []
"""
    found = errors(text)
    for expected in (
        "small.yaml:1: missing key 'title'",
        "small.yaml:2: id: key 'id' stands twice; first at line 1",
        "small.yaml:3: version: expected integer, found text '1'",
        "small.yaml:4: tilte: unknown key; did you mean 'title'?",
        "small.yaml:5: rules: no rule has severity deny",
        "small.yaml:6: rules[0].metric: unknown metric 'orders.schemavalid'; did you mean 'orders.schema_valid'?",
        "small.yaml:6: rules[0].severty: unknown key; did you mean 'severity'?",
        "small.yaml:6: rules[0].threshold: expected number, found text 'high'",
        "small.yaml:7: rules[1].id: rule 'A' stands twice",
        "small.yaml:7: rules[1].split: static.files is not measured on items",
        "small.yaml:7: rules[1].threshold: expected number, found text '.inf'",
        "small.yaml:8: rules[2]: orders.exact is measured on items",
        "small.yaml:8: rules[2].comparator: orders.exact has an interval",
        "small.yaml:9: waivers: unknown key; did you mean 'waiver_rules'?",
    ):
        assert expected in found


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("threshold: 0.9", "threshold: 0.9, confidence: 1"), "confidence"),
        (("threshold: 0.9", "threshold: 0.9, confidence: 0.4"), "confidence"),
        (("threshold: 0.9", "threshold: 0.9, quantile: 0"), "quantile"),
        (("min_samples: 100", "min_samples: 0"), "min_samples"),
        (("min_samples: 100", "min_samples: 1.5"), "min_samples"),
        (("threshold: 0.9", "threshold: true"), "threshold"),
        (("threshold: 0.9", f"threshold: 1{'0' * 400}"), "not a number that can be compared"),
        (("threshold: 0.9", "threshold: !!float .nan"), "leave the tag out"),
        (("threshold: 0.9", "threshold: -1e999"), "not a number that can be compared"),
        (('comparator: ">="', 'comparator: ">"'), "expected one of >=, <=, =="),
        (("split: hidden", "split: secret"), "expected one of none, public, hidden, fresh"),
        (("static.files", "static.everything"), "unknown metric"),
        (('comparator: "==", threshold: 0', 'comparator: "==", threshold: 0, against: base'), "compared with nothing"),
        (("version: 1", "version: 0"), "version"),
        (("rules:", "adapter: {max_rank: 0}\nrules:"), "adapter.max_rank"),
        (("rules:", "adapter: {dtypes: [F32, I8]}\nrules:"), "adapter.dtypes[1]"),
        (("rules:", "signatures: {trusted: [{name: a, public_key: x}]}\nrules:"), "public_key"),
        (("rules:", "data: {max_overlap: 2}\nrules:"), "data.max_overlap"),
        (("title: A small policy", "title: [a]"), "expected string, found a list"),
        (("title: A small policy", "title:"), "expected string, found nothing"),
    ],
)
def test_what_is_out_of_range_is_named(change: tuple[str, str], complaint: str) -> None:
    assert change[0] in GOOD
    assert complaint in errors(GOOD.replace(*change))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"a: &x [1]\nb: *x", "anchors and aliases"),
        (b"a: [&x 1]", "anchors and aliases"),
        (b"\xff", "UTF-8"),
        (b"[", "not YAML"),
        (b"a: 1\n---\nb: 2", "another document"),
        (b"[" * 50 + b"]" * 50, "deeper"),
        (b"a: !!python/object:os.system 1", "leave the tag out"),
        (b"? [a]\n: 1", "a key is plain text"),
        (b"a: !!binary aGk=", "leave the tag out"),
        (b"a: !!int many", "leave the tag out"),
        (b"a: 1" + b"0" * 5000, "is not read as int"),
        (b"x" * (MAX_BYTES + 1), "larger than"),
        (b"", "expected object, found nothing"),
        (b"- 1", "expected object, found a list"),
        (b"<<: {id: x}", "merge keys"),
    ],
)
def test_yaml_with_two_readings_is_refused(text: bytes, complaint: str) -> None:
    assert complaint in errors(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load_policy(tmp_path / "nowhere.yaml")


def test_own_suites_bring_their_metrics() -> None:
    text = GOOD.replace("orders.exact", "contracts.exact")
    assert "unknown metric 'contracts.exact'" in errors(text)
    assert parse_policy(text.encode(), suites={"contracts": "extraction"}).rules[1].metric == "contracts.exact"
    assert {f"{suite}." for suite in SHIPPED_SUITES} <= {name.split(".")[0] + "." for name in known_metrics()}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)), st.text(max_size=6))
def test_mutated_policies_are_read_or_refused_and_nothing_else(start: int, length: int, new: str) -> None:
    text = GOOD[:start] + new + GOOD[start + length :]
    try:
        policy = parse_policy(text.encode("utf-8", "surrogatepass"))
    except EcologyError:
        return
    assert any(rule.severity == "deny" for rule in policy.rules)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "rules", "metric", "threshold", "waivers", "adapter"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(JSON)
def test_any_json_is_a_policy_or_a_policy_error(value: object) -> None:
    base = yaml.safe_load(GOOD)
    for data in (value, {**base, **value} if isinstance(value, dict) else {**base, "rules": [value]}):
        try:
            parse_policy(json.dumps(data).encode())
        except PolicyError:
            continue
