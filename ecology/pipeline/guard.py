"""What a configuration may not hold, looked for before anything acts on it.

1. Overlays are read as every document here is read before Hydra loads them: no tags (they make objects), no anchors
   and aliases (a few lines expand into gigabytes), bounded size and depth; and no links, and no ``searchpath``, which
   imports.
2. Hydra instantiates callbacks, launchers, sweepers and logging from configuration, so a key ``_target_``, ``()`` or
   ``class`` runs code. Hydra's whole own section must be what a composition without overlay and overrides gives; only
   output folders may differ, if the command line says so, and the launcher may be one of the shipped ones.
3. In the user's part nothing names code and an interpolation names another key and nothing else: a resolver
   (``oc.env``, ``hydra:``, ``now:``) would make the run depend on what is not recorded.
4. A group's choice is a name below that group; names that become file names hold no separators.

Pure but for reading the overlay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ecology.documents.source import read_source
from ecology.errors import ConfigError

CODE_KEYS = frozenset({"_target_", "()", "class", "_call_", "_partial_", "_recursive_", "_args_", "_convert_"})
"""Keys under which Hydra and Python's logging look for something to import, or that steer how."""
LAUNCHERS = frozenset(
    {
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    }
)
LAUNCHER_KEYS = frozenset({"_target_", "n_jobs", "prefer", "require", "verbose", "timeout", "backend"}) | frozenset(
    {"pre_dispatch", "batch_size", "temp_folder", "max_nbytes", "mmap_mode"}
)
FOLDER_KEYS = ("run.dir", "sweep.dir", "sweep.subdir")
COMPOSED_KEYS = ("overrides", "runtime", "job.override_dirname", "job.id", "job.num", "job.config_name", "mode")
"""What Hydra itself writes down of this composition."""
MAX_FILES = 2000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CHOICE = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*")
_NODE = re.compile(r"\$\{\.*[A-Za-z_][\w.\[\]-]*\}")
_FOLDER_INTERPOLATION = re.compile(r"\$\{(now:[%\w:. -]+|hydra[.:][\w.]+|[A-Za-z_][\w.]*)\}")


def scan_overlay(overlay: Path) -> None:
    """Refuses an overlay that holds what no configuration needs.

    Raises:
        ConfigError: All mistakes at once, each with file and line.
    """
    if not overlay.is_dir():
        raise ConfigError(
            "no such folder", where=str(overlay), todo="--config-dir takes a folder with groups like conf/'s"
        )
    files = sorted(p for p in overlay.rglob("*") if p.suffix in {".yaml", ".yml"})
    if len(files) > MAX_FILES:
        raise ConfigError(
            f"{len(files)} YAML files: this is no folder of configuration groups",
            where=str(overlay),
            todo="keep your groups in a folder of their own",
        )
    problems = [problem for file in files for problem in _scan_file(file)]
    if problems:
        raise ConfigError("\n  ".join(problems), where=str(overlay), todo="write the values out as plain YAML")


def _scan_file(file: Path) -> Iterator[str]:
    if file.is_symlink():
        yield f"{file}: is a link; a configuration lies in its folder"
        return
    try:
        data = read_source(file, ConfigError, str(file)).plain("the overlay")
    except ConfigError as error:
        yield str(error)
        return
    if "searchpath" in {text for _, key, value in walk(data) for text in (key, value) if isinstance(text, str)}:
        yield f"{file}: the search path is not configurable; use --config-dir"


def refuse_code(plain: Mapping[str, Any], reference: Mapping[str, Any], said: Sequence[str]) -> None:
    """Refuses a composed configuration that names code, reads what is not recorded or changes Hydra itself.

    Args:
        plain: The unresolved composition, ``hydra`` included.
        reference: The ``hydra`` section of a composition without overlay and overrides.
        said: Keys of Hydra's own section that the command line overrides.

    Raises:
        ConfigError: All mistakes at once.
    """
    problems = []
    for path, key, value in walk({k: v for k, v in plain.items() if k != "hydra"}):
        if key in CODE_KEYS:
            problems.append(f"{path}: a configuration names no code ({value!r:.80})")
        if isinstance(value, str) and "${" in _NODE.sub("", value):
            problems.append(f"{path}: the interpolation {value!r:.80} reads what is not recorded")
        if "${" in key:
            problems.append(f"{path}: a key is no place for an interpolation")
    problems += _hydras_own(plain.get("hydra", {}), reference, said)
    if problems:
        raise ConfigError("\n  ".join(problems), where="configuration", todo="take these keys out")


def _hydras_own(found: Mapping[str, Any], reference: Mapping[str, Any], said: Sequence[str]) -> Iterator[str]:
    launcher = found.get("launcher", {})
    target = launcher.get("_target_") if isinstance(launcher, Mapping) else None
    if target not in LAUNCHERS:
        yield f"hydra.launcher: a configuration names no code ({target!r:.80}); the launchers are basic and joblib"
    for path, key, value in walk(launcher, "hydra.launcher"):
        if key not in LAUNCHER_KEYS or isinstance(value, Mapping | list) or "${" in str(value):
            yield f"{path}: no setting of a launcher"
    ours, theirs = _leaves(found), _leaves(reference)
    for path in sorted(ours.keys() | theirs.keys()):
        value = ours.get(path)
        if path.startswith("launcher.") or value == theirs.get(path) or _composed(path):
            continue
        if path in FOLDER_KEYS and f"hydra.{path}" in said:
            yield from _folder(f"hydra.{path}", str(value), inside=path == "sweep.subdir")
        elif not (path == "output_subdir" and value is None):
            code = " (a configuration names no code)" if set(re.split(r"[.\[\]]", path)) & CODE_KEYS else ""
            yield f"hydra.{path}: Hydra itself is not configured here{code}; its folders are, on the command line"


def _composed(path: str) -> bool:
    return any(path == key or path.startswith(f"{key}.") for key in COMPOSED_KEYS)


def _folder(path: str, value: str, *, inside: bool) -> Iterator[str]:
    plain = _FOLDER_INTERPOLATION.sub("x", value)
    parts = PurePosixPath(plain)
    if "${" in plain:
        yield f"{path}: the interpolation in {value!r:.80} reads what is not recorded"
    if ".." in parts.parts or (inside and parts.is_absolute()):
        yield f"{path}: {value!r:.80} climbs out"


def _leaves(node: Mapping[str, Any]) -> dict[str, Any]:
    return {
        path: value
        for path, _, value in walk(node)
        if not (isinstance(value, Mapping | list) and value)  # an empty one is a value of its own
    }


def walk(node: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Path, key and value of everything below a node."""
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        here = f"{path}.{key}" if path else str(key)
        yield here, str(key), value
        yield from walk(value, here)


def choice_problem(key: str, choice: str) -> str:
    """Why a group cannot have this choice; empty when it can."""
    if choice in {"", "null"} or _CHOICE.fullmatch(choice):
        return ""
    return f"{key}={choice}: a preset is chosen by its name below the group, not by a path"


def name_problem(path: str, name: object) -> str:
    """Why this cannot be a name that becomes part of file names; empty when it can."""
    if isinstance(name, str) and NAME.fullmatch(name):
        return ""
    return f"{path}: {name!r:.60} is no name; letters, digits, dot, dash and underscore, 64 at most, are"
