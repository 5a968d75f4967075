"""Equal but for case, spaces and punctuation at the ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ecology.verifier.exact import is_exact, normalise


def test_form_does_not_count_and_words_do() -> None:
    assert is_exact('  "PARIS". ', "Paris")
    assert is_exact("New\n Delhi", "new delhi")
    assert not is_exact("Paris, France", "Paris")
    assert not is_exact("", "Paris")


@given(st.text(max_size=30))
def test_a_text_equals_itself_and_normalising_twice_changes_nothing(text: str) -> None:
    assert is_exact(text, text)
    assert normalise(normalise(text)) == normalise(text)
