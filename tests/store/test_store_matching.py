"""Target and pattern matching against PEFT's own functions."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.errors import MalformedArtifact
from ecology.store.automaton import Budget, full_matches
from ecology.store.matching import pattern_values, targeted

MODULES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.experts.1.up_proj")
NAMES = (
    *(f"model.layers.{layer}.{module}" for layer in (0, 1, 10, 11) for module in MODULES),
    *("lm_head", "q_proj", "xq_proj", "model.embed"),
)

pieces = st.sampled_from(
    [
        "q_proj",
        "v_proj",
        "up_proj",
        "mlp.up_proj",
        "layers.1.self_attn.q_proj",
        "lm_head",
        "1.up_proj",
        "proj",
        *NAMES[:3],
    ]
)
configs = st.fixed_dictionaries(
    {"target_modules": st.lists(pieces, min_size=1, max_size=4)},
    optional={
        "exclude_modules": st.lists(pieces, max_size=2) | st.sampled_from([r".*\.10\..*", "lm_head"]),
        "layers_to_transform": st.integers(0, 11) | st.lists(st.integers(0, 11), max_size=3),
    },
)


def _peft(config: dict[str, Any], name: str) -> bool:
    from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists

    full = {
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "target_parameters": None,
        **config,
    }
    result = check_target_module_exists(SimpleNamespace(**full), name)
    return bool(result) and not isinstance(result, _ExcludedModule)


@given(configs, st.sampled_from([None, "layers", ["layers"], "experts", ["blocks", "layers"], []]))
@settings(max_examples=200, deadline=None)
def test_lists_match_as_in_peft(config: dict[str, Any], pattern: Any) -> None:
    if "layers_to_transform" in config:
        config = {**config, "layers_pattern": pattern}
    assert targeted(config, NAMES, "c") == {name for name in NAMES if _peft(config, name)}


@pytest.mark.parametrize(
    "pattern",
    [
        r".*q_proj",
        r".*\.layers\.(0|1)\..*_proj",
        r"model\.layers\.[01]\.self_attn\.(q|v)_proj",
        r"(?:.*?(?:layers).*?(?:self_attn|mlp).*?(?:q_proj|up_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.mlp\.up_proj)",
        r"lm_head",
        r"model.layers.\d{1,2}.mlp.up_proj",
    ],
)
def test_patterns_match_as_in_peft(pattern: str) -> None:
    config = {"target_modules": pattern}
    assert targeted(config, NAMES, "c") == {name for name in NAMES if _peft(config, name)}


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "q_proj",
                r"q_pro.",
                r".*\.1\..*",
                r"model\.layers\.0\.self_attn\.q_proj",
                "up_proj|q_proj",
                "^lm_head",
                "proj",
                r"layers.1\d?.*",
            ]
        ),
        st.integers(1, 64),
        max_size=4,
    )
)
@settings(max_examples=100, deadline=None)
def test_pattern_values_match_as_in_peft(patterns: dict[str, int]) -> None:
    from peft.utils.other import get_pattern_key

    wanted = {name: patterns.get(get_pattern_key(patterns.keys(), name), 8) for name in NAMES}
    assert pattern_values({"rank_pattern": patterns}, "rank_pattern", 8, NAMES, "c") == wanted


COSTLY = [
    *("(a+)+b", "(a|aa)*b", "(a*)*", "((ab){2,}){2,}", ".*" * 10 + "x", "[a-z]+" * 7 + "!"),
    *(".?" * 40 + "!", "(?:.|x)" * 40 + "!", "(?:x|.*.*.*)" * 4 + "!", "((.*)*)*x", "(?:a?){60}a{60}"),
]
"""Each would keep a backtracking matcher busy for years; some have no star."""


@pytest.mark.parametrize("pattern", COSTLY)
def test_costly_patterns_are_matched_in_bounded_time(pattern: str) -> None:
    started = time.monotonic()
    assert full_matches(pattern, ["a" * 59], "c") == (["a" * 59] if pattern == "(a*)*" else [])
    assert time.monotonic() - started < 5  # not a measurement: a pattern that backtracks would take years


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"(a)\1", "(?=a)", "(?!a)", "(?<=a)", "(?>a*)", "a*+", "(a)?(?(1)b|c)", "(?i)a", "(?i:a)"),
        *("(", "*", "x" * 5000, "a{99999999999}", "(?:a{1,70}){1,70}", "(.{1,50}){1,50}x", "(" * 5000),
    ],
)
def test_patterns_that_no_small_automaton_can_follow_are_refused(pattern: str) -> None:
    with pytest.raises(MalformedArtifact):
        full_matches(pattern, ["a" * 200] * 1000, "c")


def test_the_patterns_of_one_configuration_share_a_budget() -> None:
    names = [f"{i:03}{'ab' * 20}" for i in range(200)]
    patterns = {f"(?:a|b|{i}|.)*{i}": 8 for i in range(256)}
    assert pattern_values({"rank_pattern": dict([*patterns.items()][:4])}, "rank_pattern", 8, names, "c")
    with pytest.raises(MalformedArtifact, match="too costly"):
        pattern_values({"rank_pattern": patterns}, "rank_pattern", 8, names, "c")
    with pytest.raises(MalformedArtifact, match="too costly"):
        full_matches("(?:a|b)*c", names, "c", Budget(100))


def test_layers_patterns_are_few() -> None:
    config = {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": [f"l{i}" for i in range(17)]}
    with pytest.raises(MalformedArtifact, match="17 names"):
        targeted(config, NAMES, "c")


atoms = st.sampled_from(["a", "b", ".", r"\.", "[ab]", "[^a]", r"\w", r"\d", r"\b", "^", "$", "1", "_"])
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{0,2}", "{2}", "{1,}"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)


@given(expressions, st.lists(st.text("ab.1_", max_size=6), max_size=5, unique=True))
@settings(max_examples=400, deadline=None)
def test_the_automaton_says_what_re_says(pattern: str, names: list[str]) -> None:
    assert full_matches(pattern, names, "c") == [name for name in names if re.fullmatch(pattern, name)]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"target_modules": None},
        {"target_modules": []},
        {"target_modules": [1]},
        {"target_modules": {"q_proj": 1}},
        {"target_modules": "q_proj", "layers_to_transform": [1]},
        {"target_modules": ["q_proj"], "layers_to_transform": "1"},
        {"target_modules": ["q_proj"], "layers_to_transform": [True]},
        {"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": 3},
        {"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "("},
        {"target_modules": ["q_proj"], "exclude_modules": 3},
        {"target_modules": ["q_proj"], "exclude_modules": "("},
    ],
)
def test_malformed_targets(config: dict[str, Any]) -> None:
    with pytest.raises(MalformedArtifact):
        targeted(config, NAMES, "c")


def test_all_linear_and_malformed_rank_pattern() -> None:
    assert targeted({"target_modules": "all-linear"}, NAMES, "c") == set(NAMES)
    with pytest.raises(MalformedArtifact, match="not a mapping"):
        pattern_values({"rank_pattern": [1]}, "rank_pattern", 8, NAMES, "c")
