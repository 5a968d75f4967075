"""Where things are: the shipped folders and the state of this installation.

One function finds ``conf/``, ``policies/``, ``suites/`` and ``corpora/``, in a checkout (beside the package) and in an
installed wheel (inside it, under ``_share``). State lives under ``ECOLOGY_HOME`` or ``--home``.
"""

from __future__ import annotations

import os
from pathlib import Path

from ecology.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent


def shared(*parts: str) -> Path:
    """A shipped file or folder, such as ``shared("conf")``.

    Raises:
        ConfigError: It is not there: the installation is incomplete.
    """
    for root in (_PACKAGE / "_share", _PACKAGE.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise ConfigError(
        f"{'/'.join(parts)} is not part of this installation",
        where=str(_PACKAGE),
        todo="install tiny-ecology again, or run from a checkout",
    )


def subject(text: str, folder: str, suffix: str = "") -> Path:
    """A policy, suite, corpus or adapter named in a configuration: the name of a shipped one, or a path.

    A bare name means the shipped one, wherever the command is run; ``./name`` means what lies there.

    Args:
        text: A bare name, or a path (absolute, or relative to the working directory).
        folder: Where shipped ones of that kind are: ``policies``, ``suites``, ``corpora``, ``examples``.
        suffix: Added to a bare name (``.yaml``).

    Raises:
        ConfigError: Neither exists.
    """
    path = Path(text).expanduser()
    if path.name == text and text not in {"", ".", ".."}:
        root = shared(folder)
        candidate = root / (text if text.endswith(suffix) else text + suffix)
        if candidate.exists():
            return candidate
        if not path.exists():
            todo = f"shipped ones: {', '.join(_named(root, suffix))}; or give a path"
            raise ConfigError(f"no {folder} of that name", where=text, todo=todo)
    if not text or not path.exists():
        raise ConfigError("no such file or folder", where=text, todo=f"give a path, or the name of one in {folder}/")
    return path


def _named(root: Path, suffix: str) -> list[str]:
    """What can be meant by a bare name: folders but caches, or files with the suffix but those that test another."""
    if not suffix:
        return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0].isalnum())
    return sorted(path.stem for path in root.glob(f"*{suffix}") if not path.stem.endswith("_test"))


def home(option: str | None = None) -> Path:
    """The folder that holds store, registry, keys, bases and the secret seed; made if missing.

    Raises:
        ConfigError: It cannot be made or written.
    """
    path = Path(option or os.environ.get("ECOLOGY_HOME") or Path.home() / ".ecology").expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"cannot make this folder: {error.strerror}", where=str(path), todo="set ECOLOGY_HOME"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError("this folder cannot be written", where=str(path), todo="set ECOLOGY_HOME to one that can")
    return path


def made_folder(home: Path) -> Path:
    """Where corpora are that were made in a home."""
    return home / "corpora"
