"""Adapters for gates to judge: a benign one of a toy base, and the making of hostile ones from it.

A case starts from the benign, signed folder, spoils one thing and signs again, so that nothing but the one thing can be
what is refused. The attacks themselves stand in ``attacks``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecology.contracts.artifact import CLAIMS_FILE, WEIGHTS_FILE, Artifact, Corpus, Submission
from ecology.contracts.genome import INTERFACE_VERSION, Genome, Lineage, ResourceProfile
from ecology.contracts.identity import CompatibilityIdentity
from ecology.contracts.policy import AdapterLimits, DataPolicy
from ecology.errors import MalformedArtifact
from ecology.gate.context import StaticContext
from ecology.kernel.canonical import digest
from ecology.signer.keys import LocalSigner
from ecology.signer.statements import genome_statement
from ecology.store.adapters import describe, write_adapter
from ecology.store.folders import claims_beside
from ecology.store.header import read_header
from ecology.store.mapped import load_tensor

MAX_BYTES = 1 << 28
"""A larger folder has no name."""
NOW = "2026-01-01T00:00:00Z"
RANK, HIDDEN, INNER, VOCABULARY, LAYERS = 2, 8, 12, 16, 2
TARGETS = ("self_attn.q_proj", "self_attn.v_proj")
Q = "base_model.model.model.layers.0.self_attn.q_proj"

_LAYER = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.v_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
}
SCHEMA: Mapping[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
    "model.norm.weight": (HIDDEN,),
    "lm_head.weight": (VOCABULARY, HIDDEN),
    **{f"model.layers.{i}.{name}.weight": shape for i in range(LAYERS) for name, shape in _LAYER.items()},
}
"""Tensors of the toy base: a Llama of two layers."""
PARAMETERS = LAYERS * RANK * (2 * HIDDEN + HIDDEN + HIDDEN // 2)
"""Of the benign adapter."""
IDENTITY = CompatibilityIdentity(
    "llama", digest("weights"), digest("architecture"), digest("tokenizer"), digest("schema")
)
CORPUS = Corpus("orders-train", digest("orders-train"), "Apache-2.0", "train", False, 100)

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
"""Name to dtype, shape and bytes."""


def _as_it_is(folder: Path) -> None:
    del folder


def _same_genome(genome: Genome) -> Genome:
    return genome


def _same_claims(claims: tuple[str, ...], signer: LocalSigner, artifact: Artifact, genome: Genome) -> tuple[str, ...]:
    del signer, artifact, genome
    return claims


def _same_context(context: StaticContext, artifact: Artifact) -> StaticContext:
    del artifact
    return context


@dataclasses.dataclass(frozen=True, slots=True)
class Hostile:
    """One attack on a benign folder."""

    name: str
    kind: str
    """Class of the attack."""
    metric: str
    """The count that has to be above 0."""
    spoil: Callable[[Path], None] = _as_it_is
    """Before the folder is signed."""
    genome: Callable[[Genome], Genome] = _same_genome
    """What the birth certificate says."""
    claims: Callable[[tuple[str, ...], LocalSigner, Artifact, Genome], tuple[str, ...]] = _same_claims
    """After the folder was signed."""
    context: Callable[[StaticContext, Artifact], StaticContext] = _same_context
    """What the gate knows."""


def submit(case: Hostile | None, folder: Path, home: Path) -> tuple[Submission, StaticContext]:
    """Makes the folder of a case and what a gate is given with it.

    Args:
        case: The attack; None for the benign folder.
        folder: Is made; must not exist.
        home: Holds the development key that signs; may be shared by cases.
    """
    case = case or Hostile("benign", "benign", "")
    artifact = benign(folder)
    case.spoil(folder)
    with contextlib.suppress(MalformedArtifact):  # a link has no digest; the gate must find it all the same
        artifact = describe(folder, MAX_BYTES)
    signer = LocalSigner.open(home)
    born = case.genome(genome_of(artifact))
    claims = case.claims((signer.sign(genome_statement(artifact, born, NOW)),), signer, artifact, born)
    (folder / CLAIMS_FILE).write_text("".join(line + "\n" for line in claims), encoding="utf-8")
    context = StaticContext(
        identity=IDENTITY,
        tensor_schema=SCHEMA,
        weight_norms=dict.fromkeys(SCHEMA, 10.0),
        limits=AdapterLimits(),
        data=DataPolicy(licences=("Apache-2.0",)),
        trusted=(),
        development=(signer.public_key,),
        corpora={CORPUS.digest: 0.0},
        revoked={},
        base_names=frozenset({"toy"}),
    )
    read, unread = claims_beside(folder)
    return Submission(case.name, str(folder), artifact, read, unread), case.context(context, artifact)


def benign(folder: Path, seed: int = 0) -> Artifact:
    """An adapter of the toy base that a gate accepts once it is signed."""
    rng = np.random.Generator(np.random.PCG64(seed))
    modules = {}
    for name, shape in SCHEMA.items():
        if name.removesuffix(".weight").endswith(TARGETS):
            b, a = rng.normal(size=(shape[0], RANK)), rng.normal(size=(RANK, shape[1]))
            modules[name.removesuffix(".weight")] = (0.1 * b, a)
    return write_adapter(folder, modules, "toy", IDENTITY.base_weights)


def genome_of(artifact: Artifact, folder: Path | None = None) -> Genome:
    """A birth certificate of the toy base for these bytes.

    Args:
        artifact: The bytes.
        folder: Where they are, to count parameters; None claims those of the benign adapter.
    """
    lineage = Lineage((), "finetune", {"steps": 1}, 0, (CORPUS,), 0, {"python": "3"})
    header = None if folder is None else read_header(folder / WEIGHTS_FILE)
    parameters = sum(math.prod(info.shape) for info in header.tensors.values()) if header else PARAMETERS
    profile = ResourceProfile(parameters, artifact.size_bytes, RANK, 2 * LAYERS, 1.0)
    return Genome(IDENTITY, INTERFACE_VERSION, ("extraction",), lineage, profile)


def read_tensors(folder: Path) -> Tensors:
    """The tensors of a well-formed folder as bytes."""
    path = folder / WEIGHTS_FILE
    header = read_header(path)
    return {
        name: (info.dtype, info.shape, load_tensor(path, header, name).tobytes())
        for name, info in header.tensors.items()
    }


def write_tensors(folder: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a weights file as the letter of the format has it, whatever the tensors are."""
    table: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    body = b""
    for name, (dtype, shape, data) in tensors.items():
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    write_container(folder, json.dumps(table).encode(), body)


def write_container(folder: Path, head: bytes, body: bytes) -> None:
    """Writes a weights file from a header's text and the tensors' bytes."""
    (folder / WEIGHTS_FILE).write_bytes(len(head).to_bytes(8, "little") + head + body)
