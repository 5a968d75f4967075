"""The first rung: everything that can be said of an adapter without a model, in well under a second.

Ten questions, each a count of violations with a sentence for each: file, key, what was found, what is allowed.

    static.files        only adapter_config.json, adapter_model.safetensors and claims.jsonl, plain files all
    static.config       the configuration says nothing but what a LoRA needs               (``configuration``)
    static.tensors      exactly the tensors that follow from configuration and base        (``tensors``)
    static.finite       no NaN, no infinity
    static.limits       size, rank, scale and norm
    static.signature    a trusted key vouches for these bytes and their genome             (``provenance``)
    static.development  the only such key is a development key
    static.base         made for this base
    static.taint        nothing in the lineage that must not be trained on
    static.overlap      nothing in the lineage that it is judged on

Nothing in the folder is trusted, so whatever goes wrong inside a check, foreseen or not, is a violation with a typed
reason. A question that cannot be put (no verified genome to ask about data, no norms of the base at hand) has no
measurement, which is INCONCLUSIVE and admits to nothing.

Verify before parse, parse before load: this module imports neither torch nor peft.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from ecology.contracts.artifact import CLAIMS_FILE, CONFIG_FILE, WEIGHTS_FILE, Artifact, Submission
from ecology.contracts.evidence import Count, Evidence, Measurement
from ecology.contracts.identity import CompatibilityIdentity, Digest, Json
from ecology.contracts.policy import AdapterLimits, DataPolicy, Policy, TrustedIdentity, TrustedKey
from ecology.errors import EcologyError, MalformedArtifact
from ecology.gate import provenance, tensors
from ecology.gate.configuration import check_configuration
from ecology.gate.provenance import Vouched, vouched_for
from ecology.gate.tensors import Module
from ecology.store.adapters import describe, read_config
from ecology.store.header import Header, read_header

SOURCE = "static/v1"
"""Name and version of the checks, as measurements carry it."""
MOST_DETAILS = 20
"""Violations that are spelled out; the count has all of them."""
MAX_CLAIMS_BYTES = 16 * 1024 * 1024
_ALLOWED = (CONFIG_FILE, WEIGHTS_FILE, CLAIMS_FILE)
_FOREIGN = {
    ".bin": "a pickle runs code when it is loaded",
    ".pt": "a pickle runs code when it is loaded",
    ".pth": "a pickle runs code when it is loaded",
    ".pkl": "a pickle runs code when it is loaded",
    ".ckpt": "a pickle runs code when it is loaded",
    ".py": "a script is run by loaders that trust remote code",
    ".jinja": "a template decides what the model is asked",
}


@dataclasses.dataclass(frozen=True, slots=True)
class StaticContext:
    """What the gate knows before it looks: the base, the policy's bounds, the keys, the data."""

    identity: CompatibilityIdentity
    """Of the base that is served."""
    tensor_schema: Mapping[str, tuple[int, ...]]
    """Name and shape of every tensor of the base."""
    weight_norms: Mapping[str, float] | None
    """||W||_F by name of the base's tensor; None where they are not at hand."""
    limits: AdapterLimits
    data: DataPolicy
    trusted: tuple[TrustedKey, ...]
    """Keys that the policy names."""
    development: tuple[TrustedKey, ...]
    """Keys made on first use; empty where the policy does not allow them."""
    corpora: Mapping[Digest, float]
    """By corpus, the share of its prompts (0 to 1) that are items of a suite."""
    revoked: Mapping[str, str]
    """Quarantined digests with the reason."""
    identities: tuple[TrustedIdentity, ...] = ()
    """Signers without a key that the policy names."""
    threshold: int = 1
    """How many distinct signers must vouch."""


def context_for(
    policy: Policy,
    identity: CompatibilityIdentity,
    tensor_schema: Mapping[str, tuple[int, ...]],
    *,
    weight_norms: Mapping[str, float] | None = None,
    development: tuple[TrustedKey, ...] = (),
    corpora: Mapping[Digest, float] | None = None,
    revoked: Mapping[str, str] | None = None,
) -> StaticContext:
    """The context under a policy: its bounds and keys, development keys only if it allows them.

    Args:
        policy: The policy.
        identity: Of the base that is served.
        tensor_schema: Name and shape of every tensor of the base.
        weight_norms: ||W||_F by name of the base's tensor, where they are at hand.
        development: This installation's development keys.
        corpora: By corpus, the share of its prompts (0 to 1) that are items of a suite.
        revoked: Quarantined digests with the reason.
    """
    return StaticContext(
        identity=identity,
        tensor_schema=tensor_schema,
        weight_norms=weight_norms,
        limits=policy.adapter,
        data=policy.data,
        trusted=policy.signatures.trusted,
        development=development if policy.signatures.allow_development else (),
        corpora=corpora or {},
        revoked=revoked or {},
        identities=policy.signatures.identities,
        threshold=policy.signatures.threshold,
    )


def static_evidence(submission: Submission, context: StaticContext) -> Evidence:
    """Asks the ten questions.

    Args:
        submission: The folder and the claims; neither is trusted.
        context: The base, the bounds and the keys.

    Returns:
        A count for each question that could be put, in the order of the module's list. Never raises for what a
        candidate brought.
    """
    look = _Look(submission, context)
    questions: Mapping[str, Callable[[], list[str] | None]] = {
        "static.files": look.files,
        "static.config": look.config,
        "static.tensors": look.tensors,
        "static.finite": look.finite,
        "static.limits": look.limits,
        "static.signature": look.signature,
        "static.development": look.development,
        "static.base": look.base,
        "static.taint": look.taint,
        "static.overlap": look.overlap,
    }
    evidence = []
    for metric, ask in questions.items():
        violations = _asked(ask)
        if violations is not None:
            evidence.append(Measurement(metric, submission.artifact.digest, _count(violations), source=SOURCE))
    return tuple(evidence)


def _asked(ask: Callable[[], list[str] | None]) -> list[str] | None:
    try:
        return ask()
    except EcologyError as error:
        return [_sentence(error)]
    except Exception as error:
        return [f"{type(error).__name__} while checking: {ascii(str(error))[:200]}"]


def _count(violations: list[str]) -> Count:
    shown = violations[:MOST_DETAILS]
    if len(violations) > len(shown):
        shown.append(f"and {len(violations) - len(shown)} more")
    return Count(len(violations), tuple(shown))


def _sentence(error: EcologyError) -> str:
    name = Path(error.where).name if error.where else ""
    return f"{name}: {error.what}" if name and name not in error.what else error.what


class _Look:
    """One look at one folder. What several questions need is read once; an error in reading answers each of them."""

    def __init__(self, submission: Submission, context: StaticContext) -> None:
        self.submission, self.context = submission, context
        self.folder = Path(submission.folder)

    # 1. What is there?

    def files(self) -> list[str]:
        found = []
        with os.scandir(self.folder) as entries:
            names = sorted(entries, key=lambda entry: entry.name)
        for entry in names:
            shown = ascii(entry.name)[:200]
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                found.append(f"{shown} is a link, allowed: plain files")
            elif stat.S_ISDIR(mode):
                found.append(f"{shown} is a folder, allowed: plain files")
            elif not stat.S_ISREG(mode):
                found.append(f"{shown} is not a regular file")
            elif entry.name not in _ALLOWED:
                why = _FOREIGN.get(os.path.splitext(entry.name)[1].lower(), "an adapter does not need it")
                found.append(f"{shown} does not belong to an adapter: {why}; allowed: {', '.join(_ALLOWED)}")
            elif entry.name == CLAIMS_FILE and entry.stat(follow_symlinks=False).st_size > MAX_CLAIMS_BYTES:
                found.append(f"{CLAIMS_FILE} is larger than {MAX_CLAIMS_BYTES} bytes")
        present = {entry.name for entry in names}
        found += [f"{name} is missing" for name in (CONFIG_FILE, WEIGHTS_FILE) if name not in present]
        if not found and self._artifact != self.submission.artifact:
            found.append(f"the folder holds {self._artifact.digest}, submitted was {self.submission.artifact.digest}")
        return found

    @functools.cached_property
    def _artifact(self) -> Artifact:
        return describe(self.folder)

    # 2. What does the configuration say?

    def config(self) -> list[str]:
        return check_configuration(self._config, self.context.limits)

    @functools.cached_property
    def _config(self) -> Mapping[str, Json]:
        return read_config(self.folder)

    @functools.cached_property
    def _implied(self) -> tuple[tuple[Module, ...] | None, list[str]]:
        """The targeted modules, None where the configuration is refused already; and what is wrong with the targets."""
        if _asked(self.config):
            return None, []
        try:
            return tensors.implied_modules(self._config, self.context.tensor_schema, CONFIG_FILE)
        except MalformedArtifact as error:
            return None, [_sentence(error)]

    # 3. What is in the weights?

    @functools.cached_property
    def _weights(self) -> Path:
        return self.folder / WEIGHTS_FILE

    @property
    def _size(self) -> int:
        return self._weights.lstat().st_size

    @functools.cached_property
    def _header(self) -> Header:
        return read_header(self._weights)

    def tensors(self) -> list[str] | None:
        modules, problems = self._implied
        found = tensors.check_keys(self._header, modules, self.context.tensor_schema, self.context.limits)
        found = [*problems, *found]
        return found if found or modules is not None else None

    def finite(self) -> list[str] | None:
        if self._size > self.context.limits.max_file_bytes:
            return None  # refused by its size; nobody has to read it
        return tensors.check_finite(self._weights, self._header)

    def limits(self) -> list[str] | None:
        limits, norms = self.context.limits, self.context.weight_norms
        if self._size > limits.max_file_bytes:
            return [f"{WEIGHTS_FILE} has {self._size} bytes, allowed: at most {limits.max_file_bytes}"]
        modules, _ = self._implied
        if modules is None:
            return None
        found = tensors.check_sizes(modules, limits)
        if norms is None:
            return found or None
        return [*found, *tensors.check_norms(self._weights, self._header, modules, norms, limits)]

    # 4. Who vouches for it, and for what?

    @functools.cached_property
    def _vouched(self) -> Vouched:
        try:
            artifact = self._artifact
        except MalformedArtifact as error:  # bytes without a digest cannot have been signed
            return Vouched(None, False, (_sentence(error),))
        context = self.context
        return vouched_for(
            artifact,
            self.submission.claims,
            context.trusted,
            context.development,
            context.identities,
            context.threshold,
        )

    def signature(self) -> list[str]:
        return provenance.check_signature(self._vouched, self.submission.artifact.digest, self.context.revoked)

    def development(self) -> list[str] | None:
        if self._vouched.genome is None:
            return None
        return ["only a development key vouches for the genome"] if self._vouched.development else []

    def base(self) -> list[str] | None:
        metadata: Mapping[str, str] = {}
        revision = None
        with contextlib.suppress(MalformedArtifact):  # a file that cannot be read is refused for that
            metadata = self._header.metadata
        with contextlib.suppress(MalformedArtifact):
            revision = self._config.get("revision")
        revision = revision if isinstance(revision, str) else None
        return provenance.check_base(self._vouched.genome, metadata, revision, self.context.identity)

    def taint(self) -> list[str] | None:
        return provenance.check_taint(self._vouched.genome, self.context.data)

    def overlap(self) -> list[str] | None:
        return provenance.check_overlap(self._vouched.genome, self.context.corpora, self.context.data)
