"""Forecasters and judgements on one screen."""

import re

from forecast_cases import fitted_two, fitted_waves
from tidegate.tasks.forecast import Forecaster


def test_a_forecaster_before_a_fit_shows_what_was_chosen() -> None:
    assert repr(Forecaster(12, season=12, cell="gru")) == (
        "Forecaster(horizon=12, season=12, cell='gru')\nnot fitted: call fit(data, target=...)"
    )


def test_a_fitted_forecaster_fits_on_one_screen() -> None:
    lines = repr(fitted_two()).splitlines()
    assert lines[0].startswith("Forecaster(horizon=3, cell='gru', hidden_size=6, num_layers=2, context=20")
    assert " ".join(line.strip() for line in lines[2:-2]) in f"{lines[1]} {fitted_two().verdict}"
    assert lines[-2] == "  data: y of the frame, 2 series, 280 steps of 1 month"
    assert re.fullmatch(r"  net: gru, \d+ weights, (trained again after scoring|replaced by .*)", lines[-1])
    assert max(map(len, lines)) <= 100
    assert len(lines) < 12


def test_html_is_escaped() -> None:
    html = fitted_waves()._repr_html_()
    assert html.startswith("<pre>Forecaster(")
    assert "&#x27;" in Forecaster(2, cell="gru")._repr_html_()


def test_an_evaluation_lists_methods_from_the_best() -> None:
    found = fitted_waves().evaluation
    text = repr(found)
    assert found._repr_html_().startswith("<pre>")
    names = [line[2:30].strip() for line in text.splitlines() if re.match(r"  [a-z]", line)]
    losses = [found.scores[name]["scaled_loss"] for name in names]
    assert losses == sorted(losses)
    assert set(names) == set(found.scores)
