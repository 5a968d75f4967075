from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from ecology.contracts.identity import Digest
from ecology.errors import IntegrityError
from ecology.evaluator.cache import ResultCache
from ecology.kernel.canonical import digest


def write_for_ever(folder: Path, start: int) -> None:
    cache = ResultCache(folder)
    for i in range(start, start + 10**6):
        cache.put({digest([i, j]): [i, j] for j in range(10)})


def test_what_was_put_is_found_and_the_rest_left_out(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path / "results")
    keys = [digest(i) for i in range(1200)]  # more than one SELECT
    cache.put({key: {"n": i, "text": "ü\n"} for i, key in enumerate(keys)})
    found = ResultCache(tmp_path / "results").get([*keys, digest("other")])
    assert found == {key: {"n": i, "text": "ü\n"} for i, key in enumerate(keys)}
    assert len(cache) == 1200


def test_the_first_answer_stays(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    cache.put({digest(1): "first"})
    cache.put({digest(1): "second", digest(2): "new"})
    assert cache.get([digest(1), digest(2)]) == {digest(1): "first", digest(2): "new"}


def test_nothing_asked_nothing_found(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    cache.put({})
    assert cache.get([]) == {}


def test_a_killed_writer_loses_at_most_its_batch(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_for_ever, args=(tmp_path, 10**6 * n)) for n in range(2)]
    for writer in writers:
        writer.start()
    while not (tmp_path / "answers.sqlite").exists() or len(ResultCache(tmp_path)) < 100:
        for writer in writers:
            writer.join(0.01)
            assert writer.exitcode is None
    for writer in writers:
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
    cache = ResultCache(tmp_path)
    assert len(cache) % 10 == 0  # whole batches
    cache.put({digest("after"): 1})
    assert cache.get([digest("after")]) == {digest("after"): 1}


def test_a_damaged_file_is_said_to_be(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    cache.put({Digest(digest(i)): "x" * 100 for i in range(100)})
    for file in tmp_path.iterdir():
        file.write_bytes(b"not a database, not at all" * 100)
    with pytest.raises(IntegrityError, match="delete the file"):
        cache.get([digest(1)])
