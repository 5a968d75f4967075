"""What the bytes of a trained or measured thing depend on besides its inputs."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

PACKAGES = ("numpy", "peft", "safetensors", "scipy", "tokenizers", "torch", "transformers")


def environment(threads: int) -> Mapping[str, str]:
    """Versions, thread count and kind of CPU, by name; no host name, user or path.

    Args:
        threads: That the engine computes with.
    """
    from importlib import metadata  # noqa: PLC0415  (with what it imports in turn, 2 MB that a static gate has no use for)

    found = {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": cpu_kind(),
        "threads": str(threads),
    }
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return dict(sorted(found.items()))


def cpu_kind() -> str:
    """Model of the processor and its widest vector unit, on which the rounding of matrix products depends."""
    file = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    if file.exists():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or "unknown"
    flags = set(fields.get("flags", "").split())
    widest = next((flag for flag in ("avx512f", "avx2", "avx") if flag in flags), "")
    return f"{name} ({widest})" if widest else name
