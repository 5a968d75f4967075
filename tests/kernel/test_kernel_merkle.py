"""The tree against the recursive definition of RFC 6962, the proofs against every small tree and every lie."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.kernel import merkle


def brute_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + brute_root(leaves[:k]) + brute_root(leaves[k:])).digest()


def brute_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*brute_path(m, leaves[:k]), brute_root(leaves[k:])]
    return [*brute_path(m - k, leaves[k:]), brute_root(leaves[:k])]


def brute_subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [brute_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*brute_subproof(m, leaves[:k], whole), brute_root(leaves[k:])]
    return [*brute_subproof(m - k, leaves[k:], False), brute_root(leaves[:k])]


LEAVES = [merkle.leaf_hash(str(i).encode()) for i in range(41)]
SIZES = range(len(LEAVES) + 1)
ROOTS = [brute_root(LEAVES[:n]) for n in SIZES]


def test_known_answers() -> None:
    # certificate-transparency-go, merkle/testonly: the reference roots of its eight test leaves
    entries = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [merkle.leaf_hash(bytes.fromhex(e)) for e in entries]
    assert merkle.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle.root(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle.root(leaves[:2]).hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert merkle.root(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.mark.parametrize("size", SIZES)
def test_root_is_that_of_the_definition(size: int) -> None:
    assert merkle.root(LEAVES[:size]) == ROOTS[size]


@pytest.mark.parametrize("size", SIZES)
def test_every_inclusion_proof_is_that_of_the_definition_and_verifies(size: int) -> None:
    for index in range(size):
        proof = merkle.inclusion_proof(LEAVES[:size], index)
        assert list(proof) == brute_path(index, LEAVES[:size])
        assert merkle.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])


@pytest.mark.parametrize("size", SIZES)
def test_every_consistency_proof_is_that_of_the_definition_and_verifies(size: int) -> None:
    for old in range(size + 1):
        proof = merkle.consistency_proof(LEAVES[:size], old)
        assert list(proof) == (brute_subproof(old, LEAVES[:size], True) if old else [])
        assert merkle.verify_consistency(old, size, ROOTS[old], ROOTS[size], proof)


def test_what_is_out_of_range_is_an_index_error() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError):
            merkle.inclusion_proof(LEAVES[:3], index)
    with pytest.raises(IndexError):
        merkle.consistency_proof(LEAVES[:3], 4)
    assert not merkle.verify_inclusion(LEAVES[0], 0, 0, (), ROOTS[0])
    assert not merkle.verify_inclusion(LEAVES[0], -1, 3, (), ROOTS[3])
    assert not merkle.verify_consistency(4, 3, ROOTS[4], ROOTS[3], ())
    assert not merkle.verify_consistency(-1, 3, ROOTS[0], ROOTS[3], ())


sizes = st.integers(1, len(LEAVES))


@settings(max_examples=200)
@given(size=sizes, data=st.data())
def test_no_lie_about_inclusion_passes(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(LEAVES[:size], index)
    other = data.draw(st.integers(0, len(LEAVES) - 1).filter(lambda i: i != index))
    assert not merkle.verify_inclusion(LEAVES[other], index, size, proof, ROOTS[size])
    if other < size:
        assert not merkle.verify_inclusion(LEAVES[index], other, size, proof, ROOTS[size])
    assert not merkle.verify_inclusion(LEAVES[index], index, size, (*proof, LEAVES[0]), ROOTS[size])
    if proof:
        assert not merkle.verify_inclusion(LEAVES[index], index, size, proof[:-1], ROOTS[size])
        position = data.draw(st.integers(0, len(proof) - 1))
        bent = list(proof)
        bent[position] = bytes([bent[position][0] ^ 1]) + bent[position][1:]
        assert not merkle.verify_inclusion(LEAVES[index], index, size, bent, ROOTS[size])


@settings(max_examples=200)
@given(new=sizes, data=st.data())
def test_no_rewritten_log_is_consistent(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new))
    touched = data.draw(st.integers(0, old - 1))
    rewritten = [*LEAVES[:touched], merkle.leaf_hash(b"rewritten"), *LEAVES[touched + 1 : new]]
    proof = merkle.consistency_proof(rewritten, old)
    assert not merkle.verify_consistency(old, new, ROOTS[old], merkle.root(rewritten), proof)
    honest = merkle.consistency_proof(LEAVES[:new], old)
    assert not merkle.verify_consistency(old, new, ROOTS[old], merkle.root(rewritten), honest)
    assert not merkle.verify_consistency(old, new, ROOTS[old], ROOTS[new], (*honest, LEAVES[0]))
    if honest:
        assert not merkle.verify_consistency(old, new, ROOTS[old], ROOTS[new], honest[:-1])


@given(leaves=st.lists(st.binary(min_size=32, max_size=32), max_size=70), cut=st.integers(0, 70))
def test_a_frontier_may_be_extended_in_pieces(leaves: list[bytes], cut: int) -> None:
    at_once = merkle.Frontier().extend(leaves)
    assert merkle.Frontier().extend(leaves[:cut]).extend(leaves[cut:]) == at_once
    assert at_once.root() == brute_root(leaves)
    assert at_once.size == len(leaves)
    assert at_once.well_formed()


def test_a_damaged_frontier_is_not_well_formed() -> None:
    assert not merkle.Frontier(3, (LEAVES[0],)).well_formed()
    assert not merkle.Frontier(1, (b"short",)).well_formed()
    assert not merkle.Frontier(-1, (LEAVES[0],)).well_formed()
