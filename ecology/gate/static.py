"""The first rung: everything that can be said of an adapter without a model, in well under a second.

Eleven questions, each a count of violations with a sentence for each: file, key, what was found, what is allowed.

    static.files        only adapter_config.json, adapter_model.safetensors, claims.jsonl and README.md, plain files all
    static.config       the configuration says nothing but what a LoRA needs               (``configuration``)
    static.tensors      exactly the tensors that follow from configuration and base        (``tensors``)
    static.finite       no NaN, no infinity
    static.limits       size, rank, scale and norm
    static.signature    a trusted key vouches for these bytes and their genome             (``provenance``)
    static.development  the only such key is a development key
    static.base         made for this base
    static.taint        nothing in the lineage that must not be trained on
    static.overlap      nothing in the lineage that it is judged on
    static.anomaly      its spectra look like those of the adapters bred here              (``anomaly``)

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
from collections.abc import Callable, Mapping
from pathlib import Path

from ecology.contracts.artifact import CLAIMS_FILE, CONFIG_FILE, WEIGHTS_FILE, Artifact, Submission
from ecology.contracts.evidence import Count, Evidence, Measurement, Samples
from ecology.contracts.identity import CompatibilityIdentity, Digest, Json
from ecology.contracts.policy import AdapterLimits, DataPolicy, Policy, TrustedIdentity, TrustedKey
from ecology.errors import EcologyError, MalformedArtifact
from ecology.gate import provenance, tensors
from ecology.gate.anomaly import Calibration, anomalies, calibration_of, statistics
from ecology.gate.bounds import check_norms
from ecology.gate.configuration import check_configuration
from ecology.gate.provenance import Vouched, vouched_for
from ecology.gate.tensors import Implied
from ecology.gate.violation import Violation, show
from ecology.gate.weights import Weighed, weigh
from ecology.kernel.leakage import leaks
from ecology.store.files import parse_json
from ecology.store.header import Header, header_of
from ecology.store.snapshot import Entry, Passing, Snapshot, take

SOURCE = "static/v1"
"""Name and version of the checks, as measurements carry it."""
MOST_DETAILS = 20
"""Violations that are spelled out; the count has all of them."""
README_FILE = "README.md"
MAX_CLAIMS_BYTES = 16 * 1024 * 1024
MAX_CONFIG_BYTES = 512 * 1024
MAX_README_BYTES = 256 * 1024
MAX_OTHER_BYTES = 32 * 1024 * 1024
HEADER_BYTES_FIXED, HEADER_BYTES_A_TENSOR = 4096, 1200
"""What a header may have: four tensors of 300 bytes for each tensor of the base."""
TOKENIZER_FILES = frozenset(
    {
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
        *("merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json", "generation_config.json"),
    }
)
"""Trainers leave copies of these beside an adapter. They decide what the model is asked: only the base's own pass."""
_ALLOWED = (CONFIG_FILE, WEIGHTS_FILE, CLAIMS_FILE, README_FILE)
_MOST_BYTES = {CLAIMS_FILE: MAX_CLAIMS_BYTES, CONFIG_FILE: MAX_CONFIG_BYTES, README_FILE: MAX_README_BYTES}
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
    spectral_norms: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """||W||_2, or a lower bound of it, by name of the base's tensor."""
    base_names: frozenset[str] = frozenset()
    """What the base is called, in lower case; empty where that is not known."""
    base_files: Mapping[str, Digest] = dataclasses.field(default_factory=dict)
    """Digests of the base's own tokenizer files and template, by name."""
    calibration: Calibration | None = None
    """What adapters of this base usually look like; None where nobody has measured it."""
    forbidden: Callable[[], frozenset[tuple[str, ...]]] = frozenset
    """Gives the word n-grams of texts that must not be trained on (``kernel.leakage``); asked if there is prose."""
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
    spectral_norms: Mapping[str, float] | None = None,
    development: tuple[TrustedKey, ...] = (),
    corpora: Mapping[Digest, float] | None = None,
    revoked: Mapping[str, str] | None = None,
    base_names: frozenset[str] = frozenset(),
    base_files: Mapping[str, Digest] | None = None,
    forbidden: Callable[[], frozenset[tuple[str, ...]]] = frozenset,
) -> StaticContext:
    """The context under a policy: its bounds and keys, development keys only if it allows them.

    Args:
        policy: The policy.
        identity: Of the base that is served.
        tensor_schema: Name and shape of every tensor of the base.
        weight_norms: ||W||_F by name of the base's tensor, where they are at hand.
        spectral_norms: ||W||_2, or a lower bound of it, likewise.
        development: This installation's development keys.
        corpora: By corpus, the share of its prompts (0 to 1) that are items of a suite.
        revoked: Quarantined digests with the reason.
        base_names: What the base is called, in lower case; none allows any plain name.
        base_files: Digests of the base's own tokenizer files and template, by name.
        forbidden: Gives the word n-grams of texts that must not be trained on.
    """
    return StaticContext(
        identity=identity,
        tensor_schema=tensor_schema,
        weight_norms=weight_norms,
        spectral_norms=spectral_norms or {},
        limits=policy.adapter,
        data=policy.data,
        trusted=policy.signatures.trusted,
        development=development if policy.signatures.allow_development else (),
        corpora={} if corpora is None else corpora,  # to ask whether it is empty would compute it
        revoked=revoked or {},
        base_names=base_names,
        base_files=base_files or {},
        forbidden=forbidden,
        calibration=calibration_of(identity.base_weights),
        identities=policy.signatures.identities,
        threshold=policy.signatures.threshold,
    )


def static_evidence(submission: Submission, context: StaticContext) -> Evidence:
    """Asks the eleven questions.

    Args:
        submission: The folder and the claims; neither is trusted.
        context: The base, the bounds and the keys.

    Returns:
        A count for each question that could be put, in the order of the module's list. Never raises for what a
        candidate brought.
    """
    look = _Look(submission, context)
    questions: Mapping[str, Callable[[], list[Violation] | None]] = {
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
        "static.anomaly": look.anomaly,
    }
    evidence = []
    for metric, ask in questions.items():
        violations = _asked(ask)
        if violations is not None:
            evidence.append(Measurement(metric, submission.artifact.digest, _count(violations), source=SOURCE))
    return tuple(evidence)


def _vouched(artifact: Artifact, submission: Submission, context: StaticContext) -> Vouched:
    return vouched_for(
        artifact,
        submission.claims,
        context.trusted,
        context.development,
        context.identities,
        context.threshold,
    )


def retained_evidence(submission: Submission, context: StaticContext) -> Evidence:
    """What projection kept of the worst module, 0 to 1, as the verified genome records it.

    Args:
        submission: The folder and the claims; neither is trusted.
        context: Whose keys count.

    Returns:
        One measurement; none where nobody trusted vouches for a genome, which a rule about it finds inconclusive.
    """
    try:
        genome = _vouched(submission.artifact, submission, context).genome
    except EcologyError:  # the signature check says what is wrong with the claims
        return ()
    if genome is None:
        return ()
    profile = genome.resource_profile
    least = min([profile.retained_energy, *(profile.retained or {}).values()])
    kept = Samples((float(least),), "of ||dW||^2")
    return (Measurement("resource.retained_energy", submission.artifact.digest, kept, source="genome/v1"),)


def _asked(ask: Callable[[], list[Violation] | None]) -> list[Violation] | None:
    try:
        return ask()
    except EcologyError as error:
        return [_broken(error)]
    except Exception as error:
        return [Violation("unforeseen", "", "", f"{type(error).__name__}: {show(str(error), 200)}", "no error")]


def _count(violations: list[Violation]) -> Count:
    shown = [violation.sentence() for violation in violations[:MOST_DETAILS]]
    if len(violations) > len(shown):
        shown.append(f"and {len(violations) - len(shown)} more")
    return Count(len(violations), tuple(shown))


def _broken(error: EcologyError) -> Violation:
    file, _, key = (Path(error.where).name if error.where else "").partition(": ")
    threat = "config type" if file == CONFIG_FILE else "container" if file == WEIGHTS_FILE else "foreign file"
    return Violation(threat, file, key, show(error.what, 300), error.todo or "a file that follows its format")


class _Look:
    """One look at one folder. What several questions need is read once; an error in reading answers each of them."""

    def __init__(self, submission: Submission, context: StaticContext) -> None:
        self.submission, self.context = submission, context
        self.folder = Path(submission.folder)
        self._small: Mapping[str, bytes] = {}
        self._head: Header | Exception = MalformedArtifact(f"{WEIGHTS_FILE} was not read", where=WEIGHTS_FILE)
        self._weight: Weighed | Exception = self._head

    # 1. What is there?

    @functools.cached_property
    def _snapshot(self) -> Snapshot:
        bounds = {
            CONFIG_FILE: MAX_CONFIG_BYTES,
            README_FILE: MAX_README_BYTES,
            WEIGHTS_FILE: self.context.limits.max_file_bytes,
        }
        return take(self.folder, bounds, MAX_OTHER_BYTES, {WEIGHTS_FILE: self._pass_over_weights})

    def _pass_over_weights(self, passing: Passing, small: Mapping[str, bytes]) -> None:
        """Looks into the weights as they go by. What goes wrong is kept for the question that it answers."""
        self._small = small
        most = HEADER_BYTES_FIXED + HEADER_BYTES_A_TENSOR * len(self.context.tensor_schema)
        try:
            self._head = header_of(passing, passing.size_bytes, self.folder / WEIGHTS_FILE, most)
            meant = self._implied[0] if CONFIG_FILE in small else None
            self._weight = weigh(passing, self._head, meant, self.context.limits)
        except Exception as error:  # every exception inside a gate is a refusal with a reason
            self._weight = error
            if not isinstance(self._head, Header):
                self._head = error

    def files(self) -> list[Violation]:
        found = []
        entries = self._snapshot.entries
        for entry in entries:
            if entry.kind != "file":
                found.append(_foreign(entry, f"a {entry.kind}", "plain files"))
            elif entry.name in TOKENIZER_FILES:
                found += self._of_the_base(entry)
            elif entry.name not in _ALLOWED:
                why = _FOREIGN.get(os.path.splitext(entry.name)[1].lower(), "an adapter does not need it")
                found.append(_foreign(entry, f"a file that does not belong: {why}", ", ".join(_ALLOWED)))
            elif entry.size_bytes > _MOST_BYTES.get(entry.name, entry.size_bytes):
                found.append(_foreign(entry, f"{entry.size_bytes} bytes", f"at most {_MOST_BYTES[entry.name]}"))
            elif entry.name == README_FILE:
                found += self._readme(entry)
        present = {entry.name for entry in entries}
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if name not in present:
                found.append(Violation("foreign file", name, "", "no such file", "both files of an adapter"))
        if not found and self._artifact is not None and self._artifact != self.submission.artifact:
            said = f"{self._artifact.digest} in the folder"
            found.append(Violation("foreign file", "", "", said, f"{self.submission.artifact.digest}, as submitted"))
        return found

    def _of_the_base(self, entry: Entry) -> list[Violation]:
        ours = self.context.base_files.get(entry.name)
        if ours is not None and entry.digest == ours:
            return []
        allowed = f"no such file, or the base's own ({ours})" if ours else "no such file: the base has none"
        return [_foreign(entry, f"a tokenizer or template that is not the base's ({entry.digest})", allowed)]

    def _readme(self, entry: Entry) -> list[Violation]:
        """Prose may stand beside the weights: nobody here reads it, and it is covered by digest and signature."""
        data = self._snapshot.contents.get(README_FILE, b"")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return [_foreign(entry, "bytes that are not UTF-8", "text")]
        bad = next((c for c in text if not (c.isprintable() or c in "\n\r\t")), "")
        return [_foreign(entry, f"the character {show(bad)}", "printable text")] if bad else []

    @property
    def _artifact(self) -> Artifact | None:
        return self._snapshot.artifact

    def _content(self, name: str) -> bytes:
        if name in self._small:  # the weights may be going by
            return self._small[name]
        self._present(name)
        return self._snapshot.contents[name]

    def _present(self, name: str) -> None:
        """That a file was looked into."""
        if name not in self._snapshot.looked_into:
            entry = next((one for one in self._snapshot.entries if one.name == name), None)
            what = "is missing" if entry is None else f"is a {entry.kind} of {entry.size_bytes} bytes and was not read"
            raise MalformedArtifact(f"{name} {what}", where=str(self.folder / name), todo="put a plain file there")

    # 2. What does the configuration say?

    def config(self) -> list[Violation]:
        return check_configuration(self._config, self.context.limits)

    @functools.cached_property
    def _config(self) -> Mapping[str, Json]:
        where = str(self.folder / CONFIG_FILE)
        data = self._content(CONFIG_FILE)
        if data.count(b"[") + data.count(b"{") > 64 + len(data) // 16:  # patterns have brackets too
            raise MalformedArtifact(
                "denser with lists and mappings than a configuration", where=where, todo="as PEFT writes it"
            )
        config = parse_json(data, where)
        if not isinstance(config, dict):
            raise MalformedArtifact("not a JSON object", where=where)
        return config

    @functools.cached_property
    def _implied(self) -> tuple[Implied | None, list[Violation]]:
        """The targeted modules, None where the configuration is refused already; and what is wrong with the targets."""
        if _asked(self.config):
            return None, []
        try:
            return tensors.implied(self._config, self.context.tensor_schema, CONFIG_FILE)
        except MalformedArtifact as error:
            return None, [_broken(error)]

    # 3. What is in the weights?

    @property
    def _header(self) -> Header:
        self._present(WEIGHTS_FILE)
        if isinstance(self._head, Exception):
            raise self._head
        return self._head

    @property
    def _weighed(self) -> Weighed:
        self._present(WEIGHTS_FILE)
        if isinstance(self._weight, Exception):
            raise self._weight
        return self._weight

    def tensors(self) -> list[Violation] | None:
        meant, problems = self._implied
        found = tensors.check_keys(self._header, meant, self.context.tensor_schema, self.context.limits)
        if self._artifact is not None:
            found += provenance.check_profile(self._vouched.genome, self._header, self._artifact)
        found = [*problems, *found]
        return found if found or meant is not None else None

    def finite(self) -> list[Violation] | None:
        if self._too_large:
            return None  # refused by its size; nobody has to read it
        return list(self._weighed.infinite)

    @property
    def _too_large(self) -> int:
        """Size of a weights file that is larger than the policy allows, else 0."""
        sizes = [entry.size_bytes for entry in self._snapshot.entries if entry.name == WEIGHTS_FILE]
        return sizes[0] if sizes and sizes[0] > self.context.limits.max_file_bytes else 0

    def limits(self) -> list[Violation] | None:
        limits, norms = self.context.limits, self.context.weight_norms
        if size := self._too_large:
            allowed = f"at most {limits.max_file_bytes}"
            return [Violation("magnitude", WEIGHTS_FILE, "", f"{size} bytes", allowed)]
        meant, _ = self._implied
        if meant is None:
            return None
        found = tensors.check_sizes(meant.modules, limits)
        if norms is None:
            return found or None
        return [*found, *check_norms(self._weighed.changes, norms, self.context.spectral_norms, limits)]

    # 4. Who vouches for it, and for what?

    @functools.cached_property
    def _vouched(self) -> Vouched:
        artifact = self._artifact
        if artifact is None:  # bytes without a digest cannot have been signed
            return Vouched(None, False, ("a folder that has no digest, so nobody can have signed it",))
        return _vouched(artifact, self.submission, self.context)

    def signature(self) -> list[Violation]:
        return provenance.check_signature(self._vouched, self.submission.artifact.digest, self.context.revoked)

    def development(self) -> list[Violation] | None:
        if self._vouched.genome is None:
            return None
        if not self._vouched.development:
            return []
        return [Violation("signature", CLAIMS_FILE, "", "a development key alone", "a key that the policy names")]

    def base(self) -> list[Violation] | None:
        metadata: Mapping[str, str] = {}
        config: Mapping[str, Json] = {}
        with contextlib.suppress(MalformedArtifact):  # a file that cannot be read is refused for that
            metadata = self._header.metadata
        with contextlib.suppress(MalformedArtifact):
            config = self._config
        return provenance.check_base(
            self._vouched.genome, metadata, config, self.context.identity, self.context.base_names
        )

    def taint(self) -> list[Violation] | None:
        found = self._marked()
        return found or provenance.check_taint(self._vouched.genome, self.context.data)

    def _marked(self) -> list[Violation]:
        """What its own prose gives away: forbidden text beside the weights, whatever its genome says."""
        text = self._snapshot.contents.get(README_FILE, b"").decode("utf-8", "replace")
        if not text:
            return []
        allowed = "no text that must not be trained on"
        found = leaks([text], self.context.forbidden(), self.context.data.canaries)
        return [Violation("data", README_FILE, "", show(why, 200), allowed) for why in found]

    def overlap(self) -> list[Violation] | None:
        return provenance.check_overlap(self._vouched.genome, self.context.corpora, self.context.data)

    # 5. Does it look like the others?

    def anomaly(self) -> list[Violation] | None:
        calibration, norms = self.context.calibration, self.context.weight_norms
        if calibration is None or norms is None or calibration.base_weights != self.context.identity.base_weights:
            return None
        said = statistics(self._weighed.changes, norms)
        return anomalies(said, calibration) if said else None


def _foreign(entry: Entry, found: str, allowed: str) -> Violation:
    return Violation("foreign file", show(entry.name, 200), "", found, allowed)
