# ruff: noqa: E501
"""A hundred thousand spoiled inputs to every parser that reads what strangers wrote.

Mutations of good inputs (bits, bytes, cuts, doublings, tokens of the format, splices) find more than noise does, and a
seeded generator makes them a thousand times faster than a search strategy would, so that each parser gets its 10^5 in
half a minute. What is demanded: only our own errors escape, and no input takes long. Memory follows from the bounds on
length that each parser states; ``tracemalloc`` watches a sample of the largest.
"""

from __future__ import annotations

import io
import json
import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from ecology.audit import notes
from ecology.audit.log import SqlAuditLog, _event
from ecology.audit.proofs import check_inclusion
from ecology.contracts.artifact import CONFIG_FILE, WEIGHTS_FILE
from ecology.contracts.policy import AdapterLimits
from ecology.contracts.promotion import Event
from ecology.errors import EcologyError
from ecology.gate import bounds, tensors
from ecology.gate.configuration import check_configuration
from ecology.gate.weighing import weigh
from ecology.kernel.canonical import canonical
from ecology.signer.keys import LocalSigner
from ecology.signer.verify import verify_claims
from ecology.store.files import parse_json
from ecology.store.header import header_of
from ecology.testing import gates

pytestmark = pytest.mark.slow
INPUTS = 100_000
SLOWEST_S = 5.0
"""Of one input, on a machine that is busy with something else."""
TOKENS = [
    *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"true", b"NaN", b"Infinity", b"1e999", b"-0", b"0.0", b"9" * 50),
    *(b"\\ud800", b"\\u0000", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc0\x80", b"[" * 200, b'{"a":' * 200, b"\n", b" " * 99),
    *(b"__metadata__", b"lora_A", b"target_modules", b"(?:.*)*", b"signatures", b"payload", b"=" * 9, b"-1", b"18446744073709551616"),
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four changes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(7):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + rng.randint(1, 9)]
            case 2:
                out[at:at] = rng.choice(TOKENS)
            case 3:
                out[at : at + rng.randint(0, 9)] = rng.choice(TOKENS)
            case 4:
                out[at:at] = out[rng.randrange(len(out) + 1) :][: rng.randint(0, 60)]
            case 5:
                out[at:at] = rng.randbytes(rng.randint(1, 8))
            case _:
                del out[at:]
    return bytes(out)


def fuzz(parse: Callable[[bytes], object], seeds: list[bytes], inputs: int = INPUTS) -> int:
    """Feeds mutations; returns how many were refused."""
    rng = random.Random(20261122)
    refused, slowest = 0, 0.0
    for number in range(inputs):
        data = mutated(rng.choice(seeds), rng)
        started = time.perf_counter()
        try:
            if number % 1000 == 0:
                tracemalloc.start()
            parse(data)
        except EcologyError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} escaped for {data!r:.2000}") from error
        finally:
            if tracemalloc.is_tracing():
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert peak < 200 * len(data) + 2**22, data[:200]
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < SLOWEST_S
    return refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fuzz") / "adapter"
    gates.benign(place)
    return place


def test_safetensors_headers(folder: Path) -> None:
    """And the checks of keys, values and norms on every header that passes."""
    data = (folder / WEIGHTS_FILE).read_bytes()
    config = json.loads((folder / CONFIG_FILE).read_bytes())
    meant, _ = tensors.implied(config, gates.SCHEMA, CONFIG_FILE)

    def parse(changed: bytes) -> None:
        stream = io.BytesIO(changed)
        header = header_of(stream, len(changed), folder)
        canonical([one.sentence() for one in tensors.check_keys(header, meant, gates.SCHEMA, AdapterLimits())])
        weighed = weigh(stream, header, meant, AdapterLimits())
        norms = dict.fromkeys(gates.SCHEMA, 1.0)
        bounds.check_norms(weighed.changes, norms, norms, AdapterLimits(max_relative_spectral_norm=1.0))

    head = 8 + int.from_bytes(data[:8], "little")
    assert fuzz(parse, [data, data[:head], data[: head - 40] + data[head:]]) > INPUTS // 2


def test_configurations(folder: Path) -> None:
    """Down to the modules that they imply: patterns are run."""
    limits = AdapterLimits(peft_types=("LORA", "TINYLORA"))
    plain = json.loads((folder / CONFIG_FILE).read_bytes())
    tiny = {"peft_type": "TINYLORA", "r": 2, "u": 3, "target_modules": ["q_proj"], "weight_tying": 0.5}
    pattern = {**plain, "target_modules": r".*layers\.[01]\..*(q|v)_proj", "rank_pattern": {r"0\..*q_proj": 2}}

    def parse(changed: bytes) -> None:
        config = parse_json(changed, CONFIG_FILE)
        if not isinstance(config, dict):
            return
        found = check_configuration(config, limits)
        canonical([one.sentence() for one in found])
        if not found:
            tensors.implied(config, gates.SCHEMA, CONFIG_FILE)

    assert fuzz(parse, [canonical(one) for one in (plain, tiny, pattern)]) > INPUTS // 10


def test_claims(folder: Path, tmp_path: Path) -> None:
    from ecology.signer.statements import genome_statement
    from ecology.store.folders import describe

    signer, artifact = LocalSigner.open(tmp_path), describe(folder)
    line = signer.sign(genome_statement(artifact, gates.genome_of(artifact), gates.NOW))

    def parse(changed: bytes) -> None:
        text = changed.decode("utf-8", "surrogateescape")
        claims = verify_claims((text,), artifact.digest, (signer.public_key,), ())
        assert all(claim.statement for claim in claims.verified)

    fuzz(parse, [line.encode()])


def test_bundles(tmp_path: Path) -> None:
    bundle = pytest.importorskip("ecology.signer.bundle")
    instance = pytest.importorskip("ecology.testing.sigstore").LoopbackSigstore
    keyless = pytest.importorskip("ecology.signer.keyless")
    with instance() as server:
        config = tmp_path / "trust.json"
        config.write_text(json.dumps(server.trust_config()))
        text = keyless.keyless_signer(config, server.token()).sign_artifact(b"the adapter")
    fuzz(lambda changed: bundle.read(changed.decode("utf-8", "surrogateescape")), [text.encode()])


def test_lines_of_an_exported_log() -> None:
    """A line is an event or refused; the checkpoint and the proof that stand beside an export likewise."""
    line = canonical(Event("judged", "2026-01-01T00:00:00Z", {"digest": f"sha256:{'0' * 64}", "n": [1, 2.5, None]}))
    fuzz(_event, [line])


def test_checkpoints_and_proofs(tmp_path: Path) -> None:
    signer = LocalSigner.open(tmp_path)
    with SqlAuditLog("sqlite://", signer) as log:
        for i in range(5):
            log.append(Event("judged", "2026-01-01T00:00:00Z", {"i": i}))
        note, proof = log.checkpoint(), log.prove(3)

    def parse(changed: bytes) -> None:
        text = changed.decode("utf-8", "replace")
        for read in (notes.read, lambda text: notes.verify(text, (signer.public_key,))):
            try:
                read(text)
            except EcologyError:
                continue
        check_inclusion(text, proof.entry, (signer.public_key,))

    fuzz(parse, [note.encode(), proof.text.encode()])
