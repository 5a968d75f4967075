"""The whole loop on the toy base, through the real command line."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ecology.contracts.policy import TrustedKey
from ecology.pipeline.redeciding import decision_problems
from ecology.report.json_report import read_report
from ecology.signer.evidence import EVIDENCE, TEST_RESULT, sweep_from_statement
from ecology.signer.keys import read_trusted
from ecology.signer.refusal import ClaimRefused
from ecology.signer.verify import verify_claims, verify_envelope

TIMEOUT_S = 900


def ecology(home: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command, as a shell would run it."""
    return subprocess.run(
        [sys.executable, "-m", "ecology", "--quiet", *arguments],
        cwd=cwd,
        env={**os.environ, "ECOLOGY_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


class Ran:
    """One finished run."""

    def __init__(self, home: Path, cwd: Path, *overrides: str) -> None:
        before = set(cwd.glob("outputs/*/*"))
        self.home, self.cwd = home, cwd
        self.done = ecology(home, cwd, "run", "experiment=toy", *overrides)
        fresh = sorted(set(cwd.glob("outputs/*/*")) - before)
        self.folder = fresh[-1] if fresh else cwd

    @property
    def report(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.folder / "report.json").read_bytes())
        return loaded

    def candidate(self, name: str) -> dict[str, Any]:
        return next(c for c in self.report["candidates"] if c["name"] == name)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    where = tmp_path_factory.mktemp("with a space")
    return Ran(where / "home", where)


def development_key(home: Path) -> TrustedKey:
    return read_trusted(home / "keys" / "development.pub.pem")


def test_one_statement_of_a_run_has_all_candidates_as_subjects(first: Ran) -> None:
    (line,) = (first.folder / "run.intoto.jsonl").read_text("utf-8").splitlines()
    run, lines = sweep_from_statement(verify_envelope(line, [development_key(first.home)]).statement)
    assert run == first.report["run"]
    said = [(c["name"], c["digest"], c["verdict"]["outcome"], c["rung"]) for c in first.report["candidates"]]
    assert sorted((one.name, one.digest, one.outcome.value, one.rung) for one in lines) == sorted(said)
    changed = line.replace(line[line.index('"payload":"') + 40], "x", 1)
    with pytest.raises(ClaimRefused):
        verify_envelope(changed if changed != line else line[:-3] + '"}', [development_key(first.home)])


def test_the_promoted_one_carries_the_whole_story_and_the_others_do_not(first: Ran) -> None:
    kinds = {}
    for one in first.report["candidates"]:
        file = first.home / "store" / "artifacts" / one["digest"].removeprefix("sha256:") / "claims.jsonl"
        found = verify_claims(
            tuple(file.read_text("utf-8").splitlines()) if file.exists() else (),
            one["digest"],
            [development_key(first.home)],
            (),
        )
        kinds[one["digest"]] = {claim.statement["predicateType"] for claim in found.verified}
    promoted = first.report["decision"]["subject"]
    assert {EVIDENCE, TEST_RESULT} <= kinds.pop(promoted)
    assert not any({EVIDENCE, TEST_RESULT} & kind for kind in kinds.values())


def test_a_child_is_promoted_and_two_are_refused_for_different_reasons(first: Ran) -> None:
    assert first.done.returncode == 0, first.done.stderr
    report = first.report
    assert report["decision"]["decision"] == "promoted"
    winner = next(c for c in report["candidates"] if c["digest"] == report["decision"]["subject"])
    assert winner["genome"]["lineage"]["parents"]
    refused = {
        name: [f["rule"] for f in first.candidate(name)["verdict"]["findings"] if f["outcome"] == "deny"]
        for name in ("tainted", "outsider")
    }
    assert "STA-008" in refused["tainted"]
    assert "STA-006" in refused["outsider"]
    assert "STA-006" not in refused["tainted"]


def test_the_development_key_is_a_warning_in_every_verdict_of_ours(first: Ran) -> None:
    assert first.report["development_key"] is True
    winner = next(c for c in first.report["candidates"] if c["digest"] == first.report["decision"]["subject"])
    assert winner["verdict"]["outcome"] == "warn"
    (finding,) = [f for f in winner["verdict"]["findings"] if f["rule"] == "STA-007"]
    assert finding["outcome"] == "warn"


def test_what_is_missing_is_no_pass(first: Ran) -> None:
    others = [c for c in first.report["candidates"] if c["rung"] == "not a finalist"]
    assert others
    for candidate in others:
        assert candidate["verdict"]["outcome"] == "inconclusive"
        assert candidate["fitness"] is None


def test_harmful_texts_stay_in_the_restricted_file(first: Ran) -> None:
    rows = [json.loads(line) for line in (first.folder / "restricted.jsonl").read_text().splitlines()]
    assert rows
    assert (first.folder / "restricted.jsonl").stat().st_mode & 0o077 == 0
    shown = "".join(
        (first.folder / name).read_text() for name in ("report.json", "report.html", "report.md", "junit.xml")
    )
    assert not [row["prompt"] for row in rows if row["prompt"] in shown]


def test_every_opening_of_hidden_items_is_a_fact_and_their_number_is_bounded(first: Ran, tmp_path: Path) -> None:
    told = [json.loads(line) for line in (first.folder / "events.jsonl").read_text().splitlines()]
    opened = {one["subject"] for one in told if (one["event"], one.get("kind")) == ("fact", "opened")}
    asked = opened - {first.report["identity"]["base_weights"]}
    finalists = {c["digest"] for c in first.report["candidates"] if any(m["split"] == "hidden" for m in c["evidence"])}
    assert finalists
    assert finalists <= asked < opened
    home = shutil.copytree(first.home, tmp_path / "home")
    again = Ran(home, tmp_path, "seed=7", f"evaluator.hidden_queries={len(asked)}")
    assert again.done.returncode == 1, again.done.stderr
    (stopped,) = {c["rung"] for c in again.report["candidates"] if c["rung"] in ("", "hidden", "resources")}
    assert stopped == "hidden"
    reasons = [f["reason"] for c in again.report["candidates"] for f in c["verdict"]["findings"]]
    assert any(f"the budget of queries is {len(asked)}" in reason for reason in reasons)


def test_report_and_log_verify(first: Ran) -> None:
    assert ecology(first.home, first.cwd, "report", "verify", str(first.folder)).returncode == 0
    done = ecology(first.home, first.cwd, "audit", "verify")
    assert done.returncode == 0, done.stderr
    old = str(first.folder / "report.json")
    assert ecology(first.home, first.cwd, "audit", "consistency", "--from", old).returncode == 0


def test_a_changed_report_is_noticed(first: Ran, tmp_path: Path) -> None:
    copy = shutil.copytree(first.folder, tmp_path / "report")
    data = (copy / "report.html").read_bytes()
    (copy / "report.html").write_bytes(data.replace(b"promoted", b"demoted!", 1))
    done = ecology(first.home, first.cwd, "report", "verify", str(copy))
    assert done.returncode == 3
    assert "report.html" in done.stdout + done.stderr


def test_a_decision_that_does_not_follow_from_its_evidence_is_found(first: Ran) -> None:
    """Each of these reports is one that a verifier would believe who looks at verdicts and canary alone."""
    report = read_report(first.folder / "report.json")
    assert decision_problems(report) == ()
    made = report.decision
    other = next(c for c in report.candidates if c.digest != made.subject)
    ours = next(c for c in report.candidates if c.digest == made.subject)
    assert ours.fitness is not None
    better = dataclasses.replace(ours.fitness, score=(ours.fitness.score or 0.0) + 1.0)

    def with_ours(**change: Any) -> dict[str, Any]:
        return {"candidates": tuple(dataclasses.replace(c, **change) if c is ours else c for c in report.candidates)}

    forged: dict[str, dict[str, Any]] = {
        "another subject": {"decision": dataclasses.replace(made, subject=other.digest)},
        "held for promoted": {"decision": dataclasses.replace(made, decision="held")},
        "no canary": {"canary": None},
        "another score": with_ours(fitness=better),
        "ranked and refused": with_ours(rung="screen"),
        "no configuration": {"config": {}},
    }
    for what, change in forged.items():
        assert decision_problems(dataclasses.replace(report, **change)), what
    owed = {**report.config, "evaluator": {**report.config["evaluator"], "fresh_items": 16}}
    among = sum(c.fitness is not None for c in report.candidates)
    assert bool(decision_problems(dataclasses.replace(report, config=owed))) == (among > 1)


def test_the_same_again_repeats_nothing_and_holds_the_champion(first: Ran) -> None:
    again = Ran(first.home, first.cwd)
    assert again.done.returncode == 0, again.done.stderr
    assert again.report["decision"]["decision"] == "held"
    assert [c["digest"] for c in again.report["candidates"]] == [c["digest"] for c in first.report["candidates"]]
    assert again.report["run"] == first.report["run"]


def test_the_same_elsewhere_breeds_the_same_bytes(first: Ran, tmp_path: Path) -> None:
    other = Ran(tmp_path / "home", tmp_path, "canary=toy")
    theirs = {c["name"]: (c["digest"], c["genome"]) for c in other.report["candidates"]}
    ours = {c["name"]: (c["digest"], c["genome"]) for c in first.report["candidates"]}
    assert theirs == ours


def test_registry_commands(first: Ran) -> None:
    champion = first.report["decision"]["subject"]
    assert "  toy" in ecology(first.home, first.cwd, "registry", "list").stdout
    shown = json.loads(ecology(first.home, first.cwd, "registry", "show", "toy").stdout)
    assert shown["digest"] == champion
    assert "talker" in ecology(first.home, first.cwd, "registry", "lineage", "toy").stdout
    back = ecology(first.home, first.cwd, "registry", "rollback", "--alias", "toy")
    assert back.returncode == 0, back.stderr
    unknown = ecology(first.home, first.cwd, "registry", "promote", champion)
    assert unknown.returncode == 2
    assert "no full verdict under the policy" in unknown.stderr
    forth = ecology(first.home, first.cwd, "registry", "promote", champion, "--policy", "toy", "--alias", "toy")
    assert forth.returncode == 0, forth.stderr
    refused = ecology(
        first.home, first.cwd, "registry", "promote", first.candidate("tainted")["digest"], "--policy", "toy"
    )
    assert refused.returncode == 2
    assert ecology(first.home, first.cwd, "registry", "rebuild").returncode == 0
    assert json.loads(ecology(first.home, first.cwd, "registry", "show", "toy").stdout)["digest"] == champion


def test_a_canary_that_sees_a_regression_rolls_back(first: Ran, tmp_path: Path) -> None:
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary" / "none.yaml").write_text(
        "steps: [{weight: 0.5, min_requests: 60}]\nalpha: 0.1\nquality_margin: 0.0\nmax_alerts: 0\n"
        "latency_ratio: 20.0\non_inconclusive: hold\n"
    )
    ran = Ran(tmp_path / "home", tmp_path, "canary=none", "--config-dir", str(tmp_path))
    assert ran.report["decision"]["decision"] == "rolled_back"
    assert ran.done.returncode == 1
    assert "alerts" in ran.report["canary"]["reason"]


def test_signing_verifying_gating_and_breeding_by_hand(first: Ran, tmp_path: Path) -> None:
    store = next(p for p in (first.home / "store").rglob("adapter_config.json")).parent
    digests = {c["name"]: c["digest"].removeprefix("sha256:") for c in first.report["candidates"]}
    folders = {p.parent.name: p.parent for p in (first.home / "store").rglob("adapter_config.json")}
    a, b = (tmp_path / name for name in ("a", "b"))
    for name, folder in (("talker", a), ("chatter", b)):
        source = next(path for key, path in folders.items() if digests[name] in str(path))
        folder.mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / file).write_bytes((source / file).read_bytes())
    rehearsed = ecology(
        first.home, tmp_path, "breed", "linear", str(a), str(b), "--base", "toy", "--dry-run", "weights=[0.5,0.5]",
    )  # fmt: skip
    assert rehearsed.returncode == 0, rehearsed.stderr
    bred = ecology(
        first.home, tmp_path, "breed", "linear", str(a), str(b), "--base", "toy", "--out", str(tmp_path / "c"),
        "weights=[0.5,0.5]",
    )  # fmt: skip
    assert bred.returncode == 0, bred.stderr
    assert bred.stdout.split()[1] in rehearsed.stdout
    assert "retained energy 1.0000" in rehearsed.stdout
    child_of_run = next(c for c in first.report["candidates"] if c["genome"] and c["genome"]["lineage"]["parents"])
    again = ecology(first.home, tmp_path, "registry", "replay", child_of_run["digest"])
    assert (again.returncode, again.stdout.splitlines()[1:3]) == (0, ["the same bytes", "the same genome"])
    gated = ecology(
        first.home, tmp_path, "gate", str(tmp_path / "c"), str(a), "--policy", "toy", "--base", "toy", "--static",
        "--format", "json",
    )  # fmt: skip
    assert gated.returncode == 1
    child, bare = json.loads(gated.stdout)
    assert child["verdict"]["scope"] == bare["verdict"]["scope"] == "static"
    assert child["verdict"]["outcome"] == "warn"
    assert bare["verdict"]["outcome"] == "deny"
    assert ecology(first.home, tmp_path, "verify", str(a), "--policy", "toy").returncode == 1
    assert ecology(first.home, tmp_path, "sign", str(a)).returncode == 0
    assert ecology(first.home, tmp_path, "verify", str(a), "--policy", "toy").returncode == 0
    assert store.is_dir()


def test_the_full_gate_agrees_with_the_run(first: Ran, tmp_path: Path) -> None:
    folder = next(
        path.parent
        for path in (first.home / "store").rglob("adapter_config.json")
        if first.report["decision"]["subject"].removeprefix("sha256:") in str(path)
    )
    copy = shutil.copytree(folder, tmp_path / "child")
    claims = next(folder.parent.rglob("claims.jsonl"), None)
    if claims is not None and not (copy / "claims.jsonl").exists():
        shutil.copy(claims, copy / "claims.jsonl")
    done = ecology(
        first.home, tmp_path, "gate", str(copy), "--policy", "toy", "--base", "toy", "--evaluator", "toy",
        "--alias", "toy", "--format", "json", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    (judged,) = json.loads(done.stdout)
    assert done.returncode == 0, (judged["verdict"], done.stderr)
    assert judged["verdict"]["scope"] == "full"
    assert {f["rule"] for f in judged["verdict"]["findings"] if f["n"]} >= {"STA-001", "LIV-001", "SCR-001", "SAFE-002"}
    assert len(list((tmp_path / "out").glob("*.intoto.jsonl"))) == 1
    junit = ecology(
        first.home, tmp_path, "gate", str(copy), "--policy", "toy", "--base", "toy", "--evaluator", "toy",
        "--alias", "toy", "--format", "junit",
    )  # fmt: skip
    assert junit.stdout.startswith("<?xml")


def test_a_sweep_shares_parents_and_reports_each_job(first: Ran) -> None:
    done = ecology(first.home, first.cwd, "run", "experiment=toy", "breeder=ties,crossover", "-m")
    assert done.returncode in {0, 1}, done.stderr
    reports = sorted(first.cwd.glob("outputs/*/*/[01]/report.json"))
    assert len(reports) == 2
    names = [{c["name"] for c in json.loads(path.read_bytes())["candidates"]} for path in reports]
    assert names == [
        {"talker", "chatter", "tainted", "outsider", "ties"},
        {"talker", "chatter", "tainted", "outsider", "crossover"},
    ]
    assert [json.loads(path.read_bytes())["decision"]["decision"] for path in reports] == ["none", "none"]
    sweep = reports[0].parents[1]
    told = json.loads((sweep / "sweep.json").read_bytes())
    (line,) = (sweep / "candidates.intoto.jsonl").read_text("utf-8").splitlines()
    named, lines = sweep_from_statement(verify_envelope(line, [development_key(first.home)]).statement)
    assert named == told["sweep"]
    said = [(f"{job['number']}/{e['name']}", e["digest"], e["outcome"]) for job in told["jobs"] for e in job["entries"]]
    assert sorted((one.name, one.digest, one.outcome.value) for one in lines) == sorted(said)
    assert told["code"] == done.returncode
    assert told["pick"]["winner"] in {entry["name"] for job in told["jobs"] for entry in job["entries"]}
    verified = ecology(first.home, first.cwd, "report", "verify", str(sweep))
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "experiment=toy", "breeder=[tise]"], 2, "crossover"),
        (["run", "experiment=toy", "seed=many"], 2, "seed"),
        (["run", "experiment=toy", "+x._target_=os.system"], 2, "code"),
        (["run", "experiment=toy", "+gate.tighten.SAFE-002.threshold=0.9"], 2, "0.5"),
        (["run", "experiment=toy", "+gate.tighten.SAFE-999.threshold=0.9"], 2, "SAFE-999"),
        (["gate", "nowhere", "--base", "toy"], 1, "nowhere"),
        (["gate", ".", "--policy", "strict"], 2, "release"),
        (["registry", "show", "abc"], 2, "abc"),
        (["report", "verify", "."], 2, "report.json"),
        (["breed", "lineer", ".", "--out", "x"], 2, "linear"),
    ],
)
def test_mistakes_say_what_where_and_what_to_do(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    done = ecology(tmp_path / "home", tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
