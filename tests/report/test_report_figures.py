"""Figures: sound SVG that follows the page's colours, the same every time, with what was drawn to be found in it."""

import functools
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest

from tidegate import report
from tidegate.errors import ArgumentError
from tidegate.report.canvas import COLOURS
from tidegate.report.figures import _thinned

SVG = "{http://www.w3.org/2000/svg}"
MONTHS = np.datetime64("2000-01", "M") + np.arange(48)
WAVE = np.sin(np.arange(48) / 3)
QUANTILES = {0.1: WAVE[-12:] - 1, 0.5: WAVE[-12:], 0.9: WAVE[-12:] + 1, 0.25: WAVE[-12:] - 0.5, 0.75: WAVE[-12:] + 0.5}
RANDOM = np.random.default_rng(0).random((48, 7))
SPREAD = report.Spread((-1.0, 1.0), [0, 0, 0], [0.0], [0.0])

FIGURES: dict[str, Callable[[], str]] = {
    "series": lambda: report.series(MONTHS, WAVE, parts=[("training", 0), ("held out", 36)], unit="$/MWh_x^2$"),
    "series of numbers": lambda: report.series(np.arange(48), WAVE),
    "fan": lambda: report.fan(MONTHS[:36], WAVE[:36], MONTHS[36:], QUANTILES, truth=WAVE[36:], unit="ppm"),
    "half a fan": lambda: report.fan(MONTHS[:36], WAVE[:36], MONTHS[36:], {0.5: WAVE[36:]}, half=True),
    "by_horizon": lambda: report.by_horizon(
        {"_net": RANDOM[:, 0], "a $b$ <c>": RANDOM[:, 1]}, label="MAE", ours="_net"
    ),
    "coverage": lambda: report.by_horizon({"80 %": RANDOM[:, 0]}, label="coverage", reference=0.8, percent=True),
    "learning_curve": lambda: report.learning_curve(
        {"training": RANDOM[:, 0] + 0.01, "validation": RANDOM[:, 1]}, best=3
    ),
    "calibration": lambda: report.calibration([0.1, 0.5, 0.9], [0.12, 0.48, 0.95], count=200),
    "gradient_norms": lambda: report.gradient_norms(
        {"_all": (RANDOM[:, 0], RANDOM[:, 0] / 2, RANDOM[:, 0] * 2), "a $b$ <c>": np.zeros((3, 5))},
        levels={"1 %": 0.01},
    ),
    "norms of one lag": lambda: report.gradient_norms({"h": ([0.0], [0.0], [0.0])}, half=True),
    "eigenvalues": lambda: report.eigenvalues(RANDOM[:, :2] * 2 - 1),
    "by_rank": lambda: report.by_rank({"singular values": (RANDOM[0], RANDOM[0] / 2, RANDOM[0] * 2)}),
    "agreement": lambda: report.agreement(
        ["truncated:1,1", "a $b$ <c>"], [0.5, None], {"l0.h.x": [0.4, 1.0], "l0.h.h": [None, None]}
    ),
    "saturation": lambda: report.saturation(
        {"a $b$ <c>": report.Spread((0.0, 1.0), [3, 0, 1], [0.5, 0.0], [0.5, 1.0]), "g": SPREAD}
    ),
    "per_unit": lambda: report.per_unit({"c": [0.1, 2.0, None, 0.0], "h": [None]}, label="steps", marked={"c": [1]}),
    "traces": lambda: report.traces({"i": RANDOM, "f": RANDOM[:, :1]}, {"c": 3 * RANDOM, "h": RANDOM[:, 0]}),
}


@functools.cache
def drawn(name: str) -> str:
    return FIGURES[name]()


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def texts(svg: str) -> list[str]:
    return ["".join(t.itertext()) for t in parsed(svg).iter(SVG + "text")]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_sound_titled_and_always_the_same(name: str) -> None:
    svg = drawn(name)
    root = parsed(svg)
    assert root.get("role") == "img"
    title, about = root.find(SVG + "title"), root.find(SVG + "desc")
    assert title is not None
    assert title.text
    assert about is not None
    assert about.text
    assert root.get("aria-labelledby") == f"{title.get('id')} {about.get('id')}"
    assert "<metadata>" not in svg
    assert svg == FIGURES[name]()


@pytest.mark.parametrize("name", FIGURES)
def test_colours_are_the_pages(name: str) -> None:
    without = re.sub(r"var\(--tg-\w+, #[0-9a-f]{6}\)", "", drawn(name))
    assert not re.findall(r"(?:fill|stroke): #(?!000000)", without)
    assert "fill: #000000" not in without


def test_every_colour_of_the_dark_page_is_one_of_the_figures() -> None:
    page = report.page("t", [])
    assert set(re.findall(r"--tg-(\w+):", page)) == set(COLOURS)


def test_figures_on_one_page_share_no_identity() -> None:
    page = report.page("t", [report.figure(drawn(name)) for name in FIGURES])
    found = re.findall(r'\sid="([^"]+)"', page)
    assert len(set(found)) == len(found)
    for reference in re.findall(r'(?:url\(#|href="#)([^)"]+)', page):
        assert reference in found


def test_words_are_shown_as_they_are() -> None:
    assert "$/MWh_x^2$" in texts(drawn("series"))
    shown = texts(drawn("by_horizon"))
    assert "_net" in shown
    assert "a $b$ <c>" in shown
    hostile = report.series(
        [0, 1], [1, 2], unit="</text><script>\x00", title="</title><script>", parts=[("中文 #0072b2", 0)]
    )
    assert parsed(hostile).findtext(SVG + "title") == "</title><script>"
    assert "</text><script>\ufffd" in texts(hostile)
    assert "中文 #0072b2" in texts(hostile)


def test_what_diagnoses_draw_is_told_in_words() -> None:
    def about(name: str) -> str:
        return parsed(drawn(name)).findtext(SVG + "desc") or ""

    outside = (((RANDOM[:, :2] * 2 - 1) ** 2).sum(1) > 1).sum()
    assert about("eigenvalues").startswith(f"48 eigenvalues, of which {outside} lie outside the unit circle; ")
    assert about("agreement") == "truncated:1,1: 0.5; a $b$ <c>: nan"
    assert about("saturation").startswith("a $b$ <c>: 25% at the lower end, 75% at the upper end; g: 0%")
    assert about("per_unit") == "c: 4 units, from 0 to 2; h: 1 units, unbounded"
    assert "a $b$ <c>: 0 at lag 0, 0 at lag 4" in about("gradient_norms")
    for name in ("gradient_norms", "saturation", "agreement"):
        assert "a $b$ <c>" in texts(drawn(name))


def test_the_users_own_style_is_neither_used_nor_changed() -> None:
    plain = drawn("series")
    with matplotlib.rc_context({"lines.linewidth": 9.0, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert FIGURES["series"]() == plain
        assert matplotlib.rcParams["lines.linewidth"] == 9.0


def test_gaps_stay_gaps() -> None:
    def pieces(values: np.ndarray) -> int:
        svg = report.series(np.arange(48), values)
        lines = [p.get("d", "") for p in parsed(svg).iter(SVG + "path") if "--tg-blue" in p.get("style", "")]
        return max(line.count("M") for line in lines)

    holed = WAVE.copy()
    holed[20:24] = np.nan
    assert pieces(WAVE) == 1
    assert pieces(holed) == 2


def test_long_series_keep_their_extremes_and_their_order() -> None:
    values = np.random.default_rng(1).normal(size=50_000)
    values[12_345], values[40_000], values[100:200] = 50.0, -60.0, np.nan
    times, kept = _thinned(np.arange(50_000), values)
    assert len(kept) <= 2800
    assert (np.diff(times) > 0).all()
    assert (np.nanmax(kept), np.nanmin(kept)) == (50.0, -60.0)
    assert np.isnan(kept).any()
    assert (values[times][~np.isnan(kept)] == kept[~np.isnan(kept)]).all()


def test_alternatives_say_the_numbers() -> None:
    def about(name: str) -> Any:
        return parsed(drawn(name)).findtext(SVG + "desc")

    assert about("series") == (
        "48 values from 2000-01-01 to 2003-12-01, between -1 and 0.9954; "
        "training from 2000-01-01; held out from 2003-01-01"
    )
    assert about("fan") == "forecast of 12 steps from 2003-01-01 to 2003-12-01; intervals: 80%, 50%"
    assert about("half a fan").endswith("intervals: none")
    assert about("calibration") == "10% level: 12.0%, 50% level: 48.0%, 90% level: 95.0%"
    assert about("learning_curve").endswith("; weights of epoch 4 were kept")
    assert about("traces").startswith("i: mean 0.")


def test_traces_pair_c_with_h_and_name_every_panel() -> None:
    legends = {"i": "input gate"}
    svg = report.traces(
        {"i": RANDOM, "o": RANDOM, "f": RANDOM}, {"c": RANDOM, "h": RANDOM}, times=MONTHS, legends=legends
    )
    places = {}
    for element in parsed(svg).iter(SVG + "text"):
        found = re.search(r"translate\(([-0-9.]+) ([-0-9.]+)\)|^$", element.get("transform", ""))
        x, y = element.get("x"), element.get("y")
        if found and found[1]:
            x, y = found[1], found[2]
        places["".join(element.itertext())] = (float(x or 0), float(y or 0))
    assert {"i  (input gate)", "o", "f", "c", "h"} <= set(places)
    assert places["c"][1] == pytest.approx(places["h"][1])
    assert places["c"][0] < places["h"][0]
    assert places["i  (input gate)"][1] == pytest.approx(places["o"][1])
    assert places["f"][1] < places["c"][1]


@pytest.mark.parametrize("truth", [None, WAVE[36:]])
def test_a_fan_says_what_came_only_if_it_is_known(truth: np.ndarray | None) -> None:
    svg = report.fan(MONTHS[:36], WAVE[:36], MONTHS[36:], QUANTILES, truth=truth)
    assert ("what came" in texts(svg)) == (truth is not None)
    assert {"observed", "median forecast", "80%", "50%"} <= set(texts(svg))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: report.series([1, 2, 3], [1, 2]),
            "series: got arrays of shapes (3,) and (2,); expected two [N] arrays, N at least 1",
        ),
        (
            lambda: report.series([], []),
            "series: got arrays of shapes (0,) and (0,); expected two [N] arrays, N at least 1",
        ),
        (
            lambda: report.fan([0], [0], [1, 2], {0.1: [0, 0], 0.5: [1, 1]}),
            "fan: got the quantiles 0.1, 0.5; 0.1 has no counterpart, so add 0.9",
        ),
        (
            lambda: report.by_horizon({"a": [1, 2], "b": [1]}, label="x"),
            "by_horizon: got 'a' of shape (2,), 'b' of shape (1,); "
            "expected one [N] array per method, all of one length",
        ),
        (
            lambda: report.gradient_norms({"h": ([1.0], [1.0])}),  # type: ignore[dict-item]
            "gradient_norms: got 'h' of shape (2, 1); expected for each name three [K] arrays, K at least 1",
        ),
        (
            lambda: report.gradient_norms({}),
            "gradient_norms: got nothing; expected for each name three [K] arrays, K at least 1",
        ),
        (
            lambda: report.eigenvalues([1.0, 2.0]),
            "eigenvalues: got an array of shape (2,); expected [N, 2], N at least 1",
        ),
        (
            lambda: report.learning_curve({}),
            "learning_curve: got nothing; expected an [E] array for each curve, E at least 1",
        ),
        (
            lambda: report.traces({"i": np.zeros((3, 2))}, {"h": np.zeros((4, 2))}),
            "traces: got 'i' with T = 3, 'h' with T = 4; expected arrays over the same T steps, T at least 1",
        ),
        (
            lambda: report.traces({"i": np.zeros((3, 2, 1))}),
            "traces: 'i' has shape (3, 2, 1); expected [T, H] or [T] of one sequence, not empty",
        ),
    ],
)
def test_errors_say_what_came_and_what_was_expected(make: Callable[[], str], message: str) -> None:
    with pytest.raises(ArgumentError) as error:
        make()
    assert str(error.value) == message


def test_odd_data_is_drawn() -> None:
    constant = report.series(MONTHS, np.full(48, 3.0))
    missing = report.series(MONTHS, np.full(48, np.nan))
    one = report.learning_curve({"training": [1.0]})
    holes = report.by_horizon({"net": [1.0, np.nan, 2.0]}, label="MAE")
    single = report.traces({"i": [0.5]})
    for svg in (constant, missing, one, holes, single):
        parsed(svg)
    assert "all missing" in missing
