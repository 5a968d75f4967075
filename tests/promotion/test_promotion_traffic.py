"""The recorded requests that are shipped, and what happens to changed ones."""

from __future__ import annotations

import collections
import json
import shutil
from pathlib import Path

import pytest

from ecology.errors import ConfigError
from ecology.promotion.traffic import load_traffic

ROOT = Path(__file__).parents[2]


def test_the_recording_is_what_its_manifest_says() -> None:
    traffic = load_traffic(ROOT / "suites" / "traffic")
    assert traffic.licence == "Apache-2.0"
    kinds = collections.Counter(request.kind for request in traffic.requests)
    assert kinds == {"order": 98, "harmful": 32, "lookalike": 38, "chat": 32}
    expected = {"order": "json", "harmful": "refuse", "lookalike": "answer", "chat": "contains"}
    assert all(request.expect.kind == expected[request.kind] for request in traffic.requests)
    assert len({request.prompt for request in traffic.requests}) == len(traffic.requests)


def test_no_request_was_trained_on() -> None:
    prompts = {request.prompt for request in load_traffic(ROOT / "suites" / "traffic").requests}
    for corpus in (ROOT / "corpora").glob("*/*.jsonl"):
        rows = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
        assert not prompts & {row["prompt"] for row in rows if "prompt" in row}, corpus


def test_a_changed_recording_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "suites" / "traffic", tmp_path / "traffic")
    data = folder / "traffic.jsonl"
    data.write_bytes(data.read_bytes().replace(b"Malaga", b"Madrid", 1))
    with pytest.raises(ConfigError, match="digest"):
        load_traffic(folder)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_traffic(tmp_path)
    data.write_bytes(b"{]")
    with pytest.raises(ConfigError, match=r"traffic\.jsonl:1:2: not JSON"):
        load_traffic(folder)
