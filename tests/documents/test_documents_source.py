"""YAML has one reading here, whoever wrote it and whatever it is for."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecology.documents.source import MAX_BYTES, MAX_DEPTH, parse_source, read_source
from ecology.errors import ConfigError, PolicyError

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(p for room in ("conf", "policies", "suites", "corpora") for p in (ROOT / room).rglob("*.yaml"))
TEXT = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e15, 1e15) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def read(text: str) -> object:
    return parse_source(text.encode(), "x.yaml", ConfigError).plain("the file")


@given(JSON)
def test_json_is_yaml(value: object) -> None:
    assert read(json.dumps(value)) == value


def test_scalars_are_read_as_json_reads_them() -> None:
    text = (
        "a: 1\nb: 1e-3\nc: 010\nd: 1:30\ne: 2027-01-01\nf: no\ng: ~\nh: True\ni: true\nj: .5\no: 0x10\n"
        + "p: -0.10\nq: Null"
    )
    expected = {"a": 1, "b": 0.001, "c": "010", "d": "1:30", "e": "2027-01-01", "f": "no", "g": None, "h": True}
    assert read(text) == {**expected, "i": True, "j": 0.5, "o": "0x10", "p": -0.1, "q": None}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x 1\nb: 2", "x.yaml:1: not YAML that is read here: anchors and aliases"),
        ("a: 1\nb: *x", "x.yaml:2"),
        ("a: !!str x", "the tag 'tag:yaml.org,2002:str' is not read"),
        ("a: 1\nb: ! x", "x.yaml:2"),
        ("a: !!python/object/apply:os.system [id]", "the tag"),
        ("a: !function utils.f", "the tag '!function'"),
        ("a: 1\na: 2", "x.yaml:2: a: key 'a' stands twice; first at line 1"),
        ("<<: {a: 1}", "merge keys are not read"),
        ("? [a]\n: 1", "a key is plain text"),
        ("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, "nested deeper"),
        ("a: 1" + "0" * 400, "can be compared"),
        ("a: 1" + "0" * 5000, "is not read as"),
        ("a: 1\n---\nb: 2", "x.yaml"),
        ("x" * (MAX_BYTES + 1), "larger than"),
        ("a: \x00", "x.yaml"),
        ('a: "\\ud800"', "half a character"),
        ('"\\udc00": 1', "half a character"),
    ],
)
def test_what_has_two_readings_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(text)
    assert says in str(refused.value)


def test_a_bomb_costs_nothing() -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=False)]
    begun = time.perf_counter()
    with pytest.raises(ConfigError, match="anchors"):
        read("\n".join(lines))
    assert time.perf_counter() - begun < 5  # it would be 9^9 texts


def test_whoever_reads_says_what_is_raised(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("a: [")
    for kind in (ConfigError, PolicyError):
        with pytest.raises(kind, match=r"p\.yaml:1"):
            read_source(tmp_path / "p.yaml", kind)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_source(tmp_path / "none.yaml", PolicyError)


@pytest.mark.parametrize("path", SHIPPED, ids=[str(path.relative_to(ROOT)) for path in SHIPPED])
def test_everything_that_is_shipped_is_read(path: Path) -> None:
    source = read_source(path, ConfigError)
    assert source.plain("the file") == source.data
    assert source.raw == path.read_bytes()
