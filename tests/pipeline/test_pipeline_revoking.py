"""Families in a home: verified to the founders, revoked with all descendants, bounded in what they may breed."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from ecology.backend.bases import ensure
from ecology.breeder.breed import Bred, Parent, breed
from ecology.cli import main
from ecology.contracts.artifact import Corpus
from ecology.contracts.identity import Digest
from ecology.contracts.policy import ReproductionLimits, SignaturePolicy, TrustedKey
from ecology.errors import ConfigError, MalformedArtifact, Stopped
from ecology.kernel.canonical import digest_bytes
from ecology.pipeline import revoking
from ecology.pipeline.bench import preset
from ecology.pipeline.boundaries import admit_child, admit_run
from ecology.pipeline.descent import verify_descent
from ecology.pipeline.house import House, open_house
from ecology.pipeline.places import shared
from ecology.pipeline.population import sign
from ecology.policy.reader import load_policy
from ecology.signer.keys import LocalSigner
from ecology.store.adapters import describe
from ecology.telemetry.progress import SilentProgress
from ecology.testing.toys import toy_adapter

OURS = SignaturePolicy(allow_development=True)
SECRET = Corpus("diary", digest_bytes(b"diary"), "MIT", "train", True, 3)
BRED = {"operator": "linear", "run": digest_bytes(b"run"), "generation": 1}


class Family:
    """a and b; c of both; d of c; e of d. All toys, all signed."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.house = open_house(str(where / "home"), quiet=True)
        self.base = ensure(preset("toy"), self.house.home, SilentProgress())
        self.members: dict[str, Parent] = {}
        for seed, name in enumerate("ab"):
            folder = where / name
            toy_adapter(self.base, folder, seed=seed)
            self.members[name] = Parent(name, folder, describe(folder), None, self.base.identity)
        made = self._make("c", ["a", "b"])
        for name, corpora in (("a", (SECRET,)), ("b", ())):
            lineage = dataclasses.replace(
                made.genome.lineage, parents=(), generation=0, operator="finetune", corpora=corpora
            )
            self._keep(name, dataclasses.replace(made.genome, lineage=lineage))
        for name, parents in (("c", ["a", "b"]), ("d", ["c"]), ("e", ["d"])):
            self._keep(name, self._make(name, parents).genome)

    def _make(self, name: str, parents: list[str]) -> Bred:
        folder = self.where / name
        shutil.rmtree(folder, ignore_errors=True)
        chosen = [self.members[parent] for parent in parents]
        weights = [0.9 / len(parents)] * len(parents)
        made = breed("linear", {"weights": weights}, chosen, folder, seed=0, environment={})
        self.members[name] = Parent(name, folder, made.artifact, made.genome, self.base.identity)
        return made

    def _keep(self, name: str, genome: Any) -> None:
        member = dataclasses.replace(self.members[name], genome=genome)
        self.members[name] = member
        self.house.store.put(member.folder)
        body = {"digest": member.artifact.digest, "name": name, "parents": genome.lineage.parents}
        mine = {"generation": genome.lineage.generation, "operator": genome.lineage.operator}
        self.house.record("bred", {**BRED, **body, **mine})
        sign(self.house, member.artifact, genome)

    def copied(self, where: Path) -> Family:
        """The same family in a home of its own."""
        shutil.copytree(self.where, where, dirs_exist_ok=True)
        other = copy.copy(self)
        other.where, other.house = where, open_house(str(where / "home"), quiet=True)
        other.members = {n: dataclasses.replace(m, folder=where / n) for n, m in self.members.items()}
        return other

    def digest(self, name: str) -> Digest:
        return self.members[name].artifact.digest

    def run(self, *arguments: str) -> int:
        return main(["--home", str(self.house.home), "--quiet", *arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def family(made: Family, tmp_path: Path) -> Family:
    return made.copied(tmp_path)


def test_a_lineage_is_verified_down_to_its_founders(family: Family, capsys: pytest.CaptureFixture[str]) -> None:
    found = verify_descent(family.house, family.digest("e"), OURS)
    assert found.holds, found.text
    assert "NO-TRAIN: diary" in found.text
    assert "inherits MIT: diary" in found.text
    assert family.run("registry", "lineage", "e", "--policy", "toy") == 0
    out = capsys.readouterr().out
    assert "verified down to the founders" in out
    assert out.count("linear g") == 3
    stranger = LocalSigner.open(family.where / "elsewhere").public_key
    foreign = verify_descent(family.house, family.digest("e"), SignaturePolicy(trusted=(stranger,)))
    assert len(foreign.problems) == 5
    assert "nobody trusted" in foreign.text


def test_every_broken_link_is_named(family: Family) -> None:
    house = family.house
    weights = next(house.store.folder(family.digest("a")).glob("*.safetensors"))
    weights.chmod(0o644)
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    assert list(verify_descent(house, family.digest("e"), OURS).problems) == [family.digest("a")]
    weights.write_bytes(kept)
    house.record("bred", {**BRED, "digest": family.digest("d"), "name": "d", "parents": [family.digest("b")]})
    assert "other parents" in verify_descent(house, family.digest("e"), OURS).text


def test_taint_that_a_certificate_leaves_out_is_found(family: Family) -> None:
    genome = family.members["c"].genome
    assert genome is not None
    laundered = dataclasses.replace(genome, lineage=dataclasses.replace(genome.lineage, corpora=()))
    claims = next(family.house.home.rglob(f"*{family.digest('c').removeprefix('sha256:')}*/claims.jsonl"))
    claims.unlink()
    sign(family.house, family.members["c"].artifact, laundered)
    found = verify_descent(family.house, family.digest("c"), OURS)
    assert "corpora of its parents are not among its own: diary" in found.text


def test_revocation_reaches_every_descendant_and_the_alias(family: Family, capsys: pytest.CaptureFixture[str]) -> None:
    house = family.house
    for name, before in (("b", ""), ("e", "b")):
        previous = family.digest(before) if before else ""
        house.record("promoted", {"alias": "champion", "subject": family.digest(name), "previous": previous})
    assert family.run("registry", "revoke", "c", "--reason", "learned something bad") == 0
    out = capsys.readouterr().out
    assert f"quarantined {family.digest('e')}" in out
    assert house.registry.alias("champion") == family.digest("b")
    assert set(house.registry.revoked()) == {family.digest(name) for name in "cde"}
    with pytest.raises(ConfigError, match="d is quarantined"):
        admit_child(None, "linear", [family.digest("d")], house)
    admit_child(None, "linear", [family.digest("a"), family.digest("b")], house)
    assert family.run("registry", "lineage", "e", "--policy", "toy") == 1
    assert "learned something bad" in capsys.readouterr().out
    assert family.run("registry", "promote", "e") == 2
    assert family.run("registry", "revoke", "b", "--reason", "that one too") == 0
    assert house.registry.alias("champion") is None, "back to the bare base"
    assert family.run("registry", "revoke", "b", "--reason", " ") == 2
    assert family.run("audit", "verify") == 0
    assert family.run("registry", "rebuild") == 0
    assert house.registry.alias("champion") is None


def test_a_signed_list_travels(family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, out = family.house, tmp_path / "revoked.jsonl"
    with pytest.raises(ConfigError, match="nothing is revoked"):
        revoking.export_list(here, out)
    unknown = "sha256:" + "7" * 64
    revoking.revoke(here, family.digest("a"), "bad")
    revoking.revoke(here, unknown, "never seen here")
    assert family.run("registry", "revocations", "--export", str(out)) == 0
    other = Family(tmp_path / "other")
    key = here.home / "keys" / "development.pub.pem"
    words = ("registry", "revocations", "--import", str(out), "--key")
    assert other.run(*words, str(other.house.home / "keys" / "development.pub.pem")) == 1, "another key"
    assert other.run(*words, str(key)) == 0
    assert "2 revocations taken in" in capsys.readouterr().out
    assert set(other.house.registry.revoked()) == {unknown, *(other.digest(n) for n in "acde")}
    assert "(says development)" in other.house.registry.revoked()[unknown]
    assert other.run(*words, str(key)) == 0
    assert "0 revocations" in capsys.readouterr().out
    text = out.read_text()
    for broken in (text.replace("payload", "paylaod"), text[:-20], "{}"):
        out.write_text(broken)
        with pytest.raises(MalformedArtifact):
            revoking.import_list(other.house, out, key)


def limits(**new: Any) -> ReproductionLimits:
    return ReproductionLimits(**new)


def test_approvals_let_a_line_go_on(family: Family, tmp_path: Path) -> None:
    house, reviewer = family.house, LocalSigner.open(tmp_path / "reviewer")
    who: tuple[TrustedKey, ...] = (reviewer.public_key,)
    bound = limits(max_unapproved_generations=2, approved_parents_only=True, approvers=who)
    with pytest.raises(ConfigError, match=r"4 generations[^$]*neither admitted nor approved"):
        admit_child(bound, "linear", [family.digest("e")], house)
    revoking.approve(house, "e", "evaluated by hand", house.signer)
    with pytest.raises(ConfigError):
        admit_child(bound, "linear", [family.digest("e")], house)
    revoking.approve(house, "e", "evaluated by hand", reviewer, "safety")
    admit_child(bound, "linear", [family.digest("e")], house)
    revoking.approve(house, "e", "second thoughts", reviewer, reject=True)
    with pytest.raises(ConfigError):
        admit_child(bound, "linear", [family.digest("e")], house)


def test_limits_from_a_policy_file_hold_for_breeding_by_hand(family: Family, tmp_path: Path) -> None:
    text = shared("policies", "toy.yaml").read_text() + "\nreproduction: {max_children: 1, operators: [linear]}\n"
    (tmp_path / "bound.yaml").write_text(text)
    policy = ("--policy", str(tmp_path / "bound.yaml"), "--base", "toy", "--out", str(tmp_path / "new"))
    assert family.run("breed", "linear", str(tmp_path / "a"), "weights=[0.5]", *policy) == 2
    assert family.run("breed", "mutate", str(tmp_path / "e"), *policy) == 2
    assert not (tmp_path / "new").exists()
    assert family.run("breed", "linear", str(tmp_path / "e"), "weights=[0.5]", *policy) == 0


def test_runs_a_day(family: Family) -> None:
    toy = load_policy(shared("policies", "toy.yaml"))
    bound = dataclasses.replace(toy, reproduction=limits(max_runs_per_day=1))
    admit_run(bound, family.house)
    family.house.record("run_started", {"run": digest_bytes(b"1"), "name": "x"})
    with pytest.raises(ConfigError, match="1 runs were started today"):
        admit_run(bound, family.house)


def test_the_switch_stops_at_the_next_step(family: Family, tmp_path: Path) -> None:
    house: House = family.house
    with house.progress.track("work", 3) as step:
        step.advance(1)
        assert family.run("registry", "stop", "--reason", "smoke") == 0
        with pytest.raises(Stopped, match="smoke"):
            step.advance(1)
    new = str(tmp_path / "new")
    assert family.run("breed", "linear", str(tmp_path / "e"), "weights=[0.5]", "--base", "toy", "--out", new) == 1
    with pytest.raises(Stopped):
        admit_run(load_policy(shared("policies", "toy.yaml")), house)
    assert family.run("registry", "list") == 0, "looking is still allowed"
    assert family.run("registry", "revoke", "a", "--reason", "found it") == 0, "and so is revoking"
    assert family.run("registry", "resume", "--reason", "found it") == 0
    assert family.run("registry", "resume", "--reason", "again") == 2
    house.stop_check()
    (house.home / "STOP").mkdir()
    with pytest.raises(Stopped, match="nobody said why"):
        house.stop_check()
