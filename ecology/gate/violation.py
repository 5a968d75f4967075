"""One thing that is wrong with a candidate, told so that nobody has to look it up: where, what, what instead, and why.

Every violation belongs to one class of attack, and every class names the entry of the OWASP Top 10 for LLM Applications
(2025) and the technique of MITRE ATLAS that it is an instance of. A broken folder need not be an attack; it is refused
for what it could be.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

_SUPPLY, _POISON, _USE = "OWASP-LLM03:2025", "OWASP-LLM04:2025", "OWASP-LLM10:2025"

THREATS: Mapping[str, tuple[str, str]] = types.MappingProxyType(
    {
        "base overwrite": (_POISON, "MITRE-ATLAS-AML.T0018"),
        "undeclared module": (_POISON, "MITRE-ATLAS-AML.T0018"),
        "missing factor": (_POISON, "MITRE-ATLAS-AML.T0018"),
        "shape": (_POISON, "MITRE-ATLAS-AML.T0018"),
        "dtype": (_SUPPLY, "MITRE-ATLAS-AML.T0011.000"),
        "non-finite": (_POISON, "MITRE-ATLAS-AML.T0018"),
        "magnitude": (_USE, "MITRE-ATLAS-AML.T0018"),
        "config type": (_SUPPLY, "MITRE-ATLAS-AML.T0011.000"),
        "config import": (_SUPPLY, "MITRE-ATLAS-AML.T0011.000"),
        "base identity": (_SUPPLY, "MITRE-ATLAS-AML.T0010"),
        "foreign file": (_SUPPLY, "MITRE-ATLAS-AML.T0011.000"),
        "container": (_SUPPLY, "MITRE-ATLAS-AML.T0011.000"),
        "signature": (_SUPPLY, "MITRE-ATLAS-AML.T0010"),
        "claim": (_SUPPLY, "MITRE-ATLAS-AML.T0010"),
        "data": (_POISON, "MITRE-ATLAS-AML.T0020"),
        "anomaly": (_POISON, "MITRE-ATLAS-AML.T0018"),
        "unforeseen": (_SUPPLY, "MITRE-ATLAS-AML.T0011.000"),
    }
)
"""Class of attack to its references. LLM03 supply chain, LLM04 data and model poisoning, LLM10 unbounded consumption;
T0010 supply chain compromise, T0011.000 unsafe AI artifacts, T0018 manipulate AI model, T0020 poison training data."""


@dataclasses.dataclass(frozen=True, slots=True)
class Violation:
    """What one check found."""

    threat: str
    """A key of ``THREATS``."""
    file: str
    key: str
    """Key of the configuration, tensor, entry of the folder; empty where the file as a whole is meant."""
    found: str
    allowed: str

    def sentence(self) -> str:
        """All of it in one line of ASCII."""
        where = ": ".join(part for part in (self.file, self.key) if part)
        references = ", ".join((self.threat, *THREATS[self.threat]))
        return ascii(f"{where}: found {self.found}; allowed: {self.allowed} [{references}]")[1:-1].replace("\\'", "'")


def show(value: object, most: int = 80) -> str:
    """A value from a stranger, short and harmless to print."""
    return ascii(value)[:most]
