"""The estimator: it wins where there is something to learn, says so where there is not, and keeps its promises."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import tidegate
from forecast_cases import LEVELS, fitted_two, fitted_waves, two_series, waves
from tidegate.cells import get
from tidegate.data import read_panel
from tidegate.equations import cell, linear, sigmoid, tanh
from tidegate.errors import ArgumentError, DataError
from tidegate.gradients import SnAp, TruncatedBPTT
from tidegate.tasks.forecast import Forecaster
from tidegate.tasks.forecast.tail import Tail


def quick(horizon: int, **options: object) -> Forecaster:
    return Forecaster(horizon, **({"hidden_size": 8, "context": 16, "quantiles": LEVELS, "season": 1} | options))  # type: ignore[arg-type]


def swing(count: int = 1500) -> np.ndarray:
    """A damped oscillation driven by noise, y = 1.6 y' - 0.9 y'': two steps tell where it goes."""
    noise, values = np.random.default_rng(3).normal(size=count), np.zeros(count)
    for k in range(2, count):
        values[k] = 1.6 * values[k - 1] - 0.9 * values[k - 2] + noise[k]
    return values


def test_it_learns_known_dynamics() -> None:
    """The optimal error of one and two steps ahead is known: the noise, and 1.6 of it with the next noise."""
    found = quick(2, learning_rate=0.01).fit(pl.DataFrame({"y": swing()}), "y")
    assert found.evaluation.outcome == "better"
    assert found.evaluation.gain > 0.5
    assert found.evaluation.learned > 0.4
    normal = np.sqrt(2 / np.pi)
    best = [normal, normal * np.sqrt(1 + 1.6**2)]
    for mae, optimum in zip(found.evaluation.by_horizon["net"]["mae"], best, strict=True):
        assert mae < 1.05 * optimum


def test_it_says_so_where_nothing_can_be_learned() -> None:
    walk = np.cumsum(np.random.default_rng(8).normal(size=600))
    found = quick(3).fit(pl.DataFrame({"y": walk}), "y")
    assert found.evaluation.outcome == "same"
    assert "noise can explain that" in found.verdict or "does as well as" in found.verdict


def test_the_held_out_part_changes_nothing_that_is_learned() -> None:
    values = waves(150)
    other = values.copy()
    other[120:] = 1000 * np.random.default_rng(1).normal(size=30)
    first, second = (
        quick(4, season=6, hidden_size=4, context=8, refit=False, keep_net=True).fit(pl.DataFrame({"y": v}), "y")
        for v in (values, other)
    )
    numbers = [[(c.validation, c.training) for c in f.history.checks] for f in (first, second)]
    assert numbers[0] == numbers[1]
    tensors = [f.to_spec()[1] for f in (first, second)]
    assert all(torch.equal(tensors[0][n], tensors[1][n]) for n in tensors[0] if n.startswith("net."))
    assert first.evaluation != second.evaluation


def test_the_same_seed_gives_the_same_forecast() -> None:
    torch.manual_seed(99)
    again = Forecaster(4, season=6, hidden_size=8, context=24, quantiles=LEVELS, seed=1)
    again.fit(pl.DataFrame({"y": waves()}), "y")
    np.testing.assert_array_equal(again.predict().quantiles, fitted_waves().predict().quantiles)
    assert again.verdict == fitted_waves().verdict


def test_a_forecast_has_the_shape_and_the_times_it_says() -> None:
    forecast = fitted_waves().predict()
    assert (forecast.names, forecast.levels, forecast.quantiles.shape) == (("",), LEVELS, (1, 4, 5))
    assert forecast.times.tolist() == [[260, 261, 262, 263]]
    np.testing.assert_array_equal(forecast.median, forecast.quantiles[..., 2])
    frame = forecast.to_frame()
    assert frame.columns == ["step", "q0.1", "q0.25", "q0.5", "q0.75", "q0.9"]
    np.testing.assert_array_equal(frame["q0.5"].to_numpy(), forecast.median[0])


def test_a_forecast_of_several_series() -> None:
    forecast = fitted_two().predict()
    assert forecast.names == ("b", "a")
    assert forecast.times.astype("datetime64[M]").astype(str).tolist() == [
        ["2012-07", "2012-08", "2012-09"],
        ["2010-11", "2010-12", "2011-01"],
    ]
    frame = forecast.to_frame()
    assert frame.columns[:2] == ["who", "month"]
    assert frame["who"].to_list() == ["b"] * 3 + ["a"] * 3
    assert 10 < forecast.median[1].mean() / forecast.median[0].mean() < 1000
    assert forecast.to_csv().splitlines()[1].startswith("b,2012-07-01,")
    assert forecast.to_json()[0]["time"] == "2012-07-01T00:00:00"
    assert fitted_waves().predict().to_json()[0]["time"] == 260


def test_rows_that_follow_are_joined_to_the_kept_end() -> None:
    """New rows alone give the bits of the same net that has read the whole series with them."""
    forecaster, more = fitted_waves(), waves(300)[260:]
    alone = forecaster.predict(pl.DataFrame({"y": more}))
    assert alone.times.tolist() == [[300, 301, 302, 303]]
    fitted = forecaster._current("")
    panel = read_panel(pl.DataFrame({"y": np.concatenate([waves()[:260], more])}), "y")
    np.testing.assert_array_equal(alone.quantiles, fitted.forecast(Tail.whole(panel)).quantiles)


def test_timed_rows_are_joined_by_their_times() -> None:
    forecaster = fitted_two()
    later = pl.DataFrame({"who": "b", "month": ["2012-08", "2012-09"], "y": [54.0, 55.0], "rain": [1.0, 2.0]})
    forecast = forecaster.predict(later)
    assert (forecast.names, forecast.times.astype("datetime64[M]").astype(str)[0, 0]) == (("b",), "2012-10")
    again = two_series().filter(pl.col("who") == "b")
    np.testing.assert_allclose(
        forecaster.predict(again).quantiles[0], forecaster.predict().quantiles[0], rtol=1e-5, atol=1e-4
    )


def test_a_series_never_seen_stands_alone() -> None:
    forecaster = fitted_two()
    new = two_series().filter(pl.col("who") == "b").with_columns(who=pl.lit("new"), y=pl.col("y") * 7)
    ratio = forecaster.predict(new).median / forecaster.predict().median[0]
    np.testing.assert_allclose(ratio, 7.0, rtol=0.05)


def test_a_new_series_that_is_too_short() -> None:
    short = two_series().head(9).with_columns(who=pl.lit("new"))
    with pytest.raises(DataError) as caught:
        fitted_two().predict(short)
    assert str(caught.value) == (
        "the frame: series 'new' has 9 steps, but a forecast needs at least 12. Give more steps, or rows that follow "
        "the data of the fit."
    )


def test_saved_and_loaded(tmp_path: Path) -> None:
    forecaster = fitted_two()
    tidegate.save(forecaster, tmp_path / "model")
    loaded = tidegate.load(tmp_path / "model")
    assert isinstance(loaded, Forecaster)
    np.testing.assert_array_equal(loaded.predict().quantiles, forecaster.predict().quantiles)
    assert (loaded.verdict, loaded.history, loaded.options) == (
        forecaster.verdict,
        forecaster.history,
        forecaster.options,
    )
    loaded.write_report(tmp_path / "a.html")
    forecaster.write_report(tmp_path / "b.html")
    assert (tmp_path / "a.html").read_text() == (tmp_path / "b.html").read_text()
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_loading_leaves_random_numbers_alone() -> None:
    saved = fitted_waves().to_spec()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    Forecaster.from_spec(*saved)
    assert torch.equal(torch.rand(2), expected)


@cell(states="h", source="made up for this test")
def leaky(x, h, *, leak=0.5):
    z = leak * sigmoid(linear("z", x, h))  # how much is let in
    h = (1 - z) * h + z * tanh(linear("n", x))
    return h


def test_a_cell_of_ones_own_survives_saving(tmp_path: Path) -> None:
    forecaster = quick(2, cell=leaky(leak=0.7), budget=2, gradient=TruncatedBPTT(8, 12), seed=4)
    forecaster.fit(pl.DataFrame({"y": waves(150)}), "y")
    assert forecaster.options.gradient == "truncated:8,12"
    tidegate.save(forecaster, tmp_path / "model")
    loaded = tidegate.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict().quantiles, forecaster.predict().quantiles)
    assert loaded.cell.options["leak"] == 0.7
    spec, _ = loaded.to_spec()
    assert spec["cell"] == leaky(leak=0.7).to_json()


@pytest.mark.parametrize("gradient", ["snap:1,8", "rtrl:16", SnAp(every=8)], ids=str)
def test_gradients_forward_in_time(gradient: object) -> None:
    found = quick(12, season=12, budget="1s", gradient=gradient)
    found.fit(tidegate.data.sample("co2_mauna_loa"), "co2", time="month")
    assert np.isfinite(found.predict().quantiles).all()
    assert all(np.isfinite(found.evaluation.by_horizon["net"]["mae"]))


def test_a_cell_by_name_is_that_cell() -> None:
    spec, _ = fitted_two().to_spec()
    assert spec["cell"]["name"] == get("gru").name


@pytest.mark.parametrize(
    "call", [lambda f: f.predict(), lambda f: f.verdict, lambda f: f.history, lambda f: f.to_spec()]
)
def test_before_a_fit(call: object) -> None:
    with pytest.raises(ArgumentError) as caught:
        call(Forecaster(2))  # type: ignore[operator]
    assert str(caught.value) == "This forecaster has not been fitted. Call fit(data, target=...) first."


def test_a_wrong_option() -> None:
    with pytest.raises(ArgumentError) as caught:
        Forecaster(3, sesaon=12)
    assert str(caught.value) == "There is no option 'sesaon'. Did you mean 'season'?"


def test_a_constant_series_is_forecast_as_itself() -> None:
    forecast = quick(2, budget=1).fit(pl.DataFrame({"y": np.full(80, 3.0)}), "y").predict()
    np.testing.assert_allclose(forecast.median, 3.0, atol=0.05)


@pytest.mark.slow
def test_real_hours_of_a_transformer(shared_data: Path) -> None:
    forecaster = Forecaster(24, season=24, budget="40s")
    forecaster.fit(shared_data / "ETTh1.csv", "OT", time="date")
    assert forecaster.evaluation.outcome == "better"
    assert forecaster.evaluation.scores["net"]["mae"] < forecaster.evaluation.scores["seasonal naive"]["mae"]


@pytest.mark.slow
def test_the_shipped_series() -> None:
    found = Forecaster(12, season=12, budget="60s").fit(tidegate.data.sample("co2_mauna_loa"), "co2", time="month")
    assert found.evaluation.outcome == "better"
    assert found.evaluation.scores["net"]["mae"] < 0.4 * found.evaluation.scores["seasonal naive"]["mae"]


def test_rows_that_overlap_the_fit_replace_its_end() -> None:
    frame = pl.DataFrame({"t": np.arange(260), "y": waves()})
    fitted = Forecaster(4, season=6, hidden_size=4, context=24, budget=0.1).fit(frame, "y", time="t")
    whole = pl.DataFrame({"t": np.arange(263), "y": np.r_[waves()[:257], 50.0, 51.0, 52.0, 53.0, 54.0, 55.0]})
    overlapping = fitted.predict(whole[255:]).quantiles
    np.testing.assert_allclose(overlapping, fitted.predict(whole).quantiles, rtol=1e-6)
    far = whole[258:].with_columns(pl.col("t") + 10_000)
    with pytest.raises(DataError) as caught:
        fitted.predict(far)
    assert str(caught.value) == (
        "the frame: the series has 5 steps, but a forecast needs at least 6. Give more steps, or rows that follow the "
        "data of the fit."
    )
