"""Trains the toy of ``test_grpo`` in a process of its own and prints the digest."""

from __future__ import annotations

import sys
from pathlib import Path

from ecology.breeder.grpo import GrpoOptions, tinylora_grpo
from ecology.breeder.session import Session
from ecology.contracts.artifact import Corpus
from ecology.kernel.canonical import digest
from ecology.runtime.engine import TransformersEngine
from ecology.telemetry.progress import SilentProgress
from ecology.testing.toys import toy_base

home = Path(sys.argv[1])
engine = TransformersEngine(toy_base(home, layers=2), threads=1, batch_size=8)
session = Session(
    engine=engine,
    seed=1,
    out=home / "out",
    work=home / "work",
    environment={},
    progress=SilentProgress(),
    name="founder",
    keep=home / "keep",
)
bred = tinylora_grpo(
    session,
    Corpus("c", digest("c"), "Apache-2.0", "train", False, 4),
    [(f"say {n}", "a", False) for n in range(4)],
    GrpoOptions(
        corpus="c",
        adapter={"kind": "tinylora", "u": 2, "groups": 7},
        reward="exact",
        steps=2,
        prompts=4,
        group=4,
        max_new_tokens=1,
        stop="",
        patience=9,
    ),
    (),
)
(basis,) = (home / "keep" / "learned").glob("*/basis.digest")
print(bred.artifact.digest, basis.read_text(encoding="utf-8"))
