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
    "coverage",
    "expired",
    "bundle",
    "root",
    "identity",
    "certificate",
    "time",
    "log",
    "artifact",
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
- ``coverage``: what was signed is not exactly the folder: a file more, less or other
- ``expired``: it had effect once, or will have
- ``bundle``: not a Sigstore bundle of a version that is read
- ``root``: the trusted root itself is malformed
- ``identity``: signed by somebody else than who is trusted, or vouched for by another issuer
- ``certificate``: the signing certificate does not lead to the trusted root
- ``time``: nothing trusted says when it was signed, or it was not while certificate, log or authority were valid
- ``log``: the transparency log's proof, checkpoint or entry does not hold
- ``artifact``: a valid signature over something else than the artifact
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
