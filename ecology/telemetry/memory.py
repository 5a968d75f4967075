"""Peak memory, of this process and of one that does nothing but serve.

``ru_maxrss`` never falls, so what serving needs cannot be read off a process that has also trained and bred. It is
measured in a fresh process that loads the base, attaches the adapter beside the weights, answers the prompts, and
reports its own peak.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ecology.errors import BackendError

TIMEOUT_S = 600


def reset_peak_memory() -> None:
    """Begins to look for a new peak where the system can (Linux); elsewhere the peak is that of the whole process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM


def peak_memory_bytes() -> int:
    """Largest resident set of this process since ``reset_peak_memory``, or so far."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes on Linux, bytes on macOS


def give_back_memory() -> None:
    """Returns to the system what was freed and is kept for later, where the C library is glibc; elsewhere nothing.

    Threads have arenas of their own there, and what one has freed no other can use.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # malloc_trim(3)


def measure_serving_memory(
    base_folder: Path,
    adapter_folder: Path | None,
    prompts: Sequence[str],
    max_new_tokens: int = 16,
    threads: int = 2,
) -> int:
    """Peak bytes of a fresh process that serves the prompts.

    Args:
        base_folder: Config, tokenizer and safetensors.
        adapter_folder: None is the bare base.
        prompts: User messages, each served by itself.
        max_new_tokens: Length of each reply.
        threads: Of that process.

    Raises:
        BackendError: The process failed; its last words are in the message.
    """
    order = {
        "base": str(base_folder),
        "adapter": str(adapter_folder) if adapter_folder is not None else None,
        "prompts": list(prompts),
        "max_new_tokens": max_new_tokens,
        "threads": threads,
    }
    try:
        done = subprocess.run(
            # -P: the current folder is no place to import from
            [sys.executable, "-P", "-m", "ecology.runtime.serve_once"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"serving {len(prompts)} prompts took more than {TIMEOUT_S} s") from error
    if done.returncode:
        raise BackendError(f"the serving process failed: {' '.join(done.stderr.strip().splitlines()[-3:])}")
    return int(done.stdout.strip().splitlines()[-1])
