"""What a request costs, apart: reading the prompt until the first token, and each token after it.

End to end the two are mixed as the lengths of prompt and reply happen to be; a reply twice as long has another ratio.
Apart they tell what an adapter costs for any length. A policy asks for a quantile of them (0.5, 0.95) with its bound.
"""

from __future__ import annotations

from collections.abc import Sequence

from ecology.contracts.evidence import Against, Evidence, Measurement, Samples, Turn
from ecology.contracts.identity import Digest


def turns(
    subject: Digest,
    rival: Digest,
    against: Against,
    pairs: Sequence[tuple[Turn, Turn]],
    source: str = "turns/v1",
) -> Evidence:
    """Ratios of an adapter's times to a rival's, request by request.

    Args:
        subject: Who was measured.
        rival: Who answered the same requests in turn with it.
        against: What the rival is to the subject.
        pairs: Times of (subject, rival) for each request.
        source: Name and version of the measurement.
    """
    ratios = {
        "resource.first_token_ratio": [ours.first_s / theirs.first_s for ours, theirs in pairs],
        "resource.token_ratio": [ours.token_ms / theirs.token_ms for ours, theirs in pairs if theirs.token_ms > 0],
    }
    if against != "base":  # against the base it has always been measured, by ``measured.resources``
        ratios["resource.latency_ratio"] = [ours.total_s / theirs.total_s for ours, theirs in pairs]
    return tuple(
        Measurement(metric, subject, Samples(tuple(values), "ratio"), "none", against, rival, source)
        for metric, values in ratios.items()
        if values
    )


def absolute(subject: Digest, found: Sequence[Turn], source: str = "turns/v1") -> Evidence:
    """Times of an adapter as they are.

    Args:
        subject: Who was measured.
        found: One a request.
        source: Name and version of the measurement.
    """
    tokens = tuple(turn.token_ms for turn in found if turn.tokens > 1)
    parts = [
        ("resource.first_token_s", tuple(turn.first_s for turn in found), "s"),
        ("resource.token_ms", tokens, "ms"),
    ]
    return tuple(
        Measurement(metric, subject, Samples(values, unit), source=source) for metric, values, unit in parts if values
    )
