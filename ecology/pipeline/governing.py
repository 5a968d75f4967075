"""From a policy's file to what a gate, a run or a report judges by: ``govern`` is the one way.

    release.yaml              the policy; it may extend another file of the same folder
    release_approvals.jsonl   who approved it: one signed envelope a line
    release_waivers.jsonl     what was waived under it: one signed envelope a line

It stands alone, beside ``policies``, so that a static gate loads nothing that explains, compares or replays.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ecology.contracts.policy import Finding, Policy
from ecology.errors import ConfigError
from ecology.pipeline.places import subject
from ecology.policy.reader import load_policy
from ecology.policy.waivers import with_waivers
from ecology.report.standing import approval_finding, approvals_of, read_waivers
from ecology.signer.approval import Approvals

MAX_LINES = 1024
"""Envelopes that are read of one file beside a policy."""


@dataclasses.dataclass(frozen=True)
class Governed:
    """A policy as it is judged by, at an instant."""

    path: Path
    policy: Policy
    """Compiled, with the waivers that count."""
    envelopes: tuple[str, ...]
    """Approvals as they lie beside the file."""
    approvals: Approvals | None
    """None where the policy asks for nobody."""
    refused: tuple[str, ...]
    """Why a waiver beside the file has no effect."""

    @property
    def standing(self) -> tuple[Finding, ...]:
        """What the policy's own standing contributes to every verdict."""
        finding = approval_finding(self.policy, self.approvals)
        return () if finding is None else (finding,)


def policy_file(name: str) -> Path:
    """A policy file, or the shipped one of that name.

    Raises:
        ConfigError: There is none.
    """
    return subject(name, "policies", ".yaml")


def beside(path: Path, what: str) -> Path:
    """``release_waivers.jsonl`` of ``release.yaml``."""
    return path.with_name(f"{path.stem}_{what}.jsonl")


def govern(name: str, now: str, *, policy: Policy | None = None) -> Governed:
    """A policy with its waivers and approvals, as of an instant.

    Args:
        name: Path, or name of a shipped policy.
        now: RFC 3339 instant: approvals count as of it.
        policy: The policy where a configuration has tightened the file's; the file's own where None.

    Raises:
        ConfigError: There is no such file.
        PolicyError: It cannot be read; all mistakes are listed.
    """
    path = policy_file(name)
    compiled = policy or load_policy(path)
    waivers, refused = read_waivers(compiled, envelopes_of(beside(path, "waivers")))
    envelopes = envelopes_of(beside(path, "approvals"))
    return Governed(path, with_waivers(compiled, waivers), envelopes, approvals_of(compiled, envelopes, now), refused)


def envelopes_of(path: Path) -> tuple[str, ...]:
    """The lines of a file beside a policy; none where there is no such file.

    Raises:
        ConfigError: It cannot be read, or has more than ``MAX_LINES``.
    """
    if not path.exists():
        return ()
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), todo="one signed envelope a line") from error
    if len(lines) > MAX_LINES:
        raise ConfigError(f"more than the {MAX_LINES} envelopes that are read", where=str(path))
    return tuple(lines)
