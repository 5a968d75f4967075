"""The head of a safetensors file, read with suspicion, without torch and without NumPy.

Format (github.com/huggingface/safetensors, "Format"): 8 bytes little-endian length N, N bytes of JSON, then the
tensors' bytes. We hold a file to the letter of it, and to more than common readers ask:

1. N is at most ``max_header_bytes`` and the JSON lies inside the file;
2. strict UTF-8 that begins with ``{``, padded with nothing but spaces, without a duplicate key;
3. ``__metadata__`` maps strings to strings;
4. every tensor has exactly ``dtype``, ``shape`` and ``data_offsets``, a dtype we know, at most 8 non-negative extents,
   and as many bytes as these imply;
5. sorted by offset the tensors follow each other from 0 to the end of the file: no overlap, no gap, no trailing byte.
   What no tensor owns could hide a payload, and what two own reads differently in different programs;
6. the JSON has no more brackets and commas than that many bytes of tensors have, so that parsing it takes memory in
   proportion to a real header of its length.

``MalformedArtifact`` is the only exception that leaves this file.
"""

from __future__ import annotations

import dataclasses
import os
import struct
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ecology.contracts.identity import Json
from ecology.errors import MalformedArtifact
from ecology.store.files import open_plain, parse_json

MAX_HEADER_BYTES = 8 * 1024 * 1024
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**53
"""Beyond it a JSON number is no longer exact."""

ITEM_BYTES: Mapping[str, int] = types.MappingProxyType(
    {
        **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1),
        **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
        **dict.fromkeys(("U32", "I32", "F32"), 4),
        **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
    }
)
"""Bytes an element; the sub-byte types (F4, F6) are left out: no adapter has them."""


class Bytes(Protocol):
    """What a header is read from."""

    def read(self, size: int, /) -> bytes:
        """``size`` bytes, or what is left."""


@dataclasses.dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies."""

    dtype: str
    """A key of ``ITEM_BYTES``."""
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the end of the header."""
    end: int
    """Byte after the last."""


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """A checked head: every tensor lies inside the file and owns its bytes alone."""

    tensors: Mapping[str, TensorInfo]
    """By name, sorted."""
    metadata: Mapping[str, str]
    data_offset: int
    """Bytes of the file before the first tensor."""


def read_header(path: Path, max_header_bytes: int = MAX_HEADER_BYTES) -> Header:
    """Reads and checks the head of ``path``; the tensors' bytes are not touched.

    Raises:
        MalformedArtifact: Any of rules 1 to 6 is broken, or there is no such plain file.
    """
    with open_plain(path) as stream:
        return header_of(stream, os.fstat(stream.fileno()).st_size, path, max_header_bytes)


def header_of(stream: Bytes, size: int, path: Path, max_header_bytes: int = MAX_HEADER_BYTES) -> Header:
    """As ``read_header``, of a file that is being read; it is left behind the header.

    Args:
        stream: The file, at its beginning.
        size: Bytes of the whole file.
        path: For messages.
        max_header_bytes: As there.

    Raises:
        MalformedArtifact: Any of the rules is broken.
    """
    prefix = stream.read(8)
    if len(prefix) < 8:
        raise _bad(path, f"{size} bytes are too few for a header")
    (length,) = struct.unpack("<Q", prefix)
    if length > max_header_bytes:  # rule 1
        raise _bad(path, f"the header claims {length} bytes; at most {max_header_bytes} are read")
    if 8 + length > size:
        raise _bad(path, f"the header claims {length} bytes and the file has {size}; it is truncated")
    raw = stream.read(length)
    if len(raw) != length:
        raise _bad(path, "the file became shorter while it was read")
    if not raw.startswith(b"{"):  # rule 2
        raise _bad(path, "the header does not begin with '{'")
    if raw.count(b"[") + raw.count(b"{") > length // 12 + 4 or raw.count(b",") > length // 3 + 4:  # rule 6
        raise _bad(path, "the header is denser than one that describes tensors, which take 50 bytes each")
    table = parse_json(raw.rstrip(b" "), str(path))
    metadata = _metadata(path, table.pop("__metadata__", {}))
    tensors = {name: _tensor(path, name, table[name]) for name in sorted(table)}
    _check_layout(path, tensors, size - 8 - length)
    return Header(types.MappingProxyType(tensors), metadata, 8 + length)


def _bad(path: Path, what: str) -> MalformedArtifact:
    return MalformedArtifact(what, where=str(path), todo="write the file again with safetensors")


def _metadata(path: Path, value: Json) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):  # rule 3
        raise _bad(path, "__metadata__ is not a mapping of strings to strings")
    return types.MappingProxyType(dict(sorted(value.items())))


def _tensor(path: Path, name: str, value: Json) -> TensorInfo:
    """Rule 4."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _bad(path, f"tensor {name!a} has not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _bad(path, f"tensor {name!a} has the unknown dtype {dtype!r:.40}")
    if not _counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise _bad(path, f"tensor {name!a} has the impossible shape {shape!r:.80}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _bad(path, f"tensor {name!a} has the impossible data_offsets {offsets!r:.80}")
    elements = 1
    for extent in shape:
        elements *= extent
        if elements > MAX_ELEMENTS:
            raise _bad(path, f"tensor {name!a} has more than 2**53 elements")
    if elements * ITEM_BYTES[dtype] != offsets[1] - offsets[0]:
        raise _bad(
            path, f"tensor {name!a} of shape {shape} and {dtype} does not fill its {offsets[1] - offsets[0]} bytes"
        )
    return TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])


def _counts(value: Json) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= MAX_ELEMENTS for item in value)


def _check_layout(path: Path, tensors: Mapping[str, TensorInfo], data_bytes: int) -> None:
    """Rule 5."""
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            kind = (
                "overlaps the one before it"
                if info.start < position
                else f"leaves bytes {position} to {info.start} unowned"
            )
            raise _bad(path, f"tensor {name!a} {kind}")
        position = info.end
    if position != data_bytes:
        what = (
            "ends before its last tensor does"
            if position > data_bytes
            else f"has {data_bytes - position} bytes that no tensor owns"
        )
        raise _bad(path, f"the file {what}")
