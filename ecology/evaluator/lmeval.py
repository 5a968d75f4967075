"""Stock tasks of lm-evaluation-harness on our engine.

A task is a YAML file of theirs, with its data beside it; ``run_tasks`` gives it to lm-eval with an ``LM`` that is our
resident base with whatever adapter is attached. Three of lm-eval's defaults are turned off on purpose: its index of
shipped tasks (nine seconds, and they download), its bootstrap of 100,000 resamples (minutes), and its cache of
responses, which is keyed by the request and not by the model and would hand one adapter's answers to the next.

Task files are subject matter like any suite, but theirs may hold code. ``!function`` runs only where the installed
lm-eval brought the file or a policy lists its digest (``functions``); Jinja is rendered in a sandbox (``templates``);
``class``, further includes and metrics fetched from a hub are refused. ``stock`` finds lm-eval's own tasks by name.

Example of a task that runs offline::

    task: capitals
    dataset_path: json
    dataset_kwargs: {data_files: capitals.jsonl}
    test_split: train
    output_type: multiple_choice
    doc_to_text: "{{question}}"
    doc_to_choice: "{{options}}"
    doc_to_target: "{{right}}"
    metric_list: [{metric: acc}]
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ecology.contracts.evidence import Suite
from ecology.contracts.identity import Digest
from ecology.contracts.ports import Progress
from ecology.documents.source import read_source
from ecology.errors import ConfigError, UntrustedTask
from ecology.evaluator import stock
from ecology.evaluator.functions import read_task
from ecology.kernel.canonical import digest, digest_bytes

if TYPE_CHECKING:  # torch, which a suite that is only read does not need
    from ecology.runtime.packing import Question
    from ecology.runtime.scoring import Score

MAX_NEW_TOKENS = 256
"""Of a task that names none."""
CODE = ("class", "custom_dataset", "include", "unsafe_code", "use_prompt")
"""Keys of a task that name Python."""
GREEDY: Mapping[str, float] = {"do_sample": 0, "temperature": 0, "top_p": 1, "num_beams": 1}
"""Generation settings that would ask for something else than the greedy reply, with the value that does not."""


@runtime_checkable
class TokenEngine(Protocol):
    """What lm-eval needs of an engine."""

    @property
    def fingerprint(self) -> str:
        """Names the engine in lm-eval's records."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens of context and continuation together."""
        ...

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end a reply."""
        ...

    def encode_raw(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids."""
        ...

    def score_tokens(self, questions: Sequence[Question], progress: Any = None) -> tuple[tuple[Score, ...], ...]:
        """Log-likelihoods of answers behind contexts."""
        ...

    def continue_tokens(
        self,
        sequences: Sequence[Sequence[int]],
        max_new_tokens: int,
        progress: Any = None,
        stops: Sequence[str] = (),
    ) -> tuple[tuple[int, ...], ...]:
        """Greedy continuations, which end once their text holds one of the stops."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class TaskScores:
    """What one task found."""

    task: str
    scores: Mapping[str, Mapping[str, float]]
    """Metric -> document id -> value."""
    aggregate: Mapping[str, float]
    """Metric -> lm-eval's own figure."""


def run_tasks(
    engine: TokenEngine,
    folder: Path,
    tasks: Sequence[str],
    limit: int | None,
    progress: Progress,
    trusted: Collection[Digest] = (),
) -> tuple[TaskScores, ...]:
    """Runs tasks of a folder on the engine as it stands, adapter included.

    Args:
        engine: With an adapter attached or not.
        folder: Task YAML with local data; relative ``data_files`` are relative to it.
        tasks: Names of tasks in that folder.
        limit: Documents per task; None is all of them.
        progress: Told about requests.
        trusted: Digests of Python files beside the tasks that a policy lists.

    Raises:
        ConfigError: A task is unknown, holds Python that nobody vouches for, wants the network or sampling, or lm-eval
            refuses it.
    """
    return _evaluated(engine, lambda _: {task: _read_task(folder, task, trusted) for task in tasks}, limit, progress)


def run_suite(engine: TokenEngine, suite: Suite, progress: Progress) -> TaskScores:
    """Runs the task of a suite of kind ``lm_eval`` on the engine as it stands, adapter included.

    Args:
        engine: With an adapter attached or not.
        suite: As ``load_task_suite`` or ``stock.stock_suite`` made it.
        progress: Told about requests.

    Raises:
        ConfigError: The task or its data are not what they were, or lm-eval refuses it.
    """
    said = suite.grammar

    def prepare(scratch: Path) -> Mapping[str, Mapping[str, Any]]:
        if "stock" in said:
            return {said["stock"]: stock_config(suite, scratch)}
        return {said["task"]: _read_task(Path(said["folder"]), said["task"], said["trusted"])}

    (found,) = _evaluated(engine, prepare, said["documents"] or None, progress, hub=bool(said.get("revision")))
    return found


def prove_task(suite: Suite) -> None:
    """That the task which lm-eval has just read from its files is the one that was planned.

    Raises:
        ConfigError: It is another.
    """
    said, trusted = suite.grammar, suite.grammar["trusted"]
    if "stock" in said:
        folder = Path(said["folder"]) if said["folder"] else None
        again = stock.stock_suite(suite.id, folder, said["revision"], said["documents"], trusted)
    else:
        again = load_task_suite(Path(said["folder"]), trusted)
    if again.digest != suite.digest:
        raise ConfigError("the task changed after the run was planned", where=suite.id, todo="start the run again")


def stock_config(suite: Suite, scratch: Path) -> dict[str, Any]:
    """A stock task's configuration on its data: files of a folder in the hub's columns, or the hub at one commit.

    Args:
        suite: Of ``stock.stock_suite``.
        scratch: Where rows in other columns are written.

    Raises:
        ConfigError: The data are not what they were.
    """
    said = suite.grammar
    config = stock.definition(said["stock"], said["trusted"])
    where = f"lm-eval task {said['stock']}"
    check_greedy(config.get("generation_kwargs") or {}, where)
    _refuse_code(config, Path(where))
    if said["revision"]:
        return config | {"dataset_kwargs": {**(config.get("dataset_kwargs") or {}), "revision": said["revision"]}}
    files = {}
    for split, name in said["files"].items():
        path = Path(name)
        if path.suffix == ".jsonl":
            rows = stock.recast(said["stock"], stock.read_rows(path))
            path = scratch / f"{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        files[split] = str(path)
    kind = "parquet" if all(name.endswith(".parquet") for name in files.values()) else "json"
    if "train" not in files:  # named for worked examples that nobody asks for
        config = config | {"training_split": None}
    return config | {"dataset_path": kind, "dataset_name": None, "dataset_kwargs": {"data_files": files}}


def _evaluated(
    engine: TokenEngine,
    prepare: Callable[[Path], Mapping[str, Mapping[str, Any]]],
    limit: int | None,
    progress: Progress,
    *,
    hub: bool = False,
) -> tuple[TaskScores, ...]:
    with tempfile.TemporaryDirectory() as scratch:
        configs = prepare(Path(scratch))
        if not hub:
            os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
        from ecology.evaluator.lmeval_run import evaluate  # noqa: PLC0415  (five seconds to import)

        return evaluate(engine, configs, limit, progress, scratch)


def load_task_suite(path: Path, trusted: Collection[Digest] = ()) -> Suite:
    """A suite of kind ``lm_eval``: a ``suite.yaml`` that names a task whose YAML lies beside it.

    Args:
        path: ``suite.yaml`` with ``id``, ``version``, ``title``, ``licence``, ``kind: lm_eval``, ``capability`` and
            ``task``, and perhaps ``documents`` (the first so many are asked); or its folder.
        trusted: Digests of Python files beside the task that a policy lists.

    Returns:
        A suite whose digest covers the task and its data too.

    Raises:
        ConfigError: It is no such suite, or its task cannot be used.
    """
    file = path / "suite.yaml" if path.is_dir() else path
    said = read_source(file, ConfigError, str(file)).plain("the suite")
    wanted = {"id": str, "version": int, "title": str, "licence": str, "kind": str, "capability": str, "task": str}
    if not isinstance(said, dict) or said.get("kind") != "lm_eval" or set(said) - {"documents"} != set(wanted):
        raise ConfigError(f"a suite of kind lm_eval has the keys {', '.join(wanted)}", where=str(file))
    if wrong := [key for key, kind in wanted.items() if type(said[key]) is not kind]:
        raise ConfigError(f"{wrong[0]} must be a {wanted[wrong[0]].__name__}", where=str(file))
    documents = said.get("documents", 0)
    if type(documents) is not int or documents < 0:
        raise ConfigError("documents must be a whole number from 0", where=str(file))
    config = _read_task(file.parent, said["task"], trusted)
    data = {Path(name).name: digest_bytes(Path(name).read_bytes()) for name in _files(config)}
    plain = config | {"dataset_kwargs": {**config["dataset_kwargs"], "data_files": ""}}  # where they are is no content
    return Suite(
        id=said["id"],
        version=said["version"],
        title=said["title"],
        licence=said["licence"],
        kind="lm_eval",
        capability=said["capability"],
        digest=digest({"suite": said, "task": stock.plain_config(plain), "data": data}),
        max_new_tokens=0,
        schema={},
        grammar={
            "task": said["task"],
            "folder": str(file.parent),
            "documents": documents,
            "trusted": sorted(trusted),
        },
    )


def _files(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Every data file of a localised task."""
    found: list[str] = []
    todo = [config["dataset_kwargs"]["data_files"]]
    while todo:
        some = todo.pop()
        if isinstance(some, str):
            found.append(some)
        else:
            todo += some.values() if isinstance(some, Mapping) else some
    return tuple(sorted(found))


def _read_task(folder: Path, task: str, trusted: Collection[Digest]) -> dict[str, Any]:
    """One task's configuration with absolute data files."""
    for file in sorted(folder.glob("*.y*ml")):
        if file.name == "suite.yaml":  # it names a task too, and is none
            continue
        config = read_task(file, trusted)
        if isinstance(config, dict) and config.get("task") == task:
            return _localised(config, file)
    raise ConfigError(f"no task {task!r} in the folder", where=str(folder))


def _localised(config: dict[str, Any], file: Path) -> dict[str, Any]:
    _refuse_code(config, file)
    if config.get("dataset_path") not in ("json", "csv", "parquet", "text"):
        raise ConfigError(
            f"dataset_path is {config.get('dataset_path')!r}",
            where=str(file),
            todo="put the data beside the task and use dataset_path: json",
        )
    check_greedy(config.get("generation_kwargs") or {}, str(file))
    arguments = dict(config.get("dataset_kwargs") or {})
    arguments["data_files"] = _absolute(arguments.get("data_files"), file)
    return config | {"dataset_kwargs": arguments}


def check_greedy(settings: Mapping[str, Any], where: str) -> None:
    """Refuses settings under which a reply is not the greedy one.

    Raises:
        ConfigError: There is one.
    """
    for key, neutral in GREEDY.items():
        if settings.get(key, neutral) not in (None, neutral):
            raise ConfigError(f"generation_kwargs.{key} asks for sampling", where=where, todo="replies are greedy")


def _refuse_code(config: Mapping[str, Any], file: Path) -> None:
    named = [key for key in CODE if config.get(key)]
    named += ["trust_remote_code"] if (config.get("dataset_kwargs") or {}).get("trust_remote_code") else []
    named += ["hf_evaluate"] if any(m.get("hf_evaluate") for m in config.get("metric_list") or ()) else []
    if named:
        raise UntrustedTask(f"the task holds {named[0]}, which can run code", where=str(file), todo="take it out")


def _absolute(files: Any, file: Path) -> Any:
    if isinstance(files, Mapping):
        return {split: _absolute(some, file) for split, some in files.items()}
    if isinstance(files, (list, tuple)):
        return [_absolute(some, file) for some in files]
    if not isinstance(files, str) or not files:
        raise ConfigError("dataset_kwargs.data_files names no file", where=str(file))
    path = (file.parent / files).resolve()
    if not path.is_relative_to(file.parent.resolve()) or not path.is_file():
        raise ConfigError(f"data file {files!r} is not beside the task", where=str(file))
    return str(path)
