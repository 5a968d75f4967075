"""What a transparency log says of a signature: that it has it, and since when.

``sigstore.verify`` checks the inclusion proof against the checkpoint, the checkpoint's signature and the promise (SET).
Around it stand here what it leaves open, for certificates and for bare keys alike:

* the size of the checkpoint's tree and the window of the log's key;
* entries of bundles 0.1 that rest on the promise alone. sigstore-python wants a proof in every entry, so that it is
  shown a blank one which nobody looks at. A promise is worth what the log's key is worth, as a checkpoint is; what it
  lacks is that monitors have seen it.

Source: sigstore_bundle.proto on the versions of bundles; Sigstore client specification, section 4.4; RFC 6962, 2.1.1.
"""

from __future__ import annotations

import datetime
import json
from typing import Any

from ecology.signer.bundle import LogEntry
from ecology.signer.refusal import ClaimRefused
from ecology.signer.roots import Root


def check_log(entry: LogEntry, root: Root) -> None:
    """The log's part for a bare key: proof, checkpoint and, where there is one, promise.

    Raises:
        ClaimRefused: ``log`` or ``time``.
    """
    from sigstore._internal.trust import KeyringPurpose  # noqa: PLC0415
    from sigstore.errors import Error  # noqa: PLC0415
    from sigstore.models import TransparencyLogEntry  # noqa: PLC0415
    from sigstore_models.rekor.v1 import TransparencyLogEntry as Model  # noqa: PLC0415

    try:
        model = Model.from_dict(dict(entry.raw))
        read = TransparencyLogEntry(model) if entry.proven else promised(model)
        read._verify(root.sigstore.rekor_keyring(KeyringPurpose.VERIFY))
    except Error as error:
        raise ClaimRefused("log", str(error)[:300]) from error
    check_size(entry)
    if entry.promised:
        check_window(entry, root)


def promised(model: Any) -> Any:
    """A log entry that is verified by the log's promise alone.

    Args:
        model: ``sigstore_models.rekor.v1.TransparencyLogEntry`` with a promise.

    Returns:
        A ``sigstore.models.TransparencyLogEntry``.
    """
    from sigstore.models import TransparencyLogEntry  # noqa: PLC0415

    class Promised(TransparencyLogEntry):
        """Without a proof; that there is a promise was seen when the bundle was read."""

        def _validate(self) -> None:
            """Nothing is asked of the proof."""

        def _verify(self, keyring: Any) -> None:
            """The promise alone."""
            self._verify_set(keyring)

    return Promised(model)


def with_blank_proof(text: str) -> str:
    """A bundle of one entry without a proof, with one that says nothing: sigstore-python reads it then."""
    value = json.loads(text)
    (entry,) = value["verificationMaterial"]["tlogEntries"]
    blank = {"logIndex": "0", "rootHash": "", "treeSize": "1", "hashes": [], "checkpoint": {"envelope": ""}}
    entry["inclusionProof"] = blank
    return json.dumps(value)


def check_size(entry: LogEntry) -> None:
    """That the checkpoint, where there is one, is of the tree that the proof is for.

    Raises:
        ClaimRefused: ``log``.
    """
    lines = entry.checkpoint.split("\n")
    if entry.proven and (len(lines) < 3 or lines[1] != str(entry.tree_size)):
        raise ClaimRefused("log", "the checkpoint is not of the tree that the inclusion proof is for")


def check_window(entry: LogEntry, root: Root) -> None:
    """That the log's key was in use at the time that the log gives.

    Raises:
        ClaimRefused: ``time``.
    """
    if not entry.integrated_at:
        return
    moment = datetime.datetime.fromtimestamp(entry.integrated_at, tz=datetime.UTC)
    windows = root.logs.get(entry.log_id) or tuple(window for found in root.logs.values() for window in found)
    if not any(moment in window for window in windows):
        raise ClaimRefused("time", f"the log's key was not in use at {moment.isoformat()}")
