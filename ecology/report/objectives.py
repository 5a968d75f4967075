"""The ranked candidates on every objective at once: one line an objective, one thread a candidate.

A front in many dimensions has no staircase. Here dominance can be seen: a thread that lies left of another on every
line is beaten by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ecology.report.draw import GLYPH, Scale, clip, picture, tag
from ecology.report.story import Row, Story
from ecology.report.words import fixed, plural

WIDTH, LEFT, RIGHT, TOP, STEP = 760.0, 180.0, 680.0, 60.0, 40.0


def ranked(story: Story) -> tuple[Row, ...]:
    """Those with a score, best first."""
    return tuple(sorted((row for row in story.rows if row.score is not None), key=lambda row: -(row.score or 0.0)))


def objectives(story: Story) -> Markup | None:
    """Each line from the worst value seen to the best; None with fewer than two ranked."""
    rows = ranked(story)
    if len(rows) < 2:
        return None
    values = {row.digest: _values(row) for row in rows}
    names = [name for name in values[rows[0].digest] if all(name in found for found in values.values())]
    scales = [Scale(min(v[n] for v in values.values()), max(v[n] for v in values.values()), LEFT, RIGHT) for n in names]
    lines = [part for i, name in enumerate(names) for part in _line(TOP + i * STEP, name, scales[i])]
    threads = [
        _thread(row, [s(values[row.digest][n]) for n, s in zip(names, scales, strict=True)]) for row in reversed(rows)
    ]
    dots = [
        tag("circle", cx=s(values[row.digest][n]), cy=TOP + i * STEP, r=4.5, class_=f"mark {_tone(row)} full")
        for row in reversed(rows)
        for i, (n, s) in enumerate(zip(names, scales, strict=True))
    ]
    title = f"{plural(len(names), 'objective')} of {plural(len(rows), 'ranked candidate')}; better is to the right"
    height = TOP + STEP * (len(names) - 1) + 28
    return picture(WIDTH, height, title, *lines, *threads, *dots, *_heads(rows, values, names[0], scales[0]))


def _values(row: Row) -> Mapping[str, float]:
    fitness = row.candidate.fitness if row.candidate else None
    return {t.name: t.value for t in fitness.terms if t.value is not None and t.weight > 0} if fitness else {}


def _tone(row: Row) -> str:
    return "accent" if row.tone == "accent" else "good" if row.on_front else "plain"


def _line(y: float, name: str, scale: Scale) -> Sequence[Markup]:
    return (
        tag("text", clip(name, 18), x=LEFT - 68, y=y + 4, text_anchor="end", class_="axis"),
        tag("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="track"),
        tag("text", fixed(scale.low), x=LEFT - 10, y=y + 4, text_anchor="end", class_="tick"),
        tag("text", fixed(scale.high), x=RIGHT + 10, y=y + 4, class_="tick"),
    )


def _thread(row: Row, places: Sequence[float]) -> Markup:
    points = " ".join(f"{x:.1f},{TOP + i * STEP:.1f}" for i, x in enumerate(places))
    return tag("polyline", points=points, class_=f"thread {_tone(row)}{'' if row.on_front else ' beaten'}")


def _heads(rows: Sequence[Row], values: Mapping[str, Mapping[str, float]], name: str, scale: Scale) -> Sequence[Markup]:
    """Names above the first line, lifted where they would meet; left out where three levels are not enough."""
    ends, parts = [0.0, 0.0, 0.0], []
    for x, row in sorted(((scale(values[row.digest][name]), row) for row in rows), key=lambda pair: pair[0]):
        text = clip(row.name, 18)
        half = GLYPH * len(text) / 2
        level = next((i for i, end in enumerate(ends) if x - half > end), None)
        if level is not None:
            ends[level] = x + half
            y = TOP - 12 - 14 * level
            parts.append(tag("text", text, x=x, y=y, text_anchor="middle", class_=f"name {_tone(row)}"))
    return parts
