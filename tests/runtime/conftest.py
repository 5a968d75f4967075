from __future__ import annotations

from pathlib import Path

import pytest

from ecology.backend.bases import BaseModel
from ecology.runtime.engine import TransformersEngine
from ecology.testing.toys import toy_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return toy_base(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def engine(base: BaseModel) -> TransformersEngine:
    return TransformersEngine(base, threads=1, batch_size=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "adapter"
