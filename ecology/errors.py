"""Everything this package raises on purpose.

    EcologyError                     what is wrong; where (file: key); what to do
    ├─ ConfigError                   unknown kind, missing key, out of range, loosened policy        exit 2
    │  └─ UntrustedTask              an lm-eval task with code that nobody vouched for                exit 2
    ├─ IncompatibleParents           carries the differing fields                                    exit 2
    ├─ PolicyError                   unknown metric, no deny rule, waiver without expiry             exit 2
    ├─ IntegrityError                what WE hold is damaged: store, log, registry, report           exit 3
    ├─ BackendError                  an engine cannot start, no memory, no room to write             exit 4
    ├─ ReaderFailed                  what reads weights died or hangs; refuses, and is not remembered  exit 4
    ├─ LearningRefused               training has nothing to learn from, or went wrong; carries the reason  exit 1
    ├─ Stopped                       a person stopped this home; no run takes another step           exit 1
    └─ MalformedArtifact             what a CANDIDATE brought is malformed; gates turn it into a finding, exit 1
       └─ UnsupportedAdapter         well-formed, and does what no low-rank dW holds; carries the field

A refusal is a value (``Rejected``), not an exception: exit 1 never comes from here except through ``Stopped``,
``LearningRefused`` (there is no candidate to refuse) and ``MalformedArtifact``, which is how a reader tells the gate or
``ecology breed`` that a candidate's own file is wrong.

What the system refuses (a full disk, a folder that cannot be written) comes as ``OSError`` or ``sqlite3.Error`` from
anywhere; ``from_system`` says it in these words.
"""

from __future__ import annotations

import errno
import re
import sys

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_INTEGRITY = 3
EXIT_BACKEND = 4
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""


class EcologyError(Exception):
    """Base of the tree.

    Args:
        what: What is wrong, one sentence without a full stop at the end.
        where: File, file and key, or option it was found at; empty when there is no such place.
        todo: What the reader can do about it; empty when nothing can be done.
    """

    exit_code = EXIT_BUG

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        """Keeps the three parts apart, so that a caller can print them its own way."""
        self.what = what
        self.where = where
        self.todo = todo
        super().__init__("; ".join(part for part in (f"{where}: {what}" if where else what, todo) if part))


class ConfigError(EcologyError):
    """The configuration, a suite, a corpus or a command line cannot be used."""

    exit_code = EXIT_USAGE


class UntrustedTask(ConfigError):
    """A task of lm-eval holds code that neither ships with lm-eval nor stands in the policy, or a hostile template."""


class IncompatibleParents(EcologyError):
    """Parents that may not meet.

    Args:
        what: Why they may not.
        fields: Names of the differing fields of their ``CompatibilityIdentity``, or of the offending option.
        where: The parents.
        todo: What the reader can do about it.
    """

    exit_code = EXIT_USAGE

    def __init__(self, what: str, *, fields: tuple[str, ...] = (), where: str = "", todo: str = "") -> None:
        """Adds the differing fields to the three parts."""
        self.fields = fields
        super().__init__(what, where=where, todo=todo)


class PolicyError(EcologyError):
    """A policy or a waiver that cannot be applied."""

    exit_code = EXIT_USAGE


class IntegrityError(EcologyError):
    """Something that this installation holds has been damaged or tampered with."""

    exit_code = EXIT_INTEGRITY


class BackendError(EcologyError):
    """An engine cannot start, or memory or disk gave out; it says nothing about a candidate."""

    exit_code = EXIT_BACKEND


class ReaderFailed(EcologyError):
    """The process that reads weights died, does not answer, or lacks memory; it says nothing about the weights."""

    exit_code = EXIT_BACKEND


class MalformedArtifact(EcologyError):
    """A candidate's own file is malformed: truncated, oversized, wrongly encoded, of a kind that is not read."""

    exit_code = EXIT_REFUSED


class UnsupportedAdapter(MalformedArtifact):
    """An adapter that is well-formed and does something that dW = s B A does not hold.

    Args:
        what: What it does.
        field: The key of its configuration that stands for it, such as ``use_dora``.
        where: The parent's file.
        todo: How to come by an adapter that can be read.
    """

    def __init__(self, what: str, *, field: str, where: str = "", todo: str = "") -> None:
        """Adds the field to the three parts."""
        self.field = field
        super().__init__(what, where=where, todo=todo)


class LearningRefused(EcologyError):
    """Training that does not go on: what it would make is not worth judging.

    Args:
        what: What was seen.
        reason: ``uniform``, ``zero_gradient``, ``clipped``, ``divergence`` or ``not_finite``.
        where: Who was trained.
        todo: What the reader can change.
    """

    exit_code = EXIT_REFUSED

    def __init__(self, what: str, *, reason: str, where: str = "", todo: str = "") -> None:
        """Adds the reason to the three parts."""
        self.reason = reason
        super().__init__(what, where=where, todo=todo)


class Stopped(EcologyError):
    """A person stopped every run of this home."""

    exit_code = EXIT_REFUSED


_RESUMES = "then run the same command again: it resumes"
_SYSTEM: tuple[tuple[frozenset[int], type[EcologyError], str, str], ...] = (
    (
        frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG}),
        BackendError,
        "there is no room to write",
        f"free some space, {_RESUMES}",
    ),
    (
        frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EIO}),
        BackendError,
        "the system gave out",
        f"see to the machine, {_RESUMES}",
    ),
    (
        frozenset({errno.EACCES, errno.EPERM, errno.EROFS}),
        ConfigError,
        "this may not be read or written",
        "check owner and permissions",
    ),
    (
        frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST}),
        ConfigError,
        "this is not what is needed here",
        "check the path",
    ),
)
_SQLITE: tuple[tuple[tuple[str, ...], type[EcologyError], str, str], ...] = (
    (("SQLITE_FULL",), BackendError, "there is no room to write", f"free some space, {_RESUMES}"),
    (("SQLITE_IOERR", "SQLITE_NOMEM"), BackendError, "the system gave out", f"see to disk and memory, {_RESUMES}"),
    (
        ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH"),
        ConfigError,
        "the database cannot be used",
        "check that the folder can be written",
    ),
    (
        ("SQLITE_BUSY", "SQLITE_LOCKED"),
        ConfigError,
        "the database cannot be used",
        f"another process holds it; wait for that, {_RESUMES}",
    ),
)


def from_system(error: BaseException, where: str = "") -> EcologyError | None:
    """What the operating system or SQLite refused, as an error of ours; None where it is a bug of ours.

    Args:
        error: As it was caught.
        where: File or database it is about, if the error does not say.
    """
    if isinstance(error, MemoryError):
        return BackendError("out of memory", where=where, todo=f"lower backend.batch_size or free some, {_RESUMES}")
    sqlite3 = sys.modules.get("sqlite3")  # who has not imported it has no error of it
    if sqlite3 is not None and isinstance(error, sqlite3.Error):
        name = str(getattr(error, "sqlite_errorname", ""))
        for names, kind, what, todo in _SQLITE:
            if name.startswith(names):
                return kind(f"{what}: {error}", where=where, todo=todo)
        return None
    if isinstance(error, OSError):
        code, why = error.errno, error.strerror or str(error)
        where = str(error.filename) if error.filename is not None else where
    else:  # safetensors and tokenizers are written in Rust, which puts the number into the text
        said = re.search(r"\(os error (\d+)\)", str(error))
        code, why = int(said[1]) if said else None, str(error)
    for codes, kind, what, todo in _SYSTEM:
        if code in codes:
            return kind(f"{what}: {why}", where=where, todo=todo)
    return None
