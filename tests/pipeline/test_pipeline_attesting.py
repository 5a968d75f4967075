"""One signed statement over all candidates: of a run, and of all jobs of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from ecology.contracts.identity import Digest
from ecology.contracts.policy import Outcome
from ecology.contracts.run import RunReport
from ecology.kernel.canonical import digest
from ecology.pipeline.attesting import RUN_FILE, SWEEP_FILE, attest_run, attest_sweep
from ecology.pipeline.house import House
from ecology.signer.evidence import Line, sweep_from_statement
from ecology.signer.verify import verify_envelope
from ecology.telemetry.clock import SystemClock
from ecology.telemetry.progress import SilentProgress

AT = "2026-11-22T10:00:00Z"


def house(home: Path) -> House:
    return House(home, SystemClock(), SilentProgress())


def report(policy: str, outcomes: Mapping[str, Outcome]) -> RunReport:
    candidates = [
        SimpleNamespace(
            name=name,
            digest=digest([name]),
            verdict=SimpleNamespace(outcome=outcome),
            rung="",
            genome=None,
            evidence=(),
        )
        for name, outcome in outcomes.items()
    ]
    said = SimpleNamespace(
        run=digest("run"),
        policy=SimpleNamespace(digest=digest(policy)),
        candidates=candidates,
        finished_at=AT,
        decision=SimpleNamespace(decision="none", subject=""),
    )
    return cast(RunReport, said)


def statements(house: House, path: Path) -> list[tuple[Digest, tuple[Line, ...]]]:
    lines = path.read_text("utf-8").splitlines()
    return [sweep_from_statement(verify_envelope(line, [house.signer.public_key]).statement) for line in lines]


def test_a_run(tmp_path: Path) -> None:
    ours = house(tmp_path / "home")
    attest_run(ours, report("p", {"a": Outcome.PASS, "b": Outcome.DENY}), tmp_path)
    ((run, lines),) = statements(ours, tmp_path / RUN_FILE)
    assert run == digest("run")
    assert [(one.name, one.digest, one.outcome) for one in lines] == [
        ("a", digest(["a"]), Outcome.PASS),
        ("b", digest(["b"]), Outcome.DENY),
    ]
    attest_run(ours, report("p", {}), tmp_path / "nobody")
    assert not (tmp_path / "nobody").exists()


def test_a_sweep_has_one_statement_with_the_candidates_of_all_jobs(tmp_path: Path) -> None:
    ours = house(tmp_path / "home")
    jobs = {0: report("p", {"a": Outcome.PASS, "b": Outcome.DENY}), 2: report("p", {"a": Outcome.PASS})}
    attest_sweep(ours, jobs, digest("sweep"), AT, tmp_path)
    ((sweep, lines),) = statements(ours, tmp_path / SWEEP_FILE)
    assert sweep == digest("sweep")
    assert {one.name: one.outcome for one in lines} == {
        "0/a": Outcome.PASS, "0/b": Outcome.DENY, "2/a": Outcome.PASS,
    }  # fmt: skip
    assert len({one.digest for one in lines}) == 2, "two jobs bred the same bytes"


def test_a_swept_policy_has_a_statement_of_its_own(tmp_path: Path) -> None:
    ours = house(tmp_path / "home")
    jobs = {0: report("p", {"a": Outcome.PASS}), 1: report("q", {"a": Outcome.DENY})}
    attest_sweep(ours, jobs, digest("sweep"), AT, tmp_path)
    assert [[one.name for one in lines] for _, lines in statements(ours, tmp_path / SWEEP_FILE)] == [["0/a"], ["1/a"]]
