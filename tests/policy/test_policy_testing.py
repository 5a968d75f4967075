"""Policies have unit tests, and those have tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecology.contracts.evidence import Count, Paired, Proportion, Samples
from ecology.errors import ConfigError, PolicyError
from ecology.policy import testing
from ecology.policy.reader import load_policy
from ecology.policy.testing import run_tests, statistic_of

POLICIES = Path(__file__).parents[2] / "policies"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("release.yaml", "baseline.yaml"):
        (tmp_path / name).write_bytes((POLICIES / name).read_bytes())
    return tmp_path


def cases(folder: Path, text: str) -> Path:
    path = folder / "release_test.yaml"
    path.write_text(f"policy: release.yaml\n{text}", encoding="utf-8")
    return path


CLUSTERED = """
rules:
  SKILL-001:
    - {given: 193 of 200 in 20 mixed families, expect: pass}
    - {given: 160 of 200 in 20 mixed families, expect: deny}
    - {given: 160 of 200 in 20 uniform families, expect: inconclusive, why: sixteen of twenty refute nothing}
    - {given: 193 of 200 in 20 uniform families, expect: inconclusive, why: nor do nineteen prove it}
    - {given: 193 of 200, expect: inconclusive, why: nobody said which items belong together}
"""


def test_what_a_clustered_rule_makes_of_families_can_be_tested(folder: Path) -> None:
    policy = folder / "release.yaml"
    text = policy.read_text("utf-8")
    assert "  - id: SKILL-001\n" in text
    policy.write_text(text.replace("  - id: SKILL-001\n", "  - id: SKILL-001\n    clustered: true\n"), encoding="utf-8")
    assert [str(result) for result in run_tests(cases(folder, CLUSTERED)) if not result.passed] == []


@given(
    st.integers(2, 60), st.integers(0, 60), st.integers(0, 60), st.integers(2, 9), st.sampled_from(["mixed", "uniform"])
)
def test_families_hold_the_items_that_were_given(n: int, won: int, lost: int, count: int, how: str) -> None:
    won, count = min(won, n), min(count, n)
    lost = min(lost, n - won)
    rate = statistic_of(f"{won} of {n} in {count} {how} families")
    assert isinstance(rate, Proportion)
    assert (len(rate.families), *map(sum, zip(*rate.families, strict=True))) == (count, n, won)
    pairs = statistic_of(f"{n} pairs, {won} won, {lost} lost in {count} {how} families")
    assert isinstance(pairs, Paired)
    assert (len(pairs.families), *map(sum, zip(*pairs.families, strict=True))) == (count, n, won, lost)
    sizes = [size for size, _ in rate.families]
    assert max(sizes) - min(sizes) <= 1
    if how == "mixed":
        rights = [right for _, right in rate.families]
        assert max(rights) - min(rights) <= 1
    else:  # one family at most holds both kinds
        assert sum(0 < right < size for size, right in rate.families) <= 1
    samples = statistic_of(f"{n} x 0.5 in {count} {how} families")
    assert isinstance(samples, Samples)
    assert set(samples.families) == set(range(count))


@pytest.mark.parametrize(
    "text",
    ["nothing in 2 mixed families", "no violation in 2 mixed families", "3 of 4 in 1 mixed families",
     "3 of 4 in 5 mixed families", "1 of 100001 in 2 mixed families", "3 of 4 in 2 families",
     "3 of 4 in 2 mixed families in 2 mixed families"],
)  # fmt: skip
def test_families_that_cannot_be(text: str) -> None:
    with pytest.raises(PolicyError, match="is no evidence"):
        statistic_of(text)


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*_test.yaml")), ids=lambda p: p.name)
def test_every_shipped_policy_passes_its_tests(path: Path) -> None:
    results = run_tests(path)
    assert [str(result) for result in results if not result.passed] == []
    rules = {rule.id for rule in load_policy(path.with_name(path.name.replace("_test", ""))).rules}
    assert set(testing.coverage(results)) == rules
    for rule in rules:
        outcomes = {result.found for result in results if rule in result.rules}
        assert len(outcomes) >= 2, f"{rule} is tested with one outcome only"


def test_every_policy_has_tests() -> None:
    for path in POLICIES.glob("*.yaml"):
        if not path.stem.endswith("_test"):
            assert path.with_name(f"{path.stem}_test.yaml").exists()


def test_a_wrong_expectation_fails_and_says_why(folder: Path) -> None:
    path = cases(folder, "rules:\n  SKILL-001:\n    - {given: 100 of 200, expect: pass}\n")
    (result,) = run_tests(path)
    assert not result.passed
    assert str(result).startswith("SKILL-001: 100 of 200: expected pass, found deny: 100 of 200 (50.0%)")


def test_a_verdict_case_starts_from_the_typical_evidence(folder: Path) -> None:
    path = cases(
        folder,
        "typical: {STA-001: no violation}\n"
        "verdicts:\n"
        "  - {name: nothing else was measured, given: {}, expect: inconclusive, headline: STA-002}\n"
        "  - {name: another headline, given: {STA-001: 1 violation}, expect: deny, headline: STA-002}\n",
    )
    first, second = run_tests(path)
    assert first.passed
    assert not second.passed


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rules:\n  SKILL-999:\n    - {given: 1 of 2, expect: pass}\n", "no rule 'SKILL-999'"),
        ("rules:\n  SKILL-001:\n    - {given: some, expect: pass}\n", "'some' is no evidence"),
        ("rules:\n  SKILL-001:\n    - {given: 1 of 2, expect: fine}\n", "expected one of pass"),
        ("rules:\n  SKILL-001:\n    - {given: 1 of 2}\n", "missing key 'expect'"),
        ("rules:\n  SKILL-001: []\n", "rules.SKILL-001"),
        ("rule: {}\n", "unknown key"),
        ("verdicts:\n  - {name: n, given: {X: nothing}, expect: pass}\n", "no rule 'X'"),
    ],
)
def test_mistakes_in_the_cases_are_named_with_their_line(folder: Path, text: str, complaint: str) -> None:
    with pytest.raises(PolicyError, match=r"release_test\.yaml:") as caught:
        run_tests(cases(folder, text))
    assert complaint in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        run_tests(tmp_path / "nowhere_test.yaml")
    with pytest.raises(ConfigError):
        run_tests(cases(tmp_path, ""))


def test_a_test_file_cannot_name_a_policy_elsewhere(folder: Path, tmp_path: Path) -> None:
    path = folder / "sub"
    path.mkdir()
    (path / "release_test.yaml").write_text("policy: ../release.yaml\n", encoding="utf-8")
    with pytest.raises(ConfigError):
        run_tests(path / "release_test.yaml")


@pytest.mark.parametrize(
    ("text", "statistic"),
    [
        ("nothing", None),
        ("no violation", Count(0, ())),
        ("193 of 200", Proportion(193, 200)),
        ("200 pairs", Paired(200, 0, 0)),
        ("200 pairs, 3 won", Paired(200, 3, 0)),
        ("200 pairs, 12 lost", Paired(200, 0, 12)),
        ("200 pairs, 3 won, 12 lost", Paired(200, 3, 12)),
        ("2 x 1.5, 1 x -3", Samples((1.5, 1.5, -3.0), "")),
        ("1 x 6442450944", Samples((6442450944.0,), "")),
    ],
)
def test_evidence_in_words(text: str, statistic: object) -> None:
    assert statistic_of(text) == statistic


@pytest.mark.parametrize("text", ["", "0", "-1 violations", "1 of", "999999 x 1", "1 x nan", "a of b", "3 won"])
def test_what_is_no_evidence_is_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        statistic_of(text)
