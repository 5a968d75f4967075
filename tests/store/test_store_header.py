"""Our safetensors header parser: agrees with the library on what is right, and lets only MalformedArtifact out."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecology.errors import MalformedArtifact
from ecology.store.header import ITEM_BYTES, read_header
from ecology.store.mapped import load_tensor

relaxed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _file(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def _tensor(start: int = 0, end: int = 8, **changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [start, end], **changes}


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    generator = np.random.Generator(np.random.PCG64(0))
    tensors = {
        "b.weight": generator.standard_normal((3, 4)).astype(np.float32),
        "a": generator.standard_normal((2, 1, 5)).astype(np.float16),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(3.5, np.float32),
        "whole": np.arange(4),
    }
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, {"format": "pt"})
    header = read_header(path)
    assert list(header.tensors) == sorted(tensors)
    assert header.metadata == {"format": "pt"}
    for name in ("b.weight", "a", "empty", "scalar"):
        found = load_tensor(path, header, name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, tensors[name].astype(np.float32))
        assert not found.flags.writeable or found.size == 0
    with pytest.raises(MalformedArtifact, match="is I64"):
        load_tensor(path, header, "whole")
    with pytest.raises(MalformedArtifact, match="no tensor 'c'"):
        load_tensor(path, header, "c")


def test_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    values = torch.tensor([0.0, -0.0, 1.0, -3.140625, 1e38, 1e-38, float("inf"), float("nan"), 9e-41]).bfloat16()
    path = tmp_path / "x.safetensors"
    save_file({"a": values}, path)
    np.testing.assert_array_equal(load_tensor(path, read_header(path), "a"), values.float().numpy())


def test_every_dtype_has_the_library_s_width(tmp_path: Path) -> None:
    from safetensors import safe_open

    for dtype, width in ITEM_BYTES.items():
        path = _file(tmp_path / dtype, {"a": _tensor(0, 2 * width, dtype=dtype)}, bytes(2 * width))
        assert read_header(path).tensors["a"].dtype == dtype
        with safe_open(path, "np") as stream:
            assert stream.get_slice("a").get_shape() == [2]


MALFORMED: dict[str, tuple[Any, bytes]] = {
    "not json": (b"{nonsense", b""),
    "not an object": (b"[]", b""),
    "leading space": (b" {}", b""),
    "trailing newline": (b"{}\n\0", b""),
    "not utf-8": (b'{"\xff": 1}', b""),
    "lone surrogate": (b'{"\\ud800": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', bytes(8)),
    "duplicate key": (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        bytes(8),
    ),
    "duplicate inner key": (b'{"a":{"dtype":"F32","shape":[1],"shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""),
    "deep and open": (b'{"a":' + b"[" * 1_000_000, b""),
    "huge integer": (b'{"a":' + b"9" * 10_000 + b"}", b""),
    "nan": (b'{"a":NaN}', b""),
    "metadata list": ({"__metadata__": []}, b""),
    "metadata null": ({"__metadata__": None}, b""),
    "metadata number": ({"__metadata__": {"a": 1}}, b""),
    "metadata nested": ({"__metadata__": {"a": {}}}, b""),
    "tensor is null": ({"a": None}, b""),
    "missing dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "additional key": ({"a": _tensor(extra=1)}, bytes(8)),
    "unknown dtype": ({"a": _tensor(dtype="F31")}, bytes(8)),
    "dtype is a list": ({"a": _tensor(dtype=["F32"])}, bytes(8)),
    "negative extent": ({"a": _tensor(shape=[-2])}, bytes(8)),
    "boolean extent": ({"a": _tensor(0, 4, shape=[True])}, bytes(4)),
    "float extent": ({"a": _tensor(shape=[2.0])}, bytes(8)),
    "product overflows": ({"a": _tensor(shape=[2**40, 2**40])}, bytes(8)),
    "many dimensions": ({"a": _tensor(shape=[1] * 20 + [2])}, bytes(8)),
    "shape is a string": ({"a": _tensor(shape="2")}, bytes(8)),
    "too few bytes": ({"a": _tensor(shape=[3])}, bytes(8)),
    "offsets reversed": ({"a": _tensor(8, 0)}, bytes(8)),
    "offsets negative": ({"a": _tensor(-8, 0)}, bytes(8)),
    "three offsets": ({"a": _tensor(data_offsets=[0, 8, 8])}, bytes(8)),
    "beyond the file": ({"a": _tensor()}, bytes(4)),
    "trailing byte": ({"a": _tensor()}, bytes(9)),
    "data and no tensor": ({}, b"x"),
    "gap": ({"a": _tensor(), "b": _tensor(12, 20)}, bytes(20)),
    "late start": ({"a": _tensor(4, 12)}, bytes(12)),
    "overlap": ({"a": _tensor(0, 8), "b": _tensor(4, 12)}, bytes(12)),
    "same bytes twice": ({"a": _tensor(), "b": _tensor()}, bytes(8)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_headers_are_refused(name: str, tmp_path: Path) -> None:
    header, data = MALFORMED[name]
    with pytest.raises(MalformedArtifact) as caught:
        read_header(_file(tmp_path / "x", header, data))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, struct.pack("<Q", 2**63), struct.pack("<Q", 3) + b"{}"])
def test_truncated_and_oversized_lengths(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(MalformedArtifact):
        read_header(path)


def test_header_bound_is_the_callers(tmp_path: Path) -> None:
    path = _file(tmp_path / "x", {"a": _tensor()}, bytes(8))
    with pytest.raises(MalformedArtifact, match="at most 10 are read"):
        read_header(path, max_header_bytes=10)


def test_spaces_pad_the_header(tmp_path: Path) -> None:
    assert read_header(_file(tmp_path / "x", b"{}      ")).tensors == {}


def test_links_pipes_and_absence_are_refused(tmp_path: Path) -> None:
    good = _file(tmp_path / "good", {})
    (tmp_path / "link").symlink_to(good)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing", ".", "nul\0"):
        with pytest.raises(MalformedArtifact):
            read_header(tmp_path / name)


def test_file_that_shrinks_after_its_header_was_read(tmp_path: Path) -> None:
    path = _file(tmp_path / "x", {"a": _tensor()}, bytes(8))
    header = read_header(path)
    os.truncate(path, 12)
    with pytest.raises(MalformedArtifact, match="has changed"):
        load_tensor(path, header, "a")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["F32", "BF16"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F16", "U8"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 20), min_size=2, max_size=2) | json_values,
        "more": json_values,
    },
)


@given(
    st.dictionaries(st.text(max_size=4) | st.just("__metadata__"), entries | json_values, max_size=3),
    st.binary(max_size=24),
)
@relaxed
def test_fuzzed_tables(tmp_path: Path, table: Any, data: bytes) -> None:
    _only_malformed(_file(tmp_path / "x", table, data))


@given(st.binary(max_size=80))
@relaxed
def test_fuzzed_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    _only_malformed(path)


@given(st.data())
@relaxed
def test_mutated_files(tmp_path: Path, data: st.DataObject) -> None:
    """A good file with some bytes changed, cut out or put in."""
    table = {"__metadata__": {"format": "pt"}, "a": _tensor(), "b": _tensor(8, 12, dtype="BF16")}
    raw = bytearray(_file(tmp_path / "x", table, bytes(12)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path / "y"
    path.write_bytes(raw)
    _only_malformed(path)


def _only_malformed(path: Path) -> None:
    """Either it is refused, or every tensor can be read and the bytes are all owned."""
    try:
        header = read_header(path)
    except MalformedArtifact:
        return
    owned = sum(info.end - info.start for info in header.tensors.values())
    assert header.data_offset + owned == path.stat().st_size
    for name, info in header.tensors.items():
        try:
            assert load_tensor(path, header, name).shape == info.shape
        except MalformedArtifact:
            assert info.dtype not in {"F32", "F16", "BF16"}


def test_many_tensors_share_one_map_of_the_file(tmp_path: Path) -> None:
    """An adapter has more tensors than a process may have open files."""
    import resource

    header = {f"t{i}": _tensor(8 * i, 8 * i + 8) for i in range(300)}
    path = _file(tmp_path / "x", header, np.arange(600, dtype="<f4").tobytes())
    checked = read_header(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        held = [load_tensor(path, checked, f"t{i}") for i in range(300)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [float(tensor[1]) for tensor in held] == [2.0 * i + 1 for i in range(300)]
    assert not held[0].flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        held[0][0] = 1.0


def test_a_replaced_file_is_mapped_anew(tmp_path: Path) -> None:
    path = _file(tmp_path / "x", {"t": _tensor()}, np.array([1, 2], "<f4").tobytes())
    old = load_tensor(path, read_header(path), "t")
    _file(tmp_path / "y", {"t": _tensor()}, np.array([3, 4], "<f4").tobytes())
    os.replace(tmp_path / "y", path)
    np.testing.assert_array_equal(load_tensor(path, read_header(path), "t"), [3, 4])
    np.testing.assert_array_equal(old, [1, 2])
