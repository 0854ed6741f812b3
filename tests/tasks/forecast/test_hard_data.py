"""Series that people have: exact, constant, of counts, with a sentinel, short, of different sizes, of seconds."""

import re

import numpy as np
import polars as pl
import pytest

from forecast_cases import LEVELS
from tidegate.errors import DataError
from tidegate.tasks.forecast import Forecaster

QUICK = {"hidden_size": 6, "context": 16, "quantiles": LEVELS, "updates": 60}


def fit(values: np.ndarray, horizon: int = 4, season: int = 1, **options: object) -> Forecaster:
    data = pl.DataFrame({"y": values}).with_columns(pl.col("y").fill_nan(None))
    return Forecaster(horizon, season=season, **(QUICK | options)).fit(data, "y")  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_an_exact_sine_is_forecast_and_no_percentage_is_made_of_nothing(noise: float) -> None:
    steps = np.arange(244)
    sine = np.sin(2 * np.pi * steps / 12) + noise * np.random.default_rng(0).normal(size=244)
    found = fit(sine[:240], 4, season=12)
    assert np.abs(found.predict().median[0] - sine[240:]).max() < 1e-3
    assert re.search(r"\d{4,}\.\d%|nan|inf", found.verdict) is None


def test_intermittent_counts_are_not_negative() -> None:
    chance = np.random.default_rng(3)
    values = np.where(chance.random(200) < 0.7, 0, chance.poisson(3, 200)).astype(float)
    recognised, counts = fit(values).predict().quantiles, fit(values, count=True).predict().quantiles
    assert recognised.min() >= 0
    assert counts.min() >= 0
    np.testing.assert_array_equal(counts, np.round(counts))
    assert fit(values - 0.5).predict().quantiles.min() < 0


def test_values_that_contradict_an_option_name_their_place() -> None:
    values = np.abs(np.sin(np.arange(60.0)))
    values[17] = -2.5
    with pytest.raises(DataError) as caught:
        fit(values, positive=True)
    assert str(caught.value) == (
        "the frame, column 'y': the value -2.5 at 17 is below 0, which the option 'positive' excludes. Correct the "
        "value, or omit the option."
    )
    with pytest.raises(DataError, match=r"the value 0\.841471 at 1 is no whole number, which the option 'count'"):
        fit(np.abs(np.sin(np.arange(60.0))), count=True)


def test_one_sentinel_is_named_and_widens_nothing() -> None:
    values = np.sin(2 * np.pi * np.arange(240) / 12) + 0.1 * np.random.default_rng(1).normal(size=240)
    clean = fit(values, season=12)
    values[60] = 9999.0
    spoiled = fit(values, season=12)
    widths = [np.ptp(one.predict().quantiles, axis=-1).mean() for one in (clean, spoiled)]
    assert widths[1] < 3 * widths[0]
    assert (
        "The series has the value 9999 at 60, far from all others. If it means missing, leave it empty."
        in spoiled._current("").story.notes
    )


def test_short_series_are_forecast_by_the_net_of_the_others() -> None:
    """Six series, of which one has a season and a half and one half a season."""
    chance, parts = np.random.default_rng(2), []
    for k, count in enumerate((120, 120, 100, 90, 18, 6)):
        values = 10 * (k + 1) + 3 * np.sin(2 * np.pi * np.arange(count) / 12) + 0.2 * chance.normal(size=count)
        parts.append(pl.DataFrame({"who": f"s{k}", "y": values}))
    found = Forecaster(6, season=12, **QUICK).fit(pl.concat(parts), "y", id="who")  # type: ignore[arg-type]
    forecast = found.predict()
    assert forecast.names == ("s0", "s1", "s2", "s3", "s4")
    assert np.abs(forecast.median[4] - 50).max() < 6
    notes = found._current("").story.notes
    assert "Series with fewer than 12 steps were omitted: 's5' (6)." in notes
    assert "1 of 5 series are too short to be judged: the net was only trained on them." in notes
    assert [one.name for one in found.evaluation.by_series] == ["s0", "s1", "s2", "s3"]


@pytest.mark.parametrize("count", [60, 96])
def test_five_years_of_months_are_enough_for_a_year_ahead(count: int) -> None:
    values = 100 + np.arange(count) + 10 * np.sin(2 * np.pi * np.arange(count) / 12)
    found = fit(values + np.random.default_rng(0).normal(size=count), 12, season=12)
    assert found.evaluation.origins >= 1
    if count == 60:
        assert "too short to tell" in found.verdict or found.evaluation.comparison.blocks < 2
        assert any("rests on few forecasts" in note for note in found._current("").story.notes)


def test_a_series_a_thousand_times_as_large_does_not_decide_alone() -> None:
    """The large one is a walk, the small one can be learned: words, sign and figures speak of the same scaled loss."""
    chance = np.random.default_rng(4)
    small = np.zeros(400)
    for k in range(2, 400):
        small[k] = 1.6 * small[k - 1] - 0.9 * small[k - 2] + chance.normal()
    large = 1000 * np.cumsum(chance.normal(size=400))
    data = pl.concat([pl.DataFrame({"who": who, "y": y}) for who, y in (("large", large), ("small", small))])
    found = Forecaster(2, season=1, **(QUICK | {"updates": 300, "learning_rate": 0.01})).fit(data, "y", id="who")  # type: ignore[arg-type]
    evaluation = found.evaluation
    mean = sum(one.net * one.origins for one in evaluation.by_series) / evaluation.origins
    assert evaluation.scores["net"]["scaled_loss"] == pytest.approx(mean)
    assert (evaluation.comparison.difference < 0) == (evaluation.gain > 0)
    assert f"{abs(evaluation.gain):.1%}" in found.verdict
    [_, learned] = evaluation.by_series
    assert learned.net < learned.baseline
