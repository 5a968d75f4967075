"""The reference engine passes the cases that every engine must pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecology.runtime.engine import TransformersEngine
from ecology.testing.engines import CASES, EngineSubject
from ecology.testing.toys import toy_adapter, toy_base

PROMPTS = ("one", "a longer second prompt", "3", "four words in here", "five?", "the sixth of them all, the longest")


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> EngineSubject:
    home = tmp_path_factory.mktemp("home")
    base = toy_base(home)
    toy_adapter(base, home / "alive")
    toy_adapter(base, home / "mismatched", rename="model.")
    toy_adapter(base, home / "idle", strength=0.0)

    def make(batch_size: int) -> TransformersEngine:
        return TransformersEngine(base, threads=1, batch_size=batch_size)

    return EngineSubject(make, Path(home / "alive"), home / "mismatched", home / "idle", PROMPTS)


@pytest.mark.parametrize("case", CASES)
def test_transformers_engine_conforms(case: str, subject: EngineSubject) -> None:
    CASES[case](subject)
