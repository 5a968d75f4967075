"""The search over weights on a base that knows nothing, and its picture."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from ecology.errors import ConfigError
from ecology.evaluator.asking import Evaluator
from ecology.kernel import canonical
from ecology.pipeline import optimise
from ecology.pipeline.compose import compose
from ecology.pipeline.house import open_house
from ecology.pipeline.settings import OptimiseSettings


def _points(count: int = 2, **changes: object) -> list[tuple[float, ...]]:
    wanted = OptimiseSettings(objective={}, **changes)  # type: ignore[arg-type]
    scores: list[tuple[float, ...]] = []

    def last() -> float:
        return -sum((weight - 1.5) ** 2 for weight in scores[-1])

    for point in optimise._proposals(wanted, count, 3, last):
        scores.append(point)
    return scores


def test_the_grid_has_every_combination() -> None:
    assert _points(low=0, high=2, steps=3) == list(itertools.product((0.0, 1.0, 2.0), repeat=2))
    assert len(_points(3, steps=2)) == 8


def test_random_points_follow_the_seed_and_stay_inside() -> None:
    points = _points(method="random", low=-1, high=0.5, trials=40)
    assert points == _points(method="random", low=-1, high=0.5, trials=40)
    assert len(set(points)) == 40
    assert all(-1 <= weight <= 0.5 for point in points for weight in point)


def test_optuna_goes_where_it_is_better() -> None:
    pytest.importorskip("optuna")
    points = _points(method="optuna", trials=30)
    assert points == _points(method="optuna", trials=30)
    assert len(points) == 30

    def miss(part: list[tuple[float, ...]]) -> float:
        return sum((weight - 1.5) ** 2 for point in part for weight in point)

    assert miss(points[-10:]) < miss(points[:10])


def test_a_search_asks_nothing_twice_and_draws_the_plane(tmp_path: Path) -> None:
    overrides = ["experiment=[toy,optimise]", "optimise.steps=2", "optimise.items=3"]
    settings, config = compose(overrides)
    house = open_house(str(tmp_path / "home"), quiet=True)
    found = optimise.optimise(settings, config, house, tmp_path / "out")
    assert [trial.weights for trial in found.trials] == list(itertools.product((0.0, 2.0), repeat=2))
    assert len({trial.digest for trial in found.trials}) == 4
    for trial in found.trials:
        assert trial.objective == pytest.approx(
            sum(found.objective[name] * share for name, share in trial.scores.items())
        )
        assert set(trial.items.values()) == {3}
    written = (tmp_path / "out" / "weights.json").read_bytes()
    assert json.loads(written) == canonical.plain(found)
    drawn = (tmp_path / "out" / "weights.svg").read_text()
    assert drawn.count("<rect") == 1 + 4 * 4
    assert "weight of talker" in drawn
    assert found.parents == ("talker", "chatter")
    again = optimise.optimise(settings, config, open_house(str(tmp_path / "home"), quiet=True), tmp_path / "again")
    assert (tmp_path / "again" / "weights.json").read_bytes() == written
    assert again == found


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+optimise.objective.nothing=1", "no metric"),
        ("optimise.operator=mutate", "takes no weights"),
        ("optimise.parents=[nobody]", "no parent"),
        ("optimise.low=2", "not below"),
        ("optimise.high=nan", "not below"),
        ("optimise.steps=1", "optimise.steps: 1 is not between 2"),
        ("optimise.operator=linaer", "unknown operator 'linaer'"),
    ],
)
def test_mistakes_are_named(override: str, message: str, tmp_path: Path) -> None:
    def search() -> None:
        settings, config = compose(["experiment=[toy,optimise]", override])
        optimise.optimise(settings, config, open_house(str(tmp_path / "home"), quiet=True), tmp_path / "out")

    with pytest.raises(ConfigError, match=message):
        search()


def test_points_that_are_known_beforehand_answer_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["experiment=[toy,optimise]", "optimise.steps=2", "optimise.items=3"]
    settings, config = compose(overrides)
    together = optimise.optimise(settings, config, open_house(str(tmp_path / "one"), quiet=True), tmp_path / "together")
    asked: list[int] = []
    monkeypatch.setattr(Evaluator, "ask_mixtures", lambda *a: asked.append(len(a[2])))
    alone = optimise.optimise(settings, config, open_house(str(tmp_path / "two"), quiet=True), tmp_path / "alone")
    assert together == alone
    assert asked == [4, 4, 4], "every point of the grid, suite by suite"
