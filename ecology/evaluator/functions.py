"""``!function`` in lm-eval tasks: Python beside a task, run only if somebody vouched for its bytes.

Two things vouch: the installed lm-eval, whose wheel lists a digest of every file it brought (``RECORD``), and a policy
that lists the digest of the file (``evaluation.functions``). The bytes that were digested are the bytes that run: a
module is compiled from them and not found by its name, so nothing can be put in its place between the two.

Everything else is an ``UntrustedTask``, which names file, digest and the key to put it under.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import sys
import types
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ecology.contracts.identity import Digest
from ecology.errors import ConfigError, UntrustedTask
from ecology.kernel.canonical import digest_bytes

PACKAGE = "lm_eval"
MAX_BYTES = 1024 * 1024
"""Of a task's YAML."""


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """``!function utils.process_docs``: a name in a file beside the task."""

    file: Path
    name: str
    digest: Digest
    installed: bool
    """Whether it is a file of the installed lm-eval, unchanged."""

    def __str__(self) -> str:
        return f"{self.file.name}:{self.name}"


class _Loader(yaml.SafeLoader):
    """Plain YAML, and the tag ``!function`` as text."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Reference:
    text: str


def _reference(loader: yaml.SafeLoader, node: Any) -> _Reference:
    return _Reference(str(loader.construct_scalar(node)))


_Loader.add_constructor("!function", _reference)


def read_task(file: Path, trusted: Collection[Digest]) -> Any:
    """A task's YAML with a ``Function`` wherever it names one; nothing is run.

    Args:
        file: The task.
        trusted: Digests of files whose functions may be used.

    Raises:
        ConfigError: It is not YAML.
        UntrustedTask: Nobody vouches for a function.
    """
    try:
        text = file.read_bytes()
        if not _unchanged_yaml(file):
            _refuse_tricks(text, file)
        # a SafeLoader of our own: no other tag is known
        found = yaml.load(text, _Loader)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(file)) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        todo = "Python in tasks is refused, but for !function"
        raise ConfigError(f"not plain YAML: {error}", where=str(file), todo=todo) from error
    return _resolved(found, file, trusted)


def _unchanged_yaml(file: Path) -> bool:
    """Whether the file lies in the installed lm-eval, whose own tasks use anchors."""
    return file.resolve().is_relative_to(package_folder().resolve())


def _refuse_tricks(text: bytes, file: Path) -> None:
    """Refuses what a few lines could expand into gigabytes with, before anything is built."""
    if len(text) > MAX_BYTES:
        raise ConfigError(f"is larger than {MAX_BYTES} bytes", where=str(file))
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError("anchors and aliases are not read here", where=str(file), todo="write the task out")


def _resolved(value: Any, task: Path, trusted: Collection[Digest]) -> Any:
    if isinstance(value, _Reference):
        return _function(value.text, task, trusted)
    if isinstance(value, dict):
        return {key: _resolved(one, task, trusted) for key, one in value.items()}
    return [_resolved(one, task, trusted) for one in value] if isinstance(value, list) else value


def _function(text: str, task: Path, trusted: Collection[Digest]) -> Function:
    module, _, name = text.rpartition(".")
    if not module.isidentifier() or not name.isidentifier():
        what = f"!function {text!r:.80} names no function of a file beside the task"
        raise UntrustedTask(what, where=str(task), todo="write !function utils.name")
    file = task.parent / f"{module}.py"
    if file.is_symlink() or not file.is_file():
        raise UntrustedTask(f"!function {text}: there is no {file.name} beside the task", where=str(task))
    digest = digest_bytes(file.read_bytes())
    installed = _unchanged(file)
    if not installed and digest not in trusted:
        raise UntrustedTask(
            f"!function {text} runs code that nobody vouches for: {file.name} is {digest}",
            where=str(task),
            todo="read it, then list its digest in the policy under evaluation.functions",
        )
    return Function(file, name, digest, installed)


def loaded(value: Any) -> Any:
    """The value with every ``Function`` replaced by what it names, from the bytes that were vouched for.

    Raises:
        UntrustedTask: A file has changed since, cannot be run, or has no such function.
    """
    if isinstance(value, Function):
        return _load(value)
    if isinstance(value, Mapping):
        return {key: loaded(one) for key, one in value.items()}
    return [loaded(one) for one in value] if isinstance(value, list) else value


def _load(function: Function) -> Any:
    source = function.file.read_bytes()
    if digest_bytes(source) != function.digest:
        raise UntrustedTask(f"{function.file.name} changed while it was used", where=str(function.file))
    module = types.ModuleType(_module_name(function))
    module.__file__ = str(function.file)
    module.__package__ = module.__name__.rpartition(".")[0]
    try:
        with _known_as(module):
            exec(compile(source, str(function.file), "exec"), module.__dict__)
        return getattr(module, function.name)
    except ImportError as error:
        todo = f"pip install '{PACKAGE}[{function.file.parent.name}]' may bring it"
        raise ConfigError(
            f"{function} needs what is not installed: {error}", where=str(function.file), todo=todo
        ) from error
    except Exception as error:
        raise UntrustedTask(
            f"{function} cannot be run: {type(error).__name__}: {error}", where=str(function.file)
        ) from error


@contextlib.contextmanager
def _known_as(module: types.ModuleType) -> Iterator[None]:
    """Inside, the module is found by its name: ``dataclasses`` looks a class's module up while it makes the class."""
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before


def _module_name(function: Function) -> str:
    """Under its own name where it is lm-eval's, so that its imports work as there."""
    if not function.installed:
        return f"ecology_task_{function.digest[7:19]}"
    parts = function.file.resolve().with_suffix("").relative_to(package_folder().resolve().parent).parts
    return ".".join(parts)


@functools.cache
def package_folder() -> Path:
    """Where the installed lm-eval lies.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError("lm-eval is not installed", todo="pip install tiny-ecology[lm-eval]") from error
    return Path(str(distribution.locate_file(PACKAGE)))


@functools.cache
def _record() -> Mapping[str, str]:
    """Path -> SHA-256 as the wheel gave it, in hex, of every Python file that lm-eval installed."""
    folder = package_folder().resolve().parent
    found = {}
    for path in importlib.metadata.files(PACKAGE) or ():
        if path.suffix == ".py" and path.hash is not None and path.hash.mode == "sha256":
            raw = base64.urlsafe_b64decode(path.hash.value + "=" * (-len(path.hash.value) % 4))
            found[str(folder / str(path))] = raw.hex()
    return found


def _unchanged(file: Path) -> bool:
    """Whether lm-eval brought this file and every Python file beside it, which it may import, and none has changed."""
    known = _record()
    beside = sorted(file.resolve().parent.glob("*.py"))
    return str(file.resolve()) in known and all(
        hashlib.sha256(one.read_bytes()).hexdigest() == known.get(str(one)) for one in beside
    )
