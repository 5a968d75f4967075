from __future__ import annotations

from ecology.contracts.evidence import Samples, Turn
from ecology.contracts.identity import Digest
from ecology.gate.serving import absolute, turns
from ecology.policy.metrics import known_metrics

WHO, BASE = Digest("sha256:" + "a" * 64), Digest("sha256:" + "b" * 64)
PAIRS = [(Turn(0.2, 1.2, 11), Turn(0.1, 0.6, 11)), (Turn(0.3, 0.3, 1), Turn(0.3, 0.3, 1))]


def values(samples: object) -> tuple[float, ...]:
    assert isinstance(samples, Samples)
    return tuple(round(value, 9) for value in samples.values)


def test_reading_and_speaking_are_compared_apart() -> None:
    found = {m.metric: m for m in turns(WHO, BASE, "base", PAIRS)}
    assert values(found["resource.first_token_ratio"].statistic) == (2.0, 1.0)
    assert values(found["resource.token_ratio"].statistic) == (2.0,), "a reply of one token has no further one"
    assert "resource.latency_ratio" not in found, "measured.resources has it"
    assert {(m.subject, m.comparator, m.against) for m in found.values()} == {(WHO, BASE, "base")}


def test_against_the_incumbent_the_whole_is_compared_too() -> None:
    found = {m.metric: m for m in turns(WHO, BASE, "incumbent", PAIRS)}
    assert values(found["resource.latency_ratio"].statistic) == (2.0, 1.0)


def test_times_as_they_are() -> None:
    found = {m.metric: (values(m.statistic), m.statistic.unit) for m in absolute(WHO, [ours for ours, _ in PAIRS])}  # type: ignore[union-attr]
    assert found == {"resource.first_token_s": ((0.2, 0.3), "s"), "resource.token_ms": ((100.0,), "ms")}
    assert absolute(WHO, []) == ()


def test_a_policy_can_ask_for_each_of_them() -> None:
    every = (*turns(WHO, BASE, "incumbent", PAIRS), *absolute(WHO, [PAIRS[0][0]]))
    assert {m.metric for m in every} <= known_metrics().keys()
