"""What every model engine must do, as cases that an author of one can run.

    import pytest
    from ecology.testing.engines import CASES, EngineSubject

    @pytest.mark.parametrize("case", CASES)
    def test_conforms(case, subject):
        CASES[case](subject)

Each case raises ``NonconformingError`` with a sentence that says what was expected. They are written against
``ports.ModelEngine`` alone and take seconds on the toy base (``ecology.testing.toys``).
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ecology.contracts.ports import ModelEngine
from ecology.errors import EcologyError, IntegrityError, MalformedArtifact
from ecology.testing import NonconformingError

NEW_TOKENS = 8


@dataclasses.dataclass(frozen=True)
class EngineSubject:
    """An engine under test, with what it is tested on."""

    make: Callable[[int], ModelEngine]
    """Batch size -> a fresh or an equal engine on one base."""
    adapter: Path
    """A live adapter for that base."""
    mismatched: Path
    """A well-formed adapter with a module that the base does not have."""
    idle: Path
    """An adapter for that base whose dW is zero."""
    prompts: tuple[str, ...]
    """At least five, of different lengths."""
    tolerance: float = 1e-3
    """Nats by which log-likelihoods may differ between batch sizes."""

    @property
    def choices(self) -> tuple[tuple[str, ...], ...]:
        """Answers of different lengths for each prompt."""
        return tuple(("yes", "no", "perhaps not", "x")[: 2 + i % 3] for i in range(len(self.prompts)))


def base_and_adapter_differ(subject: EngineSubject) -> None:
    """An adapter that is attached changes the numbers: "loaded but not applied" is the worst failure of an engine."""
    engine = subject.make(4)
    bare = engine.loglikelihoods(subject.prompts, subject.choices)
    with engine.attach(subject.adapter):
        on = engine.loglikelihoods(subject.prompts, subject.choices)
    _expect(_apart(bare, on) > subject.tolerance, "an attached adapter changes log-likelihoods")


def detaching_restores_the_base(subject: EngineSubject) -> None:
    """After an adapter the base answers as before, bit by bit, also when the block ends in an error."""
    engine = subject.make(4)
    before = engine.loglikelihoods(subject.prompts, subject.choices), engine.generate(subject.prompts, NEW_TOKENS)
    try:
        with engine.attach(subject.adapter):
            engine.generate(subject.prompts[:1], 1)
            raise KeyError("from inside")
    except KeyError:
        pass
    with engine.attach(None):
        after = engine.loglikelihoods(subject.prompts, subject.choices), engine.generate(subject.prompts, NEW_TOKENS)
    _expect(before == after, "the base answers as before once an adapter is off")
    _expect(engine.prove_base() == engine.identity.base_weights, "prove_base gives the identity's weights digest")


def a_changed_base_is_noticed(subject: EngineSubject) -> None:
    """While the weights are not the base's, ``prove_base`` says so or the engine keeps the adapter beside them."""
    engine = subject.make(4)
    with engine.attach(subject.adapter):
        try:
            found = engine.prove_base()
        except IntegrityError:
            return
        _expect(found == engine.identity.base_weights, "prove_base raises or gives the base's digest")


def order_does_not_matter(subject: EngineSubject) -> None:
    """Answers follow their prompts, in whatever order these come."""
    engine = subject.make(len(subject.prompts))
    forward = engine.generate(subject.prompts, NEW_TOKENS)
    backward = engine.generate(subject.prompts[::-1], NEW_TOKENS)
    _expect(forward == backward[::-1], "replies do not depend on the order of prompts")
    likely = engine.loglikelihoods(subject.prompts, subject.choices)
    turned = engine.loglikelihoods(subject.prompts[::-1], subject.choices[::-1])[::-1]
    _expect(_apart(likely, turned) <= subject.tolerance, "log-likelihoods do not depend on the order of prompts")


def batch_size_does_not_matter(subject: EngineSubject) -> None:
    """One at a time or all together: the same within the tolerance."""
    one, many = subject.make(1), subject.make(len(subject.prompts))
    alone = one.loglikelihoods(subject.prompts, subject.choices)
    together = many.loglikelihoods(subject.prompts, subject.choices)
    _expect(_apart(alone, together) <= subject.tolerance, "log-likelihoods do not depend on the batch size")
    _expect(one.fingerprint != many.fingerprint, "the fingerprint tells batch sizes apart")


def answers_repeat(subject: EngineSubject) -> None:
    """Asked twice, answered twice the same, bit by bit."""
    engine = subject.make(4)
    first = engine.loglikelihoods(subject.prompts, subject.choices), engine.generate(subject.prompts, NEW_TOKENS)
    second = engine.loglikelihoods(subject.prompts, subject.choices), engine.generate(subject.prompts, NEW_TOKENS)
    _expect(first == second, "the same question has the same answer")


def more_text_is_less_likely(subject: EngineSubject) -> None:
    """A log-likelihood is at most 0, and that of a longer answer with the same beginning is lower."""
    engine = subject.make(4)
    for short, long in engine.loglikelihoods(subject.prompts, [("ab", "abc")] * len(subject.prompts)):
        _expect(long <= short <= 0.0, "log-likelihoods are at most 0 and fall with every token")


def mismatched_keys_fail_closed(subject: EngineSubject) -> None:
    """An adapter for another base is refused, by attach and by liveness, and leaves no trace."""
    engine = subject.make(4)
    before = engine.generate(subject.prompts, NEW_TOKENS)
    try:
        with engine.attach(subject.mismatched):
            pass
    except MalformedArtifact:
        pass
    except EcologyError as error:
        _expect(False, f"a mismatched adapter is a MalformedArtifact, not {type(error).__name__}")
    else:
        _expect(False, "attach refuses a module that the base does not have")
    _expect(bool(engine.liveness(subject.mismatched, subject.prompts[:2])), "liveness refuses it too")
    _expect(engine.generate(subject.prompts, NEW_TOKENS) == before, "a refused adapter leaves no trace")
    _expect(engine.prove_base() == engine.identity.base_weights, "a refused adapter leaves the base as it was")


def liveness_tells_dead_from_alive(subject: EngineSubject) -> None:
    """A live adapter has nothing wrong; one that changes nothing has."""
    engine = subject.make(4)
    found = engine.liveness(subject.adapter, subject.prompts[:3])
    _expect(found == (), f"a live adapter is found alive: {found}")
    _expect(bool(engine.liveness(subject.idle, subject.prompts[:3])), "an adapter of zeros is found dead")


def latency_is_paired(subject: EngineSubject) -> None:
    """Positive times for each prompt and each who answers it, the first token before the last; the base untouched."""
    engine = subject.make(4)
    turns = engine.time_turns((subject.adapter, None), subject.prompts[:3], 2)
    _expect([len(one) for one in turns] == [2, 2, 2], "there is a time for each prompt and each who answers it")
    _expect(all(0 < t.first_s <= t.total_s for one in turns for t in one), "the first token comes before the last")
    _expect(engine.prove_base() == engine.identity.base_weights, "timing leaves the base as it was")


def nothing_asked_nothing_answered(subject: EngineSubject) -> None:
    """Empty in, empty out."""
    engine = subject.make(4)
    _expect(engine.generate((), 4) == (), "no prompts, no replies")
    _expect(engine.loglikelihoods((), ()) == (), "no prompts, no log-likelihoods")


CASES: Mapping[str, Callable[[EngineSubject], None]] = types.MappingProxyType(
    {
        case.__name__: case
        for case in (
            base_and_adapter_differ,
            detaching_restores_the_base,
            a_changed_base_is_noticed,
            order_does_not_matter,
            batch_size_does_not_matter,
            answers_repeat,
            more_text_is_less_likely,
            mismatched_keys_fail_closed,
            liveness_tells_dead_from_alive,
            latency_is_paired,
            nothing_asked_nothing_answered,
        )
    }
)


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise NonconformingError(f"expected that {what}")


def _apart(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> float:
    """Largest difference between two tables of one shape."""
    pairs = zip(left, right, strict=True)
    return max(abs(a - b) for some, others in pairs for a, b in zip(some, others, strict=True))
