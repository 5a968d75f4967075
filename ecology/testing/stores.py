"""What every artifact store must do (``contracts.ports.ArtifactStore``), as cases that anyone can run.

A case gets a function that opens the store, always the same one, and an empty scratch folder:

    @pytest.mark.parametrize("case", CASES)
    def test_mine(case, tmp_path):
        CASES[case](lambda: MyStore(tmp_path / "store"), tmp_path / "scratch")
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from pathlib import Path

from ecology.contracts.artifact import CLAIMS_FILE, CONFIG_FILE, WEIGHTS_FILE
from ecology.contracts.identity import Digest
from ecology.contracts.ports import ArtifactStore
from ecology.errors import EcologyError, IntegrityError
from ecology.testing import NonconformingError

Open = Callable[[], ArtifactStore]


def _sample(folder: Path, text: str = "{}") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(text)
    (folder / WEIGHTS_FILE).write_bytes(bytes(range(256)))
    return folder


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise NonconformingError(what)


def _fails(what: str, action: Callable[[], object], kind: type[EcologyError] = IntegrityError) -> None:
    try:
        action()
    except kind:
        return
    raise NonconformingError(f"{what} did not raise {kind.__name__}")


def round_trip(open_store: Open, scratch: Path) -> None:
    """What is put in comes out byte for byte, also after the store is opened again."""
    source = _sample(scratch / "a")
    artifact = open_store().put(source)
    held = open_store().folder(artifact.digest)
    for file in artifact.files:
        _expect((held / file.path).read_bytes() == (source / file.path).read_bytes(), f"{file.path} came out changed")


def same_bytes_same_name(open_store: Open, scratch: Path) -> None:
    """The name follows from the bytes alone: not from the folder, and not from when."""
    store = open_store()
    first, second = store.put(_sample(scratch / "a")), store.put(_sample(scratch / "b"))
    _expect(first == second, "equal bytes got two names")
    _expect(store.put(_sample(scratch / "c", "[]")).digest != first.digest, "other bytes got the same name")


def claims_stay_outside(open_store: Open, scratch: Path) -> None:
    """Claims change no digest and are not taken along by ``put``."""
    source = _sample(scratch / "a")
    store = open_store()
    bare = store.put(source)
    (source / CLAIMS_FILE).write_text("stranger\n")
    _expect(store.put(source) == bare, "claims changed the digest")
    _expect(store.claims(bare.digest) == (), "put took claims along")
    store.add_claims(bare.digest, ["one"])
    store.folder(bare.digest)


def claims_append(open_store: Open, scratch: Path) -> None:
    """Claims keep their order; those already there are left out."""
    store = open_store()
    digest = store.put(_sample(scratch / "a")).digest
    store.add_claims(digest, ["one", "two"])
    open_store().add_claims(digest, ["two", "three", "three"])
    _expect(open_store().claims(digest) == ("one", "two", "three"), f"claims are {open_store().claims(digest)}")


def unknown_digest(open_store: Open, scratch: Path) -> None:
    """What is not held, or is no digest, is an IntegrityError."""
    store = open_store()
    for digest in (Digest("sha256:" + "0" * 64), Digest("sha256:../../etc"), Digest("")):
        _fails(f"folder({digest!r})", lambda digest=digest: store.folder(digest))  # type: ignore[misc]
        _fails(f"claims({digest!r})", lambda digest=digest: store.claims(digest))  # type: ignore[misc]
        _fails(f"add_claims({digest!r})", lambda digest=digest: store.add_claims(digest, ["x"]))  # type: ignore[misc]


def damage_is_found(open_store: Open, scratch: Path) -> None:
    """A changed, missing or additional byte in what is held is found when it is asked for."""
    for i, harm in enumerate((_change, _remove, _add)):
        store = open_store()
        artifact = store.put(_sample(scratch / str(i), str(i)))
        harm(store.folder(artifact.digest))
        _fails(harm.__name__, lambda digest=artifact.digest: open_store().folder(digest))  # type: ignore[misc]


def _change(folder: Path) -> None:
    (folder / WEIGHTS_FILE).chmod(0o644)
    (folder / WEIGHTS_FILE).write_bytes(b"other")


def _remove(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()


def _add(folder: Path) -> None:
    (folder / "extra.py").write_text("")


CASES: Mapping[str, Callable[[Open, Path], None]] = types.MappingProxyType(
    {
        case.__name__: case
        for case in (
            round_trip,
            same_bytes_same_name,
            claims_stay_outside,
            claims_append,
            unknown_digest,
            damage_is_found,
        )
    }
)
"""All cases by name."""
