"""Just enough SVG: elements that escape, and a scale.

Colours are classes that the page's style sheet defines, so one picture serves the light page, the dark one and the
printer.
"""

from __future__ import annotations

import dataclasses

from markupsafe import Markup, escape

GLYPH = 6.4
"""Mean width of a letter at font size 12, in pixels; used to keep labels apart."""


def tag(name: str, *children: str | Markup, **attributes: object) -> Markup:
    """One element, everything in it escaped; ``class_`` is written ``class``, and ``text_anchor`` ``text-anchor``.

    Args:
        name: Of the element; ours, never from outside.
        children: Markup as it is, text escaped.
        attributes: Numbers are written with one decimal at most; None leaves the attribute out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{''.join(escape(child) for child in children)}</{name}>")


def picture(width: float, height: float, title: str, *children: Markup) -> Markup:
    """A whole drawing with its description for those who do not see it."""
    return tag(
        "svg",
        tag("title", title),
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_text(width)} {_text(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=title,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """Maps low..high to first..last, and keeps what lies outside at the end."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        """Position in pixels."""
        inside = min(max(value, min(self.low, self.high)), max(self.low, self.high))
        part = (inside - self.low) / (self.high - self.low) if self.high != self.low else 0.5
        return self.first + part * (self.last - self.first)


@dataclasses.dataclass(slots=True)
class Labels:
    """Places labels where none is yet."""

    right: float
    bottom: float
    taken: list[tuple[float, float, float, float]] = dataclasses.field(default_factory=list)

    def block(self, x: float, y: float, radius: float) -> None:
        """Keeps labels off a marker."""
        self.taken.append((x - radius, y - radius, x + radius, y + radius))

    def place(self, text: str, x: float, y: float, gap: float = 9) -> tuple[float, float, str] | None:
        """Where to write ``text`` beside (x, y): x, baseline and anchor; None if every side is taken."""
        width = GLYPH * len(text)
        sides = (
            (gap, 4, "start"),
            (-gap, 4, "end"),
            (0, -gap, "middle"),
            (0, gap + 9, "middle"),
            (gap, -8, "start"),
            (gap, 16, "start"),
            (-gap, -8, "end"),
            (-gap, 16, "end"),
        )
        for dx, dy, anchor in sides:
            left = x + dx - {"start": 0.0, "end": width, "middle": width / 2}[anchor]
            box = (left, y + dy - 11, left + width, y + dy + 3)
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= self.right and box[3] <= self.bottom
            if inside and not any(_meet(box, other) for other in self.taken):
                self.taken.append(box)
                return x + dx, y + dy, anchor
        return None


def clip(text: str, letters: int) -> str:
    """Text of at most so many letters, with an ellipsis where it was cut."""
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return str(value)
