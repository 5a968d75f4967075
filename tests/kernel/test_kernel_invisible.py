"""What a reader sees, and what only programs see."""

from __future__ import annotations

import unicodedata

import pytest

from ecology.kernel.invisible import BLANK, DEFAULT_IGNORABLE, all_visible, first_hidden

INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u180b\u180e\u200b\u200d\u202e\u2066\u2800\u3164\ufe00\ufeff\uffa0\ufff9"
)


@pytest.mark.parametrize("char", [*INVISIBLE, "\U000e0041", "\U000e0100", "\U0001d173", "\U0001d159", "\x00", "\xa0"])
def test_what_nobody_sees_is_found_wherever_it_stands(char: str) -> None:
    for text in (char, f"good{char}", f"{char}good", f"go{char}od\n"):
        assert not all_visible(text)
        assert first_hidden(text) == char


@pytest.mark.parametrize(
    "text", ["plain", "Größe ≥ 2", "日本語", "한국어", "עברית", "हिन्दी", "e\u0301", "✅ 🙂", "⚠\ufe0f ❤\ufe0f"]
)
def test_what_people_write_is_seen(text: str) -> None:
    assert first_hidden(f"{text}\r\n\t{text}") == ""
    assert all_visible(text.replace("\ufe0f", ""))


def test_a_style_is_one_selector_behind_a_symbol() -> None:
    for text in ("\ufe0f", "a\ufe0f", "⚠\ufe0f\ufe0f", "⚠\ufe01", "⚠\ufe0f\ufe0e"):
        assert first_hidden(text)


def test_every_format_character_is_hidden_one_way_or_the_other() -> None:
    """What Python does not call printable needs no range; the ranges are in order and do not meet."""
    for code in range(0x110000):
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            assert not all_visible(chr(code))
    flat = [code for one in DEFAULT_IGNORABLE for code in one]
    assert flat == sorted(flat)
    assert all(unicodedata.category(chr(code)) not in ("Cn", "Cf") for code in BLANK)
