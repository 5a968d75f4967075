"""Characters that nobody sees: what they say is said to programs behind a reader's back.

``str.isprintable`` knows control characters, separators, surrogates and what is not assigned. It lets pass what Unicode
says a renderer should show as nothing, such as variation selectors, tags and the fillers of Hangul, and a few
characters whose glyph is blank.

Source: Unicode 16.0, DerivedCoreProperties.txt, ``Default_Ignorable_Code_Point``; the blank ones are UnicodeData.txt's
BRAILLE PATTERN BLANK, MUSICAL SYMBOL NULL NOTEHEAD and KHITAN SMALL SCRIPT FILLER. The standard library has no such
property.
"""

from __future__ import annotations

import re
import unicodedata

DEFAULT_IGNORABLE = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
"""First and last of each range."""
BLANK = (0x2800, 0x1D159, 0x16FE4)

_HIDDEN = re.compile(
    "[" + "".join(f"{chr(a)}-{chr(b)}" for a, b in (*DEFAULT_IGNORABLE, *((code, code) for code in BLANK))) + "]"
)
_STYLES = "\N{VARIATION SELECTOR-15}\N{VARIATION SELECTOR-16}"


def all_visible(text: str) -> bool:
    """Whether every character shows; a line end or a tab does not."""
    return text.isprintable() and (text.isascii() or _HIDDEN.search(text) is None)


def first_hidden(text: str) -> str:
    """The first character of prose that nobody sees, other than line ends and tabs; empty where there is none.

    One variation selector 15 or 16 behind a symbol chooses how that is drawn, as in many an emoji, and is let be.
    """
    before = ""
    for char in text:
        styled = char in _STYLES and before and unicodedata.category(before) == "So"
        if char not in "\n\r\t" and not styled and not all_visible(char):
            return char
        before = char
    return ""
