"""What a forecaster keeps of its series, reading on, and that no forecast sees what comes after its origin."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tidegate
from forecast_cases import LEVELS, fitted_two, fitted_waves, prepared, small_net, two_series, waves
from tidegate.data import read_panel
from tidegate.errors import ArgumentError
from tidegate.tasks.forecast import Forecaster
from tidegate.tasks.forecast.fitted import Fitted
from tidegate.tasks.forecast.model.inputs import make_inputs
from tidegate.tasks.forecast.model.rolling import outputs_of
from tidegate.tasks.forecast.tail import Tail, shorten


def fresh(forecaster: Forecaster) -> Forecaster:
    """Another forecaster with the same fit, which may read on."""
    again = Forecaster(forecaster.options.horizon)
    again._fitted = forecaster._fitted
    return again


@settings(max_examples=8)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_reading_on_in_any_pieces_gives_the_bits_of_reading_all_at_once(pieces: list[int]) -> None:
    forecaster, values = fresh(fitted_waves()), np.concatenate([waves(), waves(500)[260 : 260 + sum(pieces)]])
    stops = np.cumsum([260, *pieces])
    inner = np.setdiff1d(np.arange(260, stops[-1])[::3], [*stops[:-1], *(stops - 1)])
    values[inner] = np.nan  # gaps everywhere but at the ends of a piece, which are cut off as a file's are
    for first, stop in itertools.pairwise(stops.tolist()):
        piece = pl.DataFrame({"y": values[first:stop]}).with_columns(pl.col("y").fill_nan(None))
        forecaster.update(piece)
    panel = read_panel(pl.DataFrame({"y": values}).with_columns(pl.col("y").fill_nan(None)), "y")
    whole = forecaster._current("").forecast(Tail.whole(panel))
    found = forecaster.predict()
    np.testing.assert_array_equal(found.quantiles, whole.quantiles)
    np.testing.assert_array_equal(found.times, whole.times)
    [kept] = forecaster._current("").tail.parts
    assert len(kept.series) == kept.lead + 24  # a row costs the same however many there were before it


def test_reading_on_with_several_series_and_a_covariate() -> None:
    """One series goes on, one stays where it was, one is new; a covariate is missing at the cut."""
    forecaster, months = fresh(fitted_two()), [f"2012-{k:02d}" for k in range(7, 13)]
    rows = pl.DataFrame({"who": "b", "month": months, "y": [52.0, 51, 50, 49, 51, 52], "rain": [None] * 6})
    new = two_series().filter(pl.col("who") == "b").with_columns(who=pl.lit("c"), y=pl.col("y") * 3)
    before = forecaster.predict()
    forecaster.update(pl.concat([rows.cast({"rain": pl.Float64}), new]))
    after = forecaster.predict()
    assert after.names == ("b", "a", "c")
    assert str(after.times[0, 0]).startswith("2013-01")
    np.testing.assert_array_equal(after.quantiles[1], before.quantiles[1])
    whole = pl.concat([two_series(), rows.cast({"rain": pl.Float64})])
    panel = read_panel(whole, "y", time="month", id="who", covariates=["rain"])
    expected = forecaster._current("").forecast(Tail.whole(panel))
    np.testing.assert_array_equal(after.quantiles[0], expected.quantiles[0])


def test_what_was_read_on_is_saved(tmp_path: Path) -> None:
    forecaster = fresh(fitted_two())
    more = pl.DataFrame({"who": "a", "month": ["2010-11", "2010-12"], "y": [5000.0, 5100.0], "rain": [1.0, 2.0]})
    forecaster.update(more)
    tidegate.save(forecaster, tmp_path / "model")
    loaded = tidegate.load(tmp_path / "model")
    assert isinstance(loaded, Forecaster)
    np.testing.assert_array_equal(loaded.predict().quantiles, forecaster.predict().quantiles)
    further = pl.DataFrame({"who": "a", "month": ["2011-01"], "y": [5200.0], "rain": [1.0]})
    np.testing.assert_array_equal(
        loaded.update(further).predict().quantiles, forecaster.update(further).predict().quantiles
    )


def test_a_short_tail_forecasts_as_the_whole_series() -> None:
    panel, _, inputs = prepared(waves(), 4, 6)
    net = small_net(inputs, "lstm")
    whole = Tail.whole(panel)
    short = shorten(whole, inputs.recipe, net)
    [part] = short.parts
    assert (part.lead, len(part.series)) == (inputs.recipe.past, inputs.recipe.past + inputs.recipe.context)
    ends = []
    for tail in (whole, short, shorten(short, inputs.recipe, net), shorten(whole, inputs.recipe, net, keep_rows=True)):
        found = tail.inputs(inputs.recipe)
        outputs, states = outputs_of(net, found, states=list(tail.states))
        row = found.offsets + found.lengths - 1
        ends.append([outputs[row], found.anchors(row), found.x[row], states[0]["c"]])
    assert all(torch.equal(a, b) for other in ends[1:] for a, b in zip(ends[0], other, strict=True))


def later_gradient(fitted: Fitted, tail: Tail, origin: int) -> torch.Tensor:
    """The gradient of the forecast at an origin by the scaled values and inputs of every later step."""
    inputs = tail.inputs(fitted.recipe)
    leaves = {name: getattr(inputs, name).clone().requires_grad_() for name in ("x", "filled", "summaries")}
    inputs = replace(inputs, **leaves)
    first, stop = int(inputs.offsets[0]), int(inputs.offsets[0] + inputs.lengths[0])
    outputs, _ = fitted.net(inputs.x[first:stop, None], tail.states[0])
    row = torch.tensor(first + origin)
    forecast = fitted.net.forecast(outputs[origin, 0], inputs.anchors(row), inputs.known(row))
    gradients = torch.autograd.grad(forecast.sum() + 0 * inputs.filled.sum(), list(leaves.values()), allow_unused=True)
    after = [g[first + origin + 1 :].abs().sum() for g in gradients if g is not None]
    before = [g[: first + origin + 1].abs().sum() for g in gradients if g is not None]
    assert float(torch.stack(before).sum()) > 0
    return torch.stack(after).sum()


@pytest.mark.parametrize("fit", [fitted_waves, fitted_two])
@pytest.mark.parametrize("origin", [3, 11, 18])
def test_no_forecast_sees_a_later_step(fit: object, origin: int) -> None:
    """Differentiated by every later row the forecast is exactly zero; changed rows leave it bit for bit."""
    fitted = fit()._current("")  # type: ignore[operator]
    assert float(later_gradient(fitted, fitted.tail, origin)) == 0.0
    part = fitted.tail.parts[0]
    place = part.lead + origin
    quantiles = []
    for change in (0.0, 1e3):
        values = part.series.values.copy()
        values[place + 1 :] += change
        covariates = part.series.covariates.copy()
        covariates[place + 1 :] -= change
        cut = replace(part, series=replace(part.series, values=values, covariates=covariates))
        inputs = make_inputs(fitted.tail.panel, fitted.recipe, (cut, *fitted.tail.parts[1:]))
        outputs, _ = outputs_of(fitted.net, inputs, states=list(fitted.tail.states))
        row = inputs.offsets[0] + origin
        quantiles.append(fitted.net.forecast(outputs[row], inputs.anchors(row), inputs.known(row)))
    assert torch.equal(*quantiles)


def test_a_planted_leak_is_seen() -> None:
    fitted = fitted_waves()._current("")

    def leaking(rows: torch.Tensor) -> torch.Tensor:
        return inputs.known(rows)

    inputs = fitted.tail.inputs(fitted.recipe)
    row, x = inputs.offsets[0] + 5, inputs.x.clone().requires_grad_()
    outputs, _ = fitted.net(x[row : row + 10, None])
    forecast = fitted.net.forecast(outputs[1, 0], inputs.anchors(row), leaking(row))  # the output of the step after
    [found] = torch.autograd.grad(forecast.sum(), x)
    assert float(found[row + 1 :].abs().sum()) > 0


def test_a_net_that_lost_gives_way_to_the_baseline_that_won() -> None:
    """A walk that turns into a line: trained on the walk, the net cannot beat drift... or keeps its place if asked."""
    chance = np.random.default_rng(5)
    values = np.concatenate([np.cumsum(chance.normal(size=200)), 400 + 3.0 * np.arange(100)])
    options = {"season": 1, "hidden_size": 4, "context": 16, "quantiles": LEVELS, "budget": 2, "learning_rate": 0.05}
    found = Forecaster(4, **options).fit(pl.DataFrame({"y": values}), "y")  # type: ignore[arg-type]
    fitted = found._current("")
    if found.evaluation.outcome != "worse":
        pytest.skip("the net did not lose")
    assert fitted.instead == found.evaluation.best_baseline
    assert found.verdict.endswith(f"Forecasts are those of {fitted.instead}.")
    more = pl.DataFrame({"y": values[-1] + 3.0 * np.arange(1, 5)})
    assert np.isfinite(found.update(more).predict().quantiles).all()
    kept = Forecaster(4, keep_net=True, **options).fit(pl.DataFrame({"y": values}), "y")  # type: ignore[arg-type]
    assert kept._current("").instead is None


def test_a_forecaster_of_the_first_release_can_predict_and_be_saved_and_no_more(tmp_path: Path) -> None:
    kept = Path(__file__).parents[2] / "golden" / "kept" / "0.1.0" / "forecaster"
    old = tidegate.load(kept)
    assert isinstance(old, Forecaster)
    assert old.verdict.startswith("The held-out part is too short")
    tidegate.save(old, tmp_path / "again")
    again = tidegate.load(tmp_path / "again")
    np.testing.assert_array_equal(again.predict().quantiles, old.predict().quantiles)
    assert old.predict(pl.DataFrame({"y": [9.0, 9.5]})).times.tolist() == [[62, 63, 64]]
    for call in (
        old.diagnose,
        lambda: old.write_report(tmp_path / "r.html"),
        lambda: old.update(None),
        lambda: old.evaluation,
    ):
        with pytest.raises(ArgumentError, match=r"Tidegate 0\.1"):
            call()
