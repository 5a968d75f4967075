"""``ecology registry`` and ``ecology audit``: what is known, and whether it can be relied on."""

from __future__ import annotations

import json
from pathlib import Path

from ecology.contracts.identity import Digest, Json
from ecology.errors import ConfigError
from ecology.kernel import canonical
from ecology.pipeline.house import House


def find(house: House, beginning: str) -> Digest:
    """The one registered digest that begins like this, ``sha256:`` or not.

    Raises:
        ConfigError: None or several do.
    """
    text = beginning.removeprefix("sha256:")
    hits = [row.digest for row in house.registry.list() if row.digest.removeprefix("sha256:").startswith(text)]
    if len(hits) == 1:
        return Digest(hits[0])
    what = f"{len(hits)} adapters begin like this" if hits else "no adapter begins like this"
    raise ConfigError(what, where=beginning, todo="ecology registry list shows them all")
