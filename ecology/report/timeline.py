"""The canary step by step: share of traffic, success of both arms with intervals, alerts, and what was decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from markupsafe import Markup

from ecology.contracts.evidence import Measurement, Proportion
from ecology.contracts.promotion import CanaryObservation, CanaryResult
from ecology.report.draw import Scale, picture, tag
from ecology.report.figures import estimate
from ecology.report.story import Story
from ecology.report.words import plural

WIDTH, ROW, LEFT, RIGHT = 760.0, 92.0, 150.0, 640.0
TONES = {"advance": "good", "hold": "open", "abort": "bad"}


@dataclasses.dataclass(frozen=True, slots=True)
class ArmSeen:
    """One arm in one step."""

    name: str
    success: Proportion
    bounds: tuple[float, float]
    alerts: Proportion


def arms(observation: CanaryObservation, candidate: str) -> tuple[ArmSeen, ...]:
    """What the two arms of a step did, the candidate first; an arm that served nothing is left out."""
    found = []
    for name, own in (("candidate", True), ("incumbent", False)):
        mine = {m.metric: m for m in observation.measurements if (m.subject == candidate) == own}
        success = mine.get("canary.success")
        summary = estimate(success) if success else None
        if success and summary and isinstance(success.statistic, Proportion):
            low, high = summary[1] or 0.0, 1.0 if summary[2] is None else summary[2]
            found.append(ArmSeen(name, success.statistic, (low, high), _alerts(mine.get("canary.alerts"))))
    return tuple(found)


def timeline(story: Story) -> Markup | None:
    """The canary from top to bottom; None where none was run."""
    canary = story.report.canary
    if canary is None or not canary.observations:
        return None
    height = ROW * len(canary.observations) + 26
    scale = Scale(0, 1, LEFT, RIGHT)
    grid = [
        tag("line", x1=scale(v), x2=scale(v), y1=30, y2=height - 24, class_="grid") for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    ticks = [
        tag("text", f"{100 * v:.0f} %", x=scale(v), y=height - 8, text_anchor="middle", class_="tick")
        for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    spine = tag("line", x1=12, x2=12, y1=14, y2=height - ROW - 12, class_="spine")
    steps = [
        part
        for i, observation in enumerate(canary.observations)
        for part in _step(i, observation, _word(i, canary), canary.candidate, scale)
    ]
    title = f"Canary of {plural(len(canary.observations), 'step')}: success rates of both arms with 90 % intervals"
    return picture(WIDTH, height, title, *grid, *ticks, spine, *steps)


def _word(index: int, canary: CanaryResult) -> str:
    """What a step led to; the last one to the end."""
    last = index == len(canary.observations) - 1
    return canary.decision if last else canary.observations[index].decision


def _step(index: int, observation: CanaryObservation, word: str, candidate: str, scale: Scale) -> Sequence[Markup]:
    top, tone = index * ROW, TONES[observation.decision]
    head = f"Step {index + 1} · {observation.step.weight:.0%} of {plural(observation.requests, 'request')}"
    parts = [
        tag("circle", cx=12, cy=top + 14, r=6, class_=f"mark {tone} full"),
        tag("text", head, x=28, y=top + 18, class_="name"),
        tag("text", word, x=WIDTH - 8, y=top + 18, text_anchor="end", class_=f"status {tone}"),
    ]
    for line, seen in enumerate(arms(observation, candidate)):
        y = top + 42 + 24 * line
        point, colour = seen.success.k / seen.success.n, "accent" if seen.name == "candidate" else "plain"
        parts += [
            tag("text", seen.name, x=LEFT - 12, y=y + 4, text_anchor="end", class_="tick"),
            tag("line", x1=scale(seen.bounds[0]), x2=scale(seen.bounds[1]), y1=y, y2=y, class_=f"interval {colour}"),
            tag("circle", cx=scale(point), cy=y, r=4.5, class_=f"mark {colour} full"),
            tag("text", f"{seen.success.k}/{seen.success.n}", x=RIGHT + 12, y=y + 4, class_="tick"),
        ]
        if seen.name == "candidate" and seen.alerts.k:
            parts.append(
                tag(
                    "text", plural(seen.alerts.k, "alert"), x=WIDTH - 8, y=y + 4, text_anchor="end", class_="status bad"
                )
            )
    return parts


def _alerts(measurement: Measurement | None) -> Proportion:
    statistic = measurement.statistic if measurement else None
    return statistic if isinstance(statistic, Proportion) else Proportion(0, 0)
