"""Policies have unit tests: what was measured, in words, and what must follow from it.

Beside ``release.yaml`` stands ``release_test.yaml``. Evidence is written the way a reviewer would say it:

    ``no violation``, ``2 violations``        a count
    ``193 of 200``                            a proportion
    ``200 pairs, 3 won, 12 lost``             a paired difference
    ``57 x 1.1, 3 x 1.4``                     samples
    ``nothing``                               no measurement

The three in the middle may end in ``in 20 mixed families``, the outcomes dealt out to families of items as evenly as
it goes, or ``in 20 uniform families``, where the items of a family are right and wrong together: the best and the worst
that a clustered rule can meet.

``rules`` holds cases for one rule each. ``verdicts`` holds cases for the whole policy: each is the ``typical`` evidence
with some rules' evidence replaced, and the outcome of the verdict that must follow, in full scope unless it says
``scope: static``.

Law: a case is judged by ``kernel.verdicts``, the very code that judges candidates.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ecology.contracts.evidence import Count, Evidence, Measurement, Paired, Proportion, Samples, Statistic
from ecology.contracts.identity import Digest, Json
from ecology.contracts.policy import Outcome, Policy, Rule
from ecology.documents.source import Mistake, Place, Source, read_source, refuse
from ecology.errors import EcologyError, PolicyError
from ecology.kernel.statistics import sample_size
from ecology.kernel.verdicts import headline, judge, outcome_of, verdict
from ecology.policy.reader import load_policy
from ecology.policy.shape import shape_mistakes, understood

SUBJECT = Digest("sha256:" + "0" * 64)
"""Of the candidate that the cases are about."""
NOW = "2026-01-01T00:00:00Z"
"""When the cases are judged, unless they say ``at``."""
MAX_SAMPLES = 100_000

_TEXT = {"type": "string", "minLength": 1, "maxLength": 1000}
_OUTCOME = {"enum": [outcome.value for outcome in Outcome]}
_GIVEN = {"type": "object", "additionalProperties": _TEXT}
_SCHEMA = understood(
    {
        "type": "object",
        "additionalProperties": False,
        "required": ["policy"],
        "properties": {
            "policy": _TEXT,
            "typical": _GIVEN,
            "rules": {
                "type": "object",
                "additionalProperties": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["given", "expect"],
                        "properties": {"given": _TEXT, "expect": _OUTCOME, "why": _TEXT},
                    },
                },
            },
            "verdicts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name", "given", "expect"],
                    "properties": {
                        "name": _TEXT,
                        "given": _GIVEN,
                        "expect": _OUTCOME,
                        "scope": {"enum": ["full", "static"]},
                        "headline": _TEXT,
                        "at": _TEXT,
                    },
                },
            },
        },
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class CaseResult:
    """One case and what came of it."""

    name: str
    """``SKILL-001: 193 of 200``, or the name of a verdict case."""
    rules: tuple[str, ...]
    """Ids of the rules that the case judges."""
    expected: Outcome
    found: Outcome
    passed: bool
    reason: str
    """Of the finding, or of the verdict's headline; empty where the case holds."""

    def __str__(self) -> str:
        if self.passed:
            return f"{self.name}: {self.found.value}"
        return f"{self.name}: expected {self.expected.value}, found {self.found.value}: {self.reason}"


def run_tests(path: Path, policy: Policy | None = None) -> tuple[CaseResult, ...]:
    """Runs the cases of a ``*_test.yaml``.

    Args:
        path: The file with the cases.
        policy: The policy to judge by; the one that the file names, beside it, where None.

    Raises:
        ConfigError: A file is missing.
        PolicyError: A file has mistakes; all of them are listed.
    """
    source = read_source(path, PolicyError)
    refuse(source, [*source.mistakes, *shape_mistakes(source, _SCHEMA)], "the test file")
    policy = policy or load_policy(path.parent / Path(source.data["policy"]).name)
    refuse(source, _mistakes(source, policy), "the test file")
    rules = {rule.id: rule for rule in policy.rules}
    results = []
    for name, cases in source.data.get("rules", {}).items():
        for case in cases:
            expected, evidence = Outcome(case["expect"]), evidence_of({rules[name]: case["given"]})
            found = outcome_of(rules[name], evidence, SUBJECT)
            reason = "" if found is expected else judge(rules[name], evidence, SUBJECT).reason
            title = f"{name}: {case['given']}"
            results.append(CaseResult(title, (name,), expected, found, found is expected, reason))
    for case in source.data.get("verdicts", ()):
        results.append(_verdict_case(case, source.data.get("typical", {}), policy))
    return tuple(results)


def coverage(results: tuple[CaseResult, ...]) -> Mapping[str, frozenset[Outcome]]:
    """For each rule with a case of its own, the outcomes that its cases expect; for ``lint`` and for people."""
    found: dict[str, frozenset[Outcome]] = {}
    for result in results:
        for rule in result.rules:
            found[rule] = found.get(rule, frozenset()) | {result.expected}
    return found


def statistic_of(text: str) -> Statistic | None:
    """Evidence in words as a statistic; None for ``nothing``.

    Raises:
        PolicyError: It is none of these forms.
    """
    text = text.strip()
    if match := re.fullmatch(r"(.+) in (\d{1,6}) (mixed|uniform) families", text):
        return _in_families(_statistic(match[1]), int(match[2]), match[3] == "mixed", text)
    return _statistic(text)


def _statistic(text: str) -> Statistic | None:
    if text == "nothing":
        return None
    if text == "no violation":
        return Count(0, ())
    if match := re.fullmatch(r"(\d{1,9}) violations?", text):
        return Count(int(match[1]), (f"{match[1]} as the case says",))
    if match := re.fullmatch(r"(\d{1,9}) of (\d{1,9})", text):
        return Proportion(int(match[1]), int(match[2]))
    if match := re.fullmatch(r"(\d{1,9}) pairs(?:, (\d{1,9}) won)?(?:, (\d{1,9}) lost)?", text):
        return Paired(int(match[1]), int(match[2] or 0), int(match[3] or 0))
    number = r"[-+]?\d{1,15}(?:\.\d{1,15})?(?:e[-+]?\d{1,2})?"
    if re.fullmatch(rf"\d{{1,6}} x {number}(?:, \d{{1,6}} x {number})*", text):
        parts = [part.split(" x ") for part in text.split(", ")]
        if sum(int(count) for count, _ in parts) <= MAX_SAMPLES:
            return Samples(tuple(float(value) for count, value in parts for _ in range(int(count))), "")
    forms = (
        "'no violation', '2 violations', '193 of 200', '200 pairs, 3 won, 12 lost', '57 x 1.1, 3 x 1.4', one of the "
        "last three with 'in 20 mixed families' or 'in 20 uniform families', or 'nothing'"
    )
    raise PolicyError(f"{text!r:.80} is no evidence; write {forms}")


def _in_families(statistic: Statistic | None, count: int, mixed: bool, text: str) -> Statistic:
    """The same items, sorted by outcome and dealt out in turn, or in runs."""
    if not isinstance(statistic, Proportion | Paired | Samples):
        raise PolicyError(f"{text!r:.80} is no evidence; items come in families, and these are none")
    n = sample_size(statistic)
    if not 2 <= count <= n <= MAX_SAMPLES:
        what = (
            f"{text!r:.80} is no evidence; at least 2 families, no more than items, and at most {MAX_SAMPLES} of these"
        )
        raise PolicyError(what)
    dealt = [place % count if mixed else place * count // n for place in range(n)]
    if isinstance(statistic, Samples):
        return dataclasses.replace(statistic, families=tuple(dealt))
    totals = [[0, 0, 0] for _ in range(count)]
    won, lost = (statistic.k, 0) if isinstance(statistic, Proportion) else (statistic.n10, statistic.n01)
    for place, family in enumerate(dealt):
        totals[family][0] += 1
        totals[family][1] += place < won
        totals[family][2] += won <= place < won + lost
    if isinstance(statistic, Proportion):
        return dataclasses.replace(statistic, families=tuple(sorted((size, right) for size, right, _ in totals)))
    return dataclasses.replace(statistic, families=tuple(sorted((size, ours, theirs) for size, ours, theirs in totals)))


def evidence_of(given: Mapping[Rule, str]) -> Evidence:
    """Measurements of ``SUBJECT`` that answer the rules with the statistics given.

    Raises:
        PolicyError: A text is no evidence.
    """
    found = []
    for rule, text in given.items():
        if (statistic := statistic_of(text)) is not None:
            comparator = "" if rule.against == "absolute" else str(SUBJECT)
            found.append(
                Measurement(rule.metric, SUBJECT, statistic, rule.split, rule.against, comparator, "policy test")
            )
    return tuple(dict.fromkeys(found))  # two rules over one metric share their evidence


def _mistakes(source: Source, policy: Policy) -> list[Mistake]:
    known = {rule.id for rule in policy.rules}
    found = []
    for place, rule, text in _given(source.data):
        if rule not in known:
            found.append(source.mistake(place, f"policy {policy.id} has no rule {rule!r}"))
            continue
        try:
            statistic_of(text)
        except EcologyError as error:
            found.append(source.mistake(place, error.what))
    return found


def _given(data: Mapping[str, Json]) -> Iterator[tuple[Place, str, str]]:
    """Every text that stands for evidence: where, for which rule, what."""
    for rule, cases in data.get("rules", {}).items():
        for i, case in enumerate(cases):
            yield ("rules", rule, i, "given"), rule, case["given"]
    for rule, text in data.get("typical", {}).items():
        yield ("typical", rule), rule, text
    for i, case in enumerate(data.get("verdicts", ())):
        for rule, text in case["given"].items():
            yield ("verdicts", i, "given", rule), rule, text


def _verdict_case(case: Mapping[str, Json], typical: Mapping[str, str], policy: Policy) -> CaseResult:
    texts = {**typical, **case["given"]}
    evidence = evidence_of({rule: texts[rule.id] for rule in policy.rules if rule.id in texts})
    scope, at = case.get("scope", "full"), case.get("at", NOW)
    judged = verdict(policy, evidence, SUBJECT, scope, at, words=False)
    head = headline(judged)
    expected, wanted = Outcome(case["expect"]), case.get("headline")
    same = judged.outcome is expected and (wanted is None or (head is not None and head.rule == wanted))
    reason = "" if same else "everything passed"
    if head and not same:  # the words are worth their time only here
        head = headline(verdict(policy, evidence, SUBJECT, scope, at)) or head
        reason = f"{head.rule}: {head.reason}"
    return CaseResult(case["name"], (), expected, judged.outcome, same, reason)
