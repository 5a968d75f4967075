"""The weight plane of two parents: where on it the children are good, one panel a metric.

Each point that was tried is a square in its place, darker for a larger value, with the value in it; the best point has
a frame. Nothing is interpolated between points: what was not asked is left white.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from markupsafe import Markup

from ecology.report.draw import Scale, picture, tag

SIDE, GAP, LEFT, TOP, BOTTOM = 230.0, 34.0, 52.0, 40.0, 54.0
LIGHT, DARK = (240, 244, 250), (20, 70, 140)
LIGHT_BAD, DARK_BAD = (251, 242, 238), (160, 60, 20)


@dataclasses.dataclass(frozen=True, slots=True)
class Panel:
    """One metric over the plane."""

    title: str
    values: Sequence[float]
    """One a point."""
    good: bool
    """Whether larger is better: decides the colour."""
    share: bool = True
    """Whether values are shares of items, shown in per cent, or plain numbers."""


def weight_plane(
    points: Sequence[tuple[float, float]], panels: Sequence[Panel], names: tuple[str, str], best: int
) -> Markup:
    """The picture, as one SVG with its own colours.

    Args:
        points: Weights of the first and the second parent.
        panels: What is shown, left to right.
        names: Of the parents.
        best: Index of the point with a frame.
    """
    lows, highs = [min(axis) for axis in zip(*points, strict=True)], [max(axis) for axis in zip(*points, strict=True)]
    columns = max(len({point[0] for point in points}), 2)
    cell = min(SIDE / columns, 46.0) - 1 if columns <= 12 else 20.0
    width = LEFT + len(panels) * (SIDE + GAP)
    parts = [tag("rect", x=0, y=0, width=width, height=TOP + SIDE + BOTTOM, fill="#ffffff")]
    for number, panel in enumerate(panels):
        start = LEFT + number * (SIDE + GAP)
        across = Scale(lows[0], highs[0], start + cell / 2, start + SIDE - cell / 2)
        upward = Scale(lows[1], highs[1], TOP + SIDE - cell / 2, TOP + cell / 2)
        parts.append(_text(f"{panel.title}, %" if panel.share else panel.title, start + SIDE / 2, TOP - 14, 13))
        parts += _axes(points, names, number, across, upward, start)
        low, high = min(panel.values), max(panel.values)
        for i, ((a, b), value) in enumerate(zip(points, panel.values, strict=True)):
            share = (value - low) / (high - low) if high > low else 0.5
            x, y = across(a), upward(b)
            frame = {"stroke": "#111111", "stroke_width": 2.5} if i == best else {}
            parts.append(
                tag(
                    "rect", tag("title", f"{names[0]} {a:g}, {names[1]} {b:g}: {value:.3g}"),
                    x=x - cell / 2, y=y - cell / 2, width=cell, height=cell, fill=_colour(share, panel.good), **frame,
                )
            )  # fmt: skip
            parts.append(
                _text(
                    f"{100 * value:.0f}" if panel.share else f"{value:.2f}",
                    x,
                    y + 3.5,
                    10,
                    "#ffffff" if share > 0.55 else "#222222",
                )
            )
    title = f"{', '.join(panel.title for panel in panels)} over the weights of {names[0]} and {names[1]}"
    return picture(width, TOP + SIDE + BOTTOM, title, tag("g", *parts, font_family="sans-serif"))


def _axes(
    points: Sequence[tuple[float, float]],
    names: tuple[str, str],
    number: int,
    across: Scale,
    upward: Scale,
    start: float,
) -> list[Markup]:
    parts = [_text(f"weight of {names[0]}", start + SIDE / 2, TOP + SIDE + 38, 11)]
    for value in _ticks([point[0] for point in points]):
        parts.append(_text(f"{value:g}", across(value), TOP + SIDE + 16, 10))
    if number == 0:
        turned = f"rotate(-90 12 {TOP + SIDE / 2:.0f})"
        parts.append(
            tag(
                "text", f"weight of {names[1]}", x=12, y=TOP + SIDE / 2, font_size=11, text_anchor="middle",
                fill="#222222", transform=turned,
            )
        )  # fmt: skip
        for value in _ticks([point[1] for point in points]):
            parts.append(_text(f"{value:g}", LEFT - 16, upward(value) + 3.5, 10))
    return parts


def _ticks(values: Sequence[float]) -> list[float]:
    """Every value of a grid; the ends of anything finer."""
    distinct = sorted(set(values))
    return distinct if len(distinct) <= 9 else [distinct[0], distinct[-1]]


def _colour(share: float, good: bool) -> str:
    light, dark = (LIGHT, DARK) if good else (LIGHT_BAD, DARK_BAD)
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(light, dark, strict=True))


def _text(text: str, x: float, y: float, size: int, colour: str = "#222222") -> Markup:
    return tag("text", text, x=x, y=y, font_size=size, text_anchor="middle", fill=colour)
