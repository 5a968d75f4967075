"""Every file of a report with one byte changed, one at a time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ecology.contracts.run import RunReport
from ecology.errors import EcologyError
from ecology.report.bundle import ENVELOPE, FILES, verify_report, write_report
from ecology.signer.keys import LocalSigner

SAMPLE = 60


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FILES, ENVELOPE])
def test_any_changed_byte_of_a_report_shows(name: str, tmp_path: Path, report: RunReport, signer: LocalSigner) -> None:
    write_report(report, tmp_path, signer.sign, [{"suite": "harmful", "prompt": "p", "reply": "r"}])
    path, rng = tmp_path / name, random.Random(0)
    data = path.read_bytes()
    path.chmod(0o600)
    for place in sorted({*range(min(len(data), 20)), *(rng.randrange(len(data)) for _ in range(SAMPLE))}):
        changed = bytearray(data)
        changed[place] ^= rng.randrange(1, 256)
        path.write_bytes(changed)
        try:
            problems = verify_report(tmp_path, [signer.public_key])
        except EcologyError:
            continue
        assert problems, (place, data[max(0, place - 20) : place + 20])
