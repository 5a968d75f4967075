"""Which files may lie in an adapter's folder, and how large they may be: what is not listed here does not belong.

A README may stand beside the weights: nobody here reads it, and it is covered by digest and signature.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ecology.contracts.artifact import CLAIMS_FILE, CONFIG_FILE, MAX_CLAIMS_BYTES, WEIGHTS_FILE
from ecology.contracts.identity import Digest
from ecology.gate.violation import Violation, show
from ecology.kernel.invisible import first_hidden
from ecology.store.snapshot import Entry, Snapshot

README_FILE = "README.md"
MAX_CONFIG_BYTES = 512 * 1024
MAX_README_BYTES = 256 * 1024
MAX_OTHER_BYTES = 32 * 1024 * 1024
TOKENIZER_FILES = frozenset(
    {
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
        *("merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json", "generation_config.json"),
    }
)
"""Trainers leave copies of these beside an adapter. They decide what the model is asked: only the base's own pass."""
_ALLOWED = (CONFIG_FILE, WEIGHTS_FILE, CLAIMS_FILE, README_FILE)
_MOST_BYTES = {CLAIMS_FILE: MAX_CLAIMS_BYTES, CONFIG_FILE: MAX_CONFIG_BYTES, README_FILE: MAX_README_BYTES}
_FOREIGN = {
    ".bin": "a pickle runs code when it is loaded",
    ".pt": "a pickle runs code when it is loaded",
    ".pth": "a pickle runs code when it is loaded",
    ".pkl": "a pickle runs code when it is loaded",
    ".ckpt": "a pickle runs code when it is loaded",
    ".py": "a script is run by loaders that trust remote code",
    ".jinja": "a template decides what the model is asked",
}


def check_files(seen: Snapshot, base_files: Mapping[str, Digest]) -> list[Violation]:
    """What does not belong into the folder, and what is missing from it.

    Args:
        seen: The folder, as it was read.
        base_files: Digests of the base's own tokenizer files and template, by name.
    """
    found = []
    for entry in seen.entries:
        if entry.kind != "file":
            found.append(_foreign(entry, f"a {entry.kind}", "plain files"))
        elif entry.name in TOKENIZER_FILES:
            found += _of_the_base(entry, base_files.get(entry.name))
        elif entry.name not in _ALLOWED:
            why = _FOREIGN.get(os.path.splitext(entry.name)[1].lower(), "an adapter does not need it")
            found.append(_foreign(entry, f"a file that does not belong: {why}", ", ".join(_ALLOWED)))
        elif entry.size_bytes > _MOST_BYTES.get(entry.name, entry.size_bytes):
            found.append(_foreign(entry, f"{entry.size_bytes} bytes", f"at most {_MOST_BYTES[entry.name]}"))
        elif entry.name == README_FILE:
            found += _readme(entry, seen.contents.get(README_FILE, b""))
    present = {entry.name for entry in seen.entries}
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if name not in present:
            found.append(Violation("foreign file", name, "", "no such file", "both files of an adapter"))
    return found


def _of_the_base(entry: Entry, ours: Digest | None) -> list[Violation]:
    if ours is not None and entry.digest == ours:
        return []
    allowed = f"no such file, or the base's own ({ours})" if ours else "no such file: the base has none"
    return [_foreign(entry, f"a tokenizer or template that is not the base's ({entry.digest})", allowed)]


def _readme(entry: Entry, data: bytes) -> list[Violation]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return [_foreign(entry, "bytes that are not UTF-8", "text")]
    bad = first_hidden(text)
    return [_foreign(entry, f"the character {show(bad)}", "text that a reader sees")] if bad else []


def _foreign(entry: Entry, found: str, allowed: str) -> Violation:
    return Violation("foreign file", show(entry.name, 200), "", found, allowed)
