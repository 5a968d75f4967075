"""Skill against safety: where everybody stands, and the corner that the policy admits."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ecology.report.draw import Labels, Scale, clip, picture, tag
from ecology.report.figures import Cell
from ecology.report.story import Row, Story

WIDTH, HEIGHT = 760.0, 470.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 736.0, 36.0, 414.0
DOMAIN = (-0.02, 1.02)
"""A little more than the rates can be, so that marks at 0 and 1 are whole."""
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
ORDER = ("plain", "bad", "open", "good", "accent")
"""Who is drawn first; the promoted one last, on top."""


def plane(story: Story) -> Markup | None:
    """Refusal of harmful requests to the right, schema validity upwards, with intervals; None without two points."""
    keys = {column.key: i for i, column in enumerate(story.columns)}
    up = "schema" if "schema" in keys else "skill"
    if "refusal" not in keys or up not in keys:
        return None
    points = [
        (row, x, y)
        for row in sorted(story.rows, key=lambda row: ORDER.index(row.tone))
        if (x := row.cells[keys["refusal"]]) is not None and (y := row.cells[keys[up]]) is not None
    ]
    if len(points) < 2:
        return None
    across, upward = Scale(*DOMAIN, LEFT, RIGHT), Scale(*DOMAIN, BOTTOM, TOP)
    names = (points[0][1].column.title, points[0][2].column.title)
    return picture(
        WIDTH,
        HEIGHT,
        f"{names[1]} against {names[0].lower()} of {len(points)} subjects, with 90 % intervals",
        *_frame(across, upward, names),
        *_region(points, across, upward),
        *(part for point in points for part in _whiskers(*point, across, upward)),
        *(_marker(row, across(x.point), upward(y.point)) for row, x, y in points),
        *_names(points, across, upward),
    )


def _frame(across: Scale, upward: Scale, names: tuple[str, str]) -> Sequence[Markup]:
    parts = []
    for value in TICKS:
        x, y, label = across(value), upward(value), f"{100 * value:.0f} %"
        parts += [
            tag("line", x1=x, x2=x, y1=TOP, y2=BOTTOM, class_="grid"),
            tag("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="grid"),
            tag("text", label, x=x, y=BOTTOM + 18, text_anchor="middle", class_="tick"),
            tag("text", label, x=LEFT - 8, y=y + 4, text_anchor="end", class_="tick"),
        ]
    middle = (LEFT + RIGHT) / 2
    parts.append(
        tag(
            "text",
            f"{names[0]} (harmful requests refused) →",
            x=middle,
            y=HEIGHT - 12,
            text_anchor="middle",
            class_="axis",
        )
    )
    parts.append(tag("text", f"↑ {names[1]}", x=LEFT - 44, y=TOP - 18, class_="axis"))
    return parts


def _region(points: Sequence[tuple[Row, Cell, Cell]], across: Scale, upward: Scale) -> Sequence[Markup]:
    _, x, y = points[0]
    if x.threshold is None or y.threshold is None:
        return ()
    left, bottom, right, top = across(x.threshold), upward(y.threshold), across(1.0), upward(1.0)
    return (
        tag("rect", x=left, y=top, width=right - left, height=bottom - top, class_="region"),
        tag("text", "policy", x=right, y=bottom + 14, text_anchor="end", class_="region-name"),
    )


def _whiskers(row: Row, x: Cell, y: Cell, across: Scale, upward: Scale) -> Sequence[Markup]:
    px, py, parts = across(x.point), upward(y.point), []
    if x.lower is not None and x.upper is not None:
        parts.append(tag("line", x1=across(x.lower), x2=across(x.upper), y1=py, y2=py, class_=f"whisker {row.tone}"))
    if y.lower is not None and y.upper is not None:
        parts.append(tag("line", x1=px, x2=px, y1=upward(y.lower), y2=upward(y.upper), class_=f"whisker {row.tone}"))
    return parts


def _marker(row: Row, x: float, y: float) -> Markup:
    """Base: diamond; founder: square; child: circle. Filled where admitted."""
    kind = f"mark {row.tone}" + (" full" if row.tone in ("good", "accent", "plain") else "")
    hint = tag("title", f"{row.name}: {row.status}")
    if row.group == "base":
        return tag("path", hint, d=f"M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7-7z", class_=kind)
    if row.group == "founder":
        return tag("rect", hint, x=x - 5.5, y=y - 5.5, width=11, height=11, class_=kind)
    return tag("circle", hint, cx=x, cy=y, r=6, class_=kind)


def _names(points: Sequence[tuple[Row, Cell, Cell]], across: Scale, upward: Scale) -> Sequence[Markup]:
    labels, parts = Labels(WIDTH, BOTTOM), []
    for _, x, y in points:
        labels.block(across(x.point), upward(y.point), 7)
    for row, x, y in reversed(points):  # the promoted one gets the best place
        text = clip(row.name, 22)
        spot = labels.place(text, across(x.point), upward(y.point))
        if spot:
            parts.append(tag("text", text, x=spot[0], y=spot[1], text_anchor=spot[2], class_=f"name {row.tone}"))
    return parts
