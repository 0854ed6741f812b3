"""Origins and scores, by hand."""

import math

import numpy as np
import pytest

from benchmarks.forecasting.scores import (
    Judged,
    chosen_origins,
    filled,
    geometric_mean,
    held_out_start,
    mean_known,
)

LEVELS = (0.1, 0.5, 0.9)


def test_the_held_out_part_is_a_fifth_or_two_horizons() -> None:
    assert held_out_start(100, 4) == 80
    assert held_out_start(20, 4) == 12


def test_few_origins_are_all_of_them() -> None:
    assert chosen_origins(np.ones(30), 3, 4, 30).tolist() == [23, 24, 25, 26]


@pytest.mark.parametrize("season", [1, 4, 12, 24])
def test_many_origins_are_thinned_and_spread_over_the_season(season: int) -> None:
    origins = chosen_origins(np.ones(5000), 10, season, 24)
    assert len(origins) == 24
    assert (origins[0] >= 3999, origins[-1]) == (True, 4989)
    assert len(set(np.diff(origins))) == 1
    assert {int(phase) for phase in origins % season} == set(range(season))


def test_an_origin_without_a_value_is_omitted() -> None:
    values = np.ones(30)
    values[24] = np.nan
    assert chosen_origins(values, 3, 1, 30).tolist() == [23, 25, 26]


def judged(**methods: list[list[list[float]]]) -> Judged:
    truth = np.array([[10.0, 20.0], [10.0, np.nan]])
    return Judged(LEVELS, 4.0, truth, {name: np.array(values) for name, values in methods.items()})


OURS = [[[8.0, 11.0, 12.0], [18.0, 20.0, 21.0]], [[11.0, 12.0, 13.0], [0.0, 0.0, 0.0]]]
NAN = [math.nan] * 3


def test_loss_and_coverage_by_hand() -> None:
    """Twice the pinball loss at 0.1, 0.5, 0.9: (0.2 + 0.5 + 0.2) and (0.2 + 0 + 0.1) at the first origin,
    (0.9 + 1 + 0.3) at the second, whose other truth is missing; averaged over levels and the three truths."""
    found = judged(ours=OURS)
    assert found.loss("ours") == pytest.approx(2 * (0.9 + 0.3 + 2.2) / 3 / 3 / 4.0)
    assert found.coverage("ours", 0.8) == pytest.approx(2 / 3)


def test_a_ratio_is_over_the_origins_that_both_have() -> None:
    theirs = [[[9.0, 9.0, 9.0], [20.0, 20.0, 20.0]], [NAN, NAN]]
    found = judged(ours=OURS, theirs=theirs)
    assert found.origins("theirs") == 1
    assert found.loss("theirs") == pytest.approx(2 * 1.5 / 3 / 2 / 4.0)
    assert found.ratio("ours", "theirs") == pytest.approx((0.9 + 0.3) / 1.5)
    assert found.coverage("theirs", 0.8) == pytest.approx(1 / 2)


def test_a_method_without_forecasts_has_no_figures() -> None:
    found = judged(ours=OURS, theirs=[[NAN, NAN], [NAN, NAN]])
    assert math.isnan(found.ratio("ours", "theirs"))
    assert math.isnan(found.coverage("theirs", 0.8))


def test_means_omit_what_is_missing() -> None:
    assert mean_known([1.0, math.nan, 3.0]) == 2.0
    assert geometric_mean([0.5, math.nan, 2.0]) == pytest.approx(1.0)
    assert math.isnan(geometric_mean([math.nan]))


def test_gaps_are_filled_from_the_season_before() -> None:
    nan = math.nan
    assert filled(np.array([1.0, nan, 3.0, nan, nan, 6.0]), 3).tolist() == [1.0, 1.0, 3.0, 1.0, 1.0, 6.0]
