"""YAML with one reading, and where everything stands in it.

YAML lets a key stand twice (the last one wins, silently), lets a few lines expand into gigabytes by aliases, and turns
unquoted text into dates and other surprises. A policy, a suite, the manifest of a corpus and an overlay are read by
people who must all see the same thing, so every one of them comes through here:

- a key that stands twice is a mistake that names both lines;
- anchors, aliases, merge keys and tags are refused: a document is written out, and names no type and no code;
- numbers, truth values and nothing are written as in JSON; all else is text; what JSON cannot hold is a mistake;
- size and depth are bounded before anything is built.

Every value keeps its line, so that a message can say ``release.yaml:45``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ecology.contracts.identity import Json
from ecology.errors import ConfigError, EcologyError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 16
MOST = 2**53
"""Beyond it a JSON number is no longer exact."""

Place = tuple[str | int, ...]
"""Keys and indices from the root to a value."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong at a line."""

    line: int
    place: str
    """``rules[3].threshold``; empty for the whole file."""
    what: str


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A document as plain data with the line of every value."""

    name: str
    """The file's name, for messages."""
    data: Json
    lines: Mapping[Place, int]
    """Counted from 1; of a mapping's entry the line of its key."""
    mistakes: tuple[Mistake, ...]
    """What was wrong while reading: duplicate keys, values that JSON cannot hold."""
    refusal: type[EcologyError]
    """What is raised of its mistakes."""
    raw: bytes
    """What was read, and what its digest is of."""

    def plain(self, what: str) -> Json:
        """The data, if there was nothing wrong with reading it.

        Args:
            what: What is wrong as a whole: ``the suite``.

        Raises:
            EcologyError: As ``refusal``, with every mistake.
        """
        refuse(self, self.mistakes, what)
        return self.data

    def mistake(self, place: Iterable[str | int], what: str) -> Mistake:
        """A mistake at a place, or at the nearest enclosing place that has a line."""
        full = tuple(place)
        line = next((self.lines[full[:i]] for i in range(len(full), -1, -1) if full[:i] in self.lines), 1)
        return Mistake(line, written(full), what)


def written(place: Place) -> str:
    """``("rules", 3, "threshold")`` as ``rules[3].threshold``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def read_source(path: Path, refusal: type[EcologyError], name: str = "") -> Source:
    """A YAML file as data.

    Args:
        path: The file.
        refusal: What is raised of what stands in it: ``PolicyError`` for a policy, ``ConfigError`` for a suite.
        name: For messages, with the line; the file's own name when empty.

    Raises:
        ConfigError: There is no such file or it cannot be read.
        EcologyError: As ``refusal``: it is too large, not UTF-8, not YAML, or uses an alias.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path), todo="check the path") from error
    return parse_source(data, name or path.name, refusal, str(path))


def parse_source(data: bytes, name: str, refusal: type[EcologyError], where: str = "") -> Source:
    """YAML text as data.

    Args:
        data: The document's bytes.
        name: For messages, with the line.
        refusal: As of ``read_source``.
        where: Full path, for errors that have no line; ``name`` when empty.

    Raises:
        EcologyError: As ``refusal``: it is too large, not UTF-8, not YAML, or uses an alias.
    """
    where = where or name
    if len(data) > MAX_BYTES:
        raise refusal(f"larger than the {MAX_BYTES} bytes that are read", where=where)
    loader = None
    try:
        loader = _Loader(data.decode("utf-8"))
        node = loader.get_single_node()
        built = _Builder(loader)
        value = built.build(node, ()) if node is not None else None
    except UnicodeDecodeError as error:
        raise refusal("not UTF-8 text", where=where, todo="save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"{where}:{mark.line + 1}" if mark else where
        raise refusal(f"not YAML that is read here: {error.problem}", where=line) from error
    except yaml.YAMLError as error:
        raise refusal(f"not YAML: {error}", where=where) from error
    finally:
        if loader is not None:
            loader.dispose()
    return Source(name, value, built.lines, tuple(built.mistakes), refusal, data)


def refuse(source: Source, mistakes: Iterable[Mistake], what: str) -> None:
    """Nothing, if there are no mistakes.

    Args:
        source: Where they were found.
        mistakes: In any order; they are reported by line.
        what: What is wrong as a whole: ``the policy``.

    Raises:
        EcologyError: There are, of the source's kind; every one of them is in the message, with file and line.
    """
    found = sorted(set(mistakes), key=lambda mistake: (mistake.line, mistake.place, mistake.what))
    if not found:
        return
    listed = [f"{source.name}:{m.line}: {m.place + ': ' if m.place else ''}{m.what}" for m in found]
    count = f"{len(found)} mistake{'s' * (len(found) != 1)}"
    raise source.refusal(f"{what} has {count}:\n  " + "\n  ".join(listed), todo="correct the file and load it again")


class _Loader(yaml.SafeLoader):
    """Composes nodes without aliases, tags and depth, by the core schema of YAML 1.2 (10.3.2) and not by that of 1.1.

    The older schema reads ``no`` as false, ``010`` as 8, ``1:30`` as 90, ``1e-3`` as text and a date as an object that
    has forgotten how it was written. Of the core schema JSON's part is read: no octal, no hexadecimal, no infinity.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012  (PyYAML's own attribute)
    depth = 0

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.tagged: dict[int, str] = {}
        """Nodes by identity whose tag was written out."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            problem = "anchors and aliases are not read; write it out"
        elif self.depth >= MAX_DEPTH:
            problem = f"nested deeper than {MAX_DEPTH} levels"
        else:
            self.depth += 1
            try:
                node = super().compose_node(parent, index)
            finally:
                self.depth -= 1
            if node is not None and (tag := getattr(event, "tag", None)):
                self.tagged[id(node)] = str(tag)
            return node
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tfTF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)$"),
    list("-+.0123456789"),
)


_SCALARS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str"))


class _Builder:
    """Nodes to plain data, noting lines and mistakes on the way."""

    def __init__(self, loader: _Loader) -> None:
        self.loader = loader
        self.lines: dict[Place, int] = {}
        self.mistakes: list[Mistake] = []

    def build(self, node: yaml.Node, place: Place) -> Json:
        self.lines.setdefault(place, node.start_mark.line + 1)
        if id(node) in self.loader.tagged:
            self._mistake(node, place, f"the tag {self.loader.tagged[id(node)]!r:.60} is not read; leave the tag out")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*place, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _scalar(self, node: yaml.Node, place: Place) -> Json:
        known = node.tag in _SCALARS
        try:
            value = self.loader.construct_object(node) if known else None
        except ValueError:  # a whole number of 5000 digits
            known = False
        if not known:
            self._mistake(node, place, f"{node.value!r:.60} is not read as {node.tag.rpartition(':')[2]}")
            return None
        if isinstance(value, (int, float)) and not abs(value) <= MOST:  # a NaN is not either
            self._mistake(node, place, f"{node.value:.60} is not a number that can be compared with")
            return 0
        return self._text(node, place, value) if isinstance(value, str) else value

    def _text(self, node: yaml.Node, place: Place, text: str) -> str:
        """The text, if it can be written again: an escape may make half a character, which no UTF-8 holds."""
        if text.isascii() or not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
            return text
        self._mistake(node, place, f"{text!a:.60} holds half a character; write the character itself")
        return ""

    def _mapping(self, node: yaml.MappingNode, place: Place) -> Json:
        built: dict[str, Json] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or id(key_node) in self.loader.tagged or (key == "<<" and key_node.style is None):
                self._mistake(key_node, place, "a key is plain text, and merge keys are not read")
                continue
            if key in first:
                self._mistake(key_node, (*place, key), f"key {key!r} stands twice; first at line {first[key]}")
                continue
            key = self._text(key_node, place, key)
            first[key] = line
            self.lines[(*place, key)] = line
            built[key] = self.build(value_node, (*place, key))
        return built

    def _mistake(self, node: yaml.Node, place: Place, what: str) -> None:
        self.mistakes.append(Mistake(node.start_mark.line + 1, written(place), what))
