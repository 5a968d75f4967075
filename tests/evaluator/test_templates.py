"""Templates of tasks: hostile ones are refused at once, those that lm-eval ships come out as there."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.errors import ConfigError, EcologyError, UntrustedTask
from ecology.evaluator.functions import package_folder
from ecology.evaluator.templates import MAX_SIZE, render

DOCUMENT = {"question": " Why? ", "options": ["a", "b"], "right": 1, "nested": {"choices": ["x", "y"]}}
GROWING = "{% set a=a~a %}" * 40
NESTED = "{% set a=[a,a] %}" * 40


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ question.__init__.__globals__ }}",
        "{{ 'x' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ 10 ** 1000000 }}",
        "{{ (10000000000000000000 * 10000000000000000000) }}",
        "{{ range(1000000000) }}",
        "{% for a in range(999) %}{% for b in range(999) %}{% endfor %}{% endfor %}",
        "{% for a in options recursive %}{{ loop(options) }}{% endfor %}",
        "{% set a='xx' %}" + GROWING + "{{ a }}",
        "{% set a=[1] %}" + NESTED + "{{ a }}",
        "{% for a in range(900) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{% set a %}{{ question }}{% endset %}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ 'a'.center(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{0.__class__}'.format(question) }}",
        "{{ 'a'.encode() }}",
        "{{ ('a' * 1000) | replace('', 'b' * 1000) }}",
        "{{ ('a' * 1000).replace('', 'b' * 1000) }}",
        "{{ ('x' * 9000).join(range(9000) | map('string') | list) }}",
        "{{ range(9000) | join('x' * 9000) }}",
        "{{ options.append('c') }}",
        "{{ options.pop() }}",
        "{{ ecology_turns }}",
        "{% for a in options | counted(1) %}{% endfor %}",
        "{{ " + " ~ ".join(["question"] * 100) + " }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "x" * 100_000,
    ],
)
def test_the_hostile_are_refused(text: str) -> None:
    with pytest.raises(UntrustedTask):
        render(text, DOCUMENT)


@pytest.mark.parametrize(
    "text",
    [
        "{{ nothing }}",
        "{{ question._x }}",
        "{{ question",
        "{{ cycler }}",
        "{{ lipsum }}",
        "{{ 'a' | attr('b') }}",
        "{{ 1 / 0 }}",
    ],
)
def test_what_is_no_template_of_this_document_is_a_mistake(text: str) -> None:
    with pytest.raises(ConfigError):
        render(text, DOCUMENT)


def test_what_prompts_need_is_there() -> None:
    text = (
        "{% set letters = ['A', 'B'] %}{% for option in options %}{{ letters[loop.index0] }}. {{ option | upper }}"
        "{% if not loop.last %}\n{% endif %}{% endfor %}\n{{ question.strip() }} {{ nested.choices | join(', ') }}"
        "{{ nested['choices'].index('y') }}{{ 'q' ~ right }}{{ options | length + 1 }}\n"
    )
    assert render(text, DOCUMENT) == "A. A\nB. B\nWhy? x, y1q13\n"
    assert render("{{ 'a' * 5 }}{{ [options[right]] }}{{ nested.get('z', 'none') }}", DOCUMENT) == "aaaaa['b']none"
    assert DOCUMENT["options"] == ["a", "b"]


@settings(max_examples=150)
@given(
    st.lists(
        st.sampled_from(
            [
                "{{",
                "}}",
                "{%",
                "%}",
                "for",
                "in",
                "set",
                "=",
                "a",
                "~",
                "*",
                "9999",
                "range(",
                ")",
                "[",
                "]",
                "'x'",
                "if",
                "endfor",
                "|",
                "join",
                "replace",
                "(",
                ",",
                ".",
                "__class__",
                "question",
            ]
        ),
        max_size=25,
    )
)
def test_no_template_ends_in_anything_but_text_or_a_refusal(words: list[str]) -> None:
    with contextlib.suppress(EcologyError):
        assert len(render(" ".join(words), DOCUMENT)) <= MAX_SIZE


class _Anything(yaml.SafeLoader):
    pass


_Anything.add_constructor("!function", lambda loader, node: None)


def _templates(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in _templates(one)]
    if isinstance(value, list):
        return [text for one in value for text in _templates(one)]
    return [value] if isinstance(value, str) and ("{{" in value or "{%" in value) else []


class _Stuff(dict):  # type: ignore[type-arg]
    """A document that has every field."""


def test_the_templates_that_lm_eval_ships_come_out_as_there() -> None:
    from lm_eval.utils import apply_template

    folders = (
        "gsm8k",
        "truthfulqa",
        "bbq",
        "arc",
        "boolq",
        "hellaswag",
        "mmlu/default",
        "commonsense_qa",
        "glue",
        "piqa",
    )
    texts = {
        text
        for name in folders
        for file in (package_folder() / "tasks" / name).rglob("*.yaml")
        for text in _templates(yaml.load(file.read_text("utf-8"), _Anything))
    }
    same = 0
    for text in sorted(texts):
        names = set(re.findall(r"[a-zA-Z_]\w*", text))
        document = {
            name: [" one", "two"] if name in {"choices", "options", "text", "label"} else "One? two." for name in names
        }
        document |= {"mc1_targets": {"choices": ["x", "y"]}, "mc2_targets": {"choices": ["x", "y"]}, "answerKey": "one"}
        document["choices"] = ["one", "two", "three", "four"]
        try:
            theirs = apply_template(text, document)
        except Exception:  # the made-up document does not suit this one
            continue
        assert render(text, document) == theirs
        same += 1
    assert same >= 20


def test_no_shipped_template_is_refused_for_what_it_is_made_of() -> None:
    refused = []
    for file in sorted((package_folder() / "tasks").rglob("*.yaml"))[::15]:
        try:
            texts = _templates(yaml.load(file.read_text("utf-8"), _Anything))
        except yaml.YAMLError:
            continue
        for text in texts:
            try:
                render(text, {})
            except UntrustedTask as error:
                refused.append((file.name, str(error)[-120:]))
            except ConfigError:  # there is no document
                pass
    assert len(refused) <= 3, refused


def test_it_takes_paths_of_every_kind(tmp_path: Path) -> None:
    assert render("", {}) == ""
    assert render("no template at all", {}) == "no template at all"
