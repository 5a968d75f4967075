"""One look into an adapter's folder, and what can be asked of what was seen.

The folder is read once, through ``store.snapshot``; the weights are looked into as they go by. A question answers with
violations, with none, or with None where it cannot be put.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ecology.contracts.artifact import CLAIMS_FILE, CONFIG_FILE, WEIGHTS_FILE, Artifact, Submission
from ecology.contracts.identity import Json
from ecology.errors import EcologyError, MalformedArtifact, ReaderFailed
from ecology.gate import provenance, tensors
from ecology.gate.anomaly import anomalies, statistics
from ecology.gate.bounds import check_norms
from ecology.gate.configuration import check_configuration
from ecology.gate.context import StaticContext
from ecology.gate.files import MAX_CONFIG_BYTES, MAX_OTHER_BYTES, MAX_README_BYTES, README_FILE, check_files
from ecology.gate.provenance import Vouched, vouched_for
from ecology.gate.tensors import Implied
from ecology.gate.violation import Violation, show
from ecology.gate.weighing import Weighed, weigh
from ecology.kernel.leakage import leaks
from ecology.store.files import parse_json
from ecology.store.header import Header, header_of
from ecology.store.snapshot import Passing, Snapshot, take

HEADER_BYTES_FIXED, HEADER_BYTES_A_TENSOR = 4096, 1200
"""What a header may have: four tensors of 300 bytes for each tensor of the base."""


class Look:
    """One look at one folder. What several questions need is read once; an error in reading answers each of them.

    Args:
        submission: The folder and the claims; neither is trusted.
        context: The base, the bounds and the keys.
    """

    def __init__(self, submission: Submission, context: StaticContext) -> None:
        """Reads nothing yet."""
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

    def unsettled(self, errors: Sequence[Exception]) -> str:
        """Why the answers may be others when it is asked again; empty where they follow from the bytes alone.

        Args:
            errors: What went wrong in finding them.
        """
        for error in errors:
            if isinstance(error, _PASSING) or isinstance(error.__cause__, _PASSING):
                return f"{type(error).__name__}: {error}"
        named = self.submission.artifact
        if named.files and "_snapshot" in self.__dict__:  # it has a name, and was read
            kinds = {entry.kind for entry in self._snapshot.entries}
            other = self._artifact is not None and self._artifact != named
            if other or kinds & {"link", "device"}:  # none was there when it was named
                return "the folder changed while it was judged; judge one that nobody writes to"
        return ""

    def files(self) -> list[Violation]:
        """What does not belong into the folder, or is missing."""
        found = check_files(self._snapshot, self.context.base_files)
        if not found and self._artifact is not None and self._artifact != self.submission.artifact:
            said = f"{self._artifact.digest} in the folder"
            found.append(Violation("foreign file", "", "", said, f"{self.submission.artifact.digest}, as submitted"))
        return found

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
        """What the configuration says beyond what a LoRA needs."""
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
        if asked(self.config):
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
        """Tensors that do not follow from configuration and base; None where nothing follows."""
        meant, problems = self._implied
        found = tensors.check_keys(self._header, meant, self.context.tensor_schema, self.context.limits)
        if self._artifact is not None:
            found += provenance.check_profile(self._vouched.genome, self._header, self._artifact)
        found = [*problems, *found]
        return found if found or meant is not None else None

    def finite(self) -> list[Violation] | None:
        """Tensors with a value that is not finite; None where nobody read them."""
        if self._too_large:
            return None  # refused by its size; nobody has to read it
        return list(self._weighed.infinite)

    @property
    def _too_large(self) -> int:
        """Size of a weights file that is larger than the policy allows, else 0."""
        sizes = [entry.size_bytes for entry in self._snapshot.entries if entry.name == WEIGHTS_FILE]
        return sizes[0] if sizes and sizes[0] > self.context.limits.max_file_bytes else 0

    def limits(self) -> list[Violation] | None:
        """Sizes, ranks, scales and norms out of bounds; None where they cannot be known."""
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
        return vouched(artifact, self.submission, self.context)

    def signature(self) -> list[Violation]:
        """Why nobody trusted vouches for it."""
        return provenance.check_signature(self._vouched, self.submission.artifact.digest, self.context.revoked)

    def development(self) -> list[Violation] | None:
        """That a development key alone vouches; None where nobody does."""
        if self._vouched.genome is None:
            return None
        if not self._vouched.development:
            return []
        return [Violation("signature", CLAIMS_FILE, "", "a development key alone", "a key that the policy names")]

    def base(self) -> list[Violation] | None:
        """Signs that it was made for another base."""
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
        """Data in its lineage, or prose beside it, that must not be trained on."""
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
        """Data in its lineage that it is judged on."""
        return provenance.check_overlap(self._vouched.genome, self.context.corpora, self.context.data)

    # 5. Does it look like the others?

    def anomaly(self) -> list[Violation] | None:
        """Spectra unlike those of the population; None where nobody has measured one."""
        calibration, norms = self.context.calibration, self.context.weight_norms
        if calibration is None or norms is None or calibration.base_weights != self.context.identity.base_weights:
            return None
        said = statistics(self._weighed.changes, norms)
        return anomalies(said, calibration) if said else None


def vouched(artifact: Artifact, submission: Submission, context: StaticContext) -> Vouched:
    """Who vouches for these bytes, and for which genome.

    Args:
        artifact: The bytes, by the digest that was computed here.
        submission: Whose claims are read.
        context: Whose keys and identities count.
    """
    if submission.unread:
        return Vouched(None, False, (submission.unread,))
    return vouched_for(
        artifact,
        submission.claims,
        context.trusted,
        context.development,
        context.identities,
        context.threshold,
    )


_PASSING = (ReaderFailed, MemoryError, OSError)
"""What goes wrong without the candidate: the same bytes may be read the next time."""


def asked(ask: Callable[[], list[Violation] | None], errors: list[Exception] | None = None) -> list[Violation] | None:
    """The answer to a question; whatever goes wrong in finding it is a violation too.

    Args:
        ask: Gives what violates, or None where the question cannot be put.
        errors: Gets what went wrong.
    """
    noted = [] if errors is None else errors
    try:
        return ask()
    except EcologyError as error:
        noted.append(error)
        return [_broken(error)]
    except Exception as error:
        noted.append(error)
        return [Violation("unforeseen", "", "", f"{type(error).__name__}: {show(str(error), 200)}", "no error")]


def _broken(error: EcologyError) -> Violation:
    file, _, key = (Path(error.where).name if error.where else "").partition(": ")
    threat = "config type" if file == CONFIG_FILE else "container" if file == WEIGHTS_FILE else "foreign file"
    return Violation(threat, file, key, show(error.what, 300), error.todo or "a file that follows its format")
