"""What one call of the gate is asked, what it judges by, and what it says of each adapter."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from ecology.backend.bases import BaseModel
from ecology.contracts.evidence import Evidence
from ecology.contracts.policy import GateVerdict
from ecology.pipeline.governing import Governed
from ecology.pipeline.house import House
from ecology.pipeline.members import Member

Form = Literal["text", "json", "junit", "sarif", "github"]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What one call of the gate wants to know."""

    policy: str
    """Path, or name of a shipped policy."""
    base: str
    """Preset of ``conf/base``."""
    static: bool
    """Whether to ask only what needs no model."""
    form: Form
    """What goes to stdout."""
    out: Path | None
    """Folder for verdicts and signed attestations; None writes none."""
    since: str = ""
    """Git revision; adapters that did not change since are left out."""
    at: str = ""
    """Instant as of which waivers and approvals count; now where empty."""
    evaluator: str = "standard"
    """Preset of ``conf/evaluator``: which suites can be asked, and how; the policy says how much of them."""
    alias: str = "champion"
    """Names the incumbent; the bare base stands for one of another base, or for nobody."""
    fresh: bool = False
    """Whether to measure again what was measured before."""


@dataclasses.dataclass(frozen=True)
class Desk:
    """What all adapters of one call are judged by."""

    governed: Governed
    want: Asked
    now: str
    house: House
    model: BaseModel


@dataclasses.dataclass(frozen=True)
class Gated:
    """One adapter and what the gate said."""

    name: str
    folder: Path
    member: Member | None
    """None for a folder that cannot be described."""
    verdict: GateVerdict
    evidence: Evidence
    rung: str
    kept: bool = False
    """Whether nothing had to be measured."""
