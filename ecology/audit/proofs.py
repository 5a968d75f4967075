"""What can be checked with a checkpoint and a key, without the log.

``Inclusion.text`` is a C2SP ``.tlog-proof`` file: the index, the path to the root, and the checkpoint with that root.
With the entry's bytes and the log's public key, anyone can check it offline (``check_inclusion``).

Source: C2SP tlog-proof, https://c2sp.org/tlog-proof.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from collections.abc import Sequence

from ecology.audit import notes
from ecology.contracts.policy import TrustedKey
from ecology.errors import ConfigError, IntegrityError
from ecology.kernel import merkle

HEADER = "c2sp.org/tlog-proof@v1"
_PROOF = re.compile(
    re.escape(HEADER) + r"\n(?:extra [A-Za-z0-9+/=]*\n)?index (0|[1-9][0-9]{0,15})\n((?:[A-Za-z0-9+/]{43}=\n){0,64})\n"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Inclusion:
    """This entry is leaf ``index`` of the log that the checkpoint describes."""

    index: int
    entry: bytes
    """The event's canonical JSON, as it was hashed."""
    path: tuple[bytes, ...]
    """From the leaf's sibling up."""
    checkpoint: str
    """Signed note."""

    @property
    def text(self) -> str:
        """As a ``.tlog-proof`` file; the entry is not in it."""
        hashes = "".join(base64.b64encode(h).decode("ascii") + "\n" for h in self.path)
        return f"{HEADER}\nindex {self.index}\n{hashes}\n{self.checkpoint}"


@dataclasses.dataclass(frozen=True, slots=True)
class Consistency:
    """The log of ``new`` begins with all of the log of ``old``, unchanged."""

    old: notes.Checkpoint
    new: notes.Checkpoint
    path: tuple[bytes, ...]
    """RFC 6962 section 2.1.2."""
    checkpoint: str
    """Signed note of ``new``."""


def check_inclusion(proof: str, entry: bytes, keys: Sequence[TrustedKey]) -> int:
    """The index at which a log signed by one of ``keys`` holds ``entry``.

    Args:
        proof: A ``.tlog-proof`` file.
        entry: Canonical JSON of the event.
        keys: Public keys of the log.

    Raises:
        ConfigError: It is not a proof.
        IntegrityError: It does not prove this.
        PolicyError: A key is not an Ed25519 public key in PEM.
    """
    match = _PROOF.match(proof)
    if not match:
        raise ConfigError(
            f"not a proof: it does not begin like a {HEADER}", todo="give what `ecology audit prove` printed"
        )
    index = int(match[1])
    try:
        path = [base64.b64decode(line, validate=True) for line in match[2].split("\n")[:-1]]
    except binascii.Error as error:
        raise ConfigError("not a proof: a hash is not base64") from error
    checkpoint = notes.verify(proof[match.end() :], keys)
    if not merkle.verify_inclusion(merkle.leaf_hash(entry), index, checkpoint.size, path, checkpoint.root):
        raise IntegrityError(f"this entry is not leaf {index} of the log of {checkpoint.size}", where=checkpoint.origin)
    return index
