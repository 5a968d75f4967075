"""Target and pattern matching against PEFT's own functions."""

from __future__ import annotations

import contextlib
import re
import time
import tracemalloc
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.errors import MalformedArtifact
from ecology.store import automaton as automata
from ecology.store.automaton import MAX_STEPS, MAX_VISITS, Budget, ending_matches, full_matches
from ecology.store.matching import pattern_values, targeted
from ecology.store.syntax import parsed

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
    *("(?:[a-z_.0-9]+)+!", "(|.*)+layers", "|(?:.*)+?x", "(?:(?:a?)?a)*!", "(?:|)" * 60 + "!", "(?:a|a)" * 59 + "!"),
    *("(?:){0,4000000000}", "(){30000000}", "(?:()|a){3}", "(?:^){2,}a", "((a{70}){70}){70}", "a{0,4294967294}"),
    *("(?:a{0}){9}", "(?:(?:){9}){9}", "(?:(?:a{0}){1,2}){9}", "a?" * 500),
]
"""Each would keep a backtracking matcher busy for years, or whoever builds its automaton; some have no star."""


@pytest.mark.parametrize("pattern", COSTLY)
@pytest.mark.parametrize("match", [full_matches, ending_matches])
def test_costly_patterns_are_refused_in_bounded_time_and_space(match: Any, pattern: str) -> None:
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(MalformedArtifact):
            match(pattern, ["a" * 59, "x" * 59], "c")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 5  # not a measurement: these would take years, or all memory


def test_what_is_counted_is_what_a_backtracking_matcher_does() -> None:
    """On a name that does not match, a matcher that backtracks comes through every place that is counted."""
    for pattern, name in (
        (".*.*x", "abc"),
        ("(?:a|ab)(?:c|bcd)?x", "abcd"),
        (r"\w*\.?\w*!", "ab.cd"),
        ("a?" * 6 + "b", "aaaa"),
    ):
        automaton = automata._Automaton(parsed(pattern), Budget())

        def visits(state: int, at: int, of: Any = automaton, name: str = name) -> int:
            ahead = [target for _, target in of.free[state]]
            here = sum(visits(target, at) for target in ahead)
            if at < len(name):
                here += sum(visits(t, at + 1) for admits, _, t in of.eating[state] if admits(name[at]))
            return 1 + here

        assert not automaton.accepts(name)
        assert MAX_VISITS - automaton.budget._visits == visits(automaton.start, 0)


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            r".*\.(q|v)_proj",
            r".*layers\.(1[5-9]|2\d)\..*(q_proj|v_proj)",
            r"(?:model\.)?layers\.\d+\.mlp\.[a-z]+_proj",
        ),
        *(r"model\.layers\.\d+\.self_attn\..*", r".*\.(?:[0-9]|1\d|2[0-9])\..*_proj", r"(.*\.)?(.*\.)?q_proj"),
        r"(?:.*?(?:model|text).*?(?:self_attn|attention|attn|mlp|ffn|dense).*?(?:q_proj|k_proj|up_proj|down_proj).*?)"
        r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|k_proj|v_proj|up_proj|down_proj)))",
    ],
)
def test_what_people_write_is_far_from_the_limits(pattern: str) -> None:
    names = [f"model.layers.{i}.{module}" for i in range(48) for module in (*MODULES, "mlp", "input_layernorm")]
    budget = Budget(MAX_STEPS // 4, MAX_VISITS // 10)
    assert full_matches(pattern, names, "c", budget) == [name for name in names if re.fullmatch(pattern, name)]


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"(a)\1", "(?=a)", "(?!a)", "(?<=a)", "(?<!a)", "(?>a*)", "a*+", "a++", "(a)?(?(1)b|c)", "(?i)a", "(?i:a)"),
        *(
            "(",
            "*",
            "x" * 5000,
            "a{99999999999}",
            "(?:a{1,70}){1,70}",
            "(.{1,50}){1,50}x",
            "(" * 5000,
            "(?P=x)",
            "(?x)a b",
        ),
        *(
            "(?a)a",
            "(?s).",
            "(?m)^a",
            "(?-i:a)",
            "[[:alpha:]]",
            "[a--b]",
            "[a&&b]",
            "[a||b]",
            "[a~~b]",
            "a{2}{3}",
            "\\",
            "(?P<n",
        ),
    ],
)
@pytest.mark.parametrize("match", [full_matches, ending_matches])
def test_patterns_that_no_small_automaton_can_follow_are_refused(match: Any, pattern: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(MalformedArtifact):
            match(pattern, ["a" * 200] * 1000, "c")
    assert said == []


UNBALANCED = [
    *(
        "model)|(zzz",
        "a)|(b",
        "a)(b",
        ")(",
        ")|(",
        "a)?(b",
        "a)*(?:b",
        "|(?#x))|b(a",
        "a)$|^(b",
        "a)(?#",
        "a(?#)|(b",
        ")",
    ),
    *(
        "(?:a",
        "(?#",
        "a\\",
        "?:a",
        "?=a",
        "?P<x>a",
        "?i:a",
        "?#",
        "[a",
        "[)",
        "a)[(]|(b",
        "a)|(?P<y>b",
        "*",
        "{1,2}",
        "|)(|",
    ),
]


@pytest.mark.parametrize("key", UNBALANCED)
def test_a_key_that_is_no_pattern_by_itself_is_refused(key: str) -> None:
    """PEFT puts it between brackets, where it may be a pattern, and another one than was read."""
    with pytest.raises(MalformedArtifact):
        pattern_values({"alpha_pattern": {key: 1e14}}, "alpha_pattern", 4, NAMES, "c")


def test_the_patterns_of_one_configuration_share_a_budget() -> None:
    names = [f"{i:03}{'ab' * 20}" for i in range(200)]
    patterns = {f".*{i}.*a": 8 for i in range(256)}
    assert pattern_values({"rank_pattern": dict([*patterns.items()][:4])}, "rank_pattern", 8, names, "c")
    with pytest.raises(MalformedArtifact, match="too costly"):
        pattern_values({"rank_pattern": patterns}, "rank_pattern", 8, names, "c")
    with pytest.raises(MalformedArtifact, match="too costly"):
        full_matches("[ab]*c", names, "c", Budget(100))
    with pytest.raises(MalformedArtifact, match="busy"):
        full_matches("[ab]*c", ["ab" * 50], "c", Budget(visits=100))


def test_every_module_may_be_named_in_full() -> None:
    names = [f"model.layers.{i}.{module}" for i in range(64) for module in MODULES]
    said = {name if at % 2 else re.escape(name): at for at, name in enumerate(names)}
    assert pattern_values({"rank_pattern": said}, "rank_pattern", 8, names, "c") == dict(
        zip(names, range(256), strict=True)
    )


def test_layers_patterns_are_few() -> None:
    config = {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": [f"l{i}" for i in range(17)]}
    with pytest.raises(MalformedArtifact, match="17 names"):
        targeted(config, NAMES, "c")


atoms = st.sampled_from(
    ["a", "b", ".", r"\.", "[ab]", "[^a]", r"\w", r"\d", r"\b", r"\B", "^", "$", r"\A", r"\Z", "1", "_"]
)
repeats = st.sampled_from(["*", "+", "?", "*?", "??", "{0,2}", "{2}", "{1,}", "{0}", "{1}", "{,2}"])
expressions = st.recursive(
    st.one_of(atoms, st.tuples(atoms, repeats).map("".join)),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        inner.map(lambda one: f"(?P<n>{one})" if "?P" not in one else f"(|{one})"),
        st.tuples(inner, repeats).map(lambda pair: f"({pair[0]}){pair[1]}"),
    ),
    max_leaves=6,
)


@given(expressions, st.lists(st.text("ab.1_", min_size=1, max_size=6), max_size=5, unique=True))
@settings(max_examples=400, deadline=None)
def test_the_automaton_says_what_re_says(pattern: str, names: list[str]) -> None:
    try:
        found = full_matches(pattern, names, "c")
    except MalformedArtifact as error:
        _refused_for_a_repeat(pattern, error)
    else:
        assert found == [name for name in names if re.fullmatch(pattern, name)]


@given(
    st.one_of(expressions, st.tuples(expressions, expressions).map("|".join)),
    st.lists(st.text("ab.1_", min_size=1, max_size=6), max_size=5),
)
@settings(max_examples=400, deadline=None)
def test_keys_find_what_peft_finds_by_them(key: str, names: list[str]) -> None:
    from peft.utils.other import get_pattern_key

    names = [name for name in dict.fromkeys(names) if name != key]
    try:
        found = pattern_values({"alpha_pattern": {key: 9}}, "alpha_pattern", 4, names, "c")
    except MalformedArtifact as error:
        _refused_for_a_repeat(key, error)
    else:
        assert found == {name: 9 if get_pattern_key([key], name) == key else 4 for name in names}


def _refused_for_a_repeat(pattern: str, error: MalformedArtifact) -> None:
    """Nothing else in ``expressions`` is to be refused: a repeat of what has no character or more than one way."""
    if "repeats what can match" not in error.what:
        with pytest.raises(re.error):
            re.compile(pattern)


fragments = st.lists(
    st.sampled_from(
        [
            *(
                "q_proj",
                ".*",
                r"\.",
                "model",
                "(",
                ")",
                "|",
                "^",
                "$",
                "?",
                "self_attn",
                "[qv]",
                "_proj",
                r"\d+",
                "layers",
            ),
            *(
                "{1,2}",
                "{0,4000000000}",
                "(?:",
                r"\b",
                r"\Z",
                "0",
                ".",
                "+",
                "*?",
                r"\A",
                "mlp",
                "(?#x)",
                "(?i)",
                "(?=",
                "(?P<a>",
            ),
            *(r"\1", "[", "]", "[^", "-", "&&", "{", "}", "*+", "(?>", "(?x)", "#", " ", "\\"),
        ]
    ),
    min_size=1,
    max_size=9,
).map("".join)


@given(fragments)
@settings(max_examples=600, deadline=None)
def test_any_text_as_a_key_is_refused_or_means_what_it_means_to_peft(key: str) -> None:
    from peft.utils.other import get_pattern_key

    started = time.monotonic()
    names = [name for name in NAMES if name != key]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = pattern_values({"alpha_pattern": {key: 9}}, "alpha_pattern", 4, names, "c")
        except MalformedArtifact:
            assert time.monotonic() - started < 5
            return
        assert found == {name: 9 if get_pattern_key([key], name) == key else 4 for name in names}
        assert time.monotonic() - started < 5


@given(fragments)
@settings(max_examples=400, deadline=None)
def test_any_text_as_a_target_is_refused_or_reaches_what_it_reaches_in_peft(pattern: str) -> None:
    for config in ({"target_modules": pattern}, {"target_modules": ["up_proj", "q_proj"], "exclude_modules": pattern}):
        with contextlib.suppress(MalformedArtifact):
            assert targeted(config, NAMES, "c") == {name for name in NAMES if _peft(config, name)}


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
