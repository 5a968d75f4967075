"""What changed since a Git revision, so that a pull request pays for its own adapters alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ecology.errors import ConfigError


def changed_since(folder: Path, revision: str) -> bool:
    """Whether anything below a folder differs from a Git revision, untracked files included.

    Raises:
        ConfigError: The folder is in no repository, or the revision is not known.
    """
    where = folder if folder.is_dir() else folder.parent
    if revision.startswith("-"):
        raise ConfigError("a revision does not begin with a dash", where=f"--since {revision}")

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(where), *arguments, "--", "."]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    try:
        differs = git("diff", "--quiet", "--no-ext-diff", revision)
        new = git("ls-files", "--others", "--exclude-standard")
    except OSError as error:
        raise ConfigError(f"git cannot be run: {error.strerror}", where="--since", todo="leave --since out") from error
    if differs.returncode not in (0, 1) or new.returncode != 0:
        problem = (differs.stderr or new.stderr).strip().splitlines()
        todo = "name a revision that this clone has (a shallow clone has only the last)"
        raise ConfigError(problem[0] if problem else "git failed", where=f"--since {revision}", todo=todo)
    return differs.returncode == 1 or bool(new.stdout.strip())


def policy_changed(path: Path, revision: str) -> bool:
    """Whether the policy, or one beside it that it may extend, changed too: then every adapter is judged anew."""
    try:
        return changed_since(path.parent, revision)
    except ConfigError:  # the policy is no part of this history, as a shipped one of a wheel is not
        return False
