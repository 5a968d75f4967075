"""Runs ``ecology`` commands in children of a process that has the slow imports behind it, and kills some of them.

    python zygote.py            orders on stdin, results on stdout, one JSON object a line

An order names a folder, a home, arguments, and how the child dies, if it does: at a point, where the child sends
SIGKILL to itself, or after so many seconds, when this process sends it. Nothing of the product knows of these points:
the child patches the product before it starts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
        out = os.open(Path(order["cwd"]) / "stdout.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        err = os.open(Path(order["cwd"]) / "stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(err, 2)
        if order.get("point"):
            POINTS[order["point"]]()
        from ecology.cli import main

        code = main(["--quiet", "--home", order["home"], *order["arguments"]])
        sys.stdout.flush()
    finally:
        os._exit(code)


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
    import ecology.runtime.engine  # noqa: F401

    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            child(order)
        code = wait(pid, order.get("after_s"))
        said = {name: (Path(order["cwd"]) / f"{name}.txt").read_text() for name in ("stdout", "stderr")}
        print(json.dumps({"code": code, "seconds": time.monotonic() - start, **said}), flush=True)


if __name__ == "__main__":
    serve()
