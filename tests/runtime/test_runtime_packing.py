from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ecology.runtime.packing import ROW_LEAST, ROW_TOKENS, Question, fill_rows, table

TOKENS = st.lists(st.integers(3, 5), min_size=1, max_size=9).map(tuple)  # few tokens, so that much is shared
QUESTIONS = st.builds(Question, TOKENS, st.lists(st.just(()) | TOKENS, max_size=4).map(tuple))


@given(questions=st.lists(QUESTIONS, min_size=1, max_size=12), before=st.integers(0, 3), workers=st.integers(1, 3))
def test_each_token_sees_its_own_sequence_and_nothing_else(
    questions: list[Question], before: int, workers: int
) -> None:
    rows = fill_rows(questions, 0, workers)
    ids, positions, seen = table(rows, before)
    assert sorted(one.number for row in rows for one in row.placed) == list(range(len(questions)))
    assert seen[:, :, :, :before].all()
    for number, row in enumerate(rows):
        for one in row.placed:
            question = questions[one.number]
            for answer, spots in zip(question.answers, one.before, strict=True):
                assert len(spots) == len(answer)
                for length, spot in enumerate(spots):
                    path = seen[number, 0, spot, before:].nonzero()[:, 0]
                    assert ids[number, path].tolist() == [*question.context, *answer[:length]]
                    assert positions[number, path].tolist() == list(range(before, before + len(path)))
                    assert set(path.tolist()) <= set(one.nodes)


@given(questions=st.lists(QUESTIONS, min_size=1, max_size=5))
def test_no_path_of_a_row_is_read_twice(questions: list[Question]) -> None:
    (row,) = fill_rows(questions, 0, 1)
    _, _, seen = table([row], 0)
    paths = [tuple(row.tokens[i] for i in seen[0, 0, node].nonzero()[:, 0]) for node in range(len(row))]
    wanted = {q.context[: i + 1] for q in questions for i in range(len(q.context))}
    wanted |= {q.context + a[: i + 1] for q in questions for a in q.answers for i in range(len(a) - 1)}
    assert len(paths) == len(set(paths))
    assert set(paths) == wanted


def test_padding_sees_itself_alone() -> None:
    (row, other) = (fill_rows([Question(tuple(range(n)), ())], 0, 1)[0] for n in (2, 4))
    _, _, seen = table([row, other], 1)
    assert seen[0, 0].int().tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 0, 1]]


def test_rows_are_about_equally_long() -> None:
    questions = [Question((n, *range(10 + n % 7)), ((1, 2, 3),)) for n in range(60)]
    lengths = [len(row) for row in fill_rows(questions, 0, 2)]
    assert len(lengths) == -(-sum(lengths) // ROW_TOKENS)
    assert max(lengths) - min(lengths) <= 2 * 19, "each end is within half a question of its place"


def test_few_questions_are_split_when_there_is_enough_for_two() -> None:
    few = [Question((1, n, 3), ()) for n in range(ROW_LEAST // 3)]
    assert len(fill_rows(few, 0, 2)) == 1
    assert len(fill_rows([Question((n, n, 3, 4, 5, 6), ()) for n in range(ROW_LEAST)], 0, 2)) == -(
        -ROW_LEAST * 6 // 128
    )
    assert len(fill_rows([Question((n, n, 3, 4, 5, 6), ()) for n in range(17)], 0, 2)) == 2
