"""The canary on made-up traffic: what aborts, what holds, what promotes."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.evidence import Measurement, Proportion, Samples
from ecology.contracts.identity import Digest
from ecology.contracts.promotion import CanaryPlan, CanaryStep
from ecology.errors import BackendError, ConfigError
from ecology.kernel.buckets import Arm, arm
from ecology.kernel.canonical import plain
from ecology.promotion.canary import Serve, Served, canary_plan, recheck, run
from ecology.promotion.decider import ALERTS, COMPARED, LATENCY, SUCCESS, decide
from ecology.promotion.traffic import Expect, Request, load_traffic

ROOT = Path(__file__).parents[2]
NEW, OLD = Digest("sha256:" + "a" * 64), "sha256:" + "b" * 64
PLAN = CanaryPlan(
    steps=(CanaryStep(0.2, 60), CanaryStep(0.5, 240)),
    alpha=0.05,
    quality_margin=0.1,
    max_alerts=2,
    latency_ratio=1.5,
    on_inconclusive="hold",
)


def traffic(n: int, harmful_every: int = 5) -> tuple[Request, ...]:
    return tuple(
        Request(
            id=f"r{i}",
            kind="harmful" if harmful_every and i % harmful_every == 0 else "order",
            category="c",
            prompt=f"p{i}",
            expect=Expect("answer"),
        )
        for i in range(n)
    )


def server(new: float, old: float, new_s: float = 1.0, leak: bool = False, log: list[str] | None = None) -> Serve:
    """An engine whose arms succeed with probability ``new`` and ``old``."""
    chance = random.Random(7)

    def serve(name: Arm, requests: Sequence[Request]) -> list[Served]:
        if log is not None:
            log.extend(request.id for request in requests if name == "candidate")
        rate, pace = (new, new_s) if name == "candidate" else (old, 1.0)
        return [
            Served(
                r.id,
                chance.random() < rate,
                leak and name == "candidate" and r.kind == "harmful",
                pace * chance.uniform(0.8, 1.25),
            )
            for r in requests
        ]

    return serve


def try_out(serve: Serve, requests: Sequence[Request] = traffic(300), plan: CanaryPlan = PLAN):
    result = run(plan, requests, serve, candidate=NEW, incumbent=OLD, salt="s")
    assert recheck(plan, result) == ()
    return result


def test_a_good_candidate_is_promoted() -> None:
    result = try_out(server(0.95, 0.6))
    assert result.decision == "promote"
    assert [o.decision for o in result.observations] == ["advance", "advance"]
    assert [o.requests for o in result.observations] == [60, 240]


def test_a_regression_aborts_and_rolls_back() -> None:
    result = try_out(server(0.1, 0.95))
    assert result.decision == "rollback"
    assert result.observations[-1].decision == "abort"
    assert len(result.observations) == 1  # it is seen on the first little share
    assert "below the margin" in result.reason


def test_a_slow_candidate_aborts() -> None:
    result = try_out(server(0.9, 0.9, new_s=4.0))
    assert result.decision == "rollback"
    assert "latency ratio" in result.reason


def test_alerts_abort_in_the_middle_of_a_step() -> None:
    asked: list[str] = []
    result = try_out(server(0.99, 0.5, leak=True, log=asked), traffic(300, harmful_every=2))
    assert result.decision == "rollback"
    last = result.observations[-1]
    assert last.requests < last.step.min_requests
    assert "alerts allowed" in result.reason
    alerts = [m.statistic for m in last.measurements if m.metric == "canary.alerts" and m.subject == NEW]
    assert isinstance(alerts[0], Proportion)
    assert len(asked) < 60


def test_alerts_of_the_incumbent_do_not_count() -> None:
    def serve(name: Arm, requests: Sequence[Request]) -> list[Served]:
        return [Served(r.id, True, name == "incumbent", 1.0) for r in requests]

    assert try_out(serve, traffic(300, harmful_every=3)).decision == "promote"


@pytest.mark.parametrize("end", ["hold", "rollback"])
def test_too_few_requests_never_promote(end: str) -> None:
    plan = dataclasses.replace(PLAN, on_inconclusive=end)
    result = try_out(server(0.95, 0.6), traffic(150), plan)
    assert result.decision == end
    assert "90 requests at weight 0.5, 240 are needed" in result.reason
    assert try_out(server(0.95, 0.6), (), plan).decision == end


def test_equal_arms_on_little_traffic_hold() -> None:
    plan = dataclasses.replace(PLAN, steps=(CanaryStep(0.5, 40),))
    result = try_out(server(0.8, 0.8), traffic(40), plan)
    assert result.decision == "hold"
    assert "not proven" in result.reason


def test_the_same_traffic_gives_the_same_result() -> None:
    assert try_out(server(0.8, 0.8)) == try_out(server(0.8, 0.8))


def test_a_recorded_canary_that_lies_is_found_out() -> None:
    result = run(PLAN, traffic(300), server(0.1, 0.95), candidate=NEW, incumbent=OLD, salt="s")
    assert recheck(PLAN, dataclasses.replace(result, decision="promote"))
    lie = dataclasses.replace(result.observations[0], decision="advance")
    assert recheck(PLAN, dataclasses.replace(result, observations=(lie,), decision="hold"))
    step = dataclasses.replace(result.observations[0], step=CanaryStep(0.9, 1))
    assert recheck(PLAN, dataclasses.replace(result, observations=(step,)))


def test_every_request_goes_to_one_arm_and_a_wider_step_only_adds() -> None:
    seen: dict[str, str] = {}

    def serve(name: Arm, requests: Sequence[Request]) -> list[Served]:
        for request in requests:
            assert request.id not in seen
            seen[request.id] = name
        return [Served(r.id, True, False, 1.0) for r in requests]

    try_out(serve)
    assert len(seen) == 300
    assert {i for i, name in seen.items() if name == "candidate"} <= {
        f"r{i}" for i in range(300) if arm(f"r{i}", "s", 0.5) == "candidate"
    }


@settings(max_examples=80)
@given(st.text(max_size=20), st.text(max_size=9), st.floats(0, 1), st.floats(0, 1))
def test_widening_only_adds(unit: str, salt: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if arm(unit, salt, low) == "candidate":
        assert arm(unit, salt, high) == "candidate"


def test_a_canary_needs_two_adapters_and_distinct_ids() -> None:
    with pytest.raises(ConfigError, match="two different"):
        run(PLAN, traffic(3), server(1, 1), candidate=NEW, incumbent=NEW, salt="s")
    with pytest.raises(ConfigError, match="same id"):
        run(PLAN, traffic(3) * 2, server(1, 1), candidate=NEW, incumbent=OLD, salt="s")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answers: answers[1:],
        lambda answers: [dataclasses.replace(answers[0], id="x"), *answers[1:]],
        lambda answers: [dataclasses.replace(answers[0], latency_s=0.0), *answers[1:]],
        lambda answers: [dataclasses.replace(answers[0], latency_s=float("nan")), *answers[1:]],
    ],
)
def test_an_engine_that_does_not_answer_is_an_error(spoil: Callable[[list[Served]], list[Served]]) -> None:
    good = server(1, 1)
    with pytest.raises(BackendError):
        run(PLAN, traffic(60), lambda n, r: spoil(list(good(n, r))), candidate=NEW, incumbent=OLD, salt="s")


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "canary").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_plans_are_usable(path: Path) -> None:
    plan = canary_plan(yaml.safe_load(path.read_text(encoding="utf-8")), path.name)
    assert sum(step.min_requests for step in plan.steps) <= 160  # suites/traffic holds 200


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"steps": []}, "untried"),
        ({"steps": [{"weight": 0.5, "min_requests": 1}, {"weight": 0.1, "min_requests": 1}]}, "shrink"),
        ({"steps": [{"weight": 1.0, "min_requests": 1}]}, "between"),
        ({"steps": [{"weight": 0.5, "min_requests": 0}]}, "min_requests"),
        ({"alpha": 0.0}, "alpha"),
        ({"quality_margin": -0.1}, "quality_margin"),
        ({"max_alerts": -1}, "max_alerts"),
        ({"min_per_arm": 0}, "min_per_arm"),
        ({"min_harmful": -1}, "min_harmful"),
        ({"latency_ratio": 0.5}, "latency_ratio"),
        ({"on_inconclusive": "promote"}, "one of"),
    ],
)
def test_a_wrong_plan_is_refused(change: dict[str, object], word: str) -> None:
    data = yaml.safe_load((ROOT / "conf" / "canary" / "replay.yaml").read_text(encoding="utf-8"))
    with pytest.raises(ConfigError, match=word):
        canary_plan({**data, **change})


# --------------------------------------------------------------------------------------- steps of other traffic


def arms(
    ours: tuple[int, int], theirs: tuple[int, int], pace: float = 1.0, harmful: int = 2
) -> tuple[Measurement, ...]:
    """One step: successes and requests of both arms, seconds around ``pace``, harmful requests of the candidate."""

    def one(subject: str, seen: tuple[int, int], asked: int) -> tuple[Measurement, ...]:
        seconds = tuple(pace * (1 + 0.1 * (i % 9)) for i in range(min(seen[1], 90)))
        return (
            Measurement(SUCCESS, Digest(subject), Proportion(*seen)),
            Measurement(ALERTS, Digest(subject), Proportion(0, asked)),
            Measurement(LATENCY, Digest(subject), Samples(seconds, "s")),
        )

    return (*one(NEW, ours, harmful), *one(OLD, theirs, 3))


REPLAY = CanaryPlan((CanaryStep(0.1, 30), CanaryStep(0.25, 50), CanaryStep(0.5, 80)), 0.05, 0.1, 4, 1.5, "hold")


def test_worse_in_every_step_is_not_promoted_because_it_got_more_of_the_easy_traffic() -> None:
    steps = [arms((0, 3), (5, 27)), arms((0, 12), (7, 38)), arms((33, 40), (39, 40))]  # pooled 33/55 against 51/105
    assert [decide(REPLAY, NEW, steps[:i])[0] for i in (1, 2, 3)] == ["advance", "advance", "hold"]
    reason = decide(REPLAY, NEW, steps)[1]
    assert "success 0/3, 0/12, 33/40 against 5/27, 7/38, 39/40, difference within steps -0.163" in reason
    assert "not proven to be above the margin" in reason
    many = [arms((0, 120), (200, 1080)), arms((0, 480), (280, 1520)), arms((1320, 1600), (1560, 1600))]
    assert decide(REPLAY, NEW, many)[0] == "abort"


def test_equal_arms_are_not_held_back_by_hard_traffic_at_the_end() -> None:
    steps = [arms((285, 300), (2565, 2700)), arms((1140, 1200), (3420, 3600)), arms((600, 4000), (600, 4000))]
    decision, reason = decide(REPLAY, NEW, steps)  # pooled 2025/5500 against 6585/10300: 27 points worse
    assert decision == "advance"
    assert "difference within steps +0.000" in reason


def test_slow_traffic_at_the_end_does_not_make_a_candidate_slow() -> None:
    steps = [arms((3, 3), (9, 27)), arms((12, 12), (12, 38)), arms((40, 40), (14, 40), pace=20.0)]
    decision, reason = decide(REPLAY, NEW, steps)
    assert decision == "advance"
    assert "latency ratio 1.00" in reason


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_requests_within_a_step_changes_nothing(shuffler: random.Random) -> None:
    requests = traffic(300)
    first, second = list(requests[:60]), list(requests[60:])
    shuffler.shuffle(first)
    shuffler.shuffle(second)

    def serve(name: Arm, asked: Sequence[Request]) -> list[Served]:
        luck = [random.Random(f"{name} {request.id}") for request in asked]
        return [Served(r.id, x.random() < 0.7, False, x.uniform(1, 9)) for r, x in zip(asked, luck, strict=True)]

    shuffled, straight = try_out(serve, (*first, *second)), try_out(serve, requests)
    assert [(o.decision, o.reason) for o in shuffled.observations] == [
        (o.decision, o.reason) for o in straight.observations
    ]


# ----------------------------------------------------------------------------------------------------- exposure


def test_nobody_is_promoted_who_was_asked_nothing_harmful() -> None:
    good = [arms((3, 3), (9, 27), harmful=0), arms((12, 12), (12, 38), harmful=0), arms((40, 40), (14, 40), harmful=0)]
    assert [decide(REPLAY, NEW, good[:i])[0] for i in (1, 2, 3)] == ["advance", "advance", "hold"]
    assert "the candidate was asked 0 harmful requests, 1 are needed" in decide(REPLAY, NEW, good)[1]
    enough = [arms((3, 3), (9, 27)), arms((12, 12), (12, 38)), arms((40, 40), (14, 40))]
    for needed, decision in ((6, "advance"), (7, "hold")):
        assert decide(dataclasses.replace(REPLAY, min_harmful=needed), NEW, enough)[0] == decision
    result = try_out(server(0.99, 0.5), traffic(300, harmful_every=0))
    assert (result.decision, len(result.observations)) == ("hold", 2)


@pytest.mark.parametrize(("step", "who"), [(arms((0, 0), (9, 30)), "candidate"), (arms((9, 30), (0, 0)), "incumbent")])
def test_a_step_that_one_arm_slept_through_does_not_advance(step: tuple[Measurement, ...], who: str) -> None:
    decision, reason = decide(REPLAY, NEW, [step])
    assert decision == "hold"
    assert f"the {who} served 0 requests at weight 0.1, 1 are needed" in reason


def test_a_step_goes_on_until_enough_was_asked_and_compares_what_it_was_to_compare() -> None:
    plan = dataclasses.replace(REPLAY, steps=(CanaryStep(0.1, 30), CanaryStep(0.5, 100)), min_per_arm=6, min_harmful=5)
    quiet = tuple(dataclasses.replace(r, kind="harmful" if i >= 230 else "order") for i, r in enumerate(traffic(400)))
    result = try_out(server(0.99, 0.4), quiet, plan)
    assert result.decision == "promote"
    first, last = result.observations
    assert first.requests > 30
    assert last.requests > 100

    def rate(step: int, subject: str, metric: str) -> Proportion:
        found = [
            m.statistic for m in result.observations[step].measurements if (m.metric, m.subject) == (metric, subject)
        ]
        return found[0] if found and isinstance(found[0], Proportion) else Proportion(0, 0)

    for step, compared in ((0, 30), (1, 100)):
        assert rate(step, NEW, SUCCESS).n + rate(step, OLD, SUCCESS).n == compared
    assert rate(0, NEW, COMPARED).n == 6  # the sixth ended the step
    assert rate(1, NEW, ALERTS).n == 5
    extra = sum(o.requests for o in result.observations) - 130
    assert f"({extra} more requests were served and not compared)" in result.reason
    # How long a step is follows from ids and kinds, not from any reply.
    other = run(plan, quiet, server(0.97, 0.3), candidate=NEW, incumbent=OLD, salt="s")
    assert [o.requests for o in other.observations] == [o.requests for o in result.observations]
    assert try_out(server(0.99, 0.4), quiet[:230], plan).decision == "hold"  # the traffic ran out


def test_alerts_beyond_what_is_compared_still_abort() -> None:
    plan = dataclasses.replace(REPLAY, steps=(CanaryStep(0.5, 100),), min_harmful=5, max_alerts=0)
    late = tuple(dataclasses.replace(r, kind="harmful" if i >= 150 else "order") for i, r in enumerate(traffic(300)))
    assert try_out(server(0.99, 0.4, leak=True), late, plan).decision == "rollback"


def test_the_shipped_canary_seldom_holds_for_want_of_exposure() -> None:
    """On the shipped traffic, whichever way the salt deals it: the steps go on where they need to."""
    plan = canary_plan(yaml.safe_load((ROOT / "conf" / "canary" / "replay.yaml").read_text(encoding="utf-8")))
    requests = load_traffic(ROOT / "suites" / "traffic").requests

    def serve(name: Arm, asked: Sequence[Request]) -> list[Served]:
        return [Served(r.id, name == "candidate", False, 1 + 0.001 * i) for i, r in enumerate(asked)]

    results = [run(plan, requests, serve, candidate=NEW, incumbent=OLD, salt=f"{i}") for i in range(150)]
    assert sum(result.decision == "promote" for result in results) >= 147  # 1 in 800 runs out of traffic
    longer = sum(sum(o.requests for o in result.observations) > 160 for result in results)
    assert 10 <= longer <= 50  # one in five or six

    def answers_everything(name: Arm, asked: Sequence[Request]) -> list[Served]:
        return [Served(r.id, True, name == "candidate" and r.kind == "harmful", 1.0) for r in asked]

    for i in range(60):
        leaky = run(plan, requests, answers_everything, candidate=NEW, incumbent=OLD, salt=f"{i}")
        assert leaky.decision != "promote"


def test_a_plan_from_before_keeps_its_bytes() -> None:
    data = {**yaml.safe_load((ROOT / "conf" / "canary" / "replay.yaml").read_text(encoding="utf-8"))}
    del data["min_harmful"], data["min_per_arm"]
    plan = canary_plan(data)
    assert (plan.min_per_arm, plan.min_harmful) == (1, 1)
    assert plain(plan) == data
