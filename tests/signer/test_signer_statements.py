"""Statements: round trips, golden bytes, and the shapes that other tools expect."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.artifact import Artifact, Corpus, FileRecord
from ecology.contracts.evidence import Count, Measurement, Paired, Proportion, Samples
from ecology.contracts.genome import Genome, Lineage, ResourceProfile
from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.contracts.policy import AdapterLimits, DataPolicy, Finding, GateVerdict, Outcome, Policy, SignaturePolicy
from ecology.errors import ConfigError
from ecology.kernel.canonical import canonical, digest, plain
from ecology.signer import statements, strict
from ecology.signer.keys import LocalSigner
from ecology.signer.refusal import ClaimRefused


def d(text: str) -> Digest:
    return Digest("sha256:" + hashlib.sha256(text.encode()).hexdigest())


digests = st.integers(0, 2**32).map(lambda n: d(str(n)))
words = st.text(max_size=12)
numbers = st.integers(-(2**53) + 1, 2**53 - 1)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False, width=32) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
genomes = st.builds(
    Genome,
    identity=st.builds(CompatibilityIdentity, words, digests, digests, digests, digests),
    interface_version=words,
    capabilities=st.lists(words, max_size=3).map(tuple),
    lineage=st.builds(
        Lineage,
        parents=st.lists(digests, max_size=4).map(tuple),
        operator=words,
        parameters=st.dictionaries(words, values, max_size=4),
        seed=st.integers(0, 2**53 - 1),
        corpora=st.lists(st.builds(Corpus, words, digests, words, words, st.booleans(), numbers), max_size=3).map(
            tuple
        ),
        generation=st.integers(0, 1000),
        environment=st.dictionaries(words, words, max_size=3),
    ),
    resource_profile=st.builds(ResourceProfile, numbers, numbers, numbers, numbers, st.floats(0, 1)),
)


def artifact() -> Artifact:
    files = (
        FileRecord("adapter_config.json", 345, d("config")),
        FileRecord("adapter_model.safetensors", 12345, d("weights")),
    )
    return Artifact(digest(files), files)


def genome() -> Genome:
    return Genome(
        identity=CompatibilityIdentity("llama", d("base"), d("architecture"), d("tokenizer"), d("schema")),
        interface_version="ecology/adapter/v1",
        capabilities=("extraction", "refusal"),
        lineage=Lineage(
            parents=(d("b"), d("a"), d("b")),
            operator="linear",
            parameters={"weights": [0.3, 0.5, 0.2], "normalise": True},
            seed=7,
            corpora=(Corpus("orders", d("orders"), "Apache-2.0", "train", False, 400),),
            generation=1,
            environment={"ecology": "0.1.0", "numpy": "2.3.0", "threads": "2"},
        ),
        resource_profile=ResourceProfile(921600, 3700000, 16, 60, 1.0),
    )


def policy() -> Policy:
    return Policy(
        "release", 1, "Release", "safety-team", SignaturePolicy(), AdapterLimits(), DataPolicy(), (), (), d("policy")
    )


def verdict(outcome: Outcome = Outcome.WARN) -> GateVerdict:
    finding = Finding(
        rule="SKILL-001",
        title="Orders become JSON",
        metric="orders.schema_valid",
        split="hidden",
        severity="deny",
        outcome=outcome,
        demand=">= 0.9",
        observed=0.97,
        lower=0.94,
        upper=None,
        n=200,
        reason="194 of 200",
        details=("one",),
        controls=("OWASP-LLM03:2025",),
    )
    return GateVerdict(artifact().digest, d("policy"), "full", outcome, (finding,), "2026-01-02T03:04:05Z")


EVIDENCE = (
    Measurement("orders.schema_valid", artifact().digest, Proportion(194, 200), "hidden", "absolute", "", d("items")),
    Measurement("general.correct", artifact().digest, Paired(200, 9, 12), "hidden", "incumbent", d("champion"), d("i")),
    Measurement(
        "resource.latency_ratio", artifact().digest, Samples((1.0, 1.25, 0.5), "ratio"), "none", "base", d("base")
    ),
    Measurement("static.files", artifact().digest, Count(0, ())),
)
FIXED = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), "golden", False)


@settings(max_examples=60, deadline=None)
@given(genomes)
def test_a_genome_comes_back_as_it_went(given_genome: Genome) -> None:
    statement = statements.genome_statement(artifact(), given_genome, "2026-01-02T03:04:05Z")
    assert statements.genome_from_statement(strict.parse(canonical(statement))) == given_genome


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("scope", ["full", "static"])
def test_a_verdict_comes_back_as_it_went(outcome: Outcome, scope: Any) -> None:
    given_verdict = dataclasses.replace(verdict(outcome), scope=scope)
    statement = json.loads(canonical(statements.verdict_statement(artifact(), given_verdict, policy(), EVIDENCE)))
    assert statements.verdict_from_statement(statement) == (given_verdict, EVIDENCE)
    assert statement["predicate"]["verificationResult"] == ("PASSED" if outcome.admits else "FAILED")
    assert statement["predicate"]["verifiedLevels"] == ([] if outcome.admits else ["FAILED"])
    assert statement["predicate"]["policy"]["uri"].endswith("#" + scope)


def test_the_subjects_are_the_folder_and_its_files() -> None:
    statement = statements.genome_statement(artifact(), genome(), "2026-01-02T03:04:05Z")
    assert statements.subject(statement) == artifact().digest
    assert statements.subjects(statement) == {
        "artifact": artifact().digest,
        "adapter_config.json": d("config"),
        "adapter_model.safetensors": d("weights"),
    }


def test_a_file_called_like_the_folders_subject_cannot_take_its_place() -> None:
    files = (FileRecord("artifact", 3, d("evil")),)
    odd = Artifact(digest(files), files)
    statement = statements.verdict_statement(odd, dataclasses.replace(verdict(), subject=odd.digest), policy(), ())
    assert statements.subjects(statement) == {"artifact": odd.digest, "./artifact": d("evil")}


def test_a_report_names_its_files_and_its_run() -> None:
    statement = statements.report_statement({"report.md": d("md"), "report.json": d("json")}, d("run"))
    assert [entry["name"] for entry in statement["subject"]] == ["report.json", "report.md"]
    assert statements.run_of_report(statement) == d("run")
    with pytest.raises(ConfigError):
        statements.report_statement({}, d("run"))
    with pytest.raises(ConfigError):
        statements.report_statement({"a": Digest("md5:1")}, d("run"))


def test_the_wrong_verdict_is_not_written() -> None:
    with pytest.raises(ConfigError, match="is about"):
        statements.verdict_statement(artifact(), dataclasses.replace(verdict(), subject=d("x")), policy(), ())
    with pytest.raises(ConfigError, match="under policy"):
        statements.verdict_statement(artifact(), dataclasses.replace(verdict(), policy=d("x")), policy(), ())


def _set(path: str, value: Any) -> Callable[[Any], None]:
    def change(statement: Any) -> None:
        *parents, last = [int(p) if p.isdigit() else p for p in path.split("/")]
        target = statement["predicate"]
        for key in parents:
            target = target[key]
        if value is ...:
            del target[last]
        else:
            target[last] = value

    return change


DEFINITION = "buildDefinition"
DEPENDENCIES = f"{DEFINITION}/resolvedDependencies"


@pytest.mark.parametrize(
    "change",
    [
        _set(f"{DEFINITION}/buildType", "https://example.com/make"),
        _set(f"{DEFINITION}/externalParameters/extra", 1),
        _set(f"{DEFINITION}/externalParameters/seed", ...),
        _set(f"{DEFINITION}/externalParameters/seed", "7"),
        _set(f"{DEFINITION}/externalParameters/capabilities", "all"),
        _set(f"{DEFINITION}/internalParameters/generation", 1.5),
        _set(f"{DEFINITION}/internalParameters", []),
        _set(DEPENDENCIES, {}),
        _set(f"{DEPENDENCIES}/0", 3),
        _set(f"{DEPENDENCIES}/0/annotations/role", "friend"),
        _set(f"{DEPENDENCIES}/0/annotations/role", ["base"]),
        _set(f"{DEPENDENCIES}/0/digest/sha256", "0" * 64),
        _set(f"{DEPENDENCIES}/0/digest", {"md5": "0"}),
        _set(f"{DEPENDENCIES}/0", ...),
        _set(f"{DEPENDENCIES}/1/annotations/position", 1),
        _set(f"{DEPENDENCIES}/1/annotations/position", True),
        _set(f"{DEPENDENCIES}/1/annotations/position", []),
        _set(f"{DEPENDENCIES}/1", ...),
        _set(f"{DEPENDENCIES}/4/annotations/no_train", ...),
        _set(f"{DEPENDENCIES}/4/annotations/no_train", "no"),
        _set(f"{DEPENDENCIES}/4/annotations/surprise", 1),
    ],
)
def test_a_genome_that_is_not_as_ours_is_refused(change: Callable[[Any], None]) -> None:
    statement = copy.deepcopy(statements.genome_statement(artifact(), genome(), "2026-01-02T03:04:05Z"))
    change(statement)
    with pytest.raises(ClaimRefused) as caught:
        statements.genome_from_statement(statement)
    assert caught.value.reason == "predicate"


@pytest.mark.parametrize(
    "change",
    [
        _set("verificationResult", "FAILED"),
        _set("policy/uri", "https://tiny-ecology.dev/policy/other#full"),
        _set("policy/digest", {}),
        _set("timeVerified", ...),
        lambda statement: statement["predicate"].pop(statements.VERDICT),
        lambda statement: statement["predicate"][statements.VERDICT].update(scope="static"),
        lambda statement: statement["predicate"][statements.VERDICT].update(outcome="deny"),
        lambda statement: statement["predicate"][statements.VERDICT].update(evidence=[{}]),
        lambda statement: statement["predicate"][statements.VERDICT].update(more=1),
    ],
)
def test_a_verdict_whose_halves_disagree_is_refused(change: Callable[[Any], None]) -> None:
    statement = json.loads(canonical(statements.verdict_statement(artifact(), verdict(), policy(), EVIDENCE)))
    change(statement)
    with pytest.raises(ClaimRefused) as caught:
        statements.verdict_from_statement(statement)
    assert caught.value.reason == "predicate"


def test_order_of_dependencies_does_not_matter() -> None:
    statement = statements.genome_statement(artifact(), genome(), "2026-01-02T03:04:05Z")
    statement["predicate"]["buildDefinition"]["resolvedDependencies"].reverse()
    assert statements.genome_from_statement(statement) == genome()


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        (
            "genome",
            statements.genome_statement(artifact(), genome(), "2026-01-02T03:04:05Z", run=d("run"), version="1.2.3"),
        ),
        (
            "verdict",
            statements.verdict_statement(artifact(), verdict(), policy(), EVIDENCE, inputs=["{}"], version="1.2.3"),
        ),
        ("report", statements.report_statement({"report.json": d("json")}, d("run"), version="1.2.3")),
    ],
)
def test_bytes_are_those_of_every_release(name: str, statement: Any, golden: Callable[[str, bytes], None]) -> None:
    readable = json.dumps(plain(statement), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    golden(f"statements/{name}.json", readable)
    golden(f"statements/{name}.dsse.jsonl", FIXED.sign(statement).encode() + b"\n")
