"""Which controls of which framework the rules answer to, from one versioned data file with its sources.

A rule names controls (``OWASP-LLM03:2025``); the map says what each is, where that is written, and with what its
wording was compared: with the publisher's own text, with a copy of it, or with neither. What was not compared with its
source says so wherever it is shown. Nothing here judges: a mapped control is evidence for an auditor, not a claim of
conformity.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast, get_args

from ecology.contracts.policy import Rule
from ecology.documents.source import read_source, refuse
from ecology.errors import PolicyError

Checked = Literal["source", "copy", "no"]
MAP_FILE = Path(__file__).with_name("controls.yaml")


@dataclasses.dataclass(frozen=True, slots=True)
class Framework:
    """One published framework."""

    id: str
    title: str
    edition: str
    source: str
    prefix: str
    """How the ids of its controls begin."""


@dataclasses.dataclass(frozen=True, slots=True)
class Control:
    """One control, technique or mitigation."""

    id: str
    framework: Framework
    title: str
    checked: Checked
    """With what the title was compared: the publisher's text, a copy of it, or neither."""
    by: str
    """Where that text is, or why there was none."""

    @property
    def remark(self) -> str:
        """What a reader has to know of the wording; empty where the publisher's own text has it."""
        return {
            "source": "",
            "copy": "wording compared with a copy of the source",
            "no": "wording not checked against the source",
        }[self.checked]


@dataclasses.dataclass(frozen=True, slots=True)
class ControlMap:
    """The data file."""

    version: int
    controls: Mapping[str, Control]


@functools.cache
def control_map(path: Path = MAP_FILE) -> ControlMap:
    """The shipped map, or another.

    Raises:
        ConfigError: There is no such file.
        PolicyError: It is malformed, or a control belongs to no framework.
    """
    source = read_source(path, PolicyError)
    refuse(source, source.mistakes, "the control map")
    try:
        frameworks = [
            Framework(**{key: str(value) for key, value in entry.items()}) for entry in source.data["frameworks"]
        ]
        controls = {}
        for name, entry in source.data["controls"].items():
            framework = max((f for f in frameworks if name.startswith(f.prefix)), key=lambda f: len(f.prefix))
            controls[name] = Control(name, framework, str(entry["title"]), _checked(entry["checked"]), str(entry["by"]))
        return ControlMap(int(source.data["version"]), controls)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PolicyError(f"no control map: {type(error).__name__}: {error}", where=str(path)) from error


def _checked(value: object) -> Checked:
    """YAML reads a bare ``no`` as false."""
    for word in get_args(Checked):
        if value == word or (word == "no" and value is False):
            return cast(Checked, word)
    raise ValueError(f"checked is one of {', '.join(get_args(Checked))}, found {value!r}")


def by_framework(rules: Sequence[Rule]) -> Mapping[Framework, Mapping[Control, tuple[str, ...]]]:
    """Framework to control to the ids of the rules that answer to it, in the map's order; known controls only."""
    known = control_map().controls
    found: dict[Framework, dict[Control, tuple[str, ...]]] = {}
    for control in known.values():
        answering = tuple(rule.id for rule in rules if control.id in rule.controls)
        if answering:
            found.setdefault(control.framework, {})[control] = answering
    return found


def unknown_controls(rule: Rule) -> tuple[str, ...]:
    """Controls that a rule names and the map does not have."""
    return tuple(name for name in rule.controls if name not in control_map().controls)
