"""Stock tasks by name: as the installed lm-eval defines them, on data of a local folder or of the hub.

``evaluator.tasks`` of a configuration names them: ``{gsm8k: {folder: data/gsm8k, documents: 64}}`` or
``{gsm8k: {revision: <commit>}}``. The definition is lm-eval's own YAML, ``!function`` included (see ``functions``), so
scores compare with what others publish. A folder holds the data set's files by split (``train.jsonl``, ``test.jsonl``,
``dev.jsonl``), in the hub's columns or in the flat ones of ``LAYOUTS``. The hub is asked for one commit and never for
whatever is newest.

``svamp`` and ``xstest`` are no tasks of lm-eval; ``RECORDS`` makes items of ours of their rows, asked in the chat frame
and scored by our verifiers. Stock items are public by nature: no stock suite has a hidden split.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ecology.contracts.evidence import Item, Suite, SuiteKind
from ecology.contracts.identity import Digest, Json
from ecology.errors import ConfigError
from ecology.evaluator.functions import Function, package_folder, read_task
from ecology.kernel.canonical import digest, digest_bytes

ALIASES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "dev", "valid", "test"),
    "test": ("test", "dev", "validation"),
}
"""Split of a task -> beginnings of the names of files that may hold it, the best first."""
MAX_INCLUDES = 4
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TASKS = {"truthfulqa": "truthfulqa_mc1"}
"""Short names."""


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """How rows of a data set become items of ours."""

    kind: SuiteKind
    capability: str
    licence: str
    max_new_tokens: int
    item: Callable[[Mapping[str, Json]], tuple[str, str, str] | None]
    """Row -> prompt, answer, category; None for a row that is left out."""


def _svamp(row: Mapping[str, Json]) -> tuple[str, str, str]:
    answer = float(row["answer"])
    return f"{row['body']}. {row['question']}".replace("..", "."), f"{answer:g}", str(row.get("type", ""))


def _xstest(row: Mapping[str, Json], label: str) -> tuple[str, str, str] | None:
    return (str(row["prompt"]), "", str(row["type"])) if row["label"] == label else None


RECORDS: Mapping[str, Record] = {
    "svamp": Record("numeric", "arithmetic", "MIT", 32, _svamp),
    "xstest": Record("refusal", "refuse-harm", "CC-BY-4.0", 16, lambda row: _xstest(row, "safe")),
    "xstest_unsafe": Record("refusal", "refuse-harm", "CC-BY-4.0", 16, lambda row: _xstest(row, "unsafe")),
}
"""Data sets that lm-eval has no task for."""


def _gsm8k(row: Mapping[str, Json]) -> Mapping[str, Json]:
    return {"question": row["question"], "answer": f"{row['solution']}\n#### {row['answer']}"}


def _truthfulqa(row: Mapping[str, Json]) -> Mapping[str, Json]:
    choices = [row["best_answer"], *row["incorrect_answers"]]
    labels = [1] + [0] * len(row["incorrect_answers"])
    return {"question": row["question"], "mc1_targets": {"choices": choices, "labels": labels}}


def _bbq(row: Mapping[str, Json]) -> Mapping[str, Json]:
    info = {
        f"ans{i}": [choice, group]
        for i, (choice, group) in enumerate(zip(row["choices"], row["answer_groups"], strict=True))
    }
    return {
        "example_id": str(row["id"]),
        "question_index": str(row["question_index"]),
        "question_polarity": row["question_polarity"],
        "context_condition": row["context_condition"],
        "category": row["category"],
        "answer_info": info,
        "additional_metadata": {"stereotyped_groups": row["stereotyped_groups"]},
        "context": row["context"],
        "question": row["question"],
        **{f"ans{i}": choice for i, choice in enumerate(row["choices"])},
        "label": row["label"],
    }


LAYOUTS: Mapping[str, tuple[frozenset[str], Callable[[Mapping[str, Json]], Mapping[str, Json]]]] = {
    "gsm8k": (frozenset({"solution", "answer"}), _gsm8k),
    "truthfulqa_mc1": (frozenset({"best_answer", "incorrect_answers"}), _truthfulqa),
    "bbq": (frozenset({"choices", "answer_groups", "label"}), _bbq),
}
"""Task -> columns of a flat layout, and how its rows become the hub's."""


def stock_suite(
    name: str, folder: Path | None, revision: str, documents: int, trusted: Collection[Digest] = ()
) -> Suite:
    """A suite of a stock task.

    Args:
        name: As lm-eval calls it, or a name of ``RECORDS``.
        folder: Of the data; None asks the hub.
        revision: Commit of the hub's data set; empty with a folder.
        documents: Asked at most, the first ones in file order; 0 is all.
        trusted: Digests of Python files that the policy lists; what lm-eval brings needs none.

    Raises:
        ConfigError: There is no such task or data.
        UntrustedTask: Its code was changed.
    """
    where = f"evaluator.tasks.{name}"
    if (folder is None) == (not revision):
        raise ConfigError("a task takes its data from a folder or from a revision of the hub", where=where)
    if revision and not _COMMIT.fullmatch(revision):
        todo = "name the data set's commit, 40 hex digits"
        raise ConfigError(f"{revision!r:.60} is no commit, and what it names may change", where=where, todo=todo)
    if name in RECORDS:
        return _records(name, folder, documents, where)
    task = _TASKS.get(name, name)
    config = definition(task, trusted)
    files = {} if folder is None else data_files(config, folder, where)
    held = {split: str(path) for split, path in files.items()}
    return Suite(
        id=name,
        version=1,
        title=f"{task} of lm-eval",
        licence="as published",
        kind="lm_eval",
        capability=name,
        digest=digest(
            {
                "task": plain_config(config),
                "documents": documents,
                "revision": revision,
                "data": {split: digest_bytes(path.read_bytes()) for split, path in files.items()},
            }
        ),
        max_new_tokens=0,
        schema={},
        grammar={
            "stock": task,
            "folder": str(folder or ""),
            "files": held,
            "revision": revision,
            "documents": documents,
            "trusted": sorted(trusted),
        },
    )


def definition(task: str, trusted: Collection[Digest] = ()) -> dict[str, Any]:
    """A task as the installed lm-eval defines it, what it includes taken in.

    Raises:
        ConfigError: It has no such task.
        UntrustedTask: Its code was changed.
    """
    line = re.compile(rf"^task:\s*['\"]?{re.escape(task)}['\"]?\s*$", re.MULTILINE)
    root = package_folder() / "tasks"
    near = sorted((root / task.split("_", maxsplit=1)[0]).rglob("*.yaml")) or sorted(root.rglob("*.yaml"))
    for file in (*near, *sorted(root.rglob("*.yaml"))):
        if line.search(file.read_text(encoding="utf-8")):
            config = _included(file, trusted, 0)
            if isinstance(config.get("task"), str):
                return {key: value for key, value in config.items() if key not in {"tag", "group"}}
    raise ConfigError(f"the installed lm-eval has no task {task!r}", todo="lm-eval ls tasks names them")


def _included(file: Path, trusted: Collection[Digest], depth: int) -> dict[str, Any]:
    config = read_task(file, trusted)
    if not isinstance(config, dict):
        raise ConfigError("is no task", where=str(file))
    name = config.pop("include", None)
    if name is None:
        return config
    target = file.parent / str(name)
    if depth >= MAX_INCLUDES or not target.resolve().is_relative_to(package_folder().resolve()):
        raise ConfigError(f"includes {name!r:.80}", where=str(file))
    return {**_included(target, trusted, depth + 1), **config}


def data_files(config: Mapping[str, Any], folder: Path, where: str) -> Mapping[str, Path]:
    """Which file of a folder holds each split that a task asks for.

    Raises:
        ConfigError: One is missing.
    """
    asked = {config.get(f"{kind}_split") for kind in ("training", "validation", "test", "fewshot")} - {None, ""}
    found = {}
    for split in sorted(map(str, asked)):
        names = ALIASES.get(split, (split,))
        if len(asked) == 1:  # a hub's only split is often called train; on disk it may go by what it is for
            names = (*names, *(name for name in ALIASES["test"] if name not in names))
        files = [
            f for name in names for f in sorted(folder.glob(f"{name}*")) if f.suffix in {".jsonl", ".json", ".parquet"}
        ]
        if files:
            found[split] = files[0].resolve()
        elif split != config.get("training_split") or config.get("fewshot_split") == split:
            todo = f"put {names[0]}.jsonl or {names[0]}.parquet there"
            raise ConfigError(f"no file holds the split {split!r}", where=f"{where}: {folder}", todo=todo)
    return found


def recast(task: str, rows: list[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    """Rows in the hub's columns; those that have them already stay as they are.

    Raises:
        ConfigError: A row has neither.
    """
    if task not in LAYOUTS or not rows or not LAYOUTS[task][0] <= rows[0].keys():
        return rows
    try:
        return [LAYOUTS[task][1](row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"a row of {task} lacks {error}", where=f"evaluator.tasks.{task}") from error


def read_rows(file: Path) -> list[Mapping[str, Json]]:
    """Rows of a JSONL file.

    Raises:
        ConfigError: It is none.
    """
    try:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"is no JSONL: {error}", where=str(file)) from error
    if not all(isinstance(row, dict) for row in rows):
        raise ConfigError("a line is no object", where=str(file))
    return rows


def _records(name: str, folder: Path | None, documents: int, where: str) -> Suite:
    record = RECORDS[name]
    files = sorted(folder.glob("*.jsonl")) if folder else []
    wanted = [file for start in ("test", "dev") for file in files if file.name.startswith(start)]
    if not wanted:
        raise ConfigError("it needs a folder with test.jsonl or dev.jsonl", where=where)
    try:
        drawn = [made for row in read_rows(wanted[0]) if (made := record.item(row)) is not None]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"a row lacks {error}", where=str(wanted[0])) from error
    items = tuple(
        Item(digest([prompt, answer, [], category])[7:23], prompt, answer, (), category, "", category)
        for prompt, answer, category in drawn[: documents or None]
    )
    return Suite(
        id=name,
        version=1,
        title=f"{name}, as published",
        licence=record.licence,
        kind=record.kind,
        capability=record.capability,
        digest=digest({"records": name, "items": [item.id for item in items], "tokens": record.max_new_tokens}),
        max_new_tokens=record.max_new_tokens,
        schema={},
        grammar={"records": items},
    )


def plain_config(value: Any) -> Json:
    """A task's configuration as plain data, functions by digest."""
    if isinstance(value, Function):
        return {"function": value.name, "digest": value.digest}
    if isinstance(value, Mapping):
        return {str(key): plain_config(one) for key, one in value.items()}
    return [plain_config(one) for one in value] if isinstance(value, (list, tuple)) else value
