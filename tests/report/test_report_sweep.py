"""The sweep's page, JSON and signature."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ecology.contracts.identity import Digest
from ecology.contracts.promotion import Promotion, Revocation
from ecology.contracts.run import NOT_A_FINALIST
from ecology.contracts.sweep import SWEEP_SCHEMA, Entry, Pick, SweepJob, SweepReport
from ecology.kernel.canonical import digest
from ecology.report.sweep import (
    bought_by_operator,
    bought_by_value,
    killed,
    render,
    sweep_text,
    verify_sweep,
    write_sweep,
)
from ecology.signer.keys import LocalSigner


def entry(name: str, operator: str, rung: str = "", rules: tuple[str, ...] = (), score: float | None = None) -> Entry:
    figures = {"skill": (0.5, 0.4, 0.6), "over": (0.1, None, None)}
    return Entry(name, digest([name, operator]), operator, {}, ("a", "b"), "pass", rung, rules, score, figures)


def report() -> SweepReport:
    jobs = (
        SweepJob(0, "breeder=ties seed=1", ("breeder=ties", "seed=1"), 0, "", digest("r0"), digest("j0"), 3.0, 2**20,
                 (entry("ties", "ties", score=1.5), entry("<b>", "linear", "screen", ("SCR-001",)))),
        SweepJob(1, "breeder=dare seed=1", ("breeder=dare", "seed=1"), 1, "", digest("r1"), digest("j1"), 3.0, 2**20,
                 (entry("dare", "dare", "screen", ("SCR-001", "SCR-002")),
                  entry("late", "dare", NOT_A_FINALIST, ("HID",)))),
        SweepJob(2, "breeder=x seed=1", (), 2, "no preset 'x'", "", "", 0.0, 0, ()),
    )  # fmt: skip
    pick = Pick(Promotion("promoted", "champion", "w", "b", "it holds"), 1, "ties", 0, 1.5, 1.25, digest("p"))
    return SweepReport(SWEEP_SCHEMA, Digest(digest("s")), "a", "b", ("breeder", "seed"), jobs, pick, 2, "k", True)


def test_what_each_operator_and_value_bought() -> None:
    operators = {line.name: line for line in bought_by_operator(report())}
    assert set(operators) == {"ties", "linear", "dare"}
    assert (operators["ties"].bred, operators["ties"].admitted, operators["ties"].best) == (1, 1, "1.50")
    assert (operators["dare"].bred, operators["dare"].admitted, operators["dare"].best) == (2, 0, "-")
    values = {line.name: line for line in bought_by_value(report())}
    assert values["seed=1"].bred == 4
    assert values["breeder=x"].bred == 0


def test_which_gate_stopped_whom() -> None:
    assert [(rule, rung, count) for rule, rung, count, _ in killed(report())] == [
        ("SCR-001", "screen", 2),
        ("SCR-002", "screen", 1),
    ]


def test_the_page_escapes_and_needs_nothing_from_elsewhere() -> None:
    page = render(report()).decode()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace(SWEEP_SCHEMA, "")
    assert "no preset" in page
    assert render(report()).decode() == page


def test_the_text_names_every_job_and_the_pick() -> None:
    text = sweep_text(report())
    assert "job 2 failed: no preset 'x'" in text
    assert "Picked ties of job 0, the best of 1 admitted (fitness 1.50 in its job, 1.25 on fresh items)" in text


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    signer = LocalSigner.open(tmp_path / "home")
    write_sweep(report(), tmp_path, signer.sign)
    assert verify_sweep(tmp_path, (signer.public_key,)) == (report(), ())
    other = LocalSigner.open(tmp_path / "other")
    assert verify_sweep(tmp_path, (other.public_key,))[1]
    data = (tmp_path / "sweep.html").read_bytes()
    (tmp_path / "sweep.html").write_bytes(data.replace(b"ties", b"tied", 1))
    (problem,) = verify_sweep(tmp_path, (signer.public_key,))[1]
    assert "sweep.html" in problem
    write_sweep(dataclasses.replace(report(), code=0), tmp_path, signer.sign)
    assert verify_sweep(tmp_path, (signer.public_key,))[1] == ()


def test_the_page_says_what_is_revoked() -> None:
    gone = Revocation(Digest(digest("gone")), "it leaks", "2026-11-22T10:00:00Z")
    assert f"Quarantined: {gone.subject}: it leaks." in render(dataclasses.replace(report(), revoked=(gone,))).decode()
    assert "Quarantined" not in render(report()).decode()
