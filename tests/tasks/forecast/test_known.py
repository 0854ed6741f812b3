"""Columns known in advance and features of a series: they help where they matter, and come from where they must."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tidegate
from forecast_cases import LEVELS
from tidegate.errors import ArgumentError, DataError
from tidegate.tasks.forecast import Forecaster

OPTIONS = {"season": 1, "hidden_size": 8, "context": 24, "quantiles": LEVELS, "learning_rate": 0.01, "updates": 400}
COUNT = 400


def table() -> pl.DataFrame:
    """What is sold follows a promotion that is planned at random; five rows more have only the plan."""
    chance = np.random.default_rng(6)
    promotion = (chance.random(COUNT + 5) < 0.3).astype(float)
    sold = 20 + 6 * promotion[:COUNT] + chance.normal(size=COUNT)
    return pl.DataFrame({"t": np.arange(COUNT + 5), "promotion": promotion, "y": [*sold, *[None] * 5]}, strict=False)


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    return Forecaster(4, **OPTIONS).fit(table(), "y", time="t", known=["promotion"])  # type: ignore[arg-type]


def test_what_is_known_in_advance_is_used_for_its_own_step(fitted: Forecaster) -> None:
    plan = table()["promotion"].to_numpy()[COUNT : COUNT + 4]
    found = fitted.predict().median[0]
    np.testing.assert_allclose(found, 20 + 6 * plan, atol=1.5)
    without = Forecaster(4, **OPTIONS).fit(table().head(COUNT), "y", time="t")  # type: ignore[arg-type]
    losses = [one.evaluation.scores["net"]["scaled_loss"] for one in (fitted, without)]
    assert losses[0] < 0.6 * losses[1]


def test_scenarios_and_what_is_missing(fitted: Forecaster) -> None:
    rows = table().slice(COUNT, 4)
    medians = [
        fitted.predict(future=rows.select("t", promotion=pl.lit(value))).median[0].mean() for value in (0.0, 1.0)
    ]
    assert 4 < medians[1] - medians[0] < 8
    more = pl.DataFrame({"t": [COUNT + k for k in range(5)], "promotion": [0.0] * 5, "y": [20.0] * 5})
    with pytest.raises(DataError) as caught:
        fitted.predict(more)
    assert str(caught.value) == (
        f"Column 'promotion' is known in advance, but its value at {COUNT + 5} is missing. Give the steps ahead in "
        "rows without a target, or in a table of their own: --future FILE (in Python future=)."
    )
    ahead = pl.DataFrame({"t": [COUNT + 5 + k for k in range(4)], "promotion": [1.0, 0.0, 0.0, 1.0]})
    found = fitted.predict(more, future=ahead)
    joined = pl.concat([more, ahead.with_columns(y=pl.lit(None, pl.Float64))])
    np.testing.assert_array_equal(found.quantiles, fitted.predict(joined).quantiles)
    with pytest.raises(ArgumentError, match="has no column known in advance"):
        Forecaster(2, **OPTIONS | {"updates": 1}).fit(table().head(60), "y", time="t").predict(future=ahead)  # type: ignore[arg-type]


def test_reading_on_and_saving_keep_what_is_known(fitted: Forecaster, tmp_path: Path) -> None:
    tidegate.save(fitted, tmp_path / "model")
    loaded = tidegate.load(tmp_path / "model")
    assert isinstance(loaded, Forecaster)
    np.testing.assert_array_equal(loaded.predict().quantiles, fitted.predict().quantiles)
    more = pl.DataFrame({"t": [COUNT], "promotion": table()["promotion"].to_list()[COUNT : COUNT + 1], "y": [21.0]})
    expected = fitted.predict(more).quantiles
    np.testing.assert_array_equal(loaded.update(more).predict().quantiles, expected)


def test_a_feature_of_a_series_tells_what_it_does() -> None:
    """Series jump up or down at a signal, as their kind says."""
    chance, frames = np.random.default_rng(1), []
    for k in range(8):
        kind, signal = ("up", "down")[k % 2], (chance.random(150) < 0.3).astype(float)
        sign = 1 if kind == "up" else -1
        y = 10 + 4 * sign * signal + 0.5 * chance.normal(size=150)
        frames.append(pl.DataFrame({"who": f"s{k}", "kind": kind, "size": float(k), "signal": signal, "y": y}))
    data = pl.concat(frames)
    columns = {"id": "who", "known": ["signal"]}
    with_kind = Forecaster(1, **OPTIONS).fit(data, "y", static=["kind", "size"], **columns)  # type: ignore[arg-type]
    future = pl.DataFrame({"who": [f"s{k}" for k in range(8)], "signal": [1.0] * 8})
    medians = with_kind.predict(future=future).median[:, 0]
    assert medians[::2].min() > 12
    assert medians[1::2].max() < 8
