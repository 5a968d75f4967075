from __future__ import annotations

from ecology.kernel.quarantine import quarantine


def test_every_descendant_is_reached_once_and_its_own_reason_stands() -> None:
    edges = [("a", "c"), ("b", "c"), ("c", "d"), ("d", "e"), ("b", "f")]
    found = quarantine({"a": "leaks", "d": "own"}, edges)
    assert found["a"] == "leaks"
    assert found["d"] == "own"
    assert found["c"] == "descends from a, which is revoked: leaks"
    assert found["e"] == "descends from d, which is revoked: own"
    assert set(found) == {"a", "c", "d", "e"}
    assert quarantine({}, edges) == {}
