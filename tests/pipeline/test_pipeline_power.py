"""``ecology suite power``: a table for what can be looked for, and a usage error for what cannot."""

from __future__ import annotations

import pytest

from ecology.cli import main


@pytest.mark.parametrize("drop", ["nan", "-1", "inf", "-inf", "2", "0", "1.0000001", "five", ""])
def test_a_loss_is_a_share(drop: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["suite", "power", f"--drop={drop}"])
    assert left.value.code == 2
    assert "--drop: a number above 0 and at most 1 is needed" in capsys.readouterr().err


def test_every_rule_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", "power", "--drop", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "rule"
    assert "100 points worse: refuted" in lines[0]
    (skill,) = [line for line in lines if line.startswith("SKILL-001")]
    assert "  1.00  " in skill
