"""The judgement: scores by hand, and the verdict in each case."""

import json
from dataclasses import replace

import numpy as np
import pytest

from forecast_cases import LEVELS, fitted_two, fitted_waves, prepared, small_net, waves
from tidegate.config import checked
from tidegate.metrics import Comparison, climatology, naive, residual_quantiles, seasonal_naive, with_drift
from tidegate.tasks.forecast import Evaluation
from tidegate.tasks.forecast.judging.evaluation import NET, START, SeriesScore
from tidegate.tasks.forecast.judging.split import Split
from tidegate.tasks.forecast.judging.tally import evaluate, held_out_origins, loss_scale
from tidegate.tasks.forecast.model.rolling import in_units, outputs_of

Judged = tuple[Evaluation, np.ndarray, dict[str, np.ndarray]]


@pytest.fixture
def judged() -> Judged:
    """An evaluation of random nets, with the truth and the quantiles of each method made by loops."""
    values = waves()
    values[240] = np.nan
    panel, splits, inputs = prepared(values, 4, 6)
    nets = {NET: small_net(inputs), START: small_net(inputs, seed=7)}
    found = evaluate(nets, inputs, panel, splits, np.array(LEVELS))
    first, stop = splits[0].held_out, len(values)
    origins = range(first - 1, stop - 4)
    truth = np.array([[values[t + k] for k in range(1, 5)] for t in origins])
    methods = {
        name: in_units(net, inputs, outputs_of(net, inputs)[0], 0, panel.series[0], np.array(origins))
        for name, net in nets.items()
    }
    before = values[:first]
    for name, baseline in (
        ("naive", naive),
        ("drift", with_drift(before, 1)),
        ("seasonal naive", seasonal_naive(6)),
        ("seasonal naive with drift", with_drift(before, 6)),
        ("climatology", climatology(before, 6)),
    ):
        spread = residual_quantiles(baseline, values, 5, first, 4, np.array(LEVELS))
        methods[name] = baseline(values, np.array(origins), 4)[..., None] + spread
    return found, truth, methods


def test_scores_by_loops(judged: Judged) -> None:
    found, truth, methods = judged
    assert found.origins == len(truth) == 49
    assert set(found.scores) == set(methods)
    scale = np.nanmean(np.abs(waves()[6:208] - waves()[:202]))
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
        assert scores["scaled_loss"] == pytest.approx(np.mean(losses) / scale, rel=1e-5)
        assert scores["mae"] == pytest.approx(np.mean(absolute), rel=1e-5)
        assert scores["mase"] == pytest.approx(np.mean(absolute) / scale, rel=1e-5)
        assert scores["coverage"] == pytest.approx(np.mean(inside))
        np.testing.assert_allclose(found.below[method], hits / len(losses))
        assert np.mean(found.by_horizon[method]["mae"]) == pytest.approx(scores["mae"], rel=0.02)


def test_the_best_baseline_is_no_net_and_what_the_net_is_compared_with(judged: Judged) -> None:
    found, truth, methods = judged
    baselines = {name: scores for name, scores in found.scores.items() if name not in (NET, START)}
    assert found.best_baseline == min(baselines, key=lambda name: baselines[name]["scaled_loss"])
    scale = np.nanmean(np.abs(waves()[6:208] - waves()[:202]))
    errors = {name: np.nanmean(np.abs(truth - quantiles[..., 2]), axis=1) for name, quantiles in methods.items()}
    expected = np.mean(errors[NET] - errors[found.best_baseline]) / scale
    assert found.median.difference == pytest.approx(expected, rel=1e-5)
    assert (found.comparison.blocks, found.comparison.over) == (12, "blocks of origins")
    [one] = found.by_series
    assert one == SeriesScore("", pytest.approx(one.net), pytest.approx(one.baseline), 49)
    assert one.net - one.baseline == pytest.approx(found.comparison.difference, rel=1e-6)


def test_a_large_series_counts_no_more_than_a_small_one() -> None:
    """Losses, the best baseline and the comparison are in units of each series' own change."""
    found = fitted_two().evaluation
    scores = [(one.net, one.origins) for one in found.by_series]
    assert [one.name for one in found.by_series] == ["b", "a"]
    whole = sum(loss * count for loss, count in scores) / sum(count for _, count in scores)
    assert found.scores[NET]["scaled_loss"] == pytest.approx(whole, rel=0.02)
    assert found.scores[NET]["quantile_loss"] > 5 * found.scores[NET]["scaled_loss"]


def test_origins_of_a_long_held_out_part_are_spread_evenly() -> None:
    assert held_out_origins(Split(10, 20, 30), 3).tolist() == list(range(19, 27))
    assert held_out_origins(Split(10, 20, 30), 3, most=4).tolist() == [19, 21, 23, 25]
    assert held_out_origins(Split(10, 27, 30), 3).tolist() == [26]


@pytest.mark.parametrize(
    ("values", "expected"),
    [(np.arange(20.0), 4.0), (np.tile([1.0, 3.0, 1.0, 3.0], 5), 2.0), (np.full(9, 7.0), 1.0)],
)
def test_the_unit_of_losses(values: np.ndarray, expected: float) -> None:
    assert loss_scale(values, 4) == pytest.approx(expected)


def with_outcome(
    gain: float, low: float | None = None, high: float | None = None, blocks: int = 9, held: float = 0.8
) -> Evaluation:
    """Losses of 2 for the baseline; the interval of the share of it that is gained goes from `low` to `high`."""
    losses = ((NET, 2.0 * (1 - gain)), (START, 2.5), ("naive", 2.0))
    scores = {name: {"scaled_loss": loss, "mase": 2 * loss, "coverage": held} for name, loss in losses}
    ends = (None, None) if low is None or high is None else (-2 * high, -2 * low)
    comparison = Comparison(-2.0 * gain, *ends, blocks, 80)
    return Evaluation(LEVELS, 80, 0.8, scores, {}, {}, "naive", comparison, comparison)


def with_baseline(evaluation: Evaluation, loss: float) -> Evaluation:
    return replace(evaluation, scores=evaluation.scores | {"naive": {"scaled_loss": loss, "mase": 0.0}})


BETTER = with_outcome(0.25, 0.1, 0.4)


@pytest.mark.parametrize(
    ("evaluation", "outcome", "sentence"),
    [
        (
            BETTER,
            "better",
            "The net beats naive, the best baseline, by 25.0% (95 % interval +10.0% to +40.0%; scaled quantile loss "
            "1.5 against 2 over 80 held-out forecasts).",
        ),
        (
            with_outcome(-0.25, -0.4, -0.1),
            "worse",
            "The net loses to naive, the best baseline, by 25.0% (95 % interval −40.0% to −10.0%; scaled quantile "
            "loss 2.5 against 2 over 80 held-out forecasts).",
        ),
        (
            with_outcome(0.05, -0.1, 0.2),
            "same",
            "The net is 5.0% ahead of naive, the best baseline, but noise can explain that (95 % interval −10.0% to "
            "+20.0%; scaled quantile loss 1.9 against 2 over 80 held-out forecasts).",
        ),
        (
            with_outcome(-0.05, -0.2, 0.1),
            "same",
            "The net is 5.0% behind naive, the best baseline, but noise can explain that (95 % interval −20.0% to "
            "+10.0%; scaled quantile loss 2.1 against 2 over 80 held-out forecasts).",
        ),
        (
            with_outcome(0.0002, -0.1, 0.1),
            "same",
            "The net does as well as naive, the best baseline (95 % interval −10.0% to +10.0%; scaled quantile loss 2 "
            "against 2 over 80 held-out forecasts).",
        ),
        (
            with_outcome(0.05, blocks=1),
            "same",
            "The net is 5.0% ahead of naive, the best baseline, but the held-out part is too short to tell whether "
            "that is more than noise (scaled quantile loss 1.9 against 2 over 80 held-out forecasts).",
        ),
        (
            replace(BETTER, median=Comparison(-0.1, -0.3, 0.1, 9, 80)),
            "better",
            "The net beats naive, the best baseline, by 25.0% (95 % interval +10.0% to +40.0%; scaled quantile loss "
            "1.5 against 2 over 80 held-out forecasts); for its median alone (MASE 3 against 4) that is not shown.",
        ),
        (
            with_outcome(0.25, 0.1, 0.4, held=0.61),
            "better",
            "The net beats naive, the best baseline, by 25.0% (95 % interval +10.0% to +40.0%; scaled quantile loss "
            "1.5 against 2 over 80 held-out forecasts). Its 80% intervals are too narrow: they held 61% of the values.",
        ),
        (
            with_outcome(-49.0, -60.0, -40.0, held=0.97),
            "worse",
            "The net loses to naive, the best baseline, by 50 times (95 % interval −6000.0% to −4000.0%; scaled "
            "quantile loss 100 against 2 over 80 held-out forecasts). Its 80% intervals are too wide: they held 97% "
            "of the values.",
        ),
        (
            with_baseline(BETTER, 1e-12),
            "better",
            "There is nothing to gain: naive forecasts the series nearly without error (scaled quantile loss 1.5 "
            "against 1e-12 over 80 held-out forecasts).",
        ),
    ],
)
def test_verdicts(evaluation: Evaluation, outcome: str, sentence: str) -> None:
    assert evaluation.verdict == sentence
    assert evaluation.outcome == outcome


def test_what_training_added() -> None:
    assert BETTER.learned == pytest.approx(1 - 1.5 / 2.5)
    flat = replace(BETTER, scores={n: {"scaled_loss": 0.0} for n in (NET, START, "naive")})
    assert (flat.gain, flat.learned) == (0.0, 0.0)


@pytest.mark.parametrize("fit", [fitted_waves, fitted_two])
def test_both_ways_through_json(fit: object) -> None:
    found = fit().evaluation  # type: ignore[operator]
    assert checked(Evaluation, found.to_json(), "evaluation") == found


def test_a_mean_over_nothing_is_null_in_json_and_nan_again() -> None:
    scores = {NET: BETTER.scores[NET] | {"weighted_quantile_loss": float("nan")}}
    text = json.dumps(replace(BETTER, scores=BETTER.scores | scores).to_json(), allow_nan=False)
    again = checked(Evaluation, json.loads(text), "evaluation")
    assert json.loads(text)["scores"][NET]["weighted_quantile_loss"] is None
    assert np.isnan(again.scores[NET]["weighted_quantile_loss"])


@pytest.mark.parametrize(
    ("evaluation", "instead"),
    [
        (BETTER, None),
        (with_outcome(-0.25, -0.4, -0.1), "naive"),
        (replace(BETTER, scores=BETTER.scores | {START: {"scaled_loss": 1.4}}), START),
    ],
)
def test_what_forecasts_instead_of_the_net(evaluation: Evaluation, instead: str | None) -> None:
    assert evaluation.instead == instead
