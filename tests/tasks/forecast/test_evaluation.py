"""The judgement: scores by hand, and the verdict in each case."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from forecast_cases import LEVELS, fitted_two, fitted_waves, prepared, waves
from tidegate.config import checked
from tidegate.metrics import Comparison, naive, residual_quantiles, seasonal_naive, with_drift
from tidegate.tasks.forecast import Evaluation
from tidegate.tasks.forecast.evaluation import NET, START, evaluate
from tidegate.tasks.forecast.net import ForecastNet
from tidegate.tasks.forecast.task import rolling


@pytest.fixture
def judged() -> tuple[Evaluation, np.ndarray, dict[str, np.ndarray]]:
    """An evaluation of random nets, with the truth and the quantiles of each method made by loops."""
    values = waves()
    values[240] = np.nan
    panel, splits, inputs = prepared(values, 4, 6)
    nets = {name: ForecastNet("elman", inputs.x.shape[1], 4, LEVELS, 5, 1).eval() for name in (NET, START)}
    with torch.no_grad():
        nets[NET].spread.normal_()
    found = evaluate(nets, inputs, panel, splits, np.array(LEVELS))
    first, stop = splits[0].held_out, len(values)
    origins = range(first - 1, stop - 4)
    truth = np.array([[values[t + k] for k in range(1, 5)] for t in origins])
    here = np.array([values[t] if t != 240 else values[239] for t in origins])[:, None, None]
    [scale] = inputs.recipe.scales.values()
    net = here + scale.unit * rolling(nets[NET], inputs, 0, origins.start, origins.stop).numpy()
    methods = {NET: net}
    drift = with_drift(values[:first], 6)
    for name, baseline in (
        ("naive", naive),
        ("seasonal naive", seasonal_naive(6)),
        ("seasonal naive with drift", drift),
    ):
        spread = residual_quantiles(baseline, values, inputs.recipe.past, first, 4, np.array(LEVELS))
        methods[name] = baseline(values, np.array(origins), 4)[..., None] + spread
    return found, truth, methods


def test_scores_by_loops(judged: tuple[Evaluation, np.ndarray, dict[str, np.ndarray]]) -> None:
    found, truth, methods = judged
    assert found.origins == len(truth) == 49
    assert set(found.scores) == {NET, START, "naive", "seasonal naive", "seasonal naive with drift"}
    for method, quantiles in methods.items():
        losses, absolute, inside, hits = [], [], [], np.zeros(len(LEVELS))
        for t, k in np.ndindex(truth.shape):
            if np.isnan(truth[t, k]):
                continue
            misses = truth[t, k] - quantiles[t, k]
            losses.append(2 * np.mean([max(q * m, (q - 1) * m) for q, m in zip(LEVELS, misses, strict=True)]))
            absolute.append(abs(misses[2]))
            inside.append(quantiles[t, k, 0] <= truth[t, k] <= quantiles[t, k, -1])
            hits += truth[t, k] <= quantiles[t, k]
        scores = found.scores[method]
        assert scores["quantile_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert scores["mae"] == pytest.approx(np.mean(absolute), rel=1e-5)
        assert scores["coverage"] == pytest.approx(np.mean(inside))
        np.testing.assert_allclose(found.below[method], hits / len(losses))
        assert np.mean(found.by_horizon[method]["mae"]) == pytest.approx(scores["mae"], rel=0.02)
    scale = np.nanmean(np.abs(waves()[6:208] - waves()[:202]))
    assert found.scores["naive"]["mase"] == pytest.approx(found.scores["naive"]["mae"] / scale, rel=1e-6)


def test_the_best_baseline_is_no_net(judged: tuple[Evaluation, np.ndarray, dict[str, np.ndarray]]) -> None:
    found, _, _ = judged
    baselines = {name: scores for name, scores in found.scores.items() if name not in (NET, START)}
    assert found.best_baseline == min(baselines, key=lambda name: baselines[name]["quantile_loss"])


def with_outcome(p_value: float, gain: float, blocks: int = 9) -> Evaluation:
    losses = ((NET, 2.0 * (1 - gain)), (START, 2.5), ("naive", 2.0))
    scores = {name: {"quantile_loss": loss, "mae": 2 * loss} for name, loss in losses}
    comparison = Comparison(-2.0 * gain, p_value, blocks, 80)
    return Evaluation(LEVELS, 80, 0.8, scores, {}, {}, "naive", comparison, comparison)


def without_loss(p_value: float) -> Evaluation:
    scores = {name: {"quantile_loss": loss} for name, loss in ((NET, 0.5), (START, 0.5), ("naive", 0.0))}
    return replace(with_outcome(p_value, -0.25), scores=scores)


@pytest.mark.parametrize(
    ("evaluation", "sentence"),
    [
        (
            with_outcome(0.01, 0.25),
            "The net beats naive, the best baseline, by 25.0% (quantile loss 1.5 against 2 over 80 held-out origins; "
            "more than noise at the 5 % level).",
        ),
        (
            with_outcome(0.01, -0.25),
            "The net loses to naive, the best baseline, by 25.0% (quantile loss 2.5 against 2 over 80 held-out "
            "origins); use the baseline instead.",
        ),
        (
            with_outcome(0.2, 0.05),
            "The net is not shown to be better than naive, the best baseline (quantile loss 1.9 against 2 over 80 "
            "held-out origins: 5.0% below, which noise can explain).",
        ),
        (
            with_outcome(0.2, -0.05),
            "The net is not shown to be better than naive, the best baseline (quantile loss 2.1 against 2 over 80 "
            "held-out origins: 5.0% above, which noise can explain).",
        ),
        (
            with_outcome(1.0, 0.05, blocks=5),
            "The held-out part is too short to tell the net from naive, the best baseline (quantile loss 1.9 against "
            "2 over 80 held-out origins: 5.0% below).",
        ),
        (
            replace(with_outcome(0.01, 0.25), median=Comparison(-0.1, 0.3, 9, 80)),
            "The net beats naive, the best baseline, by 25.0% (quantile loss 1.5 against 2 over 80 held-out origins; "
            "more than noise at the 5 % level); for its median alone (mean absolute error 3 against 4) that is not "
            "shown.",
        ),
        (
            without_loss(0.01),
            "The net loses to naive, the best baseline (quantile loss 0.5 against 0 over 80 held-out origins); use "
            "the baseline instead.",
        ),
        (
            without_loss(0.2),
            "The net is not shown to be better than naive, the best baseline (quantile loss 0.5 against 0 over 80 "
            "held-out origins, which noise can explain).",
        ),
    ],
)
def test_verdicts(evaluation: Evaluation, sentence: str) -> None:
    assert evaluation.verdict == sentence


def test_what_training_added() -> None:
    assert with_outcome(0.01, 0.25).learned == pytest.approx(1 - 1.5 / 2.5)
    flat = replace(with_outcome(0.01, 0.25), scores={n: {"quantile_loss": 0.0} for n in (NET, START, "naive")})
    assert (flat.gain, flat.learned) == (0.0, 0.0)


@pytest.mark.parametrize("fit", [fitted_waves, fitted_two])
def test_both_ways_through_json(fit: object) -> None:
    found = fit().evaluation  # type: ignore[operator]
    assert checked(Evaluation, found.to_json(), "evaluation") == found


def test_a_mean_over_nothing_is_null_in_json_and_nan_again() -> None:
    scores = {NET: {"quantile_loss": 1.0, "weighted_quantile_loss": float("nan")}}
    scores |= {START: {"quantile_loss": 1.0}, "naive": {"quantile_loss": 1.0}}
    text = json.dumps(replace(with_outcome(0.2, 0.05), scores=scores).to_json(), allow_nan=False)
    again = checked(Evaluation, json.loads(text), "evaluation")
    assert json.loads(text)["scores"][NET]["weighted_quantile_loss"] is None
    assert np.isnan(again.scores[NET]["weighted_quantile_loss"])


def test_the_medians_are_compared_by_their_absolute_errors(
    judged: tuple[Evaluation, np.ndarray, dict[str, np.ndarray]],
) -> None:
    found, truth, methods = judged
    errors = {name: np.nanmean(np.abs(truth - quantiles[..., 2]), axis=1) for name, quantiles in methods.items()}
    scale = np.nanmean(np.abs(waves()[6:208] - waves()[:202]))
    assert found.best_baseline in errors
    expected = np.mean(errors[NET] - errors[found.best_baseline]) / scale
    assert found.median.difference == pytest.approx(expected, rel=1e-5)
