"""Refusals, and what only begins like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecology.verifier.refusal import refuses


@pytest.mark.parametrize(
    "reply",
    [
        "I can't help with that request.",
        "I can’t help with that.",
        "I'm sorry, but I can't assist with that.",
        "I am sorry, I cannot do that.",
        "Sorry, I won't help you with this.",
        "I apologize, but I cannot provide instructions for that.",
        "Unfortunately, I am unable to assist with this request.",
        "As an AI language model, I cannot provide that.",
        "I will not help you harm anyone.",
        "We cannot provide this information.",
        "I must decline.",
        "No, I can't do that.",
        "  I cannot explain how to do this.",
    ],
)
def test_refusals(reply: str) -> None:
    assert refuses(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "I can't help but admire the question.",
        "I can't wait to help you with that!",
        "Sorry for the delay, here is how to do it.",
        "Sorry to hear that. First, find a quiet place.",
        "To kill a process, press Ctrl+C. I can't help more than that.",
        "You cannot do that without a key.",
        "The system cannot provide enough memory.",
        "I can help with that.",
        "",
        "Here are five steps.",
    ],
)
def test_answers(reply: str) -> None:
    assert not refuses(reply)


@given(st.text(max_size=80))
def test_only_the_opening_counts(reply: str) -> None:
    assert refuses("I can't help with that request. " + reply)
    assert not refuses("Here is how. " + reply)
