"""The report: everything is on it, nothing breaks out of its place, and the JSON beside it has the numbers."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl

from forecast_cases import LEVELS, fitted_two, fitted_waves, waves
from tidegate.config import checked
from tidegate.tasks.forecast import Forecaster
from tidegate.tasks.forecast.fitted import trace_end
from tidegate.tasks.forecast.story import Story, numbers, plain, thinned

NASTY = "<script>alert('y & \"z\"')</script>"


class Reader(HTMLParser):
    """Headings and tags of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("h1", "h2") and data.strip():
            self.headings.append(data)


def test_the_page_and_its_numbers(tmp_path: Path) -> None:
    forecaster = fitted_waves()
    assert forecaster.write_report(tmp_path / "r.html") == tmp_path / "r.html"
    page = Reader((tmp_path / "r.html").read_text())
    assert page.headings == [
        "Forecast of y",
        "The forecast",
        "The series",
        "Judged on the held-out part",
        "Training",
        "Gates and states over time",
        "The cell: lstm",
        "The run",
    ]
    assert page.tags.count("svg") == 9
    assert page.tags.count("math") >= 1
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["verdict"] == forecaster.verdict
    assert found["evaluation"]["scores"] == forecaster.evaluation.scores
    assert found["forecast"][0]["quantiles"]["0.5"] == forecaster.predict().median[0, 0]
    assert found["options"]["quantiles"] == list(LEVELS)


def test_names_from_the_user_are_escaped(tmp_path: Path) -> None:
    forecaster = Forecaster(2, season=1, hidden_size=3, context=8, budget=1)
    data = pl.DataFrame({NASTY: waves(90), "who": ["<b>x</b>"] * 90})
    forecaster.fit(data, NASTY, id="who").write_report(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    tags = Reader(page).tags
    assert "script" not in tags
    assert "b" not in tags
    assert "&lt;script&gt;" in page


def test_several_series_levels_without_partner_and_a_note(tmp_path: Path) -> None:
    fitted_two().write_report(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "Series b: the next 3 steps after the end of the data." in page
    assert "At 1 of 280 steps of 1 month there was no row; their values are missing." in page
    lopsided = Forecaster(2, season=1, hidden_size=3, context=8, budget=1, quantiles="0.2,0.5,0.9")
    lopsided.fit(pl.DataFrame({"y": waves(90)}), "y").write_report(tmp_path / "s.html")
    assert "<svg" in (tmp_path / "s.html").read_text()


def test_the_trace_is_that_of_the_last_steps() -> None:
    fitted = fitted_waves()._ready()
    times, traced = trace_end(fitted)
    assert times.tolist() == list(range(236, 260))
    inputs = fitted.tail.inputs(fitted.recipe)
    first = int(inputs.offsets)
    outputs, state = fitted.net(inputs.x[first : first + 24, None], fitted.tail.states[0])
    np.testing.assert_allclose(traced["h"], outputs[:, 0].detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(traced["c"][-1], state["c"][0, 0].detach().numpy(), rtol=1e-5, atol=1e-6)
    assert all(0 <= traced[gate].min() <= traced[gate].max() <= 1 for gate in "ifo")


def test_the_story_shows_the_extremes_and_the_examples_are_real() -> None:
    story = fitted_waves()._ready().story
    assert checked(Story, story.to_json(), "story") == story
    assert story.parts == [("training", 0), ("validation", 169), ("held out", 208)]
    np.testing.assert_array_equal(numbers(story.values), waves())
    for example in story.examples:
        np.testing.assert_array_equal(numbers(example.truth), waves()[example.place + 1 : example.place + 5])
        assert example.history[-1] == waves()[example.place]
        assert 207 <= example.place <= 255
    long = waves(9000)
    long[[17, 4000]] = 500.0, -500.0
    kept = thinned(long)
    assert len(kept) == 2000
    assert {17, 4000} <= set(kept.tolist())
    assert kept.tolist() == sorted(set(kept.tolist()))


def test_missing_values_are_none_in_plain_data() -> None:
    values = np.array([1.0, np.nan])
    assert plain(values) == [1.0, None]
    np.testing.assert_array_equal(numbers(plain(values)), values)
