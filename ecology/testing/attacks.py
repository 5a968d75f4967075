"""Hostile adapters, each small and made by code: what every static gate has to refuse, and the one it has to accept.

``metric`` is the count that has to find a case, ``kind`` the class of the attack. The classes are those that we know:
keys that overwrite the base, modules nobody declared, missing factors, shapes, types, values that are not finite,
magnitudes, types and imports in the configuration, other bases, foreign files, containers, signatures, claims, data.

Example:
    >>> import tempfile
    >>> from ecology.gate.static import static_evidence
    >>> folder = Path(tempfile.mkdtemp())
    >>> evidence = static_evidence(*submit(HOSTILE[0], folder / "adapter", folder / "home"))
    >>> [m.statistic.count for m in evidence if m.metric == HOSTILE[0].metric]
    [1]
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import pickle
import socket
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ecology.contracts.artifact import CONFIG_FILE, WEIGHTS_FILE, Artifact, Submission
from ecology.contracts.genome import Genome
from ecology.gate.context import StaticContext
from ecology.kernel.canonical import canonical, digest
from ecology.signer.keys import LocalSigner
from ecology.signer.statements import genome_statement
from ecology.testing.gates import (
    CORPUS,
    HIDDEN,
    INNER,
    NOW,
    RANK,
    VOCABULARY,
    Hostile,
    Q,
    read_tensors,
    submit,
    write_container,
    write_tensors,
)


def _zeros(*shape: int) -> tuple[str, tuple[int, ...], bytes]:
    return "F32", shape, np.zeros(shape, np.float32).tobytes()


def _added(**tensors: tuple[str, tuple[int, ...], bytes]) -> Callable[[Path], None]:
    return lambda folder: write_tensors(folder, {**read_tensors(folder), **tensors})


def _add(name: str, *shape: int) -> Callable[[Path], None]:
    return _added(**{name: _zeros(*shape)})


def _drop(*names: str) -> Callable[[Path], None]:
    return lambda folder: write_tensors(
        folder, {name: tensor for name, tensor in read_tensors(folder).items() if not name.endswith(names)}
    )


def _renamed(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: write_tensors(
        folder, {name.replace(old, new): tensor for name, tensor in read_tensors(folder).items()}
    )


def _socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        handle = os.open(folder, os.O_RDONLY)  # the name of a socket is short, that of a folder need not be
        try:
            one.bind(f"/proc/self/fd/{handle}/s")
        finally:
            os.close(handle)


def _cast(dtype: str, kind: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = read_tensors(folder)
        for name, (_, shape, data) in list(tensors.items()):
            tensors[name] = (dtype, shape, np.frombuffer(data, np.float32).astype(kind).tobytes())
        write_tensors(folder, tensors)

    return spoil


def _poison(
    value: float, dtype: str = "F32", kind: str = "<f4", pattern: bytes | None = None
) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = read_tensors(folder)
        name = f"{Q}.lora_B.weight"
        values = np.frombuffer(tensors[name][2], np.float32).astype(kind)
        data = bytearray(values.tobytes())
        one = pattern or np.array([value], kind).tobytes()
        data[-len(one) :] = one
        tensors[name] = (dtype, tensors[name][1], bytes(data))
        write_tensors(folder, tensors)

    return spoil


def _scaled(factor: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = read_tensors(folder)
        for name, (dtype, shape, data) in list(tensors.items()):
            if name.endswith("lora_B.weight"):
                tensors[name] = (dtype, shape, (np.frombuffer(data, np.float32) * np.float32(factor)).tobytes())
        write_tensors(folder, tensors)

    return spoil


def _say(**values: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / CONFIG_FILE
        path.write_bytes(canonical({**json.loads(path.read_bytes()), **values}))

    return spoil


def _config_text(edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / CONFIG_FILE
        path.write_bytes(edit(path.read_bytes()))

    return spoil


def _forget(*keys: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / CONFIG_FILE
        path.write_bytes(canonical({k: v for k, v in json.loads(path.read_bytes()).items() if k not in keys}))

    return spoil


def _rank(rank: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = {
            name: _zeros(rank, shape[1]) if name.endswith("lora_A.weight") else _zeros(shape[0], rank)
            for name, (_, shape, _) in read_tensors(folder).items()
        }
        write_tensors(folder, tensors)
        _say(r=rank, lora_alpha=rank)(folder)

    return spoil


def _file(name: str, data: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return spoil


class _Pickle:
    """What unpickling it would do; nothing here ever unpickles it."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.getenv, ("HOME",)


def _link(folder: Path) -> None:
    data = (folder / WEIGHTS_FILE).read_bytes()
    target = folder.parent / f"{folder.name}-elsewhere.safetensors"
    target.write_bytes(data)
    (folder / WEIGHTS_FILE).unlink()
    (folder / WEIGHTS_FILE).symlink_to(target)


def _subfolder(folder: Path) -> None:
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / CONFIG_FILE).write_bytes((folder / CONFIG_FILE).read_bytes())


def _container(edit: Callable[[bytes, bytes], tuple[bytes, bytes]]) -> Callable[[Path], None]:
    """Edits header text and tensor bytes."""

    def spoil(folder: Path) -> None:
        data = (folder / WEIGHTS_FILE).read_bytes()
        length = int.from_bytes(data[:8], "little")
        write_container(folder, *edit(data[8 : 8 + length], data[8 + length :]))

    return spoil


def _raw(edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / WEIGHTS_FILE).write_bytes(edit((folder / WEIGHTS_FILE).read_bytes()))

    return spoil


def _doubled(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    text = head.decode().rstrip()
    entry = json.dumps({f"{Q}.lora_A.weight": json.loads(text)[f"{Q}.lora_A.weight"]})[1:-1]
    return (text[:-1] + ", " + entry + "}").encode(), body


def _overlapping(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    table = json.loads(head)
    names = [name for name in table if name != "__metadata__"]
    same = [name for name in names if table[name]["shape"] == table[names[0]]["shape"]]
    table[same[1]]["data_offsets"] = table[same[0]]["data_offsets"]
    return json.dumps(table).encode(), body


def _metadata(**values: str) -> Callable[[Path], None]:
    return lambda folder: write_tensors(folder, read_tensors(folder), {"format": "pt", **values})


def _identity(**values: Any) -> Callable[[Genome], Genome]:
    return lambda genome: dataclasses.replace(genome, identity=dataclasses.replace(genome.identity, **values))


def _lineage(**values: Any) -> Callable[[Genome], Genome]:
    return lambda genome: dataclasses.replace(genome, lineage=dataclasses.replace(genome.lineage, **values))


def _corpus(**values: Any) -> Callable[[Genome], Genome]:
    return _lineage(corpora=(dataclasses.replace(CORPUS, **values),))


def _resigned(edit: Callable[[dict[str, Any]], None]) -> Callable[..., tuple[str, ...]]:
    """The same key signs another statement."""

    def claims(_: tuple[str, ...], signer: LocalSigner, artifact: Artifact, genome: Genome) -> tuple[str, ...]:
        statement = genome_statement(artifact, genome, NOW)
        edit(statement)
        return (signer.sign(statement),)

    return claims


def _without_config(statement: dict[str, Any]) -> None:
    statement["subject"] = [one for one in statement["subject"] if one["name"] != CONFIG_FILE]


def _other_file(statement: dict[str, Any]) -> None:
    next(one for one in statement["subject"] if one["name"] == CONFIG_FILE)["digest"] = {"sha256": "0" * 64}


def _other_artifact(statement: dict[str, Any]) -> None:
    next(one for one in statement["subject"] if one["name"] == "artifact")["digest"] = {"sha256": "0" * 64}


def _tampered(claims: tuple[str, ...], *_: object) -> tuple[str, ...]:
    envelope = json.loads(claims[0])
    payload = base64.b64decode(envelope["payload"]).replace(b'"seed":0', b'"seed":1')
    return (json.dumps({**envelope, "payload": base64.b64encode(payload).decode()}),)


def _unsigned(claims: tuple[str, ...], *_: object) -> tuple[str, ...]:
    return (json.dumps({**json.loads(claims[0]), "signatures": []}),)


def _and(*lines: str) -> Callable[..., tuple[str, ...]]:
    """Lines behind the good one."""
    return lambda claims, *_: (*claims, *lines)


def _sub_folders(folder: Path) -> None:
    for i in range(1001):
        (folder / f"{i // 40}" / f"{i}").mkdir(parents=True)


def _no_keys(context: StaticContext, artifact: Artifact) -> StaticContext:
    del artifact
    return dataclasses.replace(context, development=())


def _revoke(context: StaticContext, artifact: Artifact) -> StaticContext:
    return dataclasses.replace(context, revoked={artifact.digest: "found to leak"})


def _revoke_parent(context: StaticContext, artifact: Artifact) -> StaticContext:
    del artifact
    return dataclasses.replace(context, revoked={digest("parent"): "found to leak"})


def _shared_items(context: StaticContext, artifact: Artifact) -> StaticContext:
    del artifact
    return dataclasses.replace(context, corpora={CORPUS.digest: 0.01})


def _swap(old: bytes, new: bytes) -> Callable[[Path], None]:
    return _config_text(lambda text: text.replace(old, new))


def _imports(library: str, name: str) -> Callable[[Path], None]:
    return _say(auto_mapping={"base_model_class": name, "parent_library": library})


def _in_utf16(claims: tuple[str, ...], *_: object) -> tuple[str, ...]:
    return (claims[0].encode("utf-16").decode("latin-1"),)


def _profile(**values: Any) -> Callable[[Genome], Genome]:
    return lambda genome: dataclasses.replace(
        genome, resource_profile=dataclasses.replace(genome.resource_profile, **values)
    )


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "adapter_model.bin")


def _config_link(folder: Path) -> None:
    (folder / CONFIG_FILE).rename(folder / "..config.json")
    (folder / CONFIG_FILE).symlink_to("..config.json")


def _sparse(name: str, size: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        os.truncate(folder / name, size) if (folder / name).exists() else (folder / name).touch()
        os.truncate(folder / name, size)

    return spoil


def _torch_zip() -> bytes:
    """What torch.save writes: a zip around a pickle."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Pickle()))
    return buffer.getvalue()


def _metadata_text(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    table = json.loads(head)
    table["__metadata__"] = {"format": "pt", "payload": base64.b64encode(_torch_zip()).decode()}
    return json.dumps(table).encode(), body


def _unowned(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """A gap between tensors that holds a pickle."""
    table = json.loads(head)
    payload = pickle.dumps(_Pickle())
    for name, entry in table.items():
        if name != "__metadata__":
            entry["data_offsets"] = [at + len(payload) for at in entry["data_offsets"]]
    return json.dumps(table).encode(), payload + body


def _retyped(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    return head.replace(b'"F32"', b'"F33"', 1), body


def _dense(folder: Path) -> None:
    write_container(folder, b"{" + b'"a":[' + b"[]," * 4000 + b"[]]}", b"")


def _utf16(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    return head.decode().encode("utf-16"), body


def _negative(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    table = json.loads(head)
    table[f"{Q}.lora_A.weight"]["shape"] = [-RANK, -HIDDEN]
    return json.dumps(table).encode(), body


def _everywhere(value: bytes, dtype: str, kind: str) -> Callable[[Path], None]:
    """All tensors of a half type, with one pattern at the end of the last."""

    def spoil(folder: Path) -> None:
        tensors = read_tensors(folder)
        for name, (_, shape, data) in list(tensors.items()):
            if dtype == "BF16":
                cast = (np.frombuffer(data, np.uint32) >> 16).astype("<u2").tobytes()
            else:
                cast = np.frombuffer(data, np.float32).astype(kind).tobytes()
            tensors[name] = (dtype, shape, cast)
        name = f"{Q}.lora_A.weight"
        tensors[name] = (dtype, tensors[name][1], tensors[name][2][: -len(value)] + value)
        write_tensors(folder, tensors)

    return spoil


def _dora(value: float) -> Callable[[Path], None]:
    """A well-formed DoRA whose magnitudes are ``value``."""

    def spoil(folder: Path) -> None:
        tensors = read_tensors(folder)
        for name, (_, shape, _) in list(tensors.items()):
            if name.endswith(".lora_B.weight"):
                key = name.replace(".lora_B.weight", ".lora_magnitude_vector")
                tensors[key] = ("F32", (shape[0],), np.full(shape[0], value, np.float32).tobytes())
        write_tensors(folder, tensors)
        _say(use_dora=True)(folder)

    return spoil


def _columns(first: float, second: float, row: float = 100.0) -> Callable[[Path], None]:
    """B has two columns of these values, A two rows of that one: dW is ``(first + second) * row`` everywhere."""

    def spoil(folder: Path) -> None:
        tensors = read_tensors(folder)
        B, A = np.tile(np.array([first, second], "<f4"), (HIDDEN, 1)), np.full((RANK, HIDDEN), row, "<f4")  # noqa: N806
        tensors[f"{Q}.lora_B.weight"] = ("F32", B.shape, B.tobytes())
        tensors[f"{Q}.lora_A.weight"] = ("F32", A.shape, A.tobytes())
        write_tensors(folder, tensors)

    return spoil


def _tied(context: StaticContext, artifact: Artifact) -> StaticContext:
    """The base's head shares the embedding's weight and is no tensor of its own."""
    del artifact
    schema = {name: shape for name, shape in context.tensor_schema.items() if not name.startswith("lm_head.")}
    return dataclasses.replace(context, tensor_schema=schema)


_QV = r".*\.(q|v)_proj"
_T, _C, _F, _L = "static.tensors", "static.config", "static.files", "static.limits"
_B, _S, _X = "static.base", "static.signature", "static.taint"
_BM = "base_model.model."

HOSTILE: tuple[Hostile, ...] = (
    Hostile("lm_head", "base overwrite", _T, _add(f"{_BM}lm_head.weight", VOCABULARY, HIDDEN)),
    Hostile("norm", "base overwrite", _T, _add(f"{_BM}model.norm.weight", HIDDEN)),
    Hostile("embed_tokens", "base overwrite", _T, _add(f"{_BM}model.embed_tokens.weight", VOCABULARY, HIDDEN)),
    Hostile("up_proj", "base overwrite", _T, _add(f"{_BM}model.layers.0.mlp.up_proj.weight", INNER, HIDDEN)),
    Hostile("base_layer", "base overwrite", _T, _add(f"{Q}.base_layer.weight", HIDDEN, HIDDEN)),
    Hostile("bare-name", "base overwrite", _T, _add("model.norm.weight", HIDDEN)),
    Hostile(
        "undeclared-factor",
        "undeclared module",
        _T,
        _added(
            **{
                f"{Q.replace('q_proj', 'k_proj')}.lora_{x}.weight": _zeros(*s)
                for x, s in (("A", (2, 8)), ("B", (4, 2)))
            }
        ),
    ),
    Hostile(
        "layer-that-is-not", "undeclared module", _T, _add(f"{Q.replace('.0.', '.7.')}.lora_A.weight", RANK, HIDDEN)
    ),
    Hostile(
        "embedding-factor", "undeclared module", _T, _add(f"{_BM}model.embed_tokens.lora_embedding_A", RANK, VOCABULARY)
    ),
    Hostile("magnitude-vector", "undeclared module", _T, _add(f"{Q}.lora_magnitude_vector", HIDDEN)),
    Hostile("named-adapter", "undeclared module", _T, _add(f"{Q}.lora_A.other.weight", RANK, HIDDEN)),
    Hostile("target-that-is-not", "undeclared module", _T, _say(target_modules=["q_proj", "v_proj", "nowhere"])),
    Hostile("saved-module", "base overwrite", _T, _add(f"{_BM}lm_head.modules_to_save.weight", VOCABULARY, HIDDEN)),
    Hostile("bias-of-base", "undeclared module", _T, _add(f"{Q}.bias", HIDDEN)),
    Hostile("tied-head-by-pattern", "undeclared module", _T, _say(target_modules=_QV + "|lm_head"), context=_tied),
    Hostile("tied-head-by-any", "undeclared module", _T, _say(target_modules=_QV + "|[^.]*"), context=_tied),
    Hostile("embedding-by-pattern", "undeclared module", _T, _say(target_modules=_QV + r"|model\.embed_tokens")),
    Hostile("norm-by-pattern", "undeclared module", _T, _say(target_modules=_QV + r"|model\.norm")),
    Hostile("layer-by-pattern", "undeclared module", _T, _say(target_modules=_QV + r"|.*\.1")),
    Hostile("activation-by-pattern", "undeclared module", _T, _say(target_modules=_QV + r"|.*\.act_fn")),
    Hostile("orthogonal-by-pattern", "undeclared module", _C, _say(target_modules=_QV, init_lora_weights="orthogonal")),
    Hostile("embedding-target", "undeclared module", _T, _say(target_modules=["q_proj", "v_proj", "embed_tokens"])),
    Hostile("norm-target", "undeclared module", _T, _say(target_modules=["q_proj", "v_proj", "norm"])),
    Hostile("tiny-vector", "undeclared module", _T, _add("base_model.tinylora_v.0", 14)),
    Hostile("trailing-newline", "undeclared module", _T, _add(f"{Q}.lora_A.weight\n", RANK, HIDDEN)),
    Hostile("no-layer", "missing factor", _T, _say(target_modules=r".*\.(q|v|o)_proj")),
    Hostile("excluded", "undeclared module", _T, _say(exclude_modules=["layers.0.self_attn.q_proj"])),
    Hostile("one-layer", "undeclared module", _T, _say(target_modules=["q_proj", "v_proj"], layers_to_transform=[1])),
    Hostile(
        "full-names-and-layers",
        "undeclared module",
        _T,
        _say(
            target_modules=[f"model.layers.{i}.self_attn.{x}_proj" for i in (0, 1) for x in "qv"],
            layers_to_transform=[0],
        ),
    ),
    Hostile("full-width-letter", "undeclared module", _T, _renamed("q_proj.lora_A", "q_pro\uff4a.lora_A")),
    Hostile("default-adapter-name", "undeclared module", _T, _renamed("lora_A.weight", "lora_A.default.weight")),
    Hostile("nul-in-name", "undeclared module", _T, _renamed("lora_A.weight", "lora_A.weight\0")),
    Hostile("nothing-of-the-head", "base overwrite", _T, _add("base_model.model.lm_head.weight", 0)),
    Hostile("no-B", "missing factor", _T, _drop("0.self_attn.q_proj.lora_B.weight")),
    Hostile(
        "no-module", "missing factor", _T, _drop("1.self_attn.v_proj.lora_A.weight", "1.self_attn.v_proj.lora_B.weight")
    ),
    Hostile("no-magnitudes", "missing factor", _T, _say(use_dora=True)),
    Hostile("no-tensor", "missing factor", _T, lambda folder: write_tensors(folder, {})),
    Hostile("wider-target", "missing factor", _T, _say(target_modules=["q_proj", "v_proj", "k_proj"])),
    Hostile("transposed", "shape", _T, _add(f"{Q}.lora_A.weight", HIDDEN, RANK)),
    Hostile("other-rank", "shape", _T, _add(f"{Q}.lora_A.weight", RANK + 1, HIDDEN)),
    Hostile("rank-says-other", "shape", _T, _say(r=4, lora_alpha=4)),
    Hostile("three-dimensions", "shape", _T, _add(f"{Q}.lora_A.weight", 1, RANK, HIDDEN)),
    Hostile("rank-pattern-says-other", "shape", _T, _say(rank_pattern={"q_proj": 1})),
    Hostile("float64", "dtype", _T, _cast("F64", "<f8")),
    Hostile("int8", "dtype", _T, _cast("I8", "i1")),
    Hostile("int32", "dtype", _T, _cast("I32", "<i4")),
    Hostile("unsigned-32", "dtype", _T, _cast("U32", "<u4")),
    Hostile("truth", "dtype", _T, _cast("BOOL", "u1")),
    Hostile("half-nan", "non-finite", "static.finite", _everywhere(b"\x01\x7c", "F16", "<f2")),
    Hostile("brain-nan", "non-finite", "static.finite", _everywhere(b"\x81\xff", "BF16", "")),
    Hostile("nan", "non-finite", "static.finite", _poison(float("nan"))),
    Hostile("infinity", "non-finite", "static.finite", _poison(float("inf"))),
    Hostile("half-infinity", "non-finite", "static.finite", _poison(float("-inf"), "F16", "<f2")),
    Hostile("signalling-nan", "non-finite", "static.finite", _poison(0.0, pattern=b"\x01\x00\x80\x7f")),
    Hostile("float8", "dtype", _T, _cast("F8_E4M3", "u1")),
    Hostile("alpha", "magnitude", _L, _say(lora_alpha=10**12)),
    Hostile("alpha-pattern", "magnitude", _L, _say(alpha_pattern={"q_proj": 1e12})),
    Hostile("magnitudes-huge", "magnitude", _L, _dora(1e6)),
    Hostile("magnitudes-negative", "magnitude", _L, _dora(-1.0)),
    Hostile("rank", "magnitude", _L, _rank(65)),
    Hostile("norm-of-change", "magnitude", _L, _scaled(1e4)),
    Hostile("cancels", "magnitude", _L, _columns(100.0, -100.0)),
    Hostile("cancels-all-but", "magnitude", _L, _columns(100.0, -100.00001)),
    Hostile("between-overflows", "magnitude", _L, _columns(1e-42, 1e-42, 3e38)),
    Hostile("between-underflows", "magnitude", _L, _columns(3e38, 3e38, 1e-42)),
    Hostile("overflowing-norm", "magnitude", _L, _scaled(1e37)),
    Hostile("more-behind", "config type", _C, _config_text(lambda text: text + b"{}")),
    Hostile("comment", "config type", _C, _config_text(lambda text: text[:-1] + b"/**/}")),
    Hostile(
        "key-twice-inside",
        "config type",
        _C,
        _config_text(lambda text: text[:-1] + b',"rank_pattern":{"q_proj":2,"q_proj":2}}'),
    ),
    Hostile("other-task", "config type", _C, _say(task_type="SEQ_CLS")),
    Hostile("rank-zero", "config type", _C, _say(r=0)),
    Hostile("rank-as-float", "config type", _C, _swap(b'"r":2', b'"r":2.0')),
    Hostile("rank-of-digits", "config type", _C, _swap(b'"r":2', b'"r":' + b"9" * 4000)),
    Hostile(
        "rank-of-more-digits",
        "config type",
        _C,
        _swap(b'"r":2', b'"r":' + b"9" * 9000),
    ),
    Hostile("alpha-negative", "config type", _C, _say(lora_alpha=-8)),
    Hostile(
        "alpha-infinite",
        "config type",
        _C,
        _swap(b'"lora_alpha":2', b'"lora_alpha":1e999'),
    ),
    Hostile("alpha-zero", "config type", _C, _say(lora_alpha=0)),
    Hostile("byte-order-mark", "config type", _C, _config_text(lambda text: b"\xef\xbb\xbf" + text)),
    Hostile("utf-16", "config type", _C, _config_text(lambda text: text.decode().encode("utf-16"))),
    Hostile("surrogate", "config type", _C, _config_text(lambda text: text[:-1] + b',"revision":"\\ud800"}')),
    Hostile("dense", "config type", _C, _config_text(lambda text: text[:-1] + b',"x":[' + b"[]," * 9999 + b"[]]}")),
    Hostile("costly-pattern", "config type", _T, _say(target_modules=".?" * 200 + "!")),
    Hostile("unbalanced-key", "config type", _T, _say(alpha_pattern={"model)|(zzz": 1e14})),
    Hostile("unbalanced-key-of-ranks", "config type", _T, _say(rank_pattern={"q_proj)|(?:v_proj": 2})),
    Hostile("key-with-a-comment", "config type", _T, _say(alpha_pattern={"|(?#x))|q_proj(": 1e14})),
    Hostile("key-that-ignores-case", "config type", _T, _say(alpha_pattern={"(?i:Q_PROJ)": 1e14})),
    Hostile("pattern-that-ignores-case", "config type", _T, _say(target_modules=r"(?i).*\.(Q|V)_PROJ")),
    Hostile("named-group-again", "config type", _T, _say(target_modules=r".*\.(?P<x>q|v)_proj(?P=x)?")),
    Hostile("class-of-posix", "config type", _T, _say(alpha_pattern={"[[:alpha:]]": 2})),
    Hostile("repeat-in-a-repeat", "config type", _T, _say(alpha_pattern={"(?:[a-z_.0-9]+)+!": 2})),
    Hostile("repeat-in-a-repeat-excluded", "config type", _T, _say(exclude_modules="(?:[a-z_.0-9]+)+!")),
    Hostile("choice-in-a-repeat", "config type", _T, _say(exclude_modules="(?:p|pr|r|o|j)*!")),
    Hostile("repeats-in-a-row", "config type", _T, _say(exclude_modules=".*" * 8 + "!")),
    Hostile("repeats-nothing", "config type", _T, _say(target_modules=r".*\.(q|v)_proj(?:){0,4000000000}")),
    Hostile("repeats-nothing-often", "config type", _T, _say(target_modules=r".*\.(q|v)_proj(){30000000}")),
    Hostile("repeats-nothing-of-something", "config type", _T, _say(exclude_modules="(?:(?:a{0}){9}){3000000}")),
    Hostile("repeats-repeats", "config type", _T, _say(rank_pattern={"((q{70}){70}){70}": 2})),
    Hostile("looks-around", "config type", _T, _say(rank_pattern={"(?=q)q_proj": 2})),
    Hostile("rank-as-text", "config type", _C, _say(r="2")),
    Hostile("rank-as-truth", "config type", _C, _say(r=True)),
    Hostile("alpha-nothing", "config type", _C, _say(lora_alpha=None)),
    Hostile("targets-nested", "config type", _C, _say(target_modules=[["q_proj"], "v_proj"])),
    Hostile("pattern-is-list", "config type", _C, _say(rank_pattern=[["q_proj", 2]])),
    Hostile("dora-as-number", "config type", _C, _say(use_dora=0)),
    Hostile("no-targets", "config type", _C, _forget("target_modules")),
    Hostile("key-twice", "config type", _C, _config_text(lambda text: text[:-1] + b',"r":2}')),
    Hostile("nan-constant", "config type", _C, _config_text(lambda text: text[:-1] + b',"lora_dropout":NaN}')),
    Hostile("not-json", "config type", _C, _config_text(lambda text: text[:-1])),
    Hostile("deep", "config type", _C, _config_text(lambda text: b"[" * 5000 + b"]" * 5000)),
    Hostile("auto_mapping", "config import", _C, _say(auto_mapping={"base_model_class": "x", "parent_library": "os"})),
    Hostile("megatron_core", "config import", _C, _say(megatron_core="os.path")),
    Hostile("megatron_config", "config import", _C, _say(megatron_config={"a": 1})),
    Hostile("auto_map", "config import", _C, _say(auto_map={"AutoModel": "modeling.Model"})),
    Hostile("tokenizer_kwargs", "config import", _C, _say(tokenizer_kwargs={"trust_remote_code": True})),
    Hostile(
        "corda-file", "config import", _C, _say(corda_config={"cache_file": "somewhere"}, init_lora_weights="corda")
    ),
    Hostile("imports-os", "config import", _C, _imports("os", "system")),
    Hostile("other-key", "config import", _C, _say(trust_remote_code=True)),
    Hostile("of-tinylora", "config import", _C, _say(projection_seed=1)),
    Hostile("other-method", "config import", _C, _say(peft_type="BONE")),
    Hostile("modules_to_save", "config import", _C, _say(modules_to_save=["lm_head"])),
    Hostile("bias", "config import", _C, _say(bias="all")),
    Hostile("random-start", "config import", _C, _say(init_lora_weights=False)),
    Hostile("eva", "config import", _C, _say(init_lora_weights="eva")),
    Hostile("mica", "config import", _C, _say(init_lora_weights="mica")),
    Hostile("lora-ga", "config import", _C, _say(init_lora_weights="lora_ga")),
    Hostile("pissa", "config import", _C, _say(init_lora_weights="pissa")),
    Hostile("replication", "config import", _C, _say(layer_replication=[[0, 2], [0, 2]])),
    Hostile("trigger", "config import", _C, _say(alora_invocation_tokens=[1, 2])),
    Hostile("tokens", "config import", _C, _say(trainable_token_indices=[1])),
    Hostile("loftq", "config import", _C, _say(loftq_config={"loftq_bits": 4})),
    Hostile("parameters-of-experts", "config import", _C, _say(target_parameters=["mlp.experts.down_proj"])),
    Hostile("bias-of-lora", "config import", _C, _say(lora_bias=True)),
    Hostile("other-adapters", "config import", _C, _say(arrow_config={"top_k": 1})),
    Hostile("scheme", "base identity", _B, _say(base_model_name_or_path="hf://evil/toy")),
    Hostile("share", "base identity", _B, _say(base_model_name_or_path="\\\\evil\\toy")),
    Hostile("other-weights", "base identity", _B, genome=_identity(base_weights=digest("other"))),
    Hostile("other-tokenizer", "base identity", _B, genome=_identity(tokenizer=digest("other"))),
    Hostile("other-shapes", "base identity", _B, genome=_identity(tensor_schema=digest("other"), base_family="gpt2")),
    Hostile("metadata-names-other", "base identity", _B, _metadata(base=digest("other"))),
    Hostile("path-up", "base identity", _B, _say(base_model_name_or_path="../../evil")),
    Hostile("address", "base identity", _B, _say(base_model_name_or_path="https://example.org/toy")),
    Hostile("other-name", "base identity", _B, _say(base_model_name_or_path="evil/toy")),
    Hostile("revision", "base identity", _B, _say(revision="main")),
    Hostile("socket", "foreign file", _F, _socket),
    Hostile("newline-in-name", "foreign file", _F, _file("README.md\n", b"")),
    Hostile("readme-is-a-link", "foreign file", _F, lambda folder: (folder / "README.md").symlink_to("/etc/passwd")),
    Hostile("pickle", "foreign file", _F, _file("adapter_model.bin", pickle.dumps(_Pickle()))),
    Hostile("script", "foreign file", _F, _file("modeling.py", b"import os\n")),
    Hostile("template", "foreign file", _F, _file("chat_template.jinja", b"{{ messages }}")),
    Hostile("tokenizer", "foreign file", _F, _file("tokenizer_config.json", b"{}")),
    Hostile("hidden", "foreign file", _F, _file(".env", b"")),
    Hostile("link", "foreign file", _F, _link),
    Hostile("subfolder", "foreign file", _F, _subfolder),
    Hostile("folders-without-end", "foreign file", _F, _sub_folders),
    Hostile("pipe", "foreign file", _F, _fifo),
    Hostile("config-is-a-link", "foreign file", _F, _config_link),
    Hostile("other-case", "foreign file", _F, _file("Adapter_Config.json", b"{}")),
    Hostile("look-alike-name", "foreign file", _F, _file("adapter_c\u043enfig.json", b"{}")),
    Hostile("right-to-left-name", "foreign file", _F, _file("\u202etxt.nosj", b"{}")),
    Hostile("shards", "foreign file", _F, _file("adapter_model.safetensors.index.json", b"{}")),
    Hostile("shard", "foreign file", _F, _file("adapter_model-00001-of-00002.safetensors", b"{}")),
    Hostile("training-state", "foreign file", _F, _file("training_args.bin", _torch_zip())),
    Hostile("archive", "foreign file", _F, _file("adapter.zip", _torch_zip())),
    Hostile("base-config", "foreign file", _F, _file("config.json", b'{"auto_map": {"AutoModel": "m.M"}}')),
    Hostile("library", "foreign file", _F, _file("kernel.so", b"\x7fELF")),
    Hostile("readme-is-a-pickle", "foreign file", _F, _file("README.md", pickle.dumps(_Pickle()))),
    Hostile("readme-hides-text", "foreign file", _F, _file("README.md", "safe\u202e".encode())),
    Hostile("readme-has-fillers", "foreign file", _F, _file("README.md", "safe\u3164\u115f".encode())),
    Hostile("readme-has-selectors", "foreign file", _F, _file("README.md", "safe\ufe01\U000e0148".encode())),
    Hostile("readme-has-tags", "foreign file", _F, _file("README.md", "safe\U000e0069\U000e0067".encode())),
    Hostile("readme-has-blanks", "foreign file", _F, _file("README.md", "safe\u2800".encode())),
    Hostile("sparse", "magnitude", _L, _sparse(WEIGHTS_FILE, 2**40)),
    Hostile("sparse-config", "foreign file", _F, _sparse(CONFIG_FILE, 2**40)),
    Hostile("no-weights", "foreign file", _F, lambda folder: (folder / WEIGHTS_FILE).unlink()),
    Hostile("pickle-renamed", "container", _T, _raw(lambda _: pickle.dumps(_Pickle()))),
    Hostile("header-2-63", "container", _T, _raw(lambda data: (2**63).to_bytes(8, "little") + data[8:])),
    Hostile("truncated", "container", _T, _raw(lambda data: data[:-1])),
    Hostile("trailing", "container", _T, _raw(lambda data: data + b"\0" * 8)),
    Hostile("empty", "container", _T, _raw(lambda _: b"")),
    Hostile("key-twice-in-header", "container", _T, _container(_doubled)),
    Hostile("overlapping", "container", _T, _container(_overlapping)),
    Hostile("payload-in-metadata", "container", _T, _metadata(payload="aGVsbG8=")),
    Hostile("torch-zip", "container", _T, _raw(lambda _: _torch_zip())),
    Hostile("zip-behind", "container", _T, _raw(lambda data: data + _torch_zip())),
    Hostile("pickle-in-a-gap", "container", _T, _container(_unowned)),
    Hostile("pickle-in-metadata", "container", _T, _container(_metadata_text)),
    Hostile("unknown-type", "container", _T, _container(_retyped)),
    Hostile("negative-shape", "container", _T, _container(_negative)),
    Hostile("utf-16-header", "container", _T, _container(_utf16)),
    Hostile("dense-header", "container", _T, _dense),
    Hostile("header-in-spaces", "container", _T, _container(lambda head, body: (head + b" " * 2**20, body))),
    Hostile("no-claims", "signature", _S, claims=lambda *_: ()),
    Hostile("tampered", "signature", _S, claims=_tampered),
    Hostile("no-signature", "signature", _S, claims=_unsigned),
    Hostile("unknown-key", "signature", _S, context=_no_keys),
    Hostile("config-not-covered", "signature", _S, claims=_resigned(_without_config)),
    Hostile("other-config-covered", "signature", _S, claims=_resigned(_other_file)),
    Hostile("replayed", "signature", _S, claims=_resigned(_other_artifact)),
    Hostile("garbage", "signature", _S, claims=lambda *_: ("{", "null", "[]")),
    Hostile("revoked", "signature", _S, context=_revoke),
    Hostile("revoked-parent", "signature", _S, genome=_lineage(parents=(digest("parent"),)), context=_revoke_parent),
    Hostile("more-lines-than-are-read", "signature", _S, claims=_and(*["ab"] * 1024)),
    Hostile("blank-lines-without-end", "signature", _S, claims=_and("\n" * 70_000)),
    Hostile("dense-claim", "signature", _S, claims=lambda *_: ('{"payload":[' + "{}," * 20_000 + "{}]}",)),
    Hostile("wide-claims", "signature", _S, claims=_and("\u4e00" * 1_400_000)),
    Hostile("claims-in-utf-16", "signature", _S, claims=_in_utf16),
    Hostile("parameters", "claim", _T, genome=_profile(parameters=14)),
    Hostile("bytes", "claim", _T, genome=_profile(size_bytes=1)),
    Hostile("negative-parameters", "claim", _T, genome=_profile(parameters=-1)),
    Hostile("no-train", "data", _X, genome=_corpus(no_train=True)),
    Hostile("licence", "data", _X, genome=_corpus(licence="CC-BY-NC-4.0")),
    Hostile(
        "canary-in-prose",
        "data",
        _X,
        _file("README.md", b"trained on canary-26b5c67b"),
        context=lambda context, _: dataclasses.replace(
            context, data=dataclasses.replace(context.data, canaries=("canary-26b5c67b",))
        ),
    ),
    Hostile("unknown-corpus", "data", "static.overlap", genome=_corpus(digest=digest("elsewhere"))),
    Hostile("trained-on-items", "data", "static.overlap", context=_shared_items),
)
"""Every attack, by class."""


def escaped(gate: Callable[[Submission, StaticContext], Mapping[str, int]], folder: Path) -> tuple[str, ...]:
    """The cases that a gate judges wrongly; empty for one that conforms.

    Args:
        gate: Submission and context to the number of violations by metric.
        folder: An empty folder to work in.
    """
    wrong = []
    found = gate(*submit(None, folder / "benign", folder / "home"))
    if any(count for metric, count in found.items() if metric != "static.development"):
        wrong.append("benign")
    for case in HOSTILE:
        if (
            gate(*submit(case, folder / case.kind.replace(" ", "-") / case.name, folder / "home")).get(case.metric, 0)
            < 1
        ):
            wrong.append(f"{case.kind}: {case.name}")
    return tuple(wrong)
