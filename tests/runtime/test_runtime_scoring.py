from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecology.runtime.engine import TransformersEngine
from ecology.runtime.packing import Question
from ecology.runtime.scoring import Score, score

TOKENS = st.lists(st.integers(3, 258), min_size=1, max_size=12).map(tuple)
QUESTIONS = st.builds(Question, TOKENS, st.lists(TOKENS, min_size=1, max_size=4).map(tuple))


def naive(engine: TransformersEngine, context: tuple[int, ...], answer: tuple[int, ...]) -> tuple[float, bool]:
    ids = torch.tensor([context + answer])
    with torch.inference_mode():
        table = engine.model(input_ids=ids).logits[0].log_softmax(-1)
    places = range(len(context) - 1, len(context) + len(answer) - 1)
    total = sum(float(table[place, token]) for place, token in zip(places, answer, strict=True))
    return total, all(int(table[p].argmax()) == t for p, t in zip(places, answer, strict=True))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(questions=st.lists(QUESTIONS, min_size=1, max_size=5), batch_size=st.integers(1, 4))
def test_packed_numbers_are_the_naive_ones(
    engine: TransformersEngine, questions: list[Question], batch_size: int
) -> None:
    for question, scores in zip(questions, score(engine.model, questions, batch_size), strict=True):
        for answer, found in zip(question.answers, scores, strict=True):
            logprob, greedy = naive(engine, question.context, answer)
            assert found.logprob == pytest.approx(logprob, abs=1e-4)
            assert found.greedy == greedy


def test_a_shared_beginning_changes_nothing(engine: TransformersEngine) -> None:
    start = tuple(range(10, 40))
    questions = [Question((*start, 50 + i), ((60,), (61, 62 + i))) for i in range(5)]
    for question, scores in zip(questions, score(engine.model, questions, 2), strict=True):
        for answer, found in zip(question.answers, scores, strict=True):
            assert found.logprob == pytest.approx(naive(engine, question.context, answer)[0], abs=1e-4)


def test_an_empty_answer_is_certain(engine: TransformersEngine) -> None:
    assert score(engine.model, [Question((5,), ((), (6,)))], 4)[0][0] == Score(0.0, True)


def test_the_likeliest_reply_is_greedy(engine: TransformersEngine) -> None:
    (reply,) = engine.continue_tokens([[5, 6, 7]], 3)
    assert score(engine.model, [Question((5, 6, 7), (reply,))], 1)[0][0].greedy
