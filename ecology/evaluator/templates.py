"""Templates of lm-eval tasks in a sandbox of our own: no code, no attribute of Python, bounded work and output.

A task's Jinja comes from whoever wrote the task. lm-eval renders it in a plain environment, in which
``{{ ''.__class__ }}`` reaches the interpreter and ``{{ 'x' * 10 ** 9 }}`` its memory. Here:

1. Statements are those that a prompt needs: output, ``set``, ``for``, ``if``. No macro, block, include, import.
2. Filters and methods are an allowlist (``FILTERS``, ``METHODS``); names that begin with an underscore do not exist and
   nothing can be changed (``ImmutableSandboxedEnvironment``).
3. Work is bounded where it could grow: turns of all loops together, the size of every value that is kept, joined,
   multiplied or printed, and of the result. What is checked is bounded before it is made, not after.

Legitimate templates render as lm-eval renders them; a test compares the two on the templates that lm-eval ships.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ecology.errors import ConfigError, UntrustedTask

MAX_SOURCE = 64_000
"""Characters of a template."""
MAX_SIZE = 200_000
"""Characters and elements of a value, and of the output."""
MAX_TURNS = 10_000
"""Turns of all loops of one rendering."""
MAX_OPERANDS = 64
"""Of one ``~`` chain or one list, tuple or dict literal."""
STATEMENTS = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Assign, nodes.For, nodes.If, nodes.ExprStmt, nodes.Expr,
    nodes.Keyword, nodes.Operand, nodes.Pair,
)  # fmt: skip
FILTERS = (
    "trim", "length", "count", "first", "last", "int", "float", "string", "upper", "lower", "capitalize", "title",
    "list", "default", "d", "map", "sort", "reverse", "unique", "round", "abs", "join", "replace",
)  # fmt: skip
METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        {"strip", "lstrip", "rstrip", "upper", "lower", "capitalize", "title", "split", "rsplit", "splitlines", "index"}
        | {"find", "count", "startswith", "endswith", "isdigit", "isupper", "islower", "replace", "join"}
        | {"removeprefix", "removesuffix"}
    ),
    list: frozenset({"index", "count"}),
    tuple: frozenset({"index", "count"}),
    dict: frozenset({"items", "keys", "values", "get"}),
}


def render(text: str, document: Mapping[str, Any]) -> str:
    """One template, filled in with one document.

    Args:
        text: Jinja.
        document: Its fields.

    Raises:
        UntrustedTask: The template does what a prompt does not need, or too much of it.
        ConfigError: It is not Jinja, or refers to what the document does not have.
    """
    try:
        template = _compiled(text)
        found, size = [], 0
        context = template.new_context(dict(document) | {_TURNS: _Budget()})
        for part in template.root_render_func(context):
            size += len(part)
            if size > MAX_SIZE:
                raise SecurityError(f"more than {MAX_SIZE} characters come out of it")
            found.append(part)
        return "".join(found)
    except SecurityError as error:
        raise UntrustedTask(f"the template {text!r:.120} is refused: {error}", todo="write it without that") from error
    except RecursionError as error:
        raise UntrustedTask(f"the template {text!r:.120} is nested too deeply") from error
    except (TemplateError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise ConfigError(f"the template {text!r:.120} cannot be rendered: {error}") from error


_TURNS = "ecology_turns"
"""Where a rendering keeps its budget of turns; it cannot be named in a template, whose names are checked."""


class _Budget:
    def __init__(self) -> None:
        self.left = MAX_TURNS


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if attr.startswith("_"):
            return False
        loop = type(obj).__name__ == "LoopContext" and attr in {"index", "index0", "first", "last", "length"}
        return loop or any(isinstance(obj, kind) and attr in names for kind, names in METHODS.items())

    def is_safe_callable(self, obj: Any) -> bool:
        owner = getattr(obj, "__self__", None)
        name = getattr(obj, "__name__", "")
        return obj is _range or any(isinstance(owner, kind) and name in names for kind, names in METHODS.items())

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        name, owner = getattr(obj, "__name__", ""), getattr(obj, "__self__", None)
        if isinstance(owner, str) and name == "replace":
            return _replace(owner, *args, **kwargs)
        if isinstance(owner, str) and name == "join":
            return _join(args[0] if args else (), owner)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [_size(value) if isinstance(value, (str, list, tuple)) else 0 for value in (left, right)]
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"the operator {operator} is not there")
        if operator == "*" and any(isinstance(value, (str, list, tuple)) for value in (left, right)):
            times = next((value for value in (left, right) if isinstance(value, int)), 0)
            sizes = [max(sizes) * max(0, times)]
        if any(isinstance(value, int) and abs(value) > 10**18 for value in (left, right)):
            raise SecurityError("a number beyond 10 ** 18")
        if sum(sizes) > MAX_SIZE:
            raise SecurityError(f"a value of more than {MAX_SIZE} characters or elements")
        return super().call_binop(context, operator, left, right)


def _range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > MAX_TURNS:
        raise SecurityError(f"a range of {len(numbers)} numbers")
    return list(numbers)


def _size(value: Any) -> int:
    """Characters and elements of a value, whatever is nested in it; stops counting beyond the bound."""
    total, todo = 0, [value]
    while todo and total <= MAX_SIZE:
        one = todo.pop()
        total += len(one) if isinstance(one, (str, bytes)) else 1
        if isinstance(one, Mapping):
            todo += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            todo += list(one)
    return total


def _small(value: Any) -> Any:
    if _size(value) > MAX_SIZE:
        raise SecurityError(f"a value of more than {MAX_SIZE} characters or elements")
    return value


def _counted(values: Iterable[Any], budget: _Budget) -> Iterator[Any]:
    for value in values:
        budget.left -= 1
        if budget.left < 0:
            raise SecurityError(f"its loops take more than {MAX_TURNS} turns")
        yield value


def _replace(text: Any, old: Any, new: Any, count: Any = None) -> str:
    text, old, new = str(_small(text)), str(_small(old)), str(_small(new))
    times = text.count(old) if count is None else min(int(count), text.count(old))
    if len(text) + max(0, times) * len(new) > MAX_SIZE:
        raise SecurityError(f"a replacement to more than {MAX_SIZE} characters")
    return str(text).replace(str(old), str(new), -1 if count is None else int(count))


def _join(values: Iterable[Any], separator: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        raise SecurityError("join takes no attribute")
    parts = [str(_small(value)) for value in _small(list(values))]
    if sum(map(len, parts)) + len(str(separator)) * len(parts) > MAX_SIZE:
        raise SecurityError(f"a text of more than {MAX_SIZE} characters")
    return str(separator).join(parts)


def _environment() -> _Sandbox:
    environment = _Sandbox(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_small, autoescape=False)
    environment.globals = {"range": _range}
    mine = {"replace": _replace, "join": _join, "small": _small, "counted": _counted}
    environment.filters = {name: JINJA_FILTERS[name] for name in FILTERS} | mine
    environment.filters["string"] = lambda value: str(_small(value))
    environment.filters["list"] = lambda value: _small(list(value))
    return environment


@functools.lru_cache(maxsize=256)
def _compiled(text: str) -> Any:
    if len(text) > MAX_SOURCE:
        raise SecurityError(f"it has {len(text)} characters")
    environment = _environment()
    tree = environment.parse(text)
    _bound(tree, environment)
    return environment.from_string(tree)


def _bound(tree: nodes.Template, environment: _Sandbox) -> None:
    """Refuses what a prompt does not need, and puts the checks around what could grow."""
    for node in list(tree.find_all(nodes.Node)):
        if not isinstance(node, STATEMENTS):
            raise SecurityError(f"it has a {type(node).__name__}")
        if isinstance(node, nodes.Name) and node.name == _TURNS:
            raise SecurityError(f"the name {node.name} is not there")
        if isinstance(node, nodes.Filter) and node.name in {"small", "counted"}:
            raise SecurityError(f"there is no filter {node.name}")
        if isinstance(node, (nodes.List, nodes.Tuple, nodes.Dict)) and len(node.items) > MAX_OPERANDS:
            raise SecurityError(f"a literal of more than {MAX_OPERANDS} elements")
        if isinstance(node, nodes.Concat) and len(node.nodes) > MAX_OPERANDS:
            raise SecurityError(f"more than {MAX_OPERANDS} operands of ~")
        if isinstance(node, nodes.For) and node.recursive:
            raise SecurityError("a loop that calls itself")
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = _filtered(_filtered(loop.iter, "small"), "counted", nodes.Name(_TURNS, "load"))
    for assignment in list(tree.find_all(nodes.Assign)):
        assignment.node = _filtered(assignment.node, "small")
    for chain in list(tree.find_all(nodes.Concat)):
        chain.nodes = [_filtered(one, "small") for one in chain.nodes]
    tree.set_environment(environment)


def _filtered(node: Any, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)
