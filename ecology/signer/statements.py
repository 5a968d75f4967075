"""Contract values as in-toto statements, and back.

A statement says something (its predicate) about bytes (its subjects). The subjects of our genomes and verdicts are
every file of the artifact, so that any in-toto tool can check a downloaded file, and one more named ``artifact`` whose
digest is that of the artifact: the SHA-256 of the canonical JSON of its file list. This one binds the whole folder: no
file may be added, left out or renamed. It is the one our own readers compare; the names of the others are for people.

    genome    https://slsa.dev/provenance/v1              buildType https://tiny-ecology.dev/breed/v1
    verdict   https://slsa.dev/verification_summary/v1    extension https://tiny-ecology.dev/verdict/v1
    report    https://tiny-ecology.dev/report/v1

**Genome.** What a person chose is in ``externalParameters`` (operator, its options, seed, capabilities, interface
version), what the runner added in ``internalParameters`` (environment, generation, resource profile), and what went in
from outside in ``resolvedDependencies``, each with its digest and a ``role``: one ``base`` with the whole compatibility
identity, the ``parent`` adapters and the ``corpus`` files of the whole ancestry. SLSA calls that collection unordered,
so parents carry their position. Law: ``genome_from_statement(genome_statement(a, g, t)) == g`` for every genome whose
parameters are plain JSON (a tuple comes back as a list).

**Verdict.** WAIVED and WARN admit, so they are PASSED; INCONCLUSIVE does not, so it is FAILED. SLSA levels were not
evaluated: none are listed, and a failure says FAILED there too, as the specification asks. The policy's URI ends in the
scope, so that a generic reader who expects ``...#full`` is not satisfied by a verdict of the static rules alone.
The evidence stands in the verdict, so that a changed policy can be replayed on it without a model.

Digests are written ``{"sha256": "<hex>"}``, as in-toto does. Everything that reads refuses what it does not know.

Sources: in-toto Attestation v1 (statement.md, resource_descriptor.md); SLSA 1.1 provenance.md, verification_summary.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ecology
from ecology.contracts.artifact import Artifact
from ecology.contracts.evidence import Evidence
from ecology.contracts.genome import Genome
from ecology.contracts.identity import Digest
from ecology.contracts.policy import GateVerdict, Policy
from ecology.contracts.run import REPORT_SCHEMA
from ecology.errors import ConfigError
from ecology.kernel.canonical import digest, digest_bytes, is_digest, plain
from ecology.signer.intoto import (
    Object,
    Statement,
    artifact_subjects,
    digest_set,
    object_at,
    only,
    predicate,
    sha256,
    statement,
    structured,
    subject,
    subject_entry,
    subjects,
)
from ecology.signer.refusal import ClaimRefused

__all__ = [
    "BREED",
    "PROVENANCE",
    "REPORT",
    "SUMMARY",
    "VERDICT",
    "genome_from_statement",
    "genome_statement",
    "report_statement",
    "run_of_report",
    "subject",
    "subjects",
    "verdict_from_statement",
    "verdict_statement",
]

SITE = "https://tiny-ecology.dev"
PROVENANCE = "https://slsa.dev/provenance/v1"
SUMMARY = "https://slsa.dev/verification_summary/v1"
REPORT = f"{SITE}/report/v1"
BREED = f"{SITE}/breed/v1"
RUNNER = f"{SITE}/runner/v1"
GATE = f"{SITE}/gate/v1"
VERDICT = f"{SITE}/verdict/v1"


def genome_statement(
    artifact: Artifact, genome: Genome, started_at: str, *, run: str = "", version: str = ecology.__version__
) -> Statement:
    """The birth certificate of an artifact as SLSA Provenance v1.

    Args:
        artifact: What was born.
        genome: How.
        started_at: RFC 3339 instant, UTC.
        run: Digest of the plan of the run it was bred in; empty outside a run, then the recipe's own digest is the
            invocation.
        version: Of the runner.

    Raises:
        ConfigError: A digest in the genome is not one.
    """
    lineage, identity = genome.lineage, genome.identity
    base = _resource("base", identity.base_weights, identity.base_family, {"identity": plain(identity)})
    parents = [_resource("parent", parent, "", {"position": i}) for i, parent in enumerate(lineage.parents)]
    corpora = [
        _resource(
            "corpus", c.digest, c.id, {"licence": c.licence, "split": c.split, "no_train": c.no_train, "rows": c.rows}
        )
        for c in lineage.corpora
    ]
    body: Statement = {
        "buildDefinition": {
            "buildType": BREED,
            "externalParameters": {
                "operator": lineage.operator,
                "parameters": plain(lineage.parameters),
                "seed": lineage.seed,
                "capabilities": list(genome.capabilities),
                "interface_version": genome.interface_version,
            },
            "internalParameters": {
                "environment": plain(lineage.environment),
                "generation": lineage.generation,
                "resource_profile": plain(genome.resource_profile),
                **({} if lineage.learned is None else {"learned": plain(lineage.learned)}),
            },
            "resolvedDependencies": [base, *parents, *corpora],
        },
        "runDetails": {
            "builder": {"id": RUNNER, "version": {"tiny-ecology": version}},
            "metadata": {"invocationId": run or digest(genome), "startedOn": started_at},
        },
    }
    return statement(artifact_subjects(artifact), PROVENANCE, body)


def genome_from_statement(statement_: Object) -> Genome:
    """The genome that a provenance statement of ours describes.

    Raises:
        ClaimRefused: ``predicate``: it is not one of ours, or lacks, doubles or adds something.
    """
    definition = object_at(predicate(statement_, PROVENANCE), "buildDefinition")
    if definition.get("buildType") != BREED:
        raise ClaimRefused("predicate", f"not a {BREED}", where="buildDefinition.buildType")
    external = only(
        object_at(definition, "externalParameters"),
        ("operator", "parameters", "seed", "capabilities", "interface_version"),
        "externalParameters",
    )
    internal = only(
        object_at(definition, "internalParameters"),
        ("environment", "generation", "resource_profile"),
        "internalParameters",
        may=("learned",),
    )
    roles: dict[str, list[tuple[Digest, Object, str]]] = {"base": [], "parent": [], "corpus": []}
    entries = definition.get("resolvedDependencies")
    if not isinstance(entries, list):
        raise ClaimRefused("predicate", "expected a list", where="resolvedDependencies")
    for i, entry in enumerate(entries):
        where = f"resolvedDependencies[{i}]"
        if not isinstance(entry, Mapping):
            raise ClaimRefused("predicate", "not an object", where=where)
        annotations = object_at(entry, "annotations", where)
        role = annotations.get("role")
        if not isinstance(role, str) or role not in roles:
            raise ClaimRefused("predicate", f"role {role!r:.40} is none of {', '.join(roles)}", where=where)
        roles[role].append((sha256(entry, where), annotations, where))
    if len(roles["base"]) != 1:
        raise ClaimRefused("predicate", f"{len(roles['base'])} bases, and there is one", where="resolvedDependencies")
    base, base_notes, where = roles["base"][0]
    identity = object_at(base_notes, "identity", where)
    if identity.get("base_weights") != base:
        raise ClaimRefused("predicate", "the base's digest and its identity disagree", where=where)
    genome: Genome = structured(
        Genome,
        {
            "identity": identity,
            "interface_version": external["interface_version"],
            "capabilities": external["capabilities"],
            "lineage": {
                "parents": _in_order(roles["parent"]),
                "operator": external["operator"],
                "parameters": external["parameters"],
                "seed": external["seed"],
                "corpora": [
                    {**{k: v for k, v in notes.items() if k != "role"}, "digest": found}
                    for found, notes, _ in roles["corpus"]
                ],
                "generation": internal["generation"],
                "environment": internal["environment"],
                **({"learned": internal["learned"]} if "learned" in internal else {}),
            },
            "resource_profile": internal["resource_profile"],
        },
    )
    return genome


def verdict_statement(
    artifact: Artifact,
    verdict: GateVerdict,
    policy: Policy,
    evidence: Evidence,
    *,
    inputs: Sequence[str] = (),
    version: str = ecology.__version__,
) -> Statement:
    """A verdict as a SLSA Verification Summary v1, with our findings and evidence in an extension field.

    Args:
        artifact: What was judged.
        verdict: The judgement; ``decided_at`` becomes ``timeVerified``.
        policy: What it was judged by.
        evidence: What was seen.
        inputs: Envelopes that were used, such as the genome's; all of them or none.
        version: Of the gate.

    Raises:
        ConfigError: The verdict is about another artifact or was made under another policy.
    """
    if verdict.subject != artifact.digest:
        raise ConfigError(f"the verdict is about {verdict.subject}", where=artifact.digest)
    if verdict.policy != policy.digest:
        raise ConfigError(f"the verdict was made under policy {verdict.policy}", where=policy.digest)
    uri = f"{SITE}/artifact/{artifact.digest}"
    body: Statement = {
        "verifier": {"id": GATE, "version": {"tiny-ecology": version}},
        "timeVerified": verdict.decided_at,
        "resourceUri": uri,
        "policy": {
            "uri": _policy_uri(verdict),
            "digest": digest_set(policy.digest),
            "name": f"{policy.id} v{policy.version}",
        },
        "inputAttestations": [
            {"uri": f"{uri}/claims/{d}", "digest": digest_set(d)}
            for d in (digest_bytes(i.encode("utf-8")) for i in inputs)
        ],
        "verificationResult": "PASSED" if verdict.outcome.admits else "FAILED",
        "verifiedLevels": [] if verdict.outcome.admits else ["FAILED"],
        "slsaVersion": "1.1",
        VERDICT: {
            "scope": verdict.scope,
            "outcome": verdict.outcome.value,
            "findings": plain(verdict.findings),
            "evidence": plain(evidence),
        },
    }
    return statement(artifact_subjects(artifact), SUMMARY, body)


def verdict_from_statement(statement_: Object) -> tuple[GateVerdict, Evidence]:
    """The verdict and the evidence that a verification summary of ours holds.

    Raises:
        ClaimRefused: ``predicate``: it is not one of ours, or its two halves disagree.
    """
    body = predicate(statement_, SUMMARY)
    own = only(object_at(body, VERDICT), ("scope", "outcome", "findings", "evidence"), VERDICT)
    verdict: GateVerdict = structured(
        GateVerdict,
        {
            "subject": subject(statement_),
            "policy": sha256(object_at(body, "policy"), "policy"),
            "decided_at": body.get("timeVerified"),
            **{key: own[key] for key in ("scope", "outcome", "findings")},
        },
    )
    if body.get("verificationResult") != ("PASSED" if verdict.outcome.admits else "FAILED"):
        raise ClaimRefused("predicate", "the result and the outcome disagree", where="verificationResult")
    if object_at(body, "policy").get("uri") != _policy_uri(verdict):
        raise ClaimRefused("predicate", "the policy's URI and the scope disagree", where="policy.uri")
    evidence: Evidence = structured(Evidence, own["evidence"])
    return verdict, evidence


def report_statement(files: Mapping[str, Digest], run: Digest, *, version: str = ecology.__version__) -> Statement:
    """What vouches for the files of a report.

    Args:
        files: POSIX path inside the report's folder -> digest of the file's bytes; what is left out is not vouched for.
        run: Digest of the run's plan.
        version: Of the writer.

    Raises:
        ConfigError: There are no files, or a digest is not one.
    """
    if not files:
        raise ConfigError("a report without files", where=run)
    if not is_digest(run):
        raise ConfigError(f"not a digest: {run!r:.80}", where="run")
    entries = [subject_entry(name, files[name]) for name in sorted(files)]
    writer = {"id": RUNNER, "version": {"tiny-ecology": version}}
    return statement(entries, REPORT, {"run": run, "schema": REPORT_SCHEMA, "writer": writer})


def run_of_report(statement_: Object) -> Digest:
    """Digest of the plan of the run that a report statement names.

    Raises:
        ClaimRefused: ``predicate``: it is not a report statement.
    """
    run = predicate(statement_, REPORT).get("run")
    if not isinstance(run, str) or not is_digest(run):
        raise ClaimRefused("predicate", "not a digest", where="run")
    return Digest(run)


def _policy_uri(verdict: GateVerdict) -> str:
    return f"{SITE}/policy/{verdict.policy}#{verdict.scope}"


def _resource(role: str, found: str, name: str, annotations: Statement) -> Statement:
    named = {"name": name} if name else {}
    extra = {"id": name} if role == "corpus" else {}
    uri = f"{SITE}/{'artifact' if role == 'parent' else role}/{found}"
    return {"uri": uri, "digest": digest_set(found), "annotations": {"role": role, **extra, **annotations}, **named}


def _in_order(parents: Sequence[tuple[Digest, Object, str]]) -> list[Digest]:
    by_position: dict[int, Digest] = {}
    for found, notes, where in parents:
        position = notes.get("position")
        if type(position) is not int or not 0 <= position < len(parents) or position in by_position:
            raise ClaimRefused("predicate", f"position {position!r:.20} is not one of 0, 1, ... once each", where=where)
        by_position[position] = found
    return [by_position[i] for i in range(len(parents))]
