"""A suite is a grammar, and an item is one derivation of it.

A list of test items can be learnt by heart; a grammar with a secret seed cannot. So suites and training corpora are
written as small context-free grammars (templates over symbols), and this module turns a grammar, a seed and a number
into items. It is pure: the same three arguments give the same bytes on every machine and every Python version, because
every draw is read from a SHA-256 counter stream and not from `random`, whose sequence is an implementation detail.

The rules of a derivation:

1. Cells (an item's category) take turns, each as often per round as its weight says, so that no category is left to
   chance.
2. A template is drawn from the cell, then its references `{symbol}` and `{symbol.column}` from left to right.
3. A symbol is drawn once per item: every later reference to it, the answer's included, sees the same value.
4. A value may refer to other symbols in turn. Literal braces do not exist. A formula is computed from symbols that are
   whole numbers, so that an answer need not be listed.
5. A prompt that was already produced is drawn again. A cell that has run dry is passed over; when all have, that is an
   error.

Example:
    >>> cell = Cell("hello", templates=("Greet {who}.",), symbols={"who": ("Ann", "Bo")})
    >>> [item.prompt for item in expand((cell,), seed="s", n=2)]
    ['Greet Bo.', 'Greet Ann.']
"""

import ast
import hashlib
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ecology.errors import ConfigError

REFERENCE = re.compile(r"\{([a-z][a-z0-9_]*)(?:\.([a-z][a-z0-9_]*))?\}")
MAX_DEPTH = 8
MAX_REDRAWS = 5000

Value = str | int

OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


@dataclass(frozen=True)
class Span:
    """The whole numbers from `low` to `high`, both included."""

    low: int
    high: int


@dataclass(frozen=True)
class Table:
    """Rows whose columns belong together: a country and its capital, a word and its plural."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    def column(self, name: str) -> tuple[Value, ...]:
        """Return the distinct values of one column, in the order of the rows."""
        place = self.columns.index(name)
        return tuple(dict.fromkeys(row[place] for row in self.rows))


@dataclass(frozen=True)
class Formula:
    """Whole-number arithmetic over other symbols: `a + b * c`; with +, -, * and parentheses."""

    text: str

    def names(self) -> tuple[str, ...]:
        """Symbols that it reads, in the order written.

        Raises:
            ConfigError: It is not such arithmetic.
        """
        return tuple(dict.fromkeys(node.id for node in ast.walk(self._tree()) if isinstance(node, ast.Name)))

    def value(self, bindings: Mapping[str, Value]) -> int:
        """What it comes to.

        Raises:
            ConfigError: It is not such arithmetic, or a symbol is no whole number.
        """
        return self._value(self._tree(), bindings)

    def _tree(self) -> ast.expr:
        try:
            tree = ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError) as error:
            raise ConfigError(f"formula {self.text!r} is not arithmetic: {error}") from error
        for node in ast.walk(tree):
            if not isinstance(node, (ast.BinOp, ast.Name, ast.Constant, ast.Load, *OPERATIONS)):
                raise ConfigError(f"formula {self.text!r} has {type(node).__name__}; it may have +, -, * and names")
        return tree

    def _value(self, node: ast.expr, bindings: Mapping[str, Value]) -> int:
        if isinstance(node, ast.BinOp):
            left, right = self._value(node.left, bindings), self._value(node.right, bindings)
            return OPERATIONS[type(node.op)](left, right)
        found = node.value if isinstance(node, ast.Constant) else bindings.get(getattr(node, "id", ""))
        if not isinstance(found, int) or isinstance(found, bool):
            raise ConfigError(f"formula {self.text!r} needs whole numbers, found {found!r}")
        return found


Symbol = tuple[str, ...] | Span | Table | Formula


@dataclass(frozen=True)
class Cell:
    """One category of items: its templates, and the symbols that they may refer to."""

    id: str
    templates: tuple[str, ...]
    symbols: Mapping[str, Symbol]
    category: str = ""
    difficulty: str = "easy"
    weight: int = 1
    answer: str = ""  # choice: the reference that is right, as in "{pair.capital}"
    completion: str = ""  # corpora: the fixed completion of every row of this cell
    options: tuple[str, ...] = ()  # choice: the wrong ones, where they are not drawn from the right one's column
    constraints: Mapping[str, str | int] = field(default_factory=dict)  # instruction: what the reply has to be


@dataclass(frozen=True)
class Derivation:
    """One expanded item: where it comes from, what it says, and what was drawn on the way."""

    cell: Cell
    template: str
    prompt: str
    bindings: Mapping[str, Value] = field(compare=False)


class Draw:
    """A stream of unbiased numbers read from SHA-256(seed, counter); equal seeds give equal streams, for ever."""

    def __init__(self, seed: str) -> None:
        """Start the stream of `seed` at counter zero."""
        self._seed = seed
        self._counter = 0

    def below(self, n: int) -> int:
        """Return a number from 0 (included) to `n` (not included), all equally likely.

        Args:
            n: How many numbers there are to draw from; at least 1 and at most 2**32.
        """
        limit = 2**64 - 2**64 % n
        while True:
            block = hashlib.sha256(f"{self._seed}\x00{self._counter}".encode()).digest()
            self._counter += 1
            number = int.from_bytes(block[:8], "big")
            if number < limit:  # the rest would make small numbers likelier
                return number % n

    def sample(self, values: Sequence[Value], k: int) -> list[Value]:
        """Return `k` of the values without repetition, in the order drawn."""
        pool = list(values)
        return [pool.pop(self.below(len(pool))) for _ in range(k)]


def expand(cells: Sequence[Cell], seed: str, n: int) -> tuple[Derivation, ...]:
    """Derive `n` items with distinct prompts.

    Args:
        cells: The categories, which take turns by weight.
        seed: Any text; a secret one gives items that nobody can have trained on.
        n: How many items; a smaller `n` with the same seed gives a prefix of them.

    Returns:
        The items in the order derived.

    Raises:
        ConfigError: If the cells together cannot give so many distinct prompts.
    """
    draws = {cell.id: Draw(f"{seed}\x00{cell.id}") for cell in cells}
    seen: set[str] = set()
    found: list[Derivation] = []
    while len(found) < n:
        if not draws:
            raise ConfigError(
                f"the grammar has {len(found)} distinct prompts to give, {n} are asked for",
                where=f"cells {', '.join(cell.id for cell in cells) or '(none)'}",
                todo="add templates or values, or ask for fewer items",
            )
        for cell in [cell for cell in _turns(cells) if cell.id in draws]:
            item = _fresh(cell, draws[cell.id], seen) if cell.id in draws else None
            if item is None:
                draws.pop(cell.id, None)
            elif len(found) < n:
                found.append(item)
    return tuple(found)


def references(text: str) -> tuple[tuple[str, str], ...]:
    """Return the (symbol, column) pairs that a template refers to; the column is empty for a plain reference."""
    return tuple((match[1], match[2] or "") for match in REFERENCE.finditer(text))


def fill(text: str, bindings: Mapping[str, Value]) -> Value:
    """Replace every reference by what was drawn; text that is one reference and no more keeps the type of its value.

    Args:
        text: A template, such as `"{count}"` or `"{count} of {item.many}"`.
        bindings: What `Derivation.bindings` holds.
    """
    missing = [match[0] for match in REFERENCE.finditer(text) if match[0][1:-1] not in bindings]
    if missing:
        raise ConfigError(
            f"{text!r} refers to {missing[0]}, which the item never draws", todo="use it in every template"
        )
    whole = REFERENCE.fullmatch(text)
    if whole:
        return bindings[whole[0][1:-1]]
    return REFERENCE.sub(lambda match: str(bindings[match[0][1:-1]]), text)


def options(item: Derivation, seed: str, k: int) -> tuple[tuple[str, ...], int]:
    """Return `k` options of a choice item, the wrong ones from the right one's column, and the right one's place.

    Args:
        item: A derivation whose cell names its right answer.
        seed: The seed that the item was expanded with.
        k: How many options to give, the right one included.

    Raises:
        ConfigError: If the column holds fewer than `k` distinct values.
    """
    if item.cell.options:
        listed = [str(fill(text, item.bindings)) for text in item.cell.options]
        draw = Draw(f"{seed}\x00options\x00{item.prompt}")
        mixed = [str(value) for value in draw.sample(listed, len(listed))]
        place = draw.below(len(mixed) + 1)
        mixed.insert(place, str(fill(item.cell.answer, item.bindings)))
        if len(set(mixed)) < len(mixed):
            raise ConfigError(f"cell {item.cell.id!r}: two options of {item.prompt!r} are the same")
        return tuple(mixed), place
    ((symbol, column),) = references(item.cell.answer)
    table = item.cell.symbols[symbol]
    right = fill(item.cell.answer, item.bindings)
    others = [value for value in table.column(column) if value != right] if isinstance(table, Table) else []
    if len(others) < k - 1:
        raise ConfigError(
            f"cell {item.cell.id!r}: {item.cell.answer} has {len(others)} distractors, {k - 1} are needed"
        )
    draw = Draw(f"{seed}\x00options\x00{item.prompt}")
    chosen = draw.sample(others, k - 1)
    place = draw.below(k)
    chosen.insert(place, right)
    return tuple(str(value) for value in chosen), place


def mistakes(cell: Cell) -> Iterator[str]:
    """Yield what is wrong with a cell: unknown symbols and columns, empty symbols, symbols that refer to themselves."""
    if not cell.templates:
        yield "has no template"
    for name, symbol in cell.symbols.items():
        if isinstance(symbol, Span):
            if symbol.low > symbol.high:
                yield f"symbol {name!r}: range [{symbol.low}, {symbol.high}] is empty"
        elif isinstance(symbol, Formula):
            try:
                unknown = [one for one in symbol.names() if not isinstance(cell.symbols.get(one), Span)]
            except ConfigError as error:
                unknown = []
                yield f"symbol {name!r}: {error.what}"
            if unknown:
                yield f"symbol {name!r}: a formula reads ranges; {unknown[0]!r} is none"
        elif not (symbol.rows if isinstance(symbol, Table) else symbol):
            yield f"symbol {name!r} has no values"
    told = tuple(str(value) for value in cell.constraints.values())
    for text in (*cell.templates, cell.answer, *cell.options, *told):
        yield from _unresolved(text, cell.symbols, ())


def _unresolved(text: str, symbols: Mapping[str, Symbol], path: tuple[str, ...]) -> Iterator[str]:
    if "{" in REFERENCE.sub("", text) or "}" in REFERENCE.sub("", text):
        yield f"stray brace in {text!r}; a reference looks like {{symbol}} or {{symbol.column}}"
    for name, column in references(text):
        symbol = symbols.get(name)
        if symbol is None:
            yield f"{text!r} refers to {name!r}; known symbols: {', '.join(sorted(symbols)) or 'none'}"
        elif name in path or len(path) >= MAX_DEPTH:
            yield f"symbol {name!r} refers to itself: {' -> '.join((*path, name))}"
        elif isinstance(symbol, Table) and column not in symbol.columns:
            yield f"{text!r} wants a column of {name!r}; columns: {', '.join(symbol.columns)}"
        elif not isinstance(symbol, Table) and column:
            yield f"{text!r}: {name!r} has no columns"
        elif isinstance(symbol, tuple):
            for value in symbol:
                yield from _unresolved(value, symbols, (*path, name))


def _turns(cells: Sequence[Cell]) -> Iterator[Cell]:
    """Yield one round: every cell once, then those of weight 2 and more again, and so on."""
    for turn in range(max(cell.weight for cell in cells)):
        yield from (cell for cell in cells if cell.weight > turn)


def _fresh(cell: Cell, draw: Draw, seen: set[str]) -> Derivation | None:
    """Return an item not seen before, or None if the cell has run dry."""
    for _ in range(MAX_REDRAWS):
        item = _derive(cell, draw)
        if item.prompt not in seen:
            seen.add(item.prompt)
            return item
    return None


def _derive(cell: Cell, draw: Draw) -> Derivation:
    bindings: dict[str, Value] = {}

    def text_of(text: str) -> str:
        return REFERENCE.sub(lambda match: str(value_of(match)), text)

    def value_of(match: re.Match[str]) -> Value:
        return name_of(match[1], match[0][1:-1])

    def name_of(name: str, key: str = "") -> Value:
        if (key or name) not in bindings:
            symbol = cell.symbols[name]
            if isinstance(symbol, Span):
                bindings[name] = symbol.low + draw.below(symbol.high - symbol.low + 1)
            elif isinstance(symbol, Formula):
                for one in symbol.names():
                    name_of(one)
                bindings[name] = symbol.value(bindings)
            elif isinstance(symbol, Table):
                row = symbol.rows[draw.below(len(symbol.rows))]
                bindings.update({f"{name}.{column}": value for column, value in zip(symbol.columns, row, strict=True)})
            else:
                bindings[name] = text_of(symbol[draw.below(len(symbol))])
        return bindings[key or name]

    template = cell.templates[draw.below(len(cell.templates))]
    prompt = text_of(template)
    for name, symbol in cell.symbols.items():
        if isinstance(symbol, Formula) and all(one in bindings for one in symbol.names()):
            name_of(name)  # an answer may be computed although the prompt does not say it
    return Derivation(cell, template, prompt, bindings)
