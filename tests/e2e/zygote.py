"""Runs ``ecology`` commands in children of a process that has the slow imports behind it, and kills some of them.

    python zygote.py            lists of orders on stdin, lists of results on stdout, a line each; a list runs at once

An order names a folder, a home, arguments, and how the child dies, if it does: at a point, where the child sends
SIGKILL to itself, or after so many seconds, when this process sends it. Nothing of the product knows of these points:
the child patches the product before it starts.

A run measures memory in a fresh process for every finalist, and five seconds of that are imports. Here that process is
a fork too: it serves the same prompts, and what memory it reports is compared by no test.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import io
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number: int, first: Callable[..., None] = lambda *_, **__: None) -> Callable[[Any], Any]:
    """Wraps a function so that its ``number``-th call does ``first`` and dies instead."""

    def wrap(real: Any) -> Any:
        calls = 0

        def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                first(*arguments, **named)
                die()
            return real(*arguments, **named)

        return wrapped

    return wrap


def half_a_file(source: Path, target: Path, file: Any) -> None:
    data = (source / file.path).read_bytes()
    (target / file.path).write_bytes(data[: len(data) // 2])


def mid_finetune() -> None:
    from ecology.breeder.training import Trainer

    Trainer.step = at_call(5)(Trainer.step)  # type: ignore[method-assign]


def mid_write_in_the_store() -> None:
    from ecology.store import artifacts

    artifacts._copy = at_call(4, half_a_file)(artifacts._copy)


def between_sign_and_register() -> None:
    from ecology.pipeline.house import House

    real = House.record

    def record(self: House, kind: str, *rest: Any) -> None:
        if kind == "signed":
            die()
        real(self, kind, *rest)

    House.record = record  # type: ignore[assignment, method-assign]


def mid_evaluation() -> None:
    from ecology.evaluator.cache import ResultCache

    ResultCache.put = at_call(3)(ResultCache.put)  # type: ignore[method-assign]


def between_promotion_event_and_alias_move() -> None:
    from ecology.audit.log import SqlAuditLog

    real = SqlAuditLog.append

    def append(self: SqlAuditLog, event: Any) -> int:
        index = real(self, event)
        if event.kind == "promoted":
            die()
        return index

    SqlAuditLog.append = append  # type: ignore[method-assign]


def mid_canary() -> None:
    from ecology.pipeline import trial

    real = trial.server

    def server(*arguments: Any) -> Any:
        return at_call(5)(real(*arguments))

    trial.server = server


def mid_report() -> None:
    from ecology.report import bundle

    bundle.write_atomic = at_call(3)(bundle.write_atomic)


POINTS = {
    "mid-finetune": mid_finetune,
    "mid-write in the store": mid_write_in_the_store,
    "between sign and register": between_sign_and_register,
    "mid-evaluation": mid_evaluation,
    "between promotion event and alias move": between_promotion_event_and_alias_move,
    "mid-canary": mid_canary,
    "mid-report": mid_report,
}


def child(order: dict[str, Any]) -> None:
    code = 99
    try:
        os.chdir(order["cwd"])
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(f"{order['said']}.stdout", flags), 1)
        os.dup2(os.open(f"{order['said']}.stderr", flags), 2)
        prepare(order)
        sys.argv = ["ecology", "--quiet", "--home", order["home"], *order["arguments"]]
        try:
            runpy.run_module("ecology", run_name="__main__", alter_sys=True)  # as ``python -m ecology`` does
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def swap(changes: list[list[str]]) -> None:
    """Exchanges files, consistently, when the run has been planned and nothing has been spent."""
    from ecology.pipeline import run

    real = run.make_plan

    def make_plan(*arguments: Any) -> Any:
        plan = real(*arguments)
        for name, old, new in changes:
            text = Path(name).read_text("utf-8")
            assert old in text, f"{name} has no {old!r}"
            Path(name).write_text(text.replace(old, new, 1), "utf-8")
        return plan

    run.make_plan = make_plan


def forked(command: list[str], *, input: str, **_: Any) -> Any:
    """Stands for ``subprocess.run`` of ``ecology.runtime.serve_once``."""
    from ecology.runtime import serve_once

    assert command[-1] == serve_once.__name__, command
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with os.fdopen(writing, "w") as sys.stdout:
                sys.stdin = io.StringIO(input)
                serve_once.main()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    return subprocess.CompletedProcess(command, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said, "see above")


def absent(name: str) -> None:
    """Makes a package look as if it were not installed."""
    real = importlib.util.find_spec
    importlib.util.find_spec = lambda asked, *rest: None if asked == name else real(asked, *rest)
    sys.modules[name] = None  # type: ignore[assignment]


def prepare(order: dict[str, Any]) -> None:
    """Makes the process as the order wants it."""
    from ecology.telemetry import memory

    memory.subprocess = types.SimpleNamespace(run=forked, TimeoutExpired=subprocess.TimeoutExpired)  # type: ignore[assignment]
    if order.get("point"):
        POINTS[order["point"]]()
    if order.get("swap"):
        swap(order["swap"])
    if order.get("clock"):
        from ecology.telemetry.clock import SystemClock

        SystemClock.now = lambda self: order["clock"]  # type: ignore[method-assign]
    if order.get("python"):
        sys.version_info = tuple(order["python"])  # type: ignore[assignment]
    if order.get("without"):
        importlib.import_module(order["without"]).__path__ = []  # as if nothing were installed below this name
    if order.get("absent"):
        absent(order["absent"])
    if order.get("file_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes"], order["file_bytes"]))
    if order.get("tmpfs"):
        mount(*order["tmpfs"])
    if order.get("powerless") and os.geteuid() == 0:
        drop_powers()


def mount(folder: str, size: str) -> None:
    """A small disk at a folder, in the mount namespace of the zygote; made larger or smaller if it is there."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    remount = 32 if os.path.ismount(folder) else 0  # MS_REMOUNT
    done = LIBC.mount(b"none", folder.encode(), b"tmpfs", remount, f"size={size}".encode())
    if done != 0:
        raise OSError(ctypes.get_errno(), "mount")


def drop_powers() -> None:
    """Gives up CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2), so that permissions count for root too."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    powers = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    if LIBC.capget(header, powers) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    powers[0] &= ~0b110 & 0xFFFFFFFF
    if LIBC.capset(header, powers) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def wait(pid: int, after_s: float | None) -> int:
    """The child's status, as ``subprocess`` says it: its exit code, or minus the signal."""
    end = None if after_s is None else time.monotonic() + after_s
    while True:
        done, status = os.waitpid(pid, 0 if end is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            os.kill(pid, signal.SIGKILL)
            end = None
        time.sleep(0.005)


def serve() -> None:
    import hydra  # noqa: F401
    import peft  # noqa: F401
    import torch._dynamo  # noqa: F401
    import transformers  # noqa: F401

    import ecology.breeder.training
    import ecology.cli
    import ecology.pipeline.main_job
    import ecology.runtime.engine
    import ecology.runtime.serve_once  # noqa: F401

    own = LIBC.unshare(CLONE_NEWNS) == 0 and LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
    print(json.dumps({"ready": True, "mounts": own}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        started = [(order, *start(order)) for order in asked]
        found = [finished(*one) for one in started]
        print(json.dumps(found), flush=True)


def start(order: dict[str, Any]) -> tuple[int, float]:
    """The child's process id, and when it was made."""
    now = time.monotonic()
    pid = os.fork()
    if pid == 0:
        time.sleep(order.get("delay_s", 0))
        child(order)
    return pid, now


def finished(order: dict[str, Any], pid: int, start_s: float) -> dict[str, Any]:
    """How the child ended and what it said."""
    code = wait(pid, order.get("after_s"))
    said = {name: Path(f"{order['said']}.{name}").read_text() for name in ("stdout", "stderr")}
    return {"code": code, "seconds": time.monotonic() - start_s, **said}


if __name__ == "__main__":
    serve()
