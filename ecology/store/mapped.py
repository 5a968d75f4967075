"""The tensors of a safetensors file, memory-mapped: what ``header`` found, as arrays.

Nothing is copied until it is looked at; types that NumPy lacks are widened then, exactly, and kept as they lie.
"""

from __future__ import annotations

import os
import types
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ecology.errors import MalformedArtifact
from ecology.store.files import open_plain
from ecology.store.header import Header


class Narrow:
    """A tensor in a type that NumPy lacks; widened to float32 whenever it is looked at, and kept as it lies.

    Args:
        stored: Its bits, read-only.
        widen: From bits to values, exactly.
    """

    def __init__(self, stored: npt.NDArray[Any], widen: Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]) -> None:
        self._stored, self._widen = stored, widen

    @property
    def shape(self) -> tuple[int, ...]:
        """Without a look at the values."""
        return self._stored.shape

    @property
    def ndim(self) -> int:
        """Number of extents."""
        return self._stored.ndim

    def reshape(self, *shape: Any) -> Narrow:
        """The same values in another shape."""
        return Narrow(self._stored.reshape(*shape), self._widen)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """The values, always a copy of their own (NumPy's array protocol)."""
        if copy is False:
            raise ValueError("widening makes a copy")
        values = self._widen(self._stored)
        return values if dtype is None else values.astype(dtype, copy=False)


Stored = npt.NDArray[Any] | Narrow
"""A matrix as it lies in a file."""


def load_tensor(path: Path, header: Header, name: str) -> npt.NDArray[np.float32]:
    """One tensor as float32: F32 as a read-only view of the file's one memory map; F16, BF16 and F8 widened exactly.

    Raises:
        MalformedArtifact: As ``map_tensor``.
    """
    result = np.asarray(map_tensor(path, header, name), np.float32)
    result.flags.writeable = False
    return result


def map_tensor(path: Path, header: Header, name: str) -> Stored:
    """One tensor as it lies in the file, memory-mapped and read-only: F32, F16, or what is widened when looked at.

    Args:
        path: The file that ``header`` was read from.
        header: Result of ``read_header``.
        name: A key of ``header.tensors``.

    Raises:
        MalformedArtifact: No such tensor, another dtype, or the file has changed since the header was read.
    """
    info = header.tensors.get(name)
    if info is None:
        raise MalformedArtifact(f"there is no tensor {name!a}", where=str(path))
    stored: Any = _STORED.get(info.dtype)
    if stored is None:
        raise MalformedArtifact(
            f"tensor {name} is {info.dtype}", where=str(path), todo="store it as F32, F16, BF16 or F8"
        )
    if info.start == info.end:
        return np.zeros(info.shape, np.float32)
    try:
        start, stop = header.data_offset + info.start, header.data_offset + info.end
        mapped = _map(path)
        if mapped.size < stop:
            raise ValueError(f"{mapped.size} bytes, {stop} expected")
        flat: npt.NDArray[Any] = np.ndarray((stop - start) // np.dtype(stored).itemsize, stored, mapped, start)
    except (ValueError, OSError) as error:
        raise MalformedArtifact(
            f"tensor {name} cannot be read; the file has changed: {error}",
            where=str(path),
            todo="write the file again with safetensors",
        ) from error
    shaped = flat.reshape(info.shape)
    shaped.flags.writeable = False
    widen = _WIDEN.get(info.dtype)
    return shaped if widen is None else Narrow(shaped, widen)


_MAPS: weakref.WeakValueDictionary[tuple[int, ...], np.memmap[Any, Any]] = weakref.WeakValueDictionary()
"""Files that are mapped now. A map holds a file descriptor, and an adapter has hundreds of tensors."""


def _map(path: Path) -> np.memmap[Any, Any]:
    """The bytes of a file; one map for all who look at the same file while any of them does."""
    with open_plain(path) as stream:
        found = os.fstat(stream.fileno())
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        mapped = _MAPS.get(key)
        if mapped is None:
            mapped = _MAPS[key] = np.memmap(stream, np.uint8, "r")
    return mapped


def _e4m3() -> npt.NDArray[np.float32]:
    """All 256 values of float8 E4M3FN (arXiv:2209.05433): no infinity, NaN where all bits but the sign are 1."""
    bits = np.arange(256)
    exponent, mantissa = (bits >> 3) & 15, bits & 7
    size = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    size[(bits & 127) == 127] = np.nan
    return np.where(bits < 128, size, -size).astype(np.float32)


_STORED: Mapping[str, str] = types.MappingProxyType(
    {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}
)
_E4M3 = _e4m3()
_WIDEN: Mapping[str, Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]] = types.MappingProxyType(
    {
        "BF16": lambda bits: (bits.astype(np.uint32) << np.uint32(16)).view(np.float32),  # the upper half of a float32
        "F8_E5M2": lambda bits: (bits.astype(np.uint16) << np.uint16(8)).view(np.float16).astype(np.float32),
        "F8_E4M3": lambda bits: _E4M3[bits],
    }
)
