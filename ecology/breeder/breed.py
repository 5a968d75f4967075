"""From parents' folders to a child's folder and birth certificate.

1. The operator exists, its options are valid, and it takes so many parents.
2. The parents may meet: same identity, known interface, no loop (``kernel.merging``).
3. Their folders hold the bytes that their digests name, and are read (``store``).
4. The operator makes the child (``lowrank``), pure and in fp64; parents stay as they lie in their files. TinyLoRA
   parents on one basis add as vectors, and the child is a TinyLoRA (``folders``).
5. The child is put into canonical form and written, rounded to float32 once; its genome says how to make it again and
   what projection kept of each module.

Equal operator, options, parents and seed give equal bytes on equal machines, on one BLAS thread whatever the process
has; where BLAS differs, so may the last bit, which is why the environment is part of the lineage. Whether parents are
revoked, and whether the child is any good, is asked elsewhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from ecology.breeder.folders import Manner, add_vectors, agree, fit
from ecology.breeder.operators import Operator, find, options_of
from ecology.contracts.artifact import Artifact
from ecology.contracts.genome import INTERFACE_VERSION, Genome, Lineage, ResourceProfile
from ecology.contracts.identity import CompatibilityIdentity, Digest, Json
from ecology.contracts.ports import Progress, Step
from ecology.errors import ConfigError, IncompatibleParents, IntegrityError
from ecology.kernel.canonical import plain
from ecology.kernel.merging import inherited, objections
from ecology.lowrank.core import ParentSet, Ticks
from ecology.lowrank.lowrank import LowRank, Stored, canonical, module_names
from ecology.store.adapters import AdapterFolder, describe, read_adapter, write_adapter
from ecology.store.writer import write_tinylora
from ecology.telemetry.progress import SilentProgress

ENERGY_DIGITS = 6
"""Of the retained energy in a genome: more would record rounding errors."""


@dataclasses.dataclass(frozen=True, slots=True)
class Parent:
    """An adapter that is about to breed."""

    name: str
    """For people."""
    folder: Path
    artifact: Artifact
    genome: Genome | None
    """None for a bare PEFT folder from outside; then ``identity`` is needed."""
    identity: CompatibilityIdentity | None = None
    """The base it is for, as the caller vouches; of use where there is no genome."""
    tensors: Mapping[str, tuple[int, ...]] | None = None
    """Name and shape of that base's tensors: where there is no genome, they must fit. None asks nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bred:
    """A child."""

    artifact: Artifact
    genome: Genome
    folder: Path


def breed(
    operator: str,
    options: object,
    parents: Sequence[Parent],
    out: Path,
    seed: int,
    environment: Mapping[str, str],
    base_id: str | None = None,
    progress: Progress | None = None,
) -> Bred:
    """Breeds one child into ``out``.

    Args:
        operator: Name in the operators' table or of a plug-in.
        options: Mapping of the operator's keys, or its options dataclass.
        parents: In the order the operator takes them.
        out: New folder of the child.
        seed: Of the operator's draws; recorded also where it has no effect.
        environment: Versions, threads and CPU, as the lineage records them.
        base_id: Name of the base in the child's configuration; None: as the first parent with a genome says, else as
            the first parent does.
        progress: Where to tell how far it is; silent where None.

    Raises:
        ConfigError: Unknown operator or option, value out of range, wrong number of parents or weights, or ``out``
            holds other files.
        IncompatibleParents: They may not meet; carries the differing fields.
        IntegrityError: A parent's folder does not hold the bytes of its artifact.
        MalformedArtifact: A parent's folder is not a LoRA that can be read.
    """
    row, chosen = find(operator), options_of(operator, options)
    most = len(parents) if row.parents_max is None else row.parents_max
    if not row.parents_min <= len(parents) <= most:
        wanted = f"{row.parents_min}" + (
            " or more" if row.parents_max is None else f" to {most}" * (most > row.parents_min)
        )
        raise ConfigError(f"{operator} takes {wanted} parents and was given {len(parents)}", where=operator)
    genomes = _meet(parents)
    progress = progress or SilentProgress()
    folders = []
    with progress.track("reading parents", len(parents), "parent") as step:
        for parent in parents:
            folders.append(_read(parent))
            step.advance()
    adapters = [LowRank.of({n: Stored(f.left, f.right, f.scale) for n, f in f_.modules.items()}) for f_ in folders]
    try:
        module_names(adapters)
    except ConfigError as error:  # one of the two was not made for the base that it claims
        raise IncompatibleParents(error.what, fields=("tensor_schema",), where=error.where, todo=error.todo) from error
    identity, base = genomes[0].identity, base_id or _base_id(parents, folders)
    for parent, folder in zip(parents, folders, strict=True):
        if parent.genome is None and parent.tensors is not None:
            fit(parent.name, folder, parent.tensors)
    manner = agree([parent.name for parent in parents], folders, identity.base_weights)
    child = _conceive(row, adapters, chosen, seed, progress)
    if (tiny := add_vectors(folders, chosen)) is not None:
        child = canonical(LowRank.of({n: (f.B, f.A) for n, f in tiny.expand().items()}))
        artifact = write_tinylora(out, tiny, base, identity.base_weights, task_type=manner.task_type)
    else:
        artifact = written(child, out, base, identity.base_weights, manner)
    lineage = Lineage(
        parents=tuple(parent.artifact.digest for parent in parents),
        operator=operator,
        parameters=plain(chosen),
        seed=seed,
        corpora=inherited(genomes),
        generation=1 + max(genome.lineage.generation for genome in genomes),
        environment=dict(sorted(environment.items())),
    )
    capabilities = tuple(sorted({capability for genome in genomes for capability in genome.capabilities}))
    genome = Genome(identity, INTERFACE_VERSION, capabilities, lineage, profile(child, artifact))
    return Bred(artifact, genome, out)


def written(child: LowRank, out: Path, base_id: str, base_weights: Digest, manner: Manner | None = None) -> Artifact:
    """The child's canonical folder.

    Args:
        child: In canonical form.
        out: New folder.
        base_id: Name of the base in its configuration.
        base_weights: Digest of the base's weights.
        manner: Layouts and task that its parents agree on; None: linear layers of a causal language model.

    Raises:
        ConfigError: ``out`` holds other files.
    """
    if manner is None:
        return write_adapter(out, _pairs(child), base_id, base_weights)
    return write_adapter(
        out,
        _pairs(child),
        base_id,
        base_weights,
        layouts=manner.layouts,
        task_type=manner.task_type,
        fan_in_fan_out=manner.fan_in_fan_out,
    )


def _conceive(row: Operator, adapters: Sequence[LowRank], options: object, seed: int, progress: Progress) -> LowRank:
    """The child in canonical form; parents are walked once and not kept.

    On one BLAS thread, whatever the process was given: how sums are split among threads decides their last bits, and
    the small cores gain nothing from a second thread.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        looks, modules = sum(len(adapter.modules) for adapter in adapters), len(module_names(adapters))
        step = stack.enter_context(progress.track("breeding", looks + modules * len(adapters), "module"))
        way = _Way(step, looks, modules, len(adapters))
        parents = ParentSet(adapters, keep=False, ticks=Ticks(way.looked, way.made))
        child = canonical(row.function(parents, options, seed), way.made)
        way.end()
        return child


class _Way:
    """How far a child is: its parents' modules are looked at, then its own are put into their final form.

    An operator may leave out a module or come back to one, so both halves are held to their length. A module of the
    child counts as much as the modules of all its parents.
    """

    def __init__(self, step: Step, looks: int, modules: int, parents: int) -> None:
        self._step, self._looks, self._modules, self._parents = step, looks, modules, parents

    def looked(self) -> None:
        if self._looks:
            self._looks -= 1
            self._step.advance()

    def made(self) -> None:
        if self._modules:
            self._modules -= 1
            self._step.advance(self._parents)

    def end(self) -> None:
        self._step.advance(self._looks + self._modules * self._parents)
        self._looks = self._modules = 0


def profile(adapter: LowRank, artifact: Artifact) -> ResourceProfile:
    """What an adapter costs before anything is measured; modules without an effect do not count."""
    live = {name: factors for name, factors in adapter.modules.items() if factors.rank}
    return ResourceProfile(
        parameters=adapter.parameters,
        size_bytes=artifact.size_bytes,
        max_rank=adapter.max_rank,
        modules=len(live),
        retained_energy=round(adapter.retained_energy, ENERGY_DIGITS),
        retained={name: round(share, ENERGY_DIGITS) for name, share in adapter.retained.items()},
    )


def _meet(parents: Sequence[Parent]) -> tuple[Genome, ...]:
    """The parents' genomes, with a provisional one for each bare folder."""
    genomes = tuple(parent.genome or _outsider(parent) for parent in parents)
    found = objections([(parent.artifact.digest, genome) for parent, genome in zip(parents, genomes, strict=True)])
    if found:
        fields = tuple(dict.fromkeys(field for objection in found for field in objection.fields))
        raise IncompatibleParents(
            "; ".join(objection.reason for objection in found),
            fields=fields,
            where=", ".join(parent.name for parent in parents),
            todo="weights of different bases do not add; text does: `ecology breed distill PARENT... --base NAME "
            "--out DIR corpus=NAME` teaches an adapter of one base by all of them",
        )
    return genomes


def _outsider(parent: Parent) -> Genome:
    if parent.identity is None:
        raise IncompatibleParents(
            "an adapter without a genome says nothing sure about its base",
            fields=("base_weights",),
            where=parent.name,
            todo="name the base it was made for",
        )
    lineage = Lineage((), "import", {}, 0, (), 0, {})
    return Genome(parent.identity, INTERFACE_VERSION, (), lineage, ResourceProfile(0, 0, 0, 0, 1.0))


def _read(parent: Parent) -> AdapterFolder:
    found = describe(parent.folder).digest
    if found != parent.artifact.digest:
        raise IntegrityError(
            f"parent {parent.name} should be {parent.artifact.digest} and is {found}",
            where=str(parent.folder),
            todo="take it from the store again",
        )
    return read_adapter(parent.folder)


def _base_id(parents: Sequence[Parent], folders: Sequence[AdapterFolder]) -> str:
    """The last part of a path, because a folder's place on one machine is not a base's name."""
    born_here = (f for parent, f in zip(parents, folders, strict=True) if parent.genome is not None)
    name: Json = next(born_here, folders[0]).config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        return "base"
    return name if not name.startswith((".", "/", "~")) else Path(name).name or "base"


def _pairs(child: LowRank) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What is written: modules with an effect, or one of zeros where there is none, since PEFT needs a target."""
    live = {name: (factors.B, factors.A) for name, factors in child.modules.items() if factors.rank}
    if live or not child.modules:
        return live
    name, factors = next(iter(child.modules.items()))
    m, n = factors.shape
    return {name: (np.zeros((m, 1)), np.zeros((1, n)))}
