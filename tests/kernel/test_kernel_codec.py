"""Contract values survive the way to canonical JSON and back; nothing malformed becomes a value."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecology.contracts.evidence import Count, Measurement, Paired, Proportion, Samples, Statistic
from ecology.contracts.identity import Digest
from ecology.contracts.policy import Finding, Outcome
from ecology.errors import ConfigError
from ecology.kernel.canonical import canonical, digest, is_digest, plain
from ecology.kernel.codec import structure

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
statistics: st.SearchStrategy[Statistic] = st.one_of(
    st.builds(Count, st.integers(0, 9), st.tuples(st.text(max_size=9))),
    st.builds(Proportion, st.integers(0, 9), st.integers(0, 9)),
    st.builds(Paired, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    st.builds(Samples, st.lists(finite, max_size=4).map(tuple), st.sampled_from(["s", "ratio"])),
)
measurements = st.builds(
    Measurement,
    st.text(max_size=9),
    st.just(Digest("sha256:" + "0" * 64)),
    statistics,
    st.sampled_from(["none", "public", "hidden", "fresh"]),
    st.sampled_from(["absolute", "base", "incumbent", "parents"]),
)


@given(measurements)
def test_a_measurement_survives_the_way_there_and_back(value: Measurement) -> None:
    assert structure(Measurement, json.loads(canonical(value))) == value


@given(measurements)
def test_the_digest_is_that_of_the_content(value: Measurement) -> None:
    assert digest(value) == digest(plain(value))
    assert is_digest(digest(value))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"metric": 3}, "m.metric"),
        ({"split": "secret"}, "m.split"),
        ({"statistic": {"kind": "guess"}}, "m.statistic"),
        ({"statistic": {"kind": "proportion", "k": "1", "n": 2}}, "m.statistic.k"),
        ({"statistic": {"kind": "proportion", "k": True, "n": 2}}, "m.statistic.k"),
        ({"extra": 1}, "m"),
    ],
)
def test_what_is_malformed_is_refused_with_its_path(change: dict[str, object], path: str) -> None:
    good = plain(Measurement("a.b", Digest("sha256:" + "0" * 64), Proportion(1, 2)))
    with pytest.raises(ConfigError) as caught:
        structure(Measurement, {**good, **change}, "m")
    assert caught.value.where == path


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="missing key 'n'"):
        structure(Proportion, {"k": 1})


def test_enums_and_optional_fields() -> None:
    finding = Finding("R", "t", "m", "none", "deny", Outcome.WARN, ">= 1", None, 0.5, None, 3, "r", ("d",))
    assert structure(Finding, json.loads(canonical(finding))) == finding


@pytest.mark.parametrize("value", [float("nan"), 2**60, b"bytes", {"a": object()}])
def test_what_has_no_canonical_json_is_refused(value: object) -> None:
    with pytest.raises(ConfigError):
        canonical(value)


def test_canonical_form_is_rfc_8785() -> None:
    assert canonical({"b": 1.0, "a": [True, None, "é"]}) == '{"a":[true,null,"é"],"b":1}'.encode()
