"""The process that reads weights: what it may, what becomes of it, and that nothing it says is taken on trust."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecology.contracts.policy import AdapterLimits
from ecology.errors import MalformedArtifact, ReaderFailed
from ecology.gate import weighing
from ecology.gate.bounds import check_norms
from ecology.gate.order import (
    FRAME_BYTES,
    OUT_OF_MEMORY,
    SHORTER,
    Answer,
    Factored,
    Frames,
    Order,
    Size,
    Stored,
    framed,
)
from ecology.gate.tensors import Implied, Module
from ecology.gate.weighing import Change, Weighed, reader_id, weigh
from ecology.gate.weights import SLACK_BYTES
from ecology.store.header import Header, TensorInfo

LIMITS = AdapterLimits()
linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


@pytest.fixture(autouse=True)
def _one_of_our_own() -> Iterator[None]:
    weighing._end()
    yield
    weighing._end()


def file_of(tensors: dict[str, np.ndarray]) -> tuple[io.BytesIO, Header]:
    """Tensors as they lie in a file, behind a header."""
    infos, at = {}, 0
    for key, values in tensors.items():
        kind = {"float32": "F32", "float16": "F16"}[str(values.dtype)]
        infos[key] = TensorInfo(kind, values.shape, at, at + values.nbytes)
        at += values.nbytes
    return io.BytesIO(b"".join(values.tobytes() for values in tensors.values())), Header(infos, {}, 0)


def lora(rng: np.random.Generator, out: int = 6, rank: int = 2, into: int = 5) -> tuple[Module, dict[str, np.ndarray]]:
    module = Module("q", into, out, rank, 0.5)
    return module, {
        module.a: rng.normal(size=(rank, into)).astype(np.float32),
        module.b: rng.normal(size=(out, rank)).astype(np.float32),
    }


def weighed(seed: int = 0) -> tuple[Weighed, float]:
    """A small LoRA weighed, and its norm by the definition."""
    module, tensors = lora(np.random.Generator(np.random.PCG64(seed)))
    stream, header = file_of(tensors)
    found = weigh(stream, header, Implied((module,), {}), LIMITS)
    return found, float(np.linalg.norm(0.5 * tensors[module.b].astype(float) @ tensors[module.a].astype(float)))


def test_one_process_serves_all_folders() -> None:
    seen = set()
    for seed in range(3):
        found, norm = weighed(seed)
        assert math.isclose(found.changes[0].norm, norm, rel_tol=1e-12)
        seen.add(reader_id())
    assert len(seen) == 1


def test_the_largest_of_a_tinylora_is_that_of_the_full_matrices() -> None:
    """Projections are widened block by block; here they are more than one block."""
    rng = np.random.Generator(np.random.PCG64(1))
    u, rank = 5000, 16
    module = Module("q", 20, 24, rank, 1.0, projections=u)
    tensors = {
        module.a: rng.normal(size=(rank, 20)).astype(np.float16),
        module.b: rng.normal(size=(24, rank)).astype(np.float16),
        module.p: rng.normal(size=(u, rank, rank)).astype(np.float16),
        "v0": rng.normal(size=u).astype(np.float32),
        "v1": rng.normal(size=u).astype(np.float32),
    }
    stream, header = file_of(tensors)
    found = weigh(stream, header, Implied((module,), {"v0": (u,), "v1": (u,)}), LIMITS).changes[0]
    full = {
        name: tensors[module.b].astype(float)
        @ np.tensordot(tensors[name].astype(float), tensors[module.p].astype(float), 1)
        @ tensors[module.a].astype(float)
        for name in ("v0", "v1")
    }
    largest = max(full.values(), key=np.linalg.norm)
    assert math.isclose(found.norm, float(np.linalg.norm(largest)), rel_tol=1e-9)
    assert np.allclose(found.spectrum[:16], np.linalg.svd(largest, compute_uv=False)[:16], rtol=1e-6)


def exactly(tensors: dict[str, np.ndarray], module: Module) -> tuple[Fraction, Fraction]:
    """||s B A||_F^2 and s^2 ||B||_F^2 ||A||_F^2, without rounding."""
    B, A = ([[Fraction(float(x)) for x in row] for row in tensors[key]] for key in (module.b, module.a))
    scale = Fraction(module.scale) ** 2
    columns = list(zip(*A, strict=True))
    product = sum(sum(b * a for b, a in zip(row, column, strict=True)) ** 2 for row in B for column in columns)
    return scale * product, scale * sum(x * x for row in B for x in row) * sum(x * x for row in A for x in row)


wide = st.floats(-(2.0**100), 2.0**100, width=32)


@given(
    st.integers(1, 3).flatmap(
        lambda rank: st.tuples(
            st.lists(st.lists(wide, min_size=rank, max_size=rank), min_size=2, max_size=4),
            st.lists(st.lists(wide, min_size=3, max_size=3), min_size=rank, max_size=rank),
        )
    ),
    st.booleans(),
    st.sampled_from([1.0, 0.5, 1e-9, 7.3]),
)
@settings(max_examples=150, deadline=None)
def test_no_norm_is_said_too_small(
    factors: tuple[list[list[float]], list[list[float]]], cancel: bool, scale: float
) -> None:
    """Against fractions, also where columns cancel to the last bit or but for it."""
    B, A = (np.array(one, np.float32) for one in factors)
    if cancel:
        B, A = np.concatenate([B, -np.nextafter(B, np.float32(np.inf))], 1), np.concatenate([A, A])
    module = Module("q", 3, len(B), len(A), scale)
    tensors = {module.a: A, module.b: B}
    if not all(np.isfinite(one).all() for one in tensors.values()):
        return
    stream, header = file_of(tensors)
    (found,) = weigh(stream, header, Implied((module,), {}), LIMITS).changes
    square, most = exactly(tensors, module)
    slack = 1 + Fraction(1, 10**12)
    tiny = Fraction(1, 10**250)
    assert Fraction(found.norm) ** 2 * slack + tiny >= square
    assert Fraction(found.norm) ** 2 <= square + most / 10**12 + tiny
    assert abs(Fraction(found.product) ** 2 - most) <= most / 10**9 + tiny
    assert Fraction(found.spectrum[0]) ** 2 * len(A) * slack + tiny >= square
    largest = max(float(np.linalg.norm(one.astype(float))) for one in tensors.values())
    assert math.isclose(found.factor, largest, rel_tol=1e-12, abs_tol=1e-150)


def test_what_cancels_in_a_tinylora_is_seen() -> None:
    module = Module("q", 4, 4, 2, 1.0, projections=2)
    one = np.ones((2, 4), np.float32)
    tensors = {
        module.a: one,
        module.b: one.T.copy(),
        module.p: np.array([np.eye(2), np.eye(2)], np.float32),
        "v0": np.array([1e12, -1e12], np.float32),
    }
    stream, header = file_of(tensors)
    (found,) = weigh(stream, header, Implied((module,), {"v0": (2,)}), LIMITS).changes
    assert 0 < found.norm < 0.1
    assert math.isclose(found.product, 8 * 2e12 * math.sqrt(2), rel_tol=1e-6)
    assert math.isclose(found.factor, 2e12 * math.sqrt(2), rel_tol=1e-6)
    (_, refused) = check_norms([found], {"q.weight": 1.0}, {}, LIMITS)
    assert "overflows" in refused.sentence()


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_the_largest_values_are_measured_or_infinite_and_never_small(kind: type) -> None:
    most = np.finfo(kind).max
    module = Module("q", 5, 6, 2, 1.0)
    tensors = {module.a: np.full((2, 5), most, kind), module.b: np.full((6, 2), most, kind)}
    stream, header = file_of(tensors)
    (found,) = weigh(stream, header, Implied((module,), {}), LIMITS).changes
    assert math.isclose(found.norm, 2 * math.sqrt(30) * float(most) ** 2, rel_tol=1e-9)
    tiny = Module("q", 4, 4, 2, 1.0, projections=1)
    values = {
        tiny.a: np.full((2, 4), most, kind),
        tiny.b: np.full((4, 2), most, kind),
        tiny.p: np.full((1, 2, 2), most, kind),
    }
    stream, header = file_of({**values, "v0": np.full(1, most, kind)})
    (found,) = weigh(stream, header, Implied((tiny,), {"v0": (1,)}), LIMITS).changes
    assert found.norm >= float(most) ** 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((1.0, (1.0,), 0.0, 640.0, 640.0), ()),
        ((10.1, (1.0,), 0.0, 100.0, 10.0), ("weight's norm",)),
        ((0.0, (0.0,), 0.0, 641.0, 100.0), ("multiply to",)),
        ((0.0, (0.0,), 0.0, 1.0, 641.0), ("factor of norm",)),
        ((math.inf, (), 0.0, math.inf, math.inf), ("weight's norm", "multiply to", "factor of norm")),
    ],
)
def test_each_bound_is_kept(
    change: tuple[float, tuple[float, ...], float, float, float], words: tuple[str, ...]
) -> None:
    found = check_norms([Change(*change, Module("q", 4, 4, 2, 1.0))], {"q.weight": 10.0}, {}, LIMITS)
    assert len(found) == len(words)
    assert all(word in one.found for word, one in zip(words, found, strict=True))


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
def test_a_folder_whose_reader_dies_is_refused_and_the_next_gets_another(signal_: int) -> None:
    weighed()
    killed = reader_id()

    class Deadly(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            os.kill(killed, signal_)
            time.sleep(0.1)
            return super().read(size)

    module, tensors = lora(np.random.Generator(np.random.PCG64(0)))
    stream, header = file_of(tensors)
    with pytest.raises(ReaderFailed, match="the process that reads weights failed"):
        weigh(Deadly(stream.getvalue()), header, Implied((module,), {}), LIMITS)
    found, norm = weighed()
    assert math.isclose(found.changes[0].norm, norm, rel_tol=1e-12)
    assert reader_id() != killed


@pytest.mark.parametrize("size", [6, 200_000], ids=["when it answers", "when it is sent the file"])
def test_a_reader_that_hangs_is_ended_and_the_next_folder_gets_another(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    weighed()
    stopped = weighing._STARTED[0].process
    os.kill(stopped.pid, signal.SIGSTOP)
    monkeypatch.setattr(weighing, "PATIENCE_S", 0.2)
    module, tensors = lora(np.random.Generator(np.random.PCG64(0)), out=size)
    stream, header = file_of(tensors)
    with pytest.raises(ReaderFailed, match="did not answer within"):
        weigh(stream, header, Implied((module,), {}), LIMITS)
    assert stopped.returncode == -signal.SIGKILL
    monkeypatch.undo()
    assert weighed()[0].changes
    assert reader_id() != stopped.pid


def test_patience_grows_with_the_file_and_is_not_spent_on_reading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            time.sleep(0.3)
            return super().read(size)

    weighed()
    monkeypatch.setattr(weighing, "PATIENCE_S", 0.25)
    module, tensors = lora(np.random.Generator(np.random.PCG64(0)))
    stream, header = file_of(tensors)
    assert weigh(Slow(stream.getvalue()), header, Implied((module,), {}), LIMITS).changes
    assert weighing._Patience(50_000_000).whole == 5.25


def test_a_reader_without_memory_says_nothing_about_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    module, tensors = lora(np.random.Generator(np.random.PCG64(0)))
    stream, header = file_of(tensors)
    monkeypatch.setattr(weighing, "_said", lambda *_: {"error": OUT_OF_MEMORY})
    with pytest.raises(ReaderFailed, match=OUT_OF_MEMORY):
        weigh(stream, header, Implied((module,), {}), LIMITS)


def test_a_reader_that_died_between_two_folders_is_replaced() -> None:
    weighed()
    os.kill(reader_id(), signal.SIGKILL)
    weighing._STARTED[0].process.wait()
    assert weighed()[0].changes


def test_a_file_that_is_cut_off_is_refused_and_leaves_the_reader_in_step() -> None:
    module, tensors = lora(np.random.Generator(np.random.PCG64(0)))
    stream, header = file_of(tensors)
    for cut in (0, 1, 40):
        with pytest.raises(MalformedArtifact, match=SHORTER):
            weigh(io.BytesIO(stream.getvalue()[:cut]), header, Implied((module,), {}), LIMITS)
        first = reader_id()
        assert weighed()[0].changes
        assert reader_id() == first


def test_a_file_that_cannot_be_read_ends_the_reader() -> None:
    """What was half sent must not be read as the next folder's."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("input/output error")

    module, tensors = lora(np.random.Generator(np.random.PCG64(0)))
    _, header = file_of(tensors)
    with pytest.raises(ReaderFailed, match="input/output error"):
        weigh(Broken(), header, Implied((module,), {}), LIMITS)
    assert weighed()[0].changes


def test_many_threads_share_it() -> None:
    wrong = []

    def one(seed: int) -> None:
        found, norm = weighed(seed)
        if not math.isclose(found.changes[0].norm, norm, rel_tol=1e-12):
            wrong.append(seed)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_has_a_reader_of_its_own() -> None:
    weighed()
    ours = reader_id()
    child = os.fork()
    if not child:  # pragma: no cover
        os._exit(0 if weighed()[0].changes and reader_id() != ours else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert weighed()[0].changes
    assert reader_id() == ours


@linux
def test_it_knows_no_secret_and_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "secret")
    weighed()
    place = Path("/proc") / str(reader_id())
    assert b"secret" not in (place / "environ").read_bytes()
    kinds = {os.readlink(entry).partition(":")[0] for entry in (place / "fd").iterdir()}
    assert kinds == {"pipe", "/dev/null"}
    limits = {line[:25].strip(): line[26:].split()[:2] for line in (place / "limits").read_text().splitlines()[1:]}
    assert limits["Max open files"] == ["3", "3"]
    assert limits["Max file size"] == ["0", "0"]
    assert limits["Max core file size"] == ["0", "0"]


CONFINED = """
import os, sys
from ecology.gate.weights import _confined
bounded = _confined()
bounded(int(sys.argv[1]))
for name, attempt in {
    "open": lambda: open("/etc/hostname"),
    "most": lambda: bytearray(int(sys.argv[2])),
    "less": lambda: len(bytearray(int(sys.argv[1]))),
}.items():
    try:
        print(name, "done" if attempt() else "nothing")
    except Exception as error:
        print(name, type(error).__name__)
"""


@linux
def test_memory_and_files_are_refused_by_the_system() -> None:
    allowed = 32 << 20
    ran = subprocess.run(
        [sys.executable, "-c", CONFINED, str(allowed), str(allowed + SLACK_BYTES + (4 << 20))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.split() == ["open", "OSError", "most", "MemoryError", "less", "done"]


@linux
def test_it_ends_with_the_process_that_started_it() -> None:
    code = "import time; from ecology.gate import weighing as w; w.start(); print(w.reader_id(), flush=True)"
    owner = subprocess.Popen([sys.executable, "-c", f"{code}; time.sleep(60)"], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    reader = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    gone = time.monotonic() + 30
    while time.monotonic() < gone and _runs(reader):
        time.sleep(0.05)
    assert not _runs(reader)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_module_folder_of_the_caller_is_not_imported(tmp_path: Path) -> None:
    """The reader's own path is what it imports from: a ``numpy.py`` where somebody stands is not."""
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    (tmp_path / "resource.py").write_text("raise SystemExit('imported')")
    code = "from ecology.gate import weighing as w; w.start(); print(w._STARTED[0].process.poll())"
    root = str(Path(weighing.__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {root!r}); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.strip() == "None"


ORDER = Order(
    (Stored("base_model.ä\n", "F32", (2, 3), 24), Stored("b", "BF16", (3, 2), 12)),
    (Factored("base_model.ä\n", "b", "", "", 0.1 + 0.2),),
    (),
)


def test_an_order_is_one_line_and_comes_back() -> None:
    assert ORDER.line().count(b"\n") == 1
    assert Order.of(ORDER.line()) == ORDER


@given(st.lists(st.floats(0), max_size=3), st.tuples(*[st.floats(0)] * 4))
def test_an_answer_comes_back_to_the_bit(spectrum: list[float], others: tuple[float, float, float, float]) -> None:
    norm, *rest = others
    answer = Answer({"b": 3}, (Size(norm, tuple(spectrum), *rest),))
    assert Answer.of(json.loads(answer.line()), ORDER) == answer


@pytest.mark.parametrize(
    "said",
    [
        {"infinite": {"c": 1}, "sizes": [[1.0, [1.0], 0.0, 1.0, 1.0]]},
        {"infinite": {"b": 0}, "sizes": [[1.0, [1.0], 0.0, 1.0, 1.0]]},
        {"infinite": {"b": True}, "sizes": [[1.0, [1.0], 0.0, 1.0, 1.0]]},
        {"infinite": {}, "sizes": []},
        {"infinite": {}, "sizes": [[math.nan, [1.0], 0.0, 1.0, 1.0]]},
        {"infinite": {}, "sizes": [[-1.0, [1.0], 0.0, 1.0, 1.0]]},
        {"infinite": {}, "sizes": [["1.0", [1.0], 0.0, 1.0, 1.0]]},
        {"infinite": {}, "sizes": [[1.0, [None], 0.0, 1.0, 1.0]]},
        {"infinite": {}, "sizes": [[1.0, 0.0]]},
        {"infinite": {}, "sizes": [[1.0, [1.0], 0.0]]},
        {"infinite": {}, "sizes": [[1.0, [1.0], 0.0, 1.0, math.nan]]},
        {"infinite": {}, "sizes": [[1.0, [1.0], 0.0, -1.0, 1.0]]},
        {"sizes": [[1.0, [1.0], 0.0, 1.0, 1.0]]},
        [],
        "error",
        None,
    ],
)
def test_another_answer_is_a_refusal(monkeypatch: pytest.MonkeyPatch, said: object) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Answer.of(said, ORDER)
    module, tensors = lora(np.random.Generator(np.random.PCG64(0)))
    stream, header = file_of(tensors)
    monkeypatch.setattr(weighing, "_said", lambda *_: said)
    with pytest.raises(ReaderFailed):
        weigh(stream, header, Implied((module,), {}), LIMITS)


@given(st.binary(max_size=64), st.integers(0, 80), st.integers(1, 9))
def test_frames_carry_any_bytes_and_end(data: bytes, wanted: int, step: int) -> None:
    sent = b"".join(framed(io.BytesIO(data), wanted))
    source = io.BytesIO(sent + b"next")
    frames, got = Frames(source), b""
    while part := frames.read(step):
        got += part
    frames.drain()
    assert got == data[:wanted]
    assert source.read() == b"next"


def test_a_large_file_goes_over_in_frames() -> None:
    sizes = [len(part) for part in framed(io.BytesIO(bytes(3 * FRAME_BYTES + 1)), 3 * FRAME_BYTES + 1)]
    assert sizes == [4, FRAME_BYTES] * 3 + [4, 1, 4]
