"""What the static gate knows before it looks into a folder: nothing of it comes from the folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.contracts.policy import AdapterLimits, DataPolicy, Policy, TrustedIdentity, TrustedKey
from ecology.gate.anomaly import Calibration, calibration_of


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
