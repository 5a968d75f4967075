"""Who may meet whom."""

from __future__ import annotations

import dataclasses
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.artifact import Corpus
from ecology.contracts.genome import INTERFACE_VERSION, Genome, Lineage, ResourceProfile
from ecology.contracts.identity import CompatibilityIdentity, Digest
from ecology.kernel.canonical import digest
from ecology.kernel.merging import ancestors, inherited, objections

IDENTITY = CompatibilityIdentity("llama", digest("w"), digest("a"), digest("t"), digest("s"))
A, B, C, D = (digest(name) for name in "abcd")


def genome(*parents: Digest, corpora: tuple[Corpus, ...] = (), **changes: object) -> Genome:
    lineage = Lineage(parents, "linear", {}, 0, corpora, 1 if parents else 0, {})
    base = Genome(IDENTITY, INTERFACE_VERSION, (), lineage, ResourceProfile(1, 1, 1, 1, 1.0))
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def corpus(name: str, *, no_train: bool = False, licence: str = "MIT") -> Corpus:
    return Corpus(name, digest(name), licence, "train", no_train, 10)


def test_like_and_like_may_meet() -> None:
    assert objections([(A, genome()), (B, genome())]) == ()
    assert objections([(A, genome()), (A, genome())]) == ()  # with itself, too


def test_nobody_has_no_parent() -> None:
    assert objections([])[0].fields == ("parents",)


def test_every_differing_field_is_named() -> None:
    other = dataclasses.replace(IDENTITY, tokenizer=digest("x"), base_weights=digest("y"))
    (found,) = objections([(A, genome()), (B, genome(identity=other))])
    assert found.fields == ("base_weights", "tokenizer")
    assert found.parents == (A, B)


def test_an_unknown_interface_is_refused() -> None:
    (found,) = objections([(A, genome()), (B, genome(interface_version="ecology/adapter/v9"))])
    assert found.fields == ("interface_version",)


def test_revoked_parents_and_descendants_of_revoked_are_refused() -> None:
    assert objections([(A, genome())], revoked={A: "leaks"})[0].reason.endswith("revoked: leaks")
    (found,) = objections([(A, genome(B))], {B: (C,)}, {C: "leaks"})
    assert C in found.reason
    assert found.parents == (A,)


def test_loops_are_refused() -> None:
    assert objections([(A, genome(B))], {B: (A,)})[0].fields == ("lineage",)
    assert objections([(A, genome(B))], {B: (C,)}, child=C)[0].fields == ("lineage",)
    assert objections([(A, genome(B))], {B: (C,)}, child=D) == ()


def test_ancestors_of_a_loop_end() -> None:
    assert ancestors(A, {A: (B,), B: (A,)}) == {A, B}
    assert ancestors(A, {A: (B, C), B: (D,), C: (D,)}) == {B, C, D}


def test_taint_is_inherited_and_the_stricter_record_wins() -> None:
    lax, strict = corpus("x"), corpus("x", no_train=True)
    assert inherited([genome(corpora=(lax,)), genome(corpora=(strict,))]) == (strict,)
    assert inherited([genome(corpora=(lax,))], own=(corpus("y"),)) == tuple(
        sorted((lax, corpus("y")), key=lambda c: c.digest)
    )
    two = inherited([genome(corpora=(corpus("x"), corpus("x", licence="CC-BY-NC-4.0")))])
    assert {c.licence for c in two} == {"MIT", "CC-BY-NC-4.0"}


def test_order_of_parents_does_not_matter_for_what_is_inherited() -> None:
    parents = [genome(corpora=(corpus(n, no_train=n == "x"),)) for n in "xyz"]
    assert len({inherited(order) for order in permutations(parents)}) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from([A, B, C, D]), st.lists(st.sampled_from([A, B, C, D]), max_size=2).map(tuple)),
    st.sets(st.sampled_from([A, B, C, D])),
    st.sampled_from([A, B, C, D]),
)
def test_a_revocation_never_removes_an_objection(
    known: dict[Digest, tuple[Digest, ...]], revoked: set[Digest], one_more: Digest
) -> None:
    parents = [(A, genome(*known.get(A, ()))), (B, genome())]
    before = objections(parents, known, dict.fromkeys(revoked, "r"))
    after = objections(parents, known, dict.fromkeys(revoked | {one_more}, "r"))
    assert {(o.fields, o.parents) for o in before} <= {(o.fields, o.parents) for o in after}
