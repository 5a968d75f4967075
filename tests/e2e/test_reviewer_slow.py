"""A safety reviewer's afternoon, through the real command line: change, look, approve, run, waive, let it expire."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import SMALL, Done, Order

ROOT = Path(__file__).parents[2]
RUN = (*SMALL, "gate.policy=./policies/toy.yaml")
Say = Callable[..., Done]
pytestmark = pytest.mark.slow


def keys(folder: Path) -> str:
    """Two private keys beside the policies, and their public halves as a policy names them."""
    found = []
    for name in ("ann", "bob"):
        path = folder / f"{name}.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True)
        path.chmod(0o600)
        shown = subprocess.run(
            ["openssl", "pkey", "-in", str(path), "-pubout"], check=True, capture_output=True, text=True
        )
        public = shown.stdout.replace("\n", "\\n")
        found.append(f'{{name: {name}, public_key: "{public}"}}')
    return f"[{', '.join(found)}]"


def changed(path: Path, rule: str, old: str, new: str, version: int) -> None:
    """Edits one rule as a person would, and counts the version up."""
    text = path.read_text("utf-8")
    start = text.index(f"- id: {rule}")
    text = text[:start] + text[start:].replace(old, new, 1)
    path.write_text(text.replace(f"version: {version - 1}", f"version: {version}", 1), "utf-8")


def latest(desk: Path) -> tuple[Path, dict[str, Any]]:
    """Folder and report of the last run."""
    folder = sorted(desk.glob("outputs/*/*/report.json"))[-1].parent
    loaded: dict[str, Any] = json.loads((folder / "report.json").read_bytes())
    return folder, loaded


@pytest.fixture
def desk(order: Order, tmp_path: Path) -> tuple[Path, Say]:
    """A folder with a copy of the policies and two approvers, and a command line that works in it."""
    folder = tmp_path / "a desk"
    shutil.copytree(ROOT / "policies", folder / "policies")
    approvers = keys(folder)
    policy = folder / "policies" / "toy.yaml"
    terms = f"approvals: {{required: 2, severity: warn, approvers: {approvers}}}\n"
    terms += f"waiver_rules: {{approvers: {approvers}, max_days: 30, soon_days: 7, never: [STA-006]}}\n"
    text = policy.read_text("utf-8").replace("\nrules:\n", f"\n{terms}\nrules:\n")
    random = "threshold: -0.9\n    severity: warn"  # sixteen answers of a base that knows nothing are luck
    policy.write_text(text.replace("threshold: -0.9", random), "utf-8")

    def say(*words: str) -> Done:
        return order(folder, tmp_path / "home", words)

    return folder, say


def test_change_look_approve_run_waive_and_let_it_expire(desk: tuple[Path, Say]) -> None:
    folder, say = desk
    new, old = "./policies/toy.yaml", "./policies/old.yaml"
    first = say(*RUN)
    assert first.code == 0, first.stderr
    assert "UNAPPROVED: 0 of the 2 approvals that are needed: nobody" in first.stdout
    _, report = latest(folder)
    winner = report["decision"]["subject"]
    assert "UNAPPROVED" in (latest(folder)[0] / "report.html").read_text("utf-8")

    # Memory is the one measured rule of the toy policy that any machine misses when it is asked for almost none.
    shutil.copy(folder / new, folder / old)
    changed(folder / new, "RES-003", "6442450944", "1000000", 2)
    linted = say("policy", "lint", new)
    assert (linted.code, linted.stdout.strip()) == (0, "nothing to say against it")
    tested = say("policy", "test", new)
    assert (tested.code, "RES-003: " in tested.stdout) == (1, True), "the tests beside it notice"
    told = say("policy", "diff", old, new).stdout
    assert "RES-003 tightened: threshold from <= 6442450944 to <= 1000000" in told
    replayed = say("policy", "replay", new).stdout
    assert replayed.splitlines()[0].endswith("verdicts flip, 1 of them promoted") or "flips, 1 of them" in replayed
    assert "(promoted): would be refused, warn -> deny: RES-003" in replayed
    assert say("policy", "replay", old).stdout.startswith("0 of "), "the policy that judged gives what was given"
    explained = say("policy", "explain", new, "--adapter", "champion", "--rule", "RES-003")
    assert (explained.code, "needs: a measurement <= 1000000" in explained.stdout) == (1, True)
    assert say("policy", "review", new, "--from", old, "--html", "review.html").code == 0
    page = (folder / "review.html").read_text("utf-8")
    for piece in ("What changes", "threshold from &lt;= 6442450944", "now refused", "was promoted", "Tests that fail"):
        assert piece in page, piece

    for name, standing in (
        ("ann", "UNAPPROVED: 1 of"),
        ("bob", "approved: 2 of the 2 approvals that are needed: ann, bob"),
    ):
        signed = say("policy", "approve", new, "--key", f"{name}.pem", "--reason", "seen", "--from", old)
        assert (signed.code, standing in signed.stdout) == (0, True), signed.stdout

    second = say(*RUN)
    assert second.code == 1, "nobody meets the new demand"
    where, report = latest(folder)
    digest = report["policy"]["digest"]
    assert digest in say("policy", "approve", new, "--key", "ann.pem", "--reason", "once more").stdout
    assert len(report["approvals"]) == 2
    shown = (where / "report.html").read_text("utf-8")
    assert "approved: 2 of the 2 approvals that are needed: ann, bob" in shown
    refused = next(one for one in report["candidates"] if one["digest"] == winner)
    assert {f["rule"] for f in refused["verdict"]["findings"] if f["outcome"] == "deny"} == {"RES-003"}
    assert say("report", "verify", str(where)).code == 0

    (folder / "waiver.yaml").write_text(
        f"rule: RES-003\nsubject: {winner}\nreason: one pilot on a large machine\napprover: ann\nticket: OPS-1\n"
        f"expires: {later(report['finished_at'], 20)}\n",
        "utf-8",
    )
    assert say("policy", "waive", "waiver.yaml", "--policy", new, "--key", "bob.pem").code == 2, "it is ann's to sign"
    assert say("policy", "waive", "waiver.yaml", "--policy", new, "--key", "ann.pem").code == 0
    assert "unused; until" in say("policy", "lint", new).stdout
    third = say(*RUN)
    assert third.code == 0, third.stderr
    where, report = latest(folder)
    waived = next(one for one in report["candidates"] if one["digest"] == winner)["verdict"]
    assert {f["rule"] for f in waived["findings"] if f["outcome"] == "waived"} == {"RES-003"}
    assert "one pilot on a large machine" in (where / "report.html").read_text("utf-8")
    assert ": used; until" in say("policy", "lint", new).stdout
    assert say("report", "verify", str(where)).code == 0

    asked = ("policy", "explain", new, "--adapter", "champion", "--rule", "RES-003")
    assert say(*asked).code == 0
    expired = say(*asked, "--at", later(report["finished_at"], 21))
    assert (expired.code, "the waiver OPS-1 has expired" in expired.stdout) == (1, True)
    assert "soon to expire" in say("policy", "lint", new, "--at", later(report["finished_at"], 15)).stdout
    assert ": expired; until" in say("policy", "lint", new, "--at", later(report["finished_at"], 21)).stdout

    strict = folder / new
    strict.write_text(
        strict.read_text("utf-8").replace("severity: warn, approvers", "severity: deny, approvers"), "utf-8"
    )
    fourth = say(*RUN)
    assert fourth.code == 1, "unapproved again, and now that refuses"
    _, report = latest(folder)
    findings = [f for one in report["candidates"] for f in one["verdict"]["findings"] if f["rule"] == "POLICY-APPROVAL"]
    assert {f["outcome"] for f in findings} == {"deny"}


def later(instant: str, days: int) -> str:
    """So many days after an instant, in whole seconds."""
    at = datetime.datetime.fromisoformat(instant) + datetime.timedelta(days=days)
    return at.replace(microsecond=0).isoformat().replace("+00:00", "Z")
