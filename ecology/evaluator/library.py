"""Any suite by its folder: our own grammars, and stock lm-eval tasks with local data."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ecology.contracts.evidence import Suite
from ecology.contracts.identity import Digest
from ecology.documents.source import read_source
from ecology.errors import ConfigError
from ecology.evaluator.lmeval import load_task_suite
from ecology.evaluator.suites import load_suite


def load_any_suite(path: Path, trusted: Collection[Digest] = ()) -> Suite:
    """A suite of any kind.

    Args:
        path: A ``suite.yaml``, or the folder that holds one.
        trusted: Digests of Python files beside lm-eval tasks that a policy lists.

    Raises:
        ConfigError: It cannot be read or is malformed.
    """
    file = path / "suite.yaml" if path.is_dir() else path
    said = read_source(file, ConfigError, str(file)).data
    if isinstance(said, dict) and said.get("kind") == "lm_eval":
        return load_task_suite(file, trusted)
    return load_suite(file)
