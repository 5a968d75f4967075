"""From ``conf/``, overlays and overrides to checked settings. The only module that imports Hydra.

Why not ``hydra.main``: it turns every failure into exit 1, which is our word for "refused". So ``launch`` drives
Hydra's run and multirun itself, and every job hands back an exit code.

Hydra instantiates callbacks, launchers, sweepers and logging from configuration, so a key ``_target_``, ``()`` or
``class`` in an overlay or an override would run code. Everything is therefore composed once without instantiating
anything, and refused unless those keys hold the values that Hydra ships. Interpolations that read the environment are
refused because what is recorded would not say what was run.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import pydantic
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ecology.contracts.identity import Json
from ecology.errors import ConfigError, EcologyError
from ecology.pipeline.places import shared
from ecology.pipeline.settings import Settings

CODE_KEYS = frozenset({"_target_", "()", "class", "_call_"})
"""Keys under which Hydra and Python's logging look for something to import."""

SHIPPED_TARGETS = frozenset(
    {
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "logging.FileHandler",
        "logging.StreamHandler",
    }
)
SHIPPED_RESOLVERS = ("now:", "hydra:")


@dataclasses.dataclass(frozen=True)
class Job:
    """One composed job."""

    settings: Settings
    config: Mapping[str, Json]
    """Resolved plain data, as recorded and digested."""
    folder: Path
    """Hydra's output folder of this job."""


def launch(
    overrides: Sequence[str], task: Callable[[Job], int], *, multirun: bool = False, overlay: Path | None = None
) -> tuple[int, ...]:
    """Composes the configuration and runs ``task`` once, or once per job of a sweep.

    Args:
        overrides: Hydra overrides, as on the command line.
        task: Runs one job and returns its exit code; must not raise.
        multirun: Whether values with commas are swept.
        overlay: A folder with the user's own groups, searched before the shipped ones.

    Returns:
        Exit codes in job order.

    Raises:
        ConfigError: Nothing was run: the configuration does not compose, does not fit or names code.
    """
    engine = _hydra(overlay)
    try:
        _check_overrides(overrides, multirun)
        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        preview = engine.compose_config("config", list(_fixed(overrides, multirun)), mode, with_log_configuration=False)
        _refuse_code(preview)
        if not multirun:
            check(_user_part(preview))

        def one(config: DictConfig) -> int:
            """Called by Hydra's launcher once per job, with the job's own configuration."""
            _refuse_code(config)
            plain = _user_part(config)
            return task(Job(check(plain), plain, Path(HydraConfig.get().runtime.output_dir)))

        if not multirun:
            return (int(engine.run("config", one, list(overrides), with_log_configuration=False).return_value),)
        batches = engine.multirun("config", one, list(overrides), with_log_configuration=False)
        return tuple(int(job.return_value) for batch in batches for job in batch)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise _composition(error) from error
    finally:
        GlobalHydra.instance().clear()


def compose(overrides: Sequence[str] = (), overlay: Path | None = None) -> tuple[Settings, Mapping[str, Json]]:
    """The checked settings and the plain data they came from, without running anything.

    Raises:
        ConfigError: As ``launch``.
    """
    engine = _hydra(overlay)
    try:
        _check_overrides(overrides, multirun=False)
        config = engine.compose_config("config", list(overrides), RunMode.RUN, with_log_configuration=False)
        _refuse_code(config)
        plain = _user_part(config)
        return check(plain), plain
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise _composition(error) from error
    finally:
        GlobalHydra.instance().clear()


def check(plain: Mapping[str, Json]) -> Settings:
    """Plain data as settings.

    Raises:
        ConfigError: All mistakes at once, each with its path.
    """
    try:
        return pydantic.TypeAdapter(Settings).validate_python(plain)
    except pydantic.ValidationError as error:
        raise ConfigError(_listed(error), where="configuration", todo="see conf/ for what each group holds") from None


def options(kind: type[Any], data: Mapping[str, Json], where: str) -> Any:
    """Options of one kind (a frozen dataclass) from plain data.

    Raises:
        ConfigError: All mistakes at once, each with its path and the nearest known name.
    """
    fields = {f.name for f in dataclasses.fields(kind) if f.init}
    unknown = [key for key in data if key not in fields]
    problems = [f"{where}.{key}: no such option{_nearest(key, fields)}" for key in unknown]
    try:
        value = pydantic.TypeAdapter(kind).validate_python({k: v for k, v in data.items() if k in fields})
    except pydantic.ValidationError as error:
        problems.append(_listed(error, where))
    except EcologyError as error:  # a range that the dataclass itself checks
        problems.append(f"{where}: {error}")
    else:
        if not problems:
            return value
    raise ConfigError("\n  ".join(problems), where=where, todo=f"known options: {', '.join(sorted(fields))}")


def choose(table: Mapping[str, Any], name: str, where: str) -> Any:
    """The entry of a room's table that a ``kind`` names.

    Raises:
        ConfigError: Unknown; lists the known ones.
    """
    if name not in table:
        known = ", ".join(sorted(table))
        raise ConfigError(f"unknown kind {name!r}{_nearest(name, table)}", where=where, todo=f"known kinds: {known}")
    return table[name]


def _hydra(overlay: Path | None) -> Hydra:
    if overlay is not None and not overlay.is_dir():
        raise ConfigError(
            "no such folder", where=str(overlay), todo="--config-dir takes a folder with groups like conf/'s"
        )
    hydra.version.setbase("1.3")
    search = create_config_search_path(str(shared("conf")))
    if overlay is not None:
        search.prepend("overlay", f"file://{overlay.resolve()}")
    GlobalHydra.instance().clear()
    return Hydra.create_main_hydra2(task_name="ecology", config_search_path=search)


def _check_overrides(overrides: Sequence[str], multirun: bool) -> None:
    for parsed in OverridesParser.create().parse_overrides(list(overrides)):
        key = parsed.key_or_group or ""
        if key.startswith("hydra.searchpath"):
            raise ConfigError("the search path is not configurable", where=key, todo="use --config-dir")
        if parsed.is_sweep_override():
            if not multirun:
                raise ConfigError(
                    "several values for one key", where=str(parsed.input_line), todo="add -m to sweep over them"
                )
            if key.split("/")[0].split(".")[0] == "hydra":
                raise ConfigError("Hydra's own settings cannot be swept", where=str(parsed.input_line))


def _fixed(overrides: Sequence[str], multirun: bool) -> Iterator[str]:
    """The overrides that are not swept: what Hydra itself composes before it starts a sweep."""
    for text, parsed in zip(overrides, OverridesParser.create().parse_overrides(list(overrides)), strict=True):
        if not (multirun and parsed.is_sweep_override()):
            yield text


def _refuse_code(config: DictConfig) -> None:
    plain = OmegaConf.to_container(config, resolve=False)
    problems = []
    for path, key, value in _walk(plain, ""):
        ours = not path.startswith("hydra.")
        if key in CODE_KEYS and (ours or value not in SHIPPED_TARGETS):
            problems.append(f"{path}: a configuration names no code ({value!r})")
        if ours and isinstance(value, str) and "${" in value:
            inner = value.split("${", 1)[1]
            if ":" in inner.split("}")[0] and not inner.startswith(SHIPPED_RESOLVERS):
                problems.append(f"{path}: the interpolation {value!r} reads what is not recorded")
    if isinstance(plain, dict) and plain.get("hydra", {}).get("callbacks"):
        problems.append("hydra.callbacks: callbacks run code")
    if problems:
        raise ConfigError("\n  ".join(problems), where="configuration", todo="take these keys out")


def _walk(node: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        here = f"{path}.{key}" if path else str(key)
        yield here, str(key), value
        yield from _walk(value, here)


def _user_part(config: DictConfig) -> Mapping[str, Json]:
    plain = OmegaConf.to_container(config, resolve=False)
    mine = OmegaConf.create({k: v for k, v in plain.items() if k != "hydra"}) if isinstance(plain, dict) else config
    missing = sorted(OmegaConf.missing_keys(mine))
    if missing:
        raise ConfigError(
            "these keys have no value: " + ", ".join(missing), where="configuration", todo=f"add {missing[0]}=VALUE"
        )
    resolved = OmegaConf.to_container(mine, resolve=True)
    if not isinstance(resolved, dict):
        raise ConfigError("the configuration is not a mapping", where="configuration")
    return {str(key): value for key, value in resolved.items()}


def _listed(error: pydantic.ValidationError, where: str = "") -> str:
    lines = []
    for item in error.errors():
        path = ".".join([where, *map(str, item["loc"])] if where else [str(part) for part in item["loc"]])
        if item["type"] == "unexpected_keyword_argument":
            lines.append(f"{path}: no such key")
        elif item["type"] == "missing":
            lines.append(f"{path}: missing")
        else:
            lines.append(f"{path}: {item['msg'].lower()}, found {item['input']!r:.60}")
    return "\n  ".join(lines)


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _composition(error: Exception) -> ConfigError:
    """Hydra's own error, in one line, with the known presets where it is about one."""
    text = " ".join(str(error).split()) or type(error).__name__
    todo = "conf/ has the groups; an override is written group=preset or key.key=value"
    missing = re.search(r"Could not (?:load|find) '([\w/-]+)/([^/']+)'", text)
    if missing:
        group, name = missing.groups()
        known = sorted(path.stem for path in shared("conf").joinpath(group).glob("*.yaml"))
        text = f"there is no preset {name!r} in {group}{_nearest(name, known)}"
        todo = f"known presets: {', '.join(known)}" if known else f"known groups: {', '.join(_groups())}"
    return ConfigError(text, where="configuration", todo=todo)


def _groups() -> list[str]:
    return sorted(path.name for path in shared("conf").iterdir() if path.is_dir())
