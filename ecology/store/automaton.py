r"""Regular expressions that strangers wrote: matched in bounded time, and refused where ``re`` would take for ever.

Python's ``re`` backtracks, so a pattern of forty characters can keep it busy for years, and PEFT, which loads what we
let pass, uses ``re``. So there are two questions, and one automaton (Thompson, CACM 11(6), 1968) answers both. It is
built from the tree of Python's own parser, so that it means the same, and followed for all paths at once. Whether a
full match exists does not depend on greed, so the answer is the one that ``re.fullmatch`` would give. With every state
goes the number of ways in which it was reached: their sum over the characters of a name is the number of places that a
backtracking matcher would come through before it gave up. More than ``MAX_VISITS`` are refused.

That count is of the names at hand. For all others ``syntax`` keeps the language small.

What leads on from a set of states is worked out once and kept, so that names that resemble each other cost little. Each
step of ours is counted too, over all patterns of one configuration, and more than ``MAX_STEPS`` are refused.
"""

from __future__ import annotations

import dataclasses
import heapq
import re
from collections.abc import Callable, Iterable, Mapping
from re import _constants as sre  # type: ignore[attr-defined]
from typing import Any

from ecology.errors import MalformedArtifact
from ecology.store.syntax import MAX_STATES, Unsupported, parsed, parsed_in_place

MAX_PATTERN_CHARACTERS = 2048
MAX_STEPS = 250_000
"""For the patterns of one configuration on all names: about a tenth of a second."""
MAX_VISITS = 20_000_000
"""Places that a backtracking matcher may come through, likewise: about a second of ``re``."""

_TODO = "name the modules in full"
_BUSY = "would keep a matcher that backtracks busy"
_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    sre.CATEGORY_DIGIT: str.isdecimal,
    sre.CATEGORY_NOT_DIGIT: lambda c: not c.isdecimal(),
    sre.CATEGORY_SPACE: str.isspace,
    sre.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
    sre.CATEGORY_WORD: lambda c: c.isalnum() or c == "_",
    sre.CATEGORY_NOT_WORD: lambda c: not (c.isalnum() or c == "_"),
}


class Budget:
    """What all patterns of one configuration may cost together.

    Args:
        steps: Of ours.
        visits: Of a backtracking matcher.
    """

    def __init__(self, steps: int = MAX_STEPS, visits: int = MAX_VISITS) -> None:
        """Nothing is spent yet."""
        self._steps, self._visits = steps, visits

    def spend(self, steps: int) -> None:
        """Takes some of our steps; a pattern for which there are not enough is refused."""
        self._steps -= steps
        if self._steps < 0:
            raise Unsupported("is too costly to match")

    def visit(self, places: int) -> None:
        """Takes some of what a backtracking matcher may do, likewise."""
        self._visits -= places
        if self._visits < 0:
            raise Unsupported(_BUSY)


def full_matches(pattern: str, names: Iterable[str], where: str, budget: Budget | None = None) -> list[str]:
    """Those of ``names`` that the whole pattern matches, as ``re.fullmatch`` has it.

    Args:
        pattern: Written by nobody in particular.
        names: What is matched.
        where: File name and key for messages.
        budget: Shared with other patterns; one of its own by default.

    Raises:
        MalformedArtifact: It is no regular expression, does what no automaton can, or costs too much.
    """
    return _matches(pattern, names, where, budget or Budget(), parsed)


def ending_matches(pattern: str, names: Iterable[str], where: str, budget: Budget | None = None) -> list[str]:
    r"""Those of ``names`` that ``re.match(rf"(.*\.)?({pattern})$", name)`` finds: the whole, or an end behind a dot.

    The pattern has to be one by itself, and to be one group of the whole: ``a)|(b`` is neither.

    Args:
        pattern: Written by nobody in particular.
        names: What is matched; without line breaks, before which ``$`` would match too.
        where: File name and key for messages.
        budget: Shared with other patterns; one of its own by default.

    Raises:
        MalformedArtifact: It is no regular expression, does what no automaton can, or costs too much.
    """
    return _matches(pattern, names, where, budget or Budget(), parsed_in_place)


def _matches(pattern: str, names: Iterable[str], where: str, budget: Budget, parse: Callable[[str], Any]) -> list[str]:
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise MalformedArtifact(f"a pattern of {len(pattern)} characters", where=where, todo=_TODO)
    try:
        budget.spend(len(pattern))
        automaton = _Automaton(parse(pattern), budget)
        return [name for name in names if automaton.accepts(name)]
    except Unsupported as error:
        raise MalformedArtifact(f"pattern {pattern!a:.120} {error}", where=where, todo=_TODO) from error
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise MalformedArtifact(
            f"pattern {pattern!a:.120} is no regular expression: {error}", where=where, todo=_TODO
        ) from error


@dataclasses.dataclass(slots=True, eq=False)
class _Place:
    """The states in which a matcher can be, and what was found to follow."""

    ways: Mapping[int, int]
    """State to the number of ways to it."""
    visits: int
    """Sum of the ways."""
    following: dict[tuple[str, tuple[bool, ...]], _Place]


class _Automaton:
    """States are numbers; ``free`` edges cost no character and make no circle, ``eating`` ones cost one."""

    def __init__(self, tree: Any, budget: Budget) -> None:
        self.free: list[list[tuple[Any, int]]] = []
        self.eating: list[list[tuple[Callable[[str], bool], int, int]]] = []
        self.conditions: dict[Any, None] = {}
        self.budget = budget
        self.start = self._state()
        self.end = self._sequence(tree, self.start)
        self.order = self._ordered()
        self._places: dict[frozenset[tuple[int, int]], _Place] = {}
        self._first: dict[tuple[bool, ...], _Place] = {}

    def accepts(self, name: str) -> bool:
        self.budget.spend(1 + len(name) // 8)  # what a name costs where everything is known
        holding = self._holding(name, 0)
        place = self._first.get(holding)
        if place is None:
            place = self._first[holding] = self._closed({self.start: 1}, holding)
        visits = place.visits
        for at, character in enumerate(name, 1):
            holding = self._holding(name, at)
            following = place.following.get((character, holding))
            if following is None:
                following = place.following[character, holding] = self._closed(self._eaten(place, character), holding)
            place = following
            visits += place.visits
            if not place.visits:
                break
        self.budget.visit(visits)
        return self.end in place.ways

    def _holding(self, name: str, at: int) -> tuple[bool, ...]:
        return tuple([_holds(condition, name, at) for condition in self.conditions]) if self.conditions else ()

    def _eaten(self, place: _Place, character: str) -> dict[int, int]:
        """Where a character leads."""
        found: dict[int, int] = {}
        for state, ways in place.ways.items():
            for admits, cost, target in self.eating[state]:
                self.budget.spend(cost)
                if admits(character):
                    found[target] = found.get(target, 0) + ways
        return found

    def _closed(self, ways: dict[int, int], holding: tuple[bool, ...]) -> _Place:
        """These states and those that no character is needed to reach, in an order that meets each state once."""
        holds = {None: True, **dict(zip(self.conditions, holding, strict=True))}
        todo = [(self.order[state], state) for state in ways]
        heapq.heapify(todo)
        while todo:
            _, state = heapq.heappop(todo)
            for condition, target in self.free[state]:
                self.budget.spend(1)
                if holds[condition]:
                    if target not in ways:
                        heapq.heappush(todo, (self.order[target], target))
                    ways[target] = ways.get(target, 0) + ways[state]
        if (visits := sum(ways.values())) > MAX_VISITS:  # before these numbers grow
            raise Unsupported(_BUSY)
        return self._places.setdefault(frozenset(ways.items()), _Place(ways, visits, {}))

    def _ordered(self) -> list[int]:
        """A rank for each state, larger behind every free edge (Kahn, CACM 5(11), 1962)."""
        entering = [0] * len(self.free)
        for edges in self.free:
            for _, target in edges:
                entering[target] += 1
        ready = [state for state, count in enumerate(entering) if not count]
        order = [0] * len(self.free)
        for rank in range(len(order)):
            state = ready.pop()  # never empty: what is repeated eats a character, so there is no circle
            order[state] = rank
            for _, target in self.free[state]:
                entering[target] -= 1
                if not entering[target]:
                    ready.append(target)
        return order

    def _state(self) -> int:
        if len(self.free) >= MAX_STATES:
            raise Unsupported("is too large")
        self.budget.spend(1)
        self.free.append([])
        self.eating.append([])
        return len(self.free) - 1

    def _sequence(self, tree: Any, state: int) -> int:
        for operation, argument in tree:
            state = self._node(operation, argument, state)
        return state

    def _node(self, operation: Any, argument: Any, state: int) -> int:
        if operation is sre.SUBPATTERN:
            return self._sequence(argument[3], state)
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            least, most, inner = argument
            return self._repeat(least, most, inner, state)
        after = self._state()
        if operation is sre.AT:
            self.free[state].append((argument, after))
            self.conditions[argument] = None
        elif operation is sre.BRANCH:
            for alternative in argument[1]:
                first = self._state()
                self.free[state].append((None, first))
                self.free[self._sequence(alternative, first)].append((None, after))
        else:
            cost = len(argument) if operation is sre.IN else 1
            self.eating[state].append((_admits(operation, argument), cost, after))
        return after

    def _repeat(self, least: int, most: Any, inner: Any, state: int) -> int:
        for _ in range(least):  # few, or ``syntax`` had refused it
            self.budget.spend(1)
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
            self.budget.spend(1)
            self.free[state].append((None, after))
            first = self._state()
            self.free[state].append((None, first))
            state = self._sequence(inner, first)
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
    raise Unsupported("has a class that is not known")


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
    raise Unsupported("has an anchor that is not known")
