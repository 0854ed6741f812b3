"""A forecaster's diagnosis: its windows, its own loss, and the projection where there is none."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from forecast_cases import fitted_two, fitted_waves, two_series, waves
from tidegate.gradients import BPTT, TruncatedBPTT, gradient
from tidegate.gradients.diagnosis.subject import PROBE
from tidegate.metrics import pinball
from tidegate.tasks.forecast import Forecaster
from tidegate.tasks.forecast.diagnosis import diagnose_fitted
from tidegate.tasks.forecast.fitted import Fitted


def fitted(forecaster: Forecaster) -> Fitted:
    assert forecaster._fitted is not None
    return forecaster._fitted


def test_the_loss_is_that_of_the_forecasts() -> None:
    forecaster = fitted_waves()
    whole = fitted(forecaster)
    found = forecaster.diagnose(rules=[TruncatedBPTT(2, 4)])
    inputs, layer = whole.tail.inputs(whole.recipe), whole.net.layer
    count, horizon = whole.recipe.context, whole.recipe.horizon
    end = int(inputs.offsets + inputs.lengths)
    rows = torch.arange(end - count, end)
    levels = torch.tensor(whole.options.quantiles)

    def loss(outputs: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        total = outputs.new_zeros(())
        for y, row in zip(outputs[:, 0], at.tolist(), strict=True):
            at_row = torch.tensor(row)
            forecast = whole.net.forecast(y, inputs.anchors(at_row), inputs.known(at_row))
            for k in range(min(horizon, end - 1 - row)):
                truth = inputs.truth[row + 1 + k] - inputs.filled[row]
                total = total + pinball(truth, forecast[k], levels).mean()
        return total

    x = inputs.x[rows][:, None]
    one, two = (gradient(layer, x, rows, loss, rule=rule) for rule in (TruncatedBPTT(2, 4), BPTT()))
    flat = [torch.cat([g.flatten() for g in grads.values()]) for grads in (one, two)]
    assert found.cosines[0].cosine == pytest.approx(float(torch.cosine_similarity(*flat, dim=0)), rel=1e-4)
    assert (found.loss, found.steps, found.rows) == ("the quantile loss of the forecasts", count, 1)
    assert found.origins == 8


def test_several_series_and_layers() -> None:
    forecaster = fitted_two()
    found = forecaster.diagnose()
    assert (found.cells, found.rows, found.steps) == (["gru", "gru"], 2, 20)
    assert found.origins == 16
    again = forecaster.diagnose(two_series())
    assert again.lags[0].median == pytest.approx(found.lags[0].median, rel=1e-5)


def test_a_projection_where_no_truth_is_known_or_the_head_lets_nothing_through() -> None:
    whole = fitted(fitted_waves())
    ahead = whole.recipe.horizon
    (part,) = whole.tail.parts
    values = part.series.values.copy()
    values[-whole.recipe.context + 1 :: ahead] = np.nan
    holed = replace(whole.tail, parts=(replace(part, series=replace(part.series, values=values)),))
    assert diagnose_fitted(whole, holed, []).loss == PROBE
    start = Forecaster(2, season=6, hidden_size=3, context=12, budget=1, learning_rate=1e-9)
    start.fit(pl.DataFrame({"y": waves(150)}), "y")
    with torch.no_grad():
        fitted(start).net.head.weight.zero_()
    assert start.diagnose().loss == PROBE


def test_a_forecaster_that_was_not_fitted() -> None:
    with pytest.raises(ValueError, match="has not been fitted") as caught:
        Forecaster(2).diagnose()
    assert str(caught.value) == "This forecaster has not been fitted. Call fit(data, target=...) first."
