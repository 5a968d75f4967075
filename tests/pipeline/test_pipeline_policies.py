"""As a safety reviewer would: change a threshold, look at what it does, approve with two keys, let a waiver expire."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ecology.contracts.artifact import Artifact
from ecology.contracts.evidence import Count, Measurement
from ecology.contracts.identity import Digest
from ecology.contracts.policy import APPROVAL_RULE, Outcome
from ecology.errors import IntegrityError, PolicyError
from ecology.kernel.verdicts import verdict
from ecology.pipeline import past, rereading
from ecology.pipeline.desk import Asked
from ecology.pipeline.gating import gate
from ecology.pipeline.house import House
from ecology.pipeline.past import past_of
from ecology.pipeline.policies import (
    approve_file,
    explain_adapter,
    govern,
    lint_file,
    replay_file,
    waive_file,
)
from ecology.pipeline.replay_index import INDEX
from ecology.pipeline.reviews import review_file
from ecology.pipeline.verdicts import keep_verdict
from ecology.policy.testing import statistic_of
from ecology.signer.keys import LocalSigner
from ecology.signer.statements import verdict_statement
from ecology.store.adapters import describe
from ecology.telemetry.progress import SilentProgress

ROOT = Path(__file__).parents[2]
OUTSIDER = ROOT / "examples" / "outsider"


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = "2026-06-01T00:00:00Z"

    def now(self) -> str:
        return self.at

    def monotonic(self) -> float:
        return 0.0


def key(folder: Path, name: str, seed: int) -> tuple[Path, str]:
    """A private key file, and the public half as YAML takes it."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    path = folder / f"{name}.pem"
    path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)
    return path, LocalSigner.from_file(path).public_key.public_key.replace("\n", "\\n")


@dataclasses.dataclass
class Desk:
    """Where a reviewer works."""

    house: House
    clock: Clock
    policy: Path
    ann: Path
    bob: Path


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    clock = Clock()
    house = House(tmp_path / "home", clock, SilentProgress())
    house.home.mkdir()
    folder = tmp_path / "policies"
    shutil.copytree(ROOT / "policies", folder)
    ann, ann_public = key(tmp_path, "ann", 1)
    bob, bob_public = key(tmp_path, "bob", 2)
    approvers = f'[{{name: ann, public_key: "{ann_public}"}}, {{name: bob, public_key: "{bob_public}"}}]'
    floor = folder / "baseline.yaml"
    floor.write_text(floor.read_text("utf-8").replace("  approvers: []", f"  approvers: {approvers}"), "utf-8")
    release = folder / "release.yaml"
    text = release.read_text("utf-8")
    text += f"\napprovals: {{required: 2, severity: deny, approvers: {approvers}}}\n"
    release.write_text(text, "utf-8")
    return Desk(house, clock, release, ann, bob)


def judged_once(desk: Desk, refused: str = "") -> str:
    """A stored, signed verdict on the example adapter; its digest."""
    policy = govern(str(desk.policy), desk.clock.now()).policy
    artifact = desk.house.store.put(OUTSIDER)
    evidence = []
    for rule in policy.rules:
        texts = {"<=": "1 of 200", ">=": "199 of 200"}
        text = "200 pairs" if rule.against == "incumbent" else texts.get(rule.comparator, "no violation")
        if rule.metric.startswith("resource"):
            text = "1 x 1000" if rule.min_samples == 1 else "60 x 1.0"
        if rule.id == refused:
            text = "200 pairs, 0 won, 100 lost" if rule.against == "incumbent" else "100 of 200"
        statistic = statistic_of(text)
        assert statistic is not None
        comparator = "" if rule.against == "absolute" else artifact.digest
        evidence.append(
            Measurement(rule.metric, artifact.digest, statistic, rule.split, rule.against, comparator, "test")
        )
    found = tuple(dict.fromkeys(evidence))
    given = verdict(policy, found, artifact.digest, "full", desk.clock.now())
    statement = verdict_statement(artifact, given, policy, found)
    desk.house.store.add_claims(artifact.digest, [desk.house.signer.sign(statement)])
    desk.house.record("signed", {"digest": artifact.digest, "keyid": desk.house.signer.keyid, "development": True})
    return artifact.digest


def test_a_changed_threshold_is_seen_on_the_past_before_it_is_approved(desk: Desk, tmp_path: Path) -> None:
    judged_once(desk)
    assert replay_file(str(desk.policy), "", desk.house)[0].sentence == "0 of 1 verdict flip"
    old = desk.policy.with_name("old.yaml")
    old.write_text(desk.policy.read_text("utf-8"), "utf-8")
    text = desk.policy.read_text("utf-8")
    start = text.index("- id: SKILL-001")
    desk.policy.write_text(text[:start] + text[start:].replace("threshold: 0.90", "threshold: 0.98", 1), "utf-8")
    found, past = replay_file(str(desk.policy), "", desk.house)
    assert found.sentence == "1 of 1 verdict flips, 0 of them promoted"
    assert (found.flips[0].rule, past.unstored) == ("SKILL-001", 0)

    ours = govern(str(desk.policy), desk.clock.now())
    assert ours.standing[0].outcome is Outcome.DENY, "nobody approved it"
    _, differences, effect, who = approve_file(
        str(desk.policy), desk.ann, reason="seen", decision="approve", before=str(old), house=desk.house, out=None
    )
    assert (who, [str(d) for d in differences]) == (
        "ann",
        ["SKILL-001 tightened: threshold from >= 0.9 to >= 0.98"],
    )
    assert effect == found
    assert govern(str(desk.policy), desk.clock.now()).standing[0].outcome is Outcome.DENY, "one of two"
    governed, *_ = approve_file(
        str(desk.policy), desk.bob, reason="seen", decision="approve", before="", house=desk.house, out=None
    )
    assert governed.approvals is not None
    assert governed.approvals.met
    assert governed.standing[0].outcome is Outcome.PASS

    page = tmp_path / "review.html"
    review_file(str(desk.policy), page, before=str(old), at=desk.clock.now(), house=desk.house)
    html = page.read_text("utf-8")
    assert "1 of 1 verdict flips" in html
    assert "threshold from &gt;= 0.9 to &gt;= 0.98" in html
    assert "<script" not in html
    assert not re.search(r"""src=|href="(?!#)|url\(""", html), "nothing from elsewhere"
    assert "not checked</span>" in html, "what was not compared with its source says so"
    review_file(str(desk.policy), page, before=str(old), at=desk.clock.now(), house=desk.house)
    assert page.read_text("utf-8") == html, "the same facts give the same bytes"

    desk.policy.write_text(desk.policy.read_text("utf-8").replace("threshold: 0.98", "threshold: 0.5"), "utf-8")
    assert govern(str(desk.policy), desk.clock.now()).standing[0].outcome is Outcome.DENY, "it is another policy now"


def test_a_stranger_may_not_approve_and_an_objection_blocks(desk: Desk, tmp_path: Path) -> None:
    eve, _ = key(tmp_path, "eve", 3)
    with pytest.raises(PolicyError, match="this key may not approve it; entitled: ann, bob"):
        approve_file(str(desk.policy), eve, reason="x", decision="approve", before="", house=desk.house, out=None)
    for who in (desk.ann, desk.bob):
        approve_file(str(desk.policy), who, reason="x", decision="approve", before="", house=desk.house, out=None)
    desk.clock.at = "2026-06-02T00:00:00Z"
    governed, *_ = approve_file(
        str(desk.policy), desk.ann, reason="found a hole", decision="reject", before="", house=desk.house, out=None
    )
    assert governed.standing[0].outcome is Outcome.DENY
    assert "rejected by ann: found a hole" in governed.standing[0].reason


def test_a_waiver_is_signed_counts_until_it_expires_and_is_listed_all_along(desk: Desk, tmp_path: Path) -> None:
    digest = judged_once(desk, refused="QUAL-001")
    assert not past_of(desk.house).verdicts[0].outcome.admits
    draft = tmp_path / "waiver.yaml"
    draft.write_text(
        f"rule: QUAL-001\nsubject: {digest}\nreason: one pilot\n"
        "approver: ann\nticket: T-1\nexpires: 2026-06-20T00:00:00Z\n",
        "utf-8",
    )
    with pytest.raises(PolicyError, match="in the name of 'ann', this key is 'bob'"):
        waive_file(draft, str(desk.policy), desk.bob, desk.house, None)
    waive_file(draft, str(desk.policy), desk.ann, desk.house, None)
    for at, outcome, state in (
        ("2026-06-02T00:00:00Z", Outcome.WAIVED, "unused"),
        ("2026-06-15T00:00:00Z", Outcome.WAIVED, "soon to expire"),
        ("2026-06-20T00:00:00Z", Outcome.DENY, "expired"),
    ):
        _, judged, _ = explain_adapter(str(desk.policy), digest, at, desk.house)
        assert next(f for f in judged.findings if f.rule == "QUAL-001").outcome is outcome
        (standing,) = lint_file(str(desk.policy), at).waivers
        assert standing.state == state
    path = desk.policy.with_name("release_waivers.jsonl")
    path.write_text(path.read_text("utf-8").replace('"payload":"e', '"payload":"f'), "utf-8")
    governed = govern(str(desk.policy), "2026-06-02T00:00:00Z")
    assert (governed.policy.waivers, len(governed.refused)) == ((), 1)


def test_an_unapproved_policy_is_a_refusal_in_the_gate_and_says_so(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    want = Asked(str(desk.policy), "smollm2-135m", True, "json", tmp_path / "out")
    assert gate([OUTSIDER], want, desk.house) == 1
    assert APPROVAL_RULE in capsys.readouterr().out
    digest = describe(OUTSIDER).digest.removeprefix("sha256:")[:16]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{digest}.verdict.json", f"{digest}.intoto.jsonl", "gate.json", "junit.xml", "sarif.json"}


def test_what_did_not_change_is_not_measured_again(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    want = Asked(str(desk.policy), "smollm2-135m", True, "text", None)
    gate([OUTSIDER], want, desk.house)
    first = capsys.readouterr().out

    def never(rung: object) -> object:
        raise AssertionError("it was measured again")

    monkeypatch.setattr("ecology.pipeline.gating.StaticRung.measure", never)
    gate([OUTSIDER, OUTSIDER / "adapter_config.json"], want, desk.house)
    again = capsys.readouterr().out
    assert "unchanged: nothing was measured again" in again
    assert again.replace(" (unchanged: nothing was measured again)", "") == first
    assert gate([OUTSIDER], dataclasses.replace(want, fresh=True), desk.house) == 1
    assert "RUNG-static" in capsys.readouterr().out, "asked afresh it is measured, and the failure shows"

    mine = tmp_path / "shipped"
    shutil.copytree(ROOT / "suites", mine / "suites")
    shutil.copytree(ROOT / "corpora", mine / "corpora")
    with monkeypatch.context() as patch:
        patch.setattr("ecology.pipeline.unchanged.shared", mine.joinpath)
        gate([OUTSIDER], want, desk.house)
        assert "nothing was measured again" in capsys.readouterr().out, "the same suites elsewhere"
        suite = mine / "suites" / "orders" / "suite.yaml"
        suite.write_text(suite.read_text("utf-8") + "# another word\n", "utf-8")
        gate([OUTSIDER], want, desk.house)
        assert "RUNG-static" in capsys.readouterr().out, "a changed suite is another question"
    desk.policy.write_text(desk.policy.read_text("utf-8").replace("version: 1", "version: 2", 1), "utf-8")
    gate([OUTSIDER], want, desk.house)
    assert "RUNG-static" in capsys.readouterr().out, "and so is a changed policy"


def test_a_folder_that_cannot_be_read_is_refused_and_the_others_are_judged(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    want = Asked(str(desk.policy), "smollm2-135m", True, "text", tmp_path / "out")
    assert gate([tmp_path / "nowhere", OUTSIDER], want, desk.house) == 1
    out = capsys.readouterr().out
    assert "nowhere: REFUSED" in out
    assert "because: FOLDER The folder can be described" in out
    assert "outsider: REFUSED" in out
    assert describe(OUTSIDER).digest in out


def test_what_is_read_by_several_processes_is_what_one_reads(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = judged_once(desk)
    task = (Digest(digest), desk.house.store.claims_file(Digest(digest)))
    keys = [desk.house.signer.public_key]
    alone = list(rereading.reread([task] * 4, keys))
    monkeypatch.setattr(rereading, "MANY", 2)
    monkeypatch.setattr(rereading, "BATCH", 1)
    monkeypatch.setattr(rereading, "_cores", lambda: 2)
    assert list(rereading.reread([task] * 4, keys)) == alone
    path = desk.house.store.claims_file(Digest(digest))
    path.write_bytes(b"\xff\n")
    with pytest.raises(IntegrityError, match="is not UTF-8"):
        list(rereading.reread([task] * 4, keys))


def test_the_index_is_made_anew_when_it_is_lost_or_forged_and_says_the_same(desk: Desk) -> None:
    digest = judged_once(desk)
    index = desk.house.home / "notes" / INDEX
    first = past_of(desk.house).verdicts
    kept = index.read_bytes()
    assert [(one.subject, one.held) for one in first] == [(digest, True)]
    for harm in (b"", kept.replace(b'"outcome":"', b'"outcome":"d'), kept[:-1] + b"x\n", b"\xff\xfe", kept + kept):
        index.write_bytes(harm)
        assert past_of(desk.house).verdicts == first
        assert index.read_bytes() == kept
    index.unlink()
    assert past_of(desk.house).verdicts == first
    path = desk.house.store.claims_file(Digest(digest))
    text = path.read_text()
    payload = json.loads(text)["payload"]
    forged = base64.b64encode(base64.b64decode(payload).replace(b"PASSED", b"FAILED")).decode()
    path.write_text(text.replace(payload, forged))
    assert past_of(desk.house).verdicts == (), "nobody signed these bytes"
    assert past_of(House(desk.house.home.with_name("elsewhere"), desk.clock, SilentProgress())).verdicts == ()


def test_a_verdict_is_noted_when_it_is_given_so_that_a_replay_reads_nothing_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_once(desk)
    (one,) = past_of(desk.house).verdicts
    index = desk.house.home / "notes" / INDEX
    index.unlink()
    evidence = (Measurement("static.files", one.subject, Count(0, ()), "", "absolute", "", "t"),)
    artifact = Artifact(Digest("sha256:" + "5" * 64), ())
    policy = govern(str(desk.policy), desk.clock.now()).policy
    for scope, noted in (("static", 0), ("full", 1)):
        given = verdict(policy, evidence, artifact.digest, scope, "2026-06-02T00:00:00Z")
        keep_verdict(desk.house, artifact, given, policy, evidence)
        assert (index.read_bytes().count(b"\n") if index.exists() else 0) == noted
    seen: list[object] = []
    monkeypatch.setattr(past, "reread", lambda tasks, keys: seen.extend(tasks) or rereading.reread(tasks, keys))
    assert len(past_of(desk.house).verdicts) == 3
    assert [digest for digest, _ in seen] == [one.subject], "whose note was thrown away"
    assert len(past_of(desk.house).verdicts) == 3
    assert len(seen) == 1


def test_the_gate_keeps_its_verdict_on_an_unsigned_folder_for_replay_and_says_that_it_does_not_hold_it(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    want = Asked(str(desk.policy), "smollm2-135m", True, "text", None)
    gate([OUTSIDER], dataclasses.replace(want, at="2026-06-02T00:00:00Z"), desk.house)
    assert past_of(desk.house).verdicts == (), "asked as of another instant it is a question, not a judgement"
    gate([OUTSIDER], want, desk.house)
    gate([OUTSIDER], want, desk.house)
    (one,) = past_of(desk.house).verdicts
    assert (one.subject, one.scope, one.held) == (describe(OUTSIDER).digest, "static", False)
    assert "STA-006" in one.refused_by
    assert APPROVAL_RULE not in one.refused_by, "the approval is about the policy and not about the adapter"
    found, past = replay_file(str(desk.policy), "", desk.house)
    assert (found.sentence, past.unstored) == ("0 of 1 verdict flip", 0)
    lax = tmp_path / "lax.yaml"
    lax.write_text(
        'id: lax\nversion: 1\ntitle: Lax\nrules:\n  - {id: F, title: Files, metric: static.files, comparator: "==", '
        "threshold: 0}\n",
        "utf-8",
    )
    found, _ = replay_file(str(lax), "", desk.house)
    assert str(found.flips[0]).startswith(f"{one.name} (not held here): would be admitted, deny -> pass")
    for who in (str(OUTSIDER), one.subject, one.name):
        assert explain_adapter(str(desk.policy), who, desk.clock.now(), desk.house)[0] == one
    assert not list((desk.house.home / "store").rglob("*.safetensors")), "none of its bytes are taken in"


def test_what_a_reviewer_asks_most_often_loads_nothing_that_it_does_not_need() -> None:
    code = """
import sys
from ecology.cli import main
codes = [main(["policy", *words]) for words in (["lint", "release"], ["test", "release"], ["explain", "release"],
                                                ["diff", "baseline", "release"])]
heavy = {"scipy", "numpy", "sqlalchemy", "hydra", "omegaconf", "pydantic", "pydantic_core", "torch", "jsonschema"}
print("loaded:", sorted({name.partition(".")[0] for name in sys.modules} & heavy), codes)
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.splitlines()[-1] == "loaded: [] [0, 0, 0, 0]"
