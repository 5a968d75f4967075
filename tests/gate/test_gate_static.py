"""The static gate: what it accepts, what it refuses, and why."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecology.contracts.artifact import CLAIMS_FILE, CONFIG_FILE, WEIGHTS_FILE, Submission
from ecology.contracts.evidence import Count, Evidence, Samples
from ecology.contracts.policy import AdapterLimits, DataPolicy, Outcome, Rule
from ecology.errors import MalformedArtifact
from ecology.gate import look
from ecology.gate.context import StaticContext, context_for
from ecology.gate.static import MOST_DETAILS, SOURCE, retained_evidence, static_answers, static_evidence
from ecology.kernel.canonical import canonical
from ecology.kernel.verdicts import headline, verdict
from ecology.policy.metrics import STATIC
from ecology.policy.reader import load_policy
from ecology.signer.keys import LocalSigner
from ecology.signer.statements import genome_statement
from ecology.store.adapters import describe, write_adapter
from ecology.store.snapshot import CHUNK_BYTES
from ecology.testing import attacks, gates
from ecology.testing.attacks import HOSTILE
from ecology.testing.gates import IDENTITY, NOW, SCHEMA, Hostile, submit

POLICY = load_policy(Path(__file__).parents[2] / "policies" / "release.yaml")


def counts(evidence: Evidence) -> dict[str, int]:
    return {m.metric: m.statistic.count for m in evidence if isinstance(m.statistic, Count)}


def details(evidence: Evidence, metric: str) -> tuple[str, ...]:
    (found,) = [m.statistic for m in evidence if m.metric == metric]
    assert isinstance(found, Count)
    return found.details


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: f"{case.kind}: {case.name}".replace(" ", "-"))
def test_every_hostile_folder_is_refused_for_what_it_is(case: Hostile, tmp_path: Path, home: Path) -> None:
    submission, context = submit(case, tmp_path / "adapter", home)
    evidence = static_evidence(submission, context)
    assert counts(evidence)[case.metric] > 0
    why = details(evidence, case.metric)
    assert any(f"[{case.kind}, OWASP-LLM" in one and "MITRE-ATLAS-AML." in one for one in why), why
    assert all("; allowed: " in one and one.isascii() for one in why if not one.startswith("and "))
    found = verdict(POLICY, evidence, submission.artifact.digest, "static", NOW)
    assert found.outcome is Outcome.DENY
    for measurement in evidence:
        assert measurement.subject == submission.artifact.digest
        assert measurement.source == SOURCE


def test_every_class_has_at_least_three_attacks() -> None:
    kinds = [case.kind for case in HOSTILE]
    assert {kind: kinds.count(kind) for kind in kinds if kinds.count(kind) < 3} == {}
    assert len({(case.kind, case.name) for case in HOSTILE}) == len(HOSTILE)
    assert len(set(kinds)) >= 13


def test_a_benign_folder_is_accepted_with_a_warning_for_the_development_key(tmp_path: Path, home: Path) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)
    evidence = static_evidence(submission, context)
    assert counts(evidence) == {
        metric: int(metric == "static.development") for metric in STATIC if metric != "static.anomaly"
    }  # nobody has calibrated this base
    found = verdict(POLICY, evidence, submission.artifact.digest, "static", NOW)
    assert found.outcome is Outcome.WARN
    head = headline(found)
    assert head is not None
    assert head.rule == "STA-007"


def test_a_named_key_leaves_no_warning(tmp_path: Path, home: Path) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)
    named = dataclasses.replace(context, trusted=context.development, development=())
    assert set(counts(static_evidence(submission, named)).values()) == {0}


def test_the_reference_gate_conforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "HOSTILE", HOSTILE[::8])  # every one is tried above, by itself
    assert attacks.escaped(lambda submission, context: counts(static_evidence(submission, context)), tmp_path) == ()


def test_a_gate_that_says_yes_does_not_conform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "HOSTILE", HOSTILE[:3])
    assert len(attacks.escaped(lambda *_: {}, tmp_path)) == 3
    assert "benign" in attacks.escaped(lambda *_: {"static.files": 1}, tmp_path / "b")


def test_an_unsigned_folder_leaves_the_questions_about_its_birth_open(tmp_path: Path, home: Path) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)
    evidence = static_evidence(dataclasses.replace(submission, claims=()), context)
    found = counts(evidence)
    assert found["static.signature"] == 1
    assert not {"static.base", "static.taint", "static.overlap", "static.development"} & set(found)
    head = headline(verdict(POLICY, evidence, submission.artifact.digest, "static", NOW))
    assert head is not None
    assert head.rule == "STA-006"
    assert "found there are no claims: the folder is unsigned" in head.details[0]


def test_without_norms_of_the_base_the_limits_are_not_known(tmp_path: Path, home: Path) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)
    blind = dataclasses.replace(context, weight_norms=None)
    assert "static.limits" not in counts(static_evidence(submission, blind))
    tight = dataclasses.replace(blind, limits=AdapterLimits(max_rank=1))
    assert counts(static_evidence(submission, tight))["static.limits"] == 4
    unknown = dataclasses.replace(context, weight_norms={})
    assert counts(static_evidence(submission, unknown))["static.limits"] == 4


@pytest.mark.parametrize(
    ("limits", "metric"),
    [
        (AdapterLimits(max_file_bytes=10), "static.limits"),
        (AdapterLimits(max_rank=1), "static.limits"),
        (AdapterLimits(max_scale=0.5), "static.limits"),
        (AdapterLimits(max_relative_norm=1e-6), "static.limits"),
        (AdapterLimits(dtypes=("BF16",)), "static.tensors"),
        (AdapterLimits(peft_types=()), "static.config"),
    ],
)
def test_the_policys_bounds_are_the_bounds(limits: AdapterLimits, metric: str, tmp_path: Path, home: Path) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)
    assert counts(static_evidence(submission, dataclasses.replace(context, limits=limits)))[metric] > 0


def test_the_relative_norm_is_that_of_the_full_matrix(tmp_path: Path, home: Path) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)
    tensors = gates.read_tensors(Path(submission.folder))
    b, a = (np.frombuffer(tensors[f"{gates.Q}.lora_{x}.weight"][2], np.float32) for x in "BA")
    norm = float(np.linalg.norm(b.reshape(8, 2).astype(float) @ a.reshape(2, 8).astype(float)))
    name = "model.layers.0.self_attn.q_proj.weight"
    for factor, violations in ((1.001, 0), (0.999, 1)):
        norms = {**dict.fromkeys(SCHEMA, 1e9), name: norm * factor}
        found = counts(static_evidence(submission, dataclasses.replace(context, weight_norms=norms)))
        assert found["static.limits"] == violations


def test_bytes_that_are_not_those_submitted_are_refused(tmp_path: Path, home: Path) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)
    gates.benign(tmp_path / "adapter", seed=1)
    found = counts(static_evidence(submission, context))
    assert found["static.files"] == 1
    assert found["static.signature"] == 1


def test_data_rules_follow_the_policy(tmp_path: Path, home: Path) -> None:
    case = next(case for case in HOSTILE if case.name == "no-train")
    submission, context = submit(case, tmp_path / "adapter", home)
    for data, count in ((DataPolicy(), 1), (DataPolicy(forbid_no_train=False), 0), (DataPolicy(licences=("MIT",)), 2)):
        assert counts(static_evidence(submission, dataclasses.replace(context, data=data)))["static.taint"] == count


def test_a_key_of_this_machine_is_dropped_where_the_policy_forbids_it(home: Path) -> None:
    key = LocalSigner.open(home).public_key
    strict = dataclasses.replace(POLICY, signatures=dataclasses.replace(POLICY.signatures, allow_development=False))
    assert context_for(POLICY, IDENTITY, SCHEMA, development=(key,)).development == (key,)
    assert context_for(strict, IDENTITY, SCHEMA, development=(key,)).development == ()


def test_two_genomes_that_contradict_each_other_vouch_for_nothing(tmp_path: Path, home: Path) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)
    signer = LocalSigner.open(home)
    born = gates.genome_of(submission.artifact)
    other = dataclasses.replace(born, lineage=dataclasses.replace(born.lineage, corpora=()))
    second = signer.sign(genome_statement(submission.artifact, other, NOW))
    evidence = static_evidence(dataclasses.replace(submission, claims=(*submission.claims, second)), context)
    assert counts(evidence)["static.signature"] == 1
    assert "static.taint" not in counts(evidence)


def test_claims_of_strangers_beside_a_good_one_do_no_harm(tmp_path: Path, home: Path) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)
    stranger = LocalSigner.open(tmp_path / "stranger")
    line = stranger.sign(genome_statement(submission.artifact, gates.genome_of(submission.artifact), NOW))
    found = static_evidence(dataclasses.replace(submission, claims=("garbage", line, *submission.claims)), context)
    assert counts(found)["static.signature"] == 0


def test_many_violations_are_counted_and_a_few_are_shown(tmp_path: Path, home: Path) -> None:
    def crowd(folder: Path) -> None:
        for i in range(50):
            (folder / f"note-{i:02d}.txt").write_text("x", encoding="utf-8")

    submission, context = submit(Hostile("crowd", "foreign file", "static.files", crowd), tmp_path / "adapter", home)
    evidence = static_evidence(submission, context)
    assert counts(evidence)["static.files"] == 50
    assert len(details(evidence, "static.files")) == MOST_DETAILS + 1
    assert details(evidence, "static.files")[-1] == "and 30 more"


def test_an_unforeseen_exception_is_a_violation_with_its_type(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr(look, "check_configuration", broken)
    evidence = static_evidence(submission, context)
    assert "ZeroDivisionError" in details(evidence, "static.config")[0]
    assert "\n" not in details(evidence, "static.config")[0]
    assert verdict(POLICY, evidence, submission.artifact.digest, "static", NOW).outcome is Outcome.DENY


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_no_folder_at_all_is_refused(name: str, tmp_path: Path, home: Path) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    evidence = static_evidence(dataclasses.replace(submission, folder=str(tmp_path / name)), context)
    assert counts(evidence)["static.files"] == 1
    assert verdict(POLICY, evidence, submission.artifact.digest, "static", NOW).outcome is Outcome.DENY


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, home: Path) -> tuple[Submission, StaticContext, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("fuzz") / "adapter"
    submission, context = submit(None, folder, home)
    return submission, context, {name: (folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([CONFIG_FILE, WEIGHTS_FILE]), st.integers(0, 1500), st.binary(max_size=4), st.integers(0, 3))
def test_any_changed_byte_is_refused_and_nothing_escapes(
    fuzzed: tuple[Submission, StaticContext, dict[str, bytes]], name: str, at: int, new: bytes, drop: int
) -> None:
    submission, context, originals = fuzzed
    data = originals[name]
    changed = data[: at % len(data)] + new + data[at % len(data) + drop :]
    path = Path(submission.folder) / name
    path.write_bytes(changed)
    try:
        evidence = static_evidence(submission, context)
    finally:
        path.write_bytes(data)
    if changed != data:
        assert counts(evidence)["static.files"] == 1
        assert counts(evidence)["static.signature"] == 1
    canonical([details(evidence, m.metric) for m in evidence])  # whatever it says can be signed


def test_the_relative_spectral_norm_is_that_of_the_full_matrix(tmp_path: Path, home: Path) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)
    tensors = gates.read_tensors(Path(submission.folder))
    b, a = (np.frombuffer(tensors[f"{gates.Q}.lora_{x}.weight"][2], np.float32) for x in "BA")
    largest = float(np.linalg.norm(b.reshape(8, 2).astype(float) @ a.reshape(2, 8).astype(float), 2))
    name = "model.layers.0.self_attn.q_proj.weight"
    bounded = AdapterLimits(max_relative_spectral_norm=1.0)
    for norms, violations in (
        ({**dict.fromkeys(SCHEMA, 1e9), name: largest * 1.001}, 0),
        ({**dict.fromkeys(SCHEMA, 1e9), name: largest * 0.999}, 1),
        ({}, 4),  # a bound that cannot be checked is not met
    ):
        judged = dataclasses.replace(context, spectral_norms=norms, limits=bounded)
        assert counts(static_evidence(submission, judged))["static.limits"] == violations


def test_a_huge_rank_costs_no_memory(tmp_path: Path, home: Path) -> None:
    """Factors as wide as the file: their Gram matrix would have a hundred times the file's size."""
    rank, folder = 40_000, tmp_path / "adapter"
    submission, context = submit(None, folder, home)
    config = json.loads((folder / CONFIG_FILE).read_bytes())
    (folder / CONFIG_FILE).write_text(
        json.dumps({**config, "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"]})
    )
    shapes = {f"{gates.Q}.lora_A.weight": (rank, 8), f"{gates.Q}.lora_B.weight": (8, rank)}
    gates.write_tensors(folder, {key: ("F32", shape, bytes(4 * rank * 8)) for key, shape in shapes.items()})
    size = (folder / WEIGHTS_FILE).stat().st_size
    tracemalloc.start()
    try:
        found = counts(static_evidence(submission, context))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["static.limits"] > 0
    assert peak < 2 * size + 2 * CHUNK_BYTES


def test_of_a_large_file_little_is_in_memory(tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "adapter"
    submission, context = submit(None, folder, home)
    held = gates.read_tensors(folder)
    foreign = {f"base_model.model.foreign.{i}": ("F32", (1 << 18,), bytes(1 << 20)) for i in range(16)}
    gates.write_tensors(folder, {**held, **foreign})
    tracemalloc.start()
    try:
        found = counts(static_evidence(submission, context))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["static.tensors"] == 16
    assert peak < 8 * CHUNK_BYTES


def test_the_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    """A static gate in a home that is not there yet keeps its signed verdict and a note of what was measured."""
    code = """
import sys
import threading
from ecology.cli import main
code = main(["gate", "--static", "--home", sys.argv[1], sys.argv[2]])
heavy = ("numpy", "torch", "peft", "transformers", "scipy", "hydra", "omegaconf", "pydantic", "sqlalchemy", "sigstore",
         "jsonschema", "tqdm", "securesystemslib")
print("loaded:", sorted({name.partition(".")[0] for name in sys.modules} & set(heavy)), code)
"""
    outsider = Path(__file__).parents[2] / "examples" / "outsider"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "home"), str(outsider)], check=True, capture_output=True, text=True
    )
    assert ran.stdout.splitlines()[-1] == "loaded: [] 1"
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["keys", "notes", "verdicts"]


def test_a_large_adapter_is_judged_without_torch(tmp_path: Path) -> None:
    """20 MB: the time is not asserted, what was imported is."""
    rng = np.random.Generator(np.random.PCG64(0))
    schema = {f"model.layers.{i}.self_attn.q_proj.weight": (576, 576) for i in range(140)}
    modules = {
        name.removesuffix(".weight"): (
            rng.normal(size=(576, 32)).astype(np.float32) * 0.01,
            rng.normal(size=(32, 576)).astype(np.float32),
        )
        for name in schema
    }
    artifact = write_adapter(tmp_path / "adapter", modules, "toy", IDENTITY.base_weights)
    assert artifact.size_bytes > 20_000_000
    code = """
import json, sys
from pathlib import Path
from ecology.contracts.artifact import Submission
from ecology.gate.context import StaticContext
from ecology.gate.static import retained_evidence, static_evidence
from ecology.testing.gates import IDENTITY
from ecology.contracts.policy import AdapterLimits, DataPolicy
from ecology.store.adapters import describe
schema = {name: tuple(shape) for name, shape in json.loads(sys.argv[2]).items()}
folder = Path(sys.argv[1])
context = StaticContext(IDENTITY, schema, dict.fromkeys(schema, 1e4), AdapterLimits(), DataPolicy(), (), (), {}, {})
evidence = static_evidence(Submission("big", str(folder), describe(folder), ()), context)
heavy = {"torch", "peft", "transformers", "scipy", "hydra", "pydantic"} & set(sys.modules)
print(json.dumps([{m.metric: m.statistic.count for m in evidence}, sorted(heavy)]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "adapter"), json.dumps(schema)],
        check=True,
        capture_output=True,
        text=True,
    )
    found, heavy = json.loads(ran.stdout)
    assert found == {
        "static.files": 0, "static.config": 0, "static.tensors": 0, "static.finite": 0, "static.limits": 0,
        "static.signature": 1,
    }  # fmt: skip
    assert heavy == []


def test_the_folders_claims_file_is_no_part_of_the_artifact(tmp_path: Path, home: Path) -> None:
    submission, _ = submit(None, tmp_path / "adapter", home)
    assert describe(tmp_path / "adapter") == submission.artifact
    assert (tmp_path / "adapter" / CLAIMS_FILE).read_text(encoding="utf-8").splitlines() == list(submission.claims)


def test_the_genome_tells_what_projection_kept(tmp_path: Path, home: Path) -> None:
    submission, context = submit(None, tmp_path / "adapter", home)
    (kept,) = retained_evidence(submission, context)
    assert (kept.metric, kept.statistic) == ("resource.retained_energy", Samples((1.0,), "of ||dW||^2"))
    assert retained_evidence(dataclasses.replace(submission, claims=()), context) == ()
    assert retained_evidence(dataclasses.replace(submission, claims=("{}",)), context) == ()
    rule = Rule("ENERGY", "keeps most", "resource.retained_energy", ">=", 0.9)
    strict = dataclasses.replace(POLICY, rules=(rule,))
    for share, outcome in ((1.0, Outcome.PASS), (0.5, Outcome.DENY)):
        evidence = (dataclasses.replace(kept, statistic=Samples((share,), "of ||dW||^2")),)
        assert verdict(strict, evidence, submission.artifact.digest, "full", NOW).outcome is outcome
    assert verdict(strict, (), submission.artifact.digest, "full", NOW).outcome is Outcome.INCONCLUSIVE


def test_files_that_change_while_they_are_read_are_refused_for_it(tmp_path: Path, home: Path) -> None:
    """A writer swaps, cuts and extends both files all the time; only what was signed may pass, whole."""
    submission, context = submit(None, tmp_path / "adapter", home)
    folder, signed = Path(submission.folder), submission.artifact
    good = {name: (folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)}
    rng, over = random.Random(0), threading.Event()

    def write() -> None:
        while not over.is_set():
            name = rng.choice(sorted(good))
            path, data = folder / name, good[name]
            match rng.randrange(6):
                case 0:
                    path.write_bytes(data[: rng.randrange(len(data))])
                case 1:
                    with path.open("ab") as file:
                        file.write(b" " * 100)
                case 2:
                    (folder / ".new").write_bytes(data[:-8] + b"\xff" * 8)
                    (folder / ".new").rename(path)
                case 3:
                    path.unlink(missing_ok=True)
                case 4:
                    path.unlink(missing_ok=True)
                    path.symlink_to("/dev/zero")
                case _:
                    path.unlink(missing_ok=True)
                    path.write_bytes(data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(150):
            try:
                named = describe(folder, 1 << 20)
            except MalformedArtifact:
                continue
            evidence, unsettled = static_answers(dataclasses.replace(submission, artifact=named), context)
            wrong = {metric for metric, count in counts(evidence).items() if count} - {"static.development"}
            if not wrong and "static.finite" in counts(evidence):
                assert named == signed
                assert not unsettled
            elif named == signed:
                assert unsettled, "what is said of good bytes must not be kept"
    finally:
        over.set()
        writer.join()
    for name, data in good.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)
    (folder / ".new").unlink(missing_ok=True)
    assert static_answers(submission, context)[1] == ""
