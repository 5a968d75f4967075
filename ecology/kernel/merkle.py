"""The Merkle tree of RFC 6962 with its proofs, over hashes: no log, no storage, no keys.

A log of n leaves has one root. Two small proofs make it worth having: *inclusion* (this leaf is the i-th of the log
with that root) and *consistency* (the log with this root is the older one with something appended and nothing
changed). Both take about log2(n) hashes.

Leaves and inner nodes are hashed with different prefixes, so that no inner node can be passed off as a leaf. The split
of n leaves is at k, the largest power of two smaller than n; so the tree only ever grows at its right edge, and a
``Frontier`` (one hash per set bit of the size) is all that is needed to append.

Everything takes leaf *hashes*, 32 bytes each; ``leaf_hash`` makes one from an entry's bytes.

Sources: RFC 6962 section 2.1 (hashes, proofs), RFC 9162 sections 2.1.3.2 and 2.1.4.2 (verification).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves (RFC 6962 section 2.1)."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclasses.dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: what has to be remembered to append and to know the root.

    Law: ``Frontier().extend(a + b) == Frontier().extend(a).extend(b)``.
    """

    size: int = 0
    """Number of leaves."""
    peaks: tuple[bytes, ...] = ()
    """Roots of the complete subtrees, largest first: one for each bit set in ``size``."""

    def extend(self, leaves: Iterable[bytes]) -> Frontier:
        """The frontier after these leaf hashes; amortised two hashes a leaf."""
        size, peaks = self.size, list(self.peaks)
        for leaf in leaves:
            node, carry = leaf, size
            while carry & 1:  # two complete subtrees of one height become one of the next
                node = node_hash(peaks.pop(), node)
                carry >>= 1
            peaks.append(node)
            size += 1
        return Frontier(size, tuple(peaks))

    def root(self) -> bytes:
        """Root hash of all leaves so far."""
        if not self.peaks:
            return EMPTY_ROOT
        node = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            node = node_hash(peak, node)
        return node

    def well_formed(self) -> bool:
        """Whether there is one 32-byte peak for each bit set in a size that is not negative."""
        return (
            self.size >= 0
            and len(self.peaks) == self.size.bit_count()
            and all(len(peak) == HASH_BYTES for peak in self.peaks)
        )


def root(leaves: Iterable[bytes]) -> bytes:
    """Root hash over leaf hashes: MTH of RFC 6962 section 2.1."""
    return Frontier().extend(leaves).root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """PATH(index, leaves) of RFC 6962 section 2.1.1, from the leaf's sibling up.

    Args:
        leaves: Leaf hashes of the whole tree.
        index: Of the leaf, 0 to ``len(leaves)`` (not included).

    Raises:
        IndexError: There is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    start, end, path = 0, len(leaves), []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(root(leaves[middle:end]))
            end = middle
        else:
            path.append(root(leaves[start:middle]))
            start = middle
    return tuple(reversed(path))


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """PROOF(old_size, leaves) of RFC 6962 section 2.1.2.

    Args:
        leaves: Leaf hashes of the newer tree.
        old_size: 0 to ``len(leaves)`` (included); for both ends the proof is empty.

    Raises:
        IndexError: The older tree would be larger than the newer one.
    """
    if not 0 <= old_size <= len(leaves):
        raise IndexError(f"a tree of {old_size} leaves inside one of {len(leaves)}")
    if old_size in (0, len(leaves)):
        return ()
    start, end, path, whole = 0, len(leaves), [], True  # SUBPROOF(m, D[start:end], whole)
    while old_size - start != end - start:
        middle = start + _split(end - start)
        if old_size <= middle:
            path.append(root(leaves[middle:end]))
            end = middle
        else:
            path.append(root(leaves[start:middle]))
            start, whole = middle, False
    if not whole:  # the verifier knows the old root only where the old tree was one complete subtree
        path.append(root(leaves[start:end]))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], tree_root: bytes) -> bool:
    """Whether ``proof`` shows that ``leaf`` is leaf ``index`` of the tree of ``size`` leaves with that root.

    RFC 9162 section 2.1.3.2. Any proof of the wrong length is refused.
    """
    if not 0 <= index < size:
        return False
    first, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if first & 1 or first == last:
            node = node_hash(sibling, node)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        first, last = first >> 1, last >> 1
    return last == 0 and node == tree_root


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``proof`` shows that the newer tree begins with all leaves of the older one, unchanged.

    RFC 9162 section 2.1.4.2. Beyond it: the empty tree is the beginning of every tree, with an empty proof.
    """
    if not 0 <= old_size <= new_size:
        return False
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    if old_size == new_size:
        return not proof and old_root == new_root
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        return False
    first, last = old_size - 1, new_size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    old_node = new_node = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            old_node = node_hash(sibling, old_node)
            new_node = node_hash(sibling, new_node)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            new_node = node_hash(new_node, sibling)
        first, last = first >> 1, last >> 1
    return last == 0 and old_node == old_root and new_node == new_root


def _split(size: int) -> int:
    """Largest power of two smaller than ``size``, for sizes of 2 and more."""
    return 1 << ((size - 1).bit_length() - 1)
