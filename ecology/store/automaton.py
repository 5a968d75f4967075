"""Regular expressions that strangers wrote, matched in bounded time.

Python's ``re`` backtracks, so a pattern of forty characters can keep it busy for years, and no count of its stars says
beforehand which ones do: ``.?`` forty times over, or ``(?:.|x)`` forty times over, has no star at all. We do not guess.
A pattern without a choice (no repeat, no alternative) is run by ``re``, where it cannot backtrack. Every other one is
parsed by Python's own parser, so that it means the same, and its automaton is followed for all paths at once (Thompson,
CACM 11(6), 1968). What a set of states leads to is worked out once and kept, so that names that resemble each other
cost little. Each step is counted, over all patterns of one configuration, and more than ``MAX_STEPS`` are refused.
Whether a full match exists does not depend on greed, so the answer is the one that ``re.fullmatch`` would give.

What an automaton cannot do (references back, looking around, atomic groups, flags) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from ecology.errors import MalformedArtifact

MAX_PATTERN_CHARACTERS = 2048
MAX_STATES = 5000
MAX_STEPS = 250_000
"""For the patterns of one configuration on all names: about a tenth of a second."""

_TODO = "name the modules in full"
_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    sre.CATEGORY_DIGIT: str.isdecimal,
    sre.CATEGORY_NOT_DIGIT: lambda c: not c.isdecimal(),
    sre.CATEGORY_SPACE: str.isspace,
    sre.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
    sre.CATEGORY_WORD: lambda c: c.isalnum() or c == "_",
    sre.CATEGORY_NOT_WORD: lambda c: not (c.isalnum() or c == "_"),
}


class Budget:
    """The steps that all patterns of one configuration may take together.

    Args:
        steps: How many.
    """

    def __init__(self, steps: int = MAX_STEPS) -> None:
        """Nothing is spent yet."""
        self._left = steps

    def spend(self, steps: int) -> None:
        """Takes some of it; ``full_matches`` refuses a pattern for which there is not enough."""
        self._left -= steps
        if self._left < 0:
            raise _Unsupported("is too costly to match")


def full_matches(pattern: str, names: Iterable[str], where: str, budget: Budget | None = None) -> list[str]:
    """Those of ``names`` that the whole pattern matches, as ``re.fullmatch`` has it.

    Args:
        pattern: Written by nobody in particular.
        names: What is matched.
        where: File name and key for messages.
        budget: Shared with other patterns; one of its own by default.

    Raises:
        MalformedArtifact: It is no regular expression, does what no automaton can, or costs too many steps.
    """
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise MalformedArtifact(f"a pattern of {len(pattern)} characters", where=where, todo=_TODO)
    budget = budget or Budget()
    try:
        budget.spend(len(pattern))
        tree = _parser.parse(pattern)
        if tree.state.flags & ~re.UNICODE:
            raise _Unsupported("sets flags")
        if not _chooses(tree):
            expression = re.compile(pattern)
            return [name for name in names if expression.fullmatch(name)]
        automaton = _Automaton(tree, budget)
        return [name for name in names if automaton.accepts(name)]
    except _Unsupported as error:
        raise MalformedArtifact(f"pattern {pattern!a:.120} {error}", where=where, todo=_TODO) from error
    except (re.error, RecursionError, OverflowError) as error:
        raise MalformedArtifact(
            f"pattern {pattern!a:.120} is no regular expression: {error}", where=where, todo=_TODO
        ) from error


class _Unsupported(Exception):
    pass


def _chooses(tree: Any) -> bool:
    """Whether there is more than one way to match; groups without a choice inside do not count."""
    for operation, argument in tree:
        if operation is sre.SUBPATTERN:
            _, add, drop, inner = argument
            if add or drop:
                raise _Unsupported("sets flags")
            if _chooses(inner):
                return True
        elif operation not in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN, sre.AT):
            return True
    return False


class _Automaton:
    """States are numbers; ``free`` edges cost no character, ``eating`` ones cost one."""

    def __init__(self, tree: Any, budget: Budget) -> None:
        self.free: list[list[tuple[Any, int]]] = []
        self.eating: list[list[tuple[Callable[[str], bool], int, int]]] = []
        self.conditions: dict[Any, None] = {}
        self.budget = budget
        self.start = self._state()
        self.end = self._sequence(tree, self.start)
        self._closed: dict[tuple[frozenset[int], tuple[bool, ...]], frozenset[int]] = {}
        self._ate: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def accepts(self, name: str) -> bool:
        self.budget.spend(1 + len(name) // 8)  # what a name costs where everything is known
        current = self._closure(frozenset({self.start}), name, 0)
        for place, character in enumerate(name):
            following = self._eat(current, character)
            if not following:
                return False
            current = self._closure(following, name, place + 1)
        return self.end in current

    def _eat(self, current: frozenset[int], character: str) -> frozenset[int]:
        """Where a character leads from any of these states."""
        known = self._ate.get((current, character))
        if known is None:
            following = set()
            for state in current:
                for admits, cost, target in self.eating[state]:
                    self.budget.spend(cost)
                    if admits(character):
                        following.add(target)
            known = self._ate[current, character] = frozenset(following)
        return known

    def _closure(self, states: frozenset[int], name: str, place: int) -> frozenset[int]:
        """These states and those that no character is needed to reach."""
        holding = tuple([_holds(condition, name, place) for condition in self.conditions])
        known = self._closed.get((states, holding))
        if known is None:
            holds = {None: True, **dict(zip(self.conditions, holding, strict=True))}
            todo, seen = list(states), set(states)
            while todo:
                for condition, target in self.free[todo.pop()]:
                    self.budget.spend(1)
                    if target not in seen and holds[condition]:
                        seen.add(target)
                        todo.append(target)
            known = self._closed[states, holding] = frozenset(seen)
        return known

    def _state(self) -> int:
        if len(self.free) >= MAX_STATES:
            raise _Unsupported("is too large")
        self.budget.spend(1)
        self.free.append([])
        self.eating.append([])
        return len(self.free) - 1

    def _sequence(self, tree: Any, state: int) -> int:
        for operation, argument in tree:
            state = self._node(operation, argument, state)
        return state

    def _node(self, operation: Any, argument: Any, state: int) -> int:
        if operation in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
            after = self._state()
            cost = len(argument) if operation is sre.IN else 1
            self.eating[state].append((_admits(operation, argument), cost, after))
            return after
        if operation is sre.AT:
            after = self._state()
            self.free[state].append((argument, after))
            self.conditions[argument] = None
            return after
        if operation is sre.SUBPATTERN:
            _, add, drop, inner = argument
            if add or drop:
                raise _Unsupported("sets flags")
            return self._sequence(inner, state)
        if operation is sre.BRANCH:
            after = self._state()
            for alternative in argument[1]:
                first = self._state()
                self.free[state].append((None, first))
                self.free[self._sequence(alternative, first)].append((None, after))
            return after
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            least, most, inner = argument
            return self._repeat(least, most, inner, state)
        raise _Unsupported("refers back, looks around or holds on to what it matched")

    def _repeat(self, least: int, most: Any, inner: Any, state: int) -> int:
        for _ in range(least):
            state = self._sequence(inner, state)
        if most is sre.MAXREPEAT:
            hub = self._state()
            self.free[state].append((None, hub))
            self.free[self._sequence(inner, hub)].append((None, hub))
            after = self._state()
            self.free[hub].append((None, after))
            return after
        after = self._state()
        for _ in range(most - least):
            self.free[state].append((None, after))
            state = self._sequence(inner, state)
        self.free[state].append((None, after))
        return after


def _admits(operation: Any, argument: Any) -> Callable[[str], bool]:
    if operation is sre.ANY:
        return lambda c: c != "\n"
    if operation is sre.LITERAL:
        return chr(argument).__eq__
    if operation is sre.NOT_LITERAL:
        return chr(argument).__ne__
    negated = argument[0][0] is sre.NEGATE
    parts = [_part(*item) for item in (argument[1:] if negated else argument)]
    return lambda c: any(part(c) for part in parts) is not negated


def _part(operation: Any, argument: Any) -> Callable[[str], bool]:
    if operation is sre.LITERAL:
        return chr(argument).__eq__
    if operation is sre.RANGE:
        low, high = argument
        return lambda c: low <= ord(c) <= high
    if operation is sre.CATEGORY and argument in _CATEGORIES:
        return _CATEGORIES[argument]
    raise _Unsupported("has a class that is not known")


def _holds(condition: Any, name: str, place: int) -> bool:
    if condition in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
        return place == 0
    if condition is sre.AT_END:
        return place == len(name) or (place == len(name) - 1 and name[place] == "\n")
    if condition is sre.AT_END_STRING:
        return place == len(name)
    if condition in (sre.AT_BOUNDARY, sre.AT_NON_BOUNDARY):
        word = _CATEGORIES[sre.CATEGORY_WORD]
        before, after = place > 0 and word(name[place - 1]), place < len(name) and word(name[place])
        return (before != after) is (condition is sre.AT_BOUNDARY)
    raise _Unsupported("has an anchor that is not known")
