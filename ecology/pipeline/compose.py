"""From ``conf/``, overlays and overrides to checked settings.

Hydra composes, ``guard`` looks at what came out before anything acts on it, pydantic checks it against the types of
``settings``. This module and ``launching``, which runs jobs, are the only ones that import Hydra; pydantic objects
never leave this one.

Every mistake is told at once, with its path and the nearest known name. Hydra's own errors of composition (a preset
that does not exist) come first and one at a time: without a composition there is nothing to check.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import pydantic
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ecology.contracts.identity import Json
from ecology.errors import ConfigError
from ecology.pipeline import guard
from ecology.pipeline.bounds import out_of_bounds
from ecology.pipeline.options import nearest
from ecology.pipeline.places import shared
from ecology.pipeline.settings import Settings

CONFIG = "config"


def compose(overrides: Sequence[str] = (), overlay: Path | None = None) -> tuple[Settings, Mapping[str, Json]]:
    """The checked settings and the plain data they came from, without running anything.

    Args:
        overrides: Hydra overrides, as on the command line.
        overlay: A folder with the user's own groups, searched before the shipped ones.

    Raises:
        ConfigError: The configuration does not compose, does not fit or names code.
    """
    with opened(overlay) as engine:
        single(overrides)
        plain = user_part(composed(engine, overrides, overlay))
    return check(plain), plain


@contextlib.contextmanager
def opened(overlay: Path | None) -> Iterator[Hydra]:
    """Hydra over the shipped configuration and an overlay; what it raises inside becomes a ``ConfigError``."""
    if overlay is not None:
        guard.scan_overlay(overlay)
    hydra.version.setbase("1.3")
    search = create_config_search_path(str(shared("conf")))
    if overlay is not None:
        search.prepend("overlay", f"file://{overlay.resolve()}")
    GlobalHydra.instance().clear()
    try:
        yield Hydra.create_main_hydra2(task_name="ecology", config_search_path=search)
    except (HydraException, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise _composition(error, overlay) from error
    finally:
        GlobalHydra.instance().clear()


def composed(
    engine: Hydra, overrides: Sequence[str], overlay: Path | None = None, mode: RunMode = RunMode.RUN
) -> DictConfig:
    """One composition that ``guard`` has passed.

    Raises:
        ConfigError: It names code, or an override is not for this place.
    """
    said = check_overrides(overrides, overlay)
    config = engine.compose_config(CONFIG, list(overrides), mode, with_log_configuration=False)
    refuse_code(config, said)
    return config


def refuse_code(config: DictConfig, said: Sequence[str]) -> None:
    """Looks at a composition before anything acts on it.

    Args:
        config: The composition, ``hydra`` included.
        said: Keys of Hydra's own section that the command line overrides.

    Raises:
        ConfigError: All mistakes at once.
    """
    plain = OmegaConf.to_container(config, resolve=False)
    if not isinstance(plain, dict):
        raise ConfigError("the configuration is not a mapping", where="configuration")
    guard.refuse_code({str(key): value for key, value in plain.items()}, _shipped()["hydra"], said)


@functools.cache
def _shipped() -> Mapping[str, Any]:
    """The composition without overlay and overrides, unresolved, ``hydra`` included."""
    loader = ConfigLoaderImpl(config_search_path=create_config_search_path(str(shared("conf"))))
    config = Hydra(task_name="ecology", config_loader=loader).compose_config(
        CONFIG, [], RunMode.RUN, with_log_configuration=False
    )
    plain = OmegaConf.to_container(config, resolve=False)
    return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}


def check_overrides(overrides: Sequence[str], overlay: Path | None = None) -> tuple[str, ...]:
    """Refuses overrides that are for another place; tells which of Hydra's own keys are overridden.

    Raises:
        ConfigError: All mistakes at once.
    """
    problems, said = [], []
    groups = set(_groups(overlay))
    for parsed in parsed_overrides(overrides):
        key, line = parsed.key_or_group or "", str(parsed.input_line)
        top = re.split(r"[/.@]", key)[0]
        if key.startswith("hydra.searchpath"):
            problems.append(f"{line}: the search path is not configurable; use --config-dir")
        if top == "hydra":
            said.append(key)
            if parsed.is_sweep_override():
                problems.append(f"{line}: Hydra's own settings cannot be swept")
        if ".." in key.split("/"):
            problems.append(f"{line}: a group is named from the top, without '..'")
        if key in groups or key.startswith("hydra/"):
            for choice in _choices(parsed):
                problems += [problem] if (problem := guard.choice_problem(key, choice)) else []
    if problems:
        raise ConfigError("\n  ".join(problems), where="command line", todo="correct these overrides")
    return tuple(said)


def parsed_overrides(overrides: Sequence[str]) -> list[Override]:
    """Overrides in Hydra's grammar.

    Raises:
        ConfigError: All that cannot be read, at once.
    """
    parser, found, problems = OverridesParser.create(), [], []
    for text in overrides:
        try:
            found.append(parser.parse_override(text))
        except (HydraException, RecursionError) as error:
            why = " ".join(str(error).split("See https")[0].split()) or "nested too deeply"
            problems.append(f"{text}: no override that can be read: {why}")
    if problems:
        todo = "write key=value, and quote what the shell or Hydra would take apart: 'key=\"a b\"'"
        raise ConfigError("\n  ".join(problems), where="command line", todo=todo)
    return found


def single(overrides: Sequence[str]) -> None:
    """Refuses several values for one key, which only a sweep can take.

    Raises:
        ConfigError: Names the first such override.
    """
    for parsed in parsed_overrides(overrides):
        if parsed.is_sweep_override():
            raise ConfigError("several values for one key", where=str(parsed.input_line), todo="add -m to sweep")


def _choices(parsed: Any) -> list[str]:
    if parsed.is_sweep_override():
        values = list(parsed.sweep_iterator()) if parsed.is_discrete_sweep() else []
    else:
        values = [parsed.value()]
    flat = [inner for value in values for inner in (value if isinstance(value, list) else [value])]
    return ["" if value is None else str(value) for value in flat]


def check(plain: Mapping[str, Json]) -> Settings:
    """Plain data as settings.

    Raises:
        ConfigError: All mistakes at once, each with its path.
    """
    groups, problems = sort_out(plain)
    if problems:
        raise ConfigError("\n  ".join(problems), where="configuration", todo="see conf/ for what each group holds")
    return Settings(**groups)


def sort_out(plain: Mapping[str, Json]) -> tuple[dict[str, Any], list[str]]:
    """The top-level keys that fit their types, as values of those types, and what is wrong with the others."""
    hints = typing.get_type_hints(Settings)
    problems = list(out_of_bounds(plain))
    wrong: set[str] = set()
    try:
        pydantic.TypeAdapter(Settings).validate_python(plain)
    except pydantic.ValidationError as error:
        problems += _listed(error, "", Settings)
        wrong = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    good = [key for key in plain if key in hints and key not in wrong]
    groups = {key: pydantic.TypeAdapter(hints[key]).validate_python(plain[key]) for key in good}
    return groups, list(dict.fromkeys(problems))


def user_part(config: DictConfig) -> Mapping[str, Json]:
    """The resolved plain data without Hydra's own section.

    Raises:
        ConfigError: A key has no value yet.
    """
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


def _listed(error: pydantic.ValidationError, where: str, kind: Any) -> list[str]:
    lines = []
    for item in error.errors():
        path = ".".join([*([where] if where else []), *map(str, item["loc"])])
        if item["type"] == "unexpected_keyword_argument":
            known = _fields(kind, item["loc"][:-1])
            hint = nearest(str(item["loc"][-1]), known) or (f"; known: {', '.join(known)}" if known else "")
            lines.append(f"{path}: no such key{hint}")
        elif item["type"] == "missing":
            lines.append(f"{path}: missing")
        else:
            lines.append(f"{path}: {item['msg'].lower()}, found {item['input']!r:.60}")
    return lines


def _fields(kind: Any, loc: Sequence[int | str]) -> list[str]:
    """Field names of the dataclass that lies at ``loc`` below ``kind``; none where there is no dataclass."""
    for part in loc:
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            kind = typing.get_type_hints(kind).get(str(part))
        else:
            inner = [one for one in typing.get_args(kind) if one not in (str, Ellipsis, type(None))]
            kind = inner[0] if inner else None
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def _composition(error: Exception, overlay: Path | None) -> ConfigError:
    """Hydra's own error, in one line, with the known presets or keys where it is about one."""
    text = " ".join(str(error).split()) or type(error).__name__
    todo = "conf/ has the groups; an override is written group=preset or key.key=value"
    missing = re.search(r"Could not (?:load|find) '([\w/-]+)/([^/']+)'", text)
    unknown = re.search(r"Could not override '([^']+)'", text)
    if missing and missing[1] == "hydra/launcher" and missing[2] == "joblib":
        text, todo = "the joblib launcher is not installed", "pip install 'tiny-ecology[sweep]'"
    elif missing:
        group, name = missing.groups()
        known = ["basic", "joblib"] if group == "hydra/launcher" else _presets(group, overlay)
        text = f"there is no preset {name!r} in {group}{nearest(name, known or _groups(overlay))}"
        todo = f"known presets: {', '.join(known)}" if known else f"known groups: {', '.join(_groups(overlay))}"
    elif unknown:
        key = unknown[1]
        known = [path for path, _, _ in guard.walk(_shipped())]
        text = f"there is no key {key!r}{nearest(key, known)}"
        todo = f"correct it; to add a key that is new write +{key}=VALUE"
    elif isinstance(error, RecursionError):
        text, todo = "nested too deeply", "write it flatter"
    return ConfigError(text, where="configuration", todo=todo)


def _roots(overlay: Path | None) -> list[Path]:
    return [shared("conf"), *([overlay] if overlay is not None and overlay.is_dir() else [])]


def _presets(group: str, overlay: Path | None) -> list[str]:
    return sorted({path.stem for root in _roots(overlay) for path in root.joinpath(group).glob("*.yaml")})


def _groups(overlay: Path | None = None) -> list[str]:
    return sorted({path.name for root in _roots(overlay) for path in root.iterdir() if path.is_dir()})
