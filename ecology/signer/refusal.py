"""Why a claim is not believed: one error with a reason that a program can compare."""

from __future__ import annotations

from typing import Literal

from ecology.errors import MalformedArtifact

Reason = Literal[
    "size",
    "json",
    "envelope",
    "payload-type",
    "untrusted",
    "signature",
    "statement",
    "replayed",
    "predicate",
    "unexpected",
]
"""
- ``size``: the line is longer than is read, or there are too many lines
- ``json``: not JSON, nested too deep, a key twice, a number or a string that JSON readers disagree about
- ``envelope``: not a DSSE envelope
- ``payload-type``: an envelope around something else than an in-toto statement
- ``untrusted``: nobody we trust has signed it
- ``signature``: it names a key that we trust, and that key did not sign these bytes
- ``statement``: the signed payload is not an in-toto v1 statement
- ``replayed``: a valid statement about another subject
- ``predicate``: the statement's type is one of ours and its contents are not
- ``unexpected``: anything else that went wrong while reading; refused because it is not understood
"""


class ClaimRefused(MalformedArtifact):
    """A claim that is not believed.

    Args:
        reason: Stable word for programs.
        what: One sentence for people, without a full stop.
        where: Line or field.
        todo: What the reader can do about it.
    """

    def __init__(self, reason: Reason, what: str, *, where: str = "", todo: str = "") -> None:
        """Adds the reason to the three parts."""
        self.reason: Reason = reason
        super().__init__(what, where=where, todo=todo)
