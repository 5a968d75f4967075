"""JSON lines have one reading, and a mistake has a file, a line and a column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecology.documents.jsonl import MOST_TOLD, read_lines
from ecology.errors import ConfigError

HERE = Path("train.jsonl")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ROWS = st.lists(st.dictionaries(TEXT, TEXT | st.integers(), max_size=3), max_size=6)


@given(ROWS, st.booleans())
def test_what_was_written_is_read_with_its_place(rows: list[object], ended: bool) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + ("\n" if ended and rows else "")
    expected = tuple((f"train.jsonl:{number}", row) for number, row in enumerate(rows, start=1))
    assert read_lines(HERE, text.encode()) == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"prompt": "a" "completion": "b"}', "train.jsonl:2:16: not JSON"),
        ('{"ä": "ö" "b": 1}'.encode(), "train.jsonl:2:11: not JSON"),
        (b'{"a": "\xff"}', "train.jsonl:2:8: not UTF-8"),
        (b'{"a": NaN}', "train.jsonl:2:1: NaN is not JSON"),
        (b'{"a": 1, "a": 2}', "train.jsonl:2:1: key 'a' stands twice"),
        (b"[" * 100_000, "train.jsonl:2:1: nested too deep"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "train.jsonl:2:1"),
        (b"", "train.jsonl:2:1: not JSON"),
        (rb'{"a": "\ud800"}', "train.jsonl:2:1: an escape makes half"),
    ],
)
def test_a_mistake_has_file_line_and_column(line: bytes, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_lines(HERE, b'{"a": 1}\n' + line + b'\n{"a": 1}\n')
    assert says in str(refused.value)


def test_every_mistake_is_told_up_to_a_number() -> None:
    with pytest.raises(ConfigError) as refused:
        read_lines(HERE, b"{\n" * (MOST_TOLD + 3))
    assert str(refused.value).count("train.jsonl:") == MOST_TOLD
    assert "and 3 more" in str(refused.value)
