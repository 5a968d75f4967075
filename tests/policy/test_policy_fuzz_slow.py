"""100,000 mutated policies and waivers: each is read or refused in words, and nothing else ever happens."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ecology.errors import ConfigError, PolicyError
from ecology.policy.reader import parse_policy
from ecology.policy.waivers import read_waiver
from tests.policy.test_policy_malformed import GOOD, NOW, POLICIES, policy, waiver

SEEDS = [Path(__file__).parents[2].joinpath("policies", "toy.yaml").read_bytes()]
SEEDS += [text if isinstance(text, bytes) else text.encode() for text in POLICIES.values()]
PIECES = [
    b"",
    b"\n",
    b"  ",
    b"- ",
    b": ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"'",
    b'"',
    b"!!",
    b"&a ",
    b"*a",
    b"null",
    b"~",
    b"0",
    b"-1",
]
PIECES += [
    b"1e400",
    b".nan",
    b"9" * 30,
    b"true",
    b"deny",
    b"\x00",
    b"\xe2\x80\xae",
    b"\xff",
    b"<<: ",
    b"? ",
    b"|\n",
    b"#",
    b"%",
]


def mutated(data: bytes, random_: random.Random) -> bytes:
    for _ in range(random_.randint(1, 4)):
        start = random_.randrange(len(data) + 1)
        end = min(len(data), start + random_.choice([0, 1, 2, 8, 40]))
        data = data[:start] + random_.choice(PIECES) + data[end:]
    return data


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_policy_and_no_waiver_brings_the_reader_down(tmp_path: Path) -> None:
    random_, read, refused = random.Random(7), 0, 0
    terms, right = policy(), waiver(dict(GOOD))
    file = tmp_path / "waiver.yaml"
    short = [seed for seed in SEEDS if len(seed) < 2000]
    for i in range(100_000):
        try:
            if i % 2:
                file.write_bytes(mutated(right, random_))
                read_waiver(file, terms, NOW)
            else:
                parse_policy(mutated(random_.choice(SEEDS if i % 100 == 0 else short), random_))
            read += 1
        except (PolicyError, ConfigError):
            refused += 1
    assert read + refused == 100_000
    assert min(read, refused) > 100
