"""``ecology gate --static`` as a command: what it imports, what it prints, what it remembers."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest

from ecology.cli import main
from ecology.contracts.artifact import CLAIMS_FILE, WEIGHTS_FILE
from ecology.contracts.evidence import Count, Evidence, Measurement
from ecology.contracts.genome import INTERFACE_VERSION, Genome, Lineage, ResourceProfile
from ecology.errors import EXIT_BACKEND, ConfigError, IntegrityError
from ecology.gate import weighing
from ecology.gate.static import StaticRung
from ecology.gate.tensors import linear_modules
from ecology.kernel.verdicts import verdict
from ecology.pipeline import gating, overlaps
from ecology.pipeline.bench import known_base
from ecology.pipeline.breeding import breed_folders
from ecology.pipeline.corpora import shipped_corpora
from ecology.pipeline.house import House, open_house
from ecology.pipeline.members import Member, submission_of
from ecology.pipeline.overlaps import Overlaps
from ecology.pipeline.places import subject
from ecology.pipeline.revocations import quarantined
from ecology.pipeline.unchanged import NOBODY
from ecology.pipeline.verdicts import FOLDER
from ecology.policy.reader import load_policy
from ecology.signer.statements import genome_statement
from ecology.store.folders import describe
from ecology.store.writer import write_adapter

OUTSIDER = Path(__file__).parents[2] / "examples" / "outsider"
FORBIDDEN = {"torch", "scipy", "sqlalchemy", "hydra", "omegaconf", "transformers", "peft", "pydantic", "sigstore"}


def adapter(folder: Path, house: House, seed: int = 0) -> Path:
    """A signed LoRA of rank 1 for the default base."""
    base = known_base("smollm2-135m", house)
    rng = np.random.Generator(np.random.PCG64(seed))
    modules = {
        name: (0.01 * rng.normal(size=(outputs, 1)), 0.01 * rng.normal(size=(1, inputs)))
        for name, (outputs, inputs) in linear_modules(base.tensor_schema).items()
        if name.endswith("q_proj")
    }
    artifact = write_adapter(folder, modules, "smollm2-135m", base.identity.base_weights)
    count = sum(b.size + a.size for b, a in modules.values())
    profile = ResourceProfile(count, artifact.size_bytes, 1, len(modules), 1.0)
    genome = Genome(base.identity, INTERFACE_VERSION, (), Lineage((), "import", {}, 0, (), 0, {}), profile)
    line = house.signer.sign(genome_statement(artifact, genome, "2026-01-01T00:00:00Z"))
    (folder / CLAIMS_FILE).write_text(line + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return open_house(str(tmp_path_factory.mktemp("home")), quiet=True)


def bred(child: str, *parents: str) -> dict[str, object]:
    return {"digest": child, "name": child, "operator": "ties", "parents": list(parents), "generation": 1, "run": "r"}


def test_the_static_path_imports_nothing_heavy_also_where_there_is_a_registry(tmp_path: Path, house: House) -> None:
    folder = adapter(tmp_path / "adapter", house)
    house.record("revoked", {"digest": f"sha256:{'0' * 64}", "reason": "a test"})
    code = "import sys; from ecology.cli import main; code = main(sys.argv[1:]); print(code, *sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code, "gate", "--static", "--home", str(house.home), str(folder)],
        check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    code, *modules = ran.stdout.splitlines()[-1].split()
    assert code == "0", ran.stdout
    assert {name.split(".")[0] for name in modules} & FORBIDDEN == set()


def test_what_is_revoked_is_read_as_the_registry_reads_it(tmp_path: Path) -> None:
    house = open_house(str(tmp_path), quiet=True)
    database = house.home / "registry.sqlite3"
    assert quarantined(database) == {}
    rng, names = random.Random(0), [f"sha256:{i:064x}" for i in range(20)]
    for i, name in enumerate(names):
        house.record("bred", bred(name, *rng.sample(names[:i], min(i, 2))))
    for name in rng.sample(names, 3):
        house.record("revoked", {"digest": name, "reason": f"because of {name[-2:]}"})
    found = quarantined(database)
    assert found == house.registry.revoked()
    assert len(found) > 3


def test_a_registry_that_cannot_be_read_revokes_everything(tmp_path: Path) -> None:
    database = tmp_path / "registry.sqlite3"
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(IntegrityError):
        quarantined(database)


def test_folders_without_a_name_are_refused_in_full(
    tmp_path: Path, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    good, linked, sparse = (adapter(tmp_path / name, house) for name in ("good", "linked", "sparse"))
    (linked / WEIGHTS_FILE).rename(tmp_path / "elsewhere")
    (linked / WEIGHTS_FILE).symlink_to(tmp_path / "elsewhere")
    os.truncate(sparse / WEIGHTS_FILE, 2**40)
    folders = [str(tmp_path / "nowhere"), str(linked), str(sparse), str(good)]
    assert main(["gate", "--static", "--home", str(house.home), "--format", "json", *folders]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in said] == ["nowhere", "linked", "sparse", "good"]
    assert [one["verdict"]["outcome"] for one in said] == ["deny", "deny", "deny", "warn"]
    texts = [json.dumps(one) for one in said[1:]]
    assert "found a link" in texts[0]
    assert "1099511627776 bytes" in texts[1]
    assert main(["gate", "--static", "--home", str(house.home), str(linked)]) == 1
    text = capsys.readouterr().out
    assert "STA-001" in text
    assert "MITRE-ATLAS-AML.T0011.000" in text


def test_the_bases_own_tokenizer_may_stand_beside_an_adapter(
    tmp_path: Path, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the toy base, which is built here; its files have digests of their own."""
    from ecology.pipeline.bench import tokenizer_files

    base, folder = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    folder.mkdir()
    (base / "tokenizer.json").write_bytes(b"{}")
    assert tokenizer_files(base, folder) == {}
    (folder / "tokenizer.json").write_bytes(b"other")
    (folder / "modeling.py").write_bytes(b"")
    assert set(tokenizer_files(base, folder)) == {"tokenizer.json"}
    assert set(tokenizer_files(base)) == {"tokenizer.json"}


def test_the_name_of_a_folder_writes_no_line_of_its_own(
    tmp_path: Path, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "evil\ngood: passed under release v1\n::error::\x1b[2K"
    folder.mkdir()
    assert main(["gate", "--static", "--home", str(house.home), str(folder)]) == 1
    text = capsys.readouterr().out
    assert not any(line.startswith(("good: passed", "::")) for line in text.splitlines())
    assert "\x1b" not in text


@pytest.mark.parametrize("failing", ["the reader dies", "the folder changes", "memory runs out"])
def test_what_the_machine_did_is_refused_and_not_remembered(
    tmp_path: Path, house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    folder = adapter(tmp_path / "adapter", house, seed=100 + sum(failing.encode()))
    call = ["gate", "--static", "--home", str(house.home), str(folder)]
    drawer = house.home / FOLDER / f"{describe(folder).digest.removeprefix('sha256:')}.jsonl"
    readme = folder / "README.md"

    class Changing(StaticRung):
        def measure(self) -> Evidence:
            readme.write_text("meanwhile")
            try:
                return super().measure()
            finally:
                readme.unlink()

    def exhausted(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as broken:
        weighing._end()
        if failing == "the reader dies":
            broken.setattr(weighing, "_BOOT", "raise SystemExit(3)")
        elif failing == "the folder changes":
            broken.setattr(gating, "StaticRung", Changing)
        else:
            broken.setattr("ecology.gate.look.weigh", exhausted)
        assert main(call) == 1
        text = capsys.readouterr().out
        assert "REFUSED" in text
        assert "The rung 'static' could be measured" in text
        assert "DENY" in text, "and what was found is told as well"
    assert not drawer.exists(), "nothing that a replay would find"
    assert main(call) == 0
    text = capsys.readouterr().out
    assert "unchanged" not in text
    assert drawer.exists()
    assert main(call) == 0
    assert "unchanged" in capsys.readouterr().out


NAMES = {
    "not-utf-8": os.fsdecode(b"bad\xff\xfe"),
    "half-a-character": os.fsdecode(b"bad\xe2\x80"),
    "controls": "".join(map(chr, range(1, 32))).replace("/", "") + "\x7f",
    "c1-controls": "".join(map(chr, range(0x80, 0xA0))),
    "line-ends": "a\u2028b\u2029c\x85::error::d",
    "direction": "\u202eevil\u2066\u200b\ufeff",
    "uri": "a:b%41?c#d e|f`g<img src=x>",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_no_name_of_a_folder_breaks_a_format(
    tmp_path: Path, house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder, out = tmp_path / name, tmp_path / "out"
    shutil.copytree(OUTSIDER, folder)
    (folder / os.fsdecode(b"\xff\n\x1b[2K")).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    said = {}
    for form in ("text", "json", "junit", "sarif", "github"):
        call = ["gate", "--static", "--home", str(house.home), "--format", form, "--out", str(out), str(folder)]
        assert main([*call, str(folder / "nowhere" / name)]) == 1
        said[form] = capsys.readouterr().out
        said[form].encode()
        assert all(char == "\n" or char.isprintable() for char in said[form])
    for text in (*said.values(), (tmp_path / "summary.md").read_text("utf-8")):
        assert not any(line.startswith("::error::") for line in text.splitlines())
    (uri,) = {
        unquote_to_bytes(r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])
        for r in json.loads(said["sarif"])["runs"][0]["results"]
        if r["properties"]["subject"] != NOBODY
    }
    assert uri == os.fsencode(name) + b"/adapter_config.json"
    assert json.loads(said["json"])[0]["path"] == os.fsencode(name).decode("utf-8", "backslashreplace")
    assert len(ET.fromstring(said["junit"].encode())) == 2
    for path in out.iterdir():
        path.read_bytes().decode("utf-8").encode("utf-8")
        assert not path.name.endswith(".json") or json.loads(path.read_bytes())


def test_a_path_that_leads_nowhere_is_refused_and_the_others_are_judged(
    tmp_path: Path, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    good = adapter(tmp_path / "good", house)
    paths = [loop, loop / "deeper", tmp_path / ("x" * 5000), good / CLAIMS_FILE]
    call = ["gate", "--static", "--home", str(house.home), "--format", "json", *map(str, paths)]
    assert main(call) == 1
    said = json.loads(capsys.readouterr().out)
    assert [one["verdict"]["outcome"] for one in said] == ["deny"] * 3 + ["warn"]


def test_overlaps_are_computed_once_and_a_changed_note_is_not_believed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = dict(Overlaps(house))
    assert set(found) == set(shipped_corpora())
    monkeypatch.setattr(overlaps, "_computed", lambda _: {})
    assert dict(Overlaps(house)) == found
    (note,) = (house.home / "notes" / overlaps.KIND).iterdir()
    said = json.loads(note.read_bytes())
    for changed in (b"", b"{}", b'{"shares": 3, "mac": 4}', json.dumps({**said, "mac": "0" * 64}).encode()):
        note.write_bytes(changed)
        assert dict(Overlaps(house)) == {}
        note.unlink()


def test_breeding_by_hand_stays_within_the_limits_of_the_policy_that_is_named(tmp_path: Path, house: House) -> None:
    """No run knows of these parents: their generation is what their signed genomes say."""

    def parent(name: str, generation: int) -> Path:
        folder = adapter(tmp_path / name, house, generation)
        artifact = describe(folder)
        base = known_base("smollm2-135m", house).identity
        lineage = Lineage((), "import", {}, 0, (), generation, {})
        genome = Genome(base, INTERFACE_VERSION, (), lineage, ResourceProfile(1, 1, 1, 1, 1.0))
        line = house.signer.sign(genome_statement(artifact, genome, "2026-01-01T00:00:00Z"))
        (folder / CLAIMS_FILE).write_text(line + "\n", encoding="utf-8")
        return folder

    def bred_by(operator: str, parents: list[Path], policy: str | None = "reproduction") -> Path:
        out = tmp_path / f"child of {operator}, {policy}, {len(parents)}"
        breed_folders(operator, parents, [], out=out, base="smollm2-135m", seed=0, house=house, policy=policy)
        return out

    last, young = parent("last", 16), parent("young", 3)
    with pytest.raises(ConfigError, match="it would be of generation 17, and 16 is the last one"):
        bred_by("linear", [last, young])
    with pytest.raises(ConfigError, match="operator slerp is not allowed; these are: finetune, linear"):
        bred_by("slerp", [young, young])
    with pytest.raises(ConfigError, match="5 parents, and 4 are allowed"):
        bred_by("linear", [young] * 5)
    assert (bred_by("linear", [young, young]) / WEIGHTS_FILE).exists()
    assert (bred_by("linear", [last, young], policy=None) / WEIGHTS_FILE).exists(), "no policy was named"


def test_a_full_verdict_is_a_fact_and_the_same_one_again_is_no_news(tmp_path: Path, house: House) -> None:
    folder = adapter(tmp_path / "adapter", house)
    member = Member("given", submission_of("given", folder), None, False)
    policy = load_policy(subject("toy", "policies", ".yaml"))

    def judged(now: str, *evidence: Measurement) -> None:
        found = verdict(policy, evidence, member.digest, "full", now)
        gating._told(member, found, "", now, house)

    passed = Measurement("static.files", member.digest, Count(0, ()))
    failed = Measurement("static.files", member.digest, Count(1, ("x",)))
    for second, evidence in enumerate([passed, passed, failed, passed]):
        judged(f"2100-01-01T00:00:0{second}Z", evidence)
    known = house.registry.show(member.digest)
    assert (known.name, len(known.verdicts)) == ("given", 3)
    rules = [next(f["outcome"] for f in v.findings if f["rule"] == "STA-001") for v in known.verdicts]
    assert rules == ["pass", "deny", "pass"]
    assert {v.policy for v in known.verdicts} == {policy.digest}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_verdict_that_cannot_be_printed_is_no_refusal(tmp_path: Path, house: House, unbuffered: str) -> None:
    """Exit 4: the machine gave out, which says nothing about the adapter."""
    folder = adapter(tmp_path / "adapter", house)
    command = [sys.executable, "-m", "ecology", "gate", "--static", "--home", str(house.home), str(folder)]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert ran.returncode == EXIT_BACKEND
    assert "no room to write" in ran.stderr
