"""Calendar features, windows and the shipped sample."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
import torch

from tidegate.data import Grid, calendar_features, draw_windows, read_panel, sample, window_rows
from tidegate.errors import ArgumentError

HOUR = 3600 * 1_000_000


def angle(features: np.ndarray, names: tuple[str, ...], cycle: str) -> np.ndarray:
    cosine, sine = (features[:, names.index(f"{cycle} ({part})")] for part in ("cosine", "sine"))
    return np.arctan2(sine, cosine) / (2 * np.pi) % 1


def test_hours_against_the_standard_library() -> None:
    grid = Grid("us", HOUR, int(np.datetime64("2023-12-30T05", "us").astype(int)))
    features, names = calendar_features(grid, np.arange(200), seen=3 * 8766)
    times = [np.datetime64("2023-12-30T05") + k for k in range(200)]
    for k, time in enumerate(times):
        stamp = time.astype("datetime64[s]").item()
        assert angle(features, names, "time of day")[k] == pytest.approx(stamp.hour / 24, abs=1e-9)
        assert angle(features, names, "day of week")[k] == pytest.approx(
            (stamp.weekday() + stamp.hour / 24) / 7 % 1, abs=1e-9
        )
        year = date(stamp.year + 1, 1, 1) - date(stamp.year, 1, 1)
        into = (stamp - stamp.replace(month=1, day=1, hour=0)) / timedelta(days=year.days)
        assert angle(features, names, "time of year")[k] == pytest.approx(into, abs=1e-9)


@pytest.mark.parametrize(
    ("grid", "seen", "cycles"),
    [
        (Grid("us", HOUR, 0), 47, []),
        (Grid("us", HOUR, 0), 48, ["time of day"]),
        (Grid("us", HOUR, 0), 2 * 168, ["time of day", "day of week"]),
        (Grid("us", 24 * HOUR, 0), 800, ["day of week", "time of year"]),
        (Grid("weekday", 1, 0), 800, ["day of week", "time of year"]),
        (Grid("month", 1, 0), 24, ["time of year"]),
        (Grid("month", 12, 0), 50, []),
        (Grid("step", 1, 0), 9999, []),
    ],
)
def test_which_cycles_are_used(grid: Grid, seen: int, cycles: list[str]) -> None:
    features, names = calendar_features(grid, np.arange(3), seen)
    assert list(names) == [f"{cycle} ({part})" for cycle in cycles for part in ("cosine", "sine")]
    assert features.shape == (3, 2 * len(cycles))


def test_windows_are_slices() -> None:
    lengths, window = torch.tensor([7, 4, 9]), 3
    offsets = lengths.cumsum(0) - lengths
    rows = torch.arange(int(lengths.sum()))
    series, starts = draw_windows([5, 2, 7], 500, torch.Generator().manual_seed(1))
    found = rows[window_rows(offsets, series, starts, window)]
    allowed = {
        (s, k): list(range(int(offsets[s]) + k, int(offsets[s]) + k + window))
        for s, length in enumerate(lengths.tolist())
        for k in range(length - window + 1)
    }
    seen = set()
    for column, s, k in zip(found.T.tolist(), series.tolist(), starts.tolist(), strict=True):
        assert column == allowed[s, k]
        seen.add((s, k))
    assert seen == set(allowed)


def test_windows_repeat_with_the_seed() -> None:
    first, second = (draw_windows([50, 9], 8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(torch.stack(first), torch.stack(second))


def test_the_sample_is_what_its_page_says() -> None:
    panel = read_panel(sample("co2_mauna_loa"), "co2", time="month")
    [series] = panel.series
    assert (len(series), int(np.isnan(series.values).sum()), panel.grid.spacing) == (526, 5, "1 month")
    assert panel.grid.times(np.array([0, 525])).astype("datetime64[M]").astype(str).tolist() == ["1958-03", "2001-12"]
    frame = pl.read_csv(sample("co2_mauna_loa"))
    april = frame.filter(pl.col("month") == "1958-04")["co2"].item()
    assert april == pytest.approx((317.3 + 317.6 + 317.5 + 316.4) / 4, abs=5e-4)
    assert "Public domain" in sample("co2_mauna_loa").with_suffix(".md").read_text()


def test_an_unknown_sample() -> None:
    with pytest.raises(ArgumentError) as caught:
        sample("co2")
    assert str(caught.value) == "There is no sample 'co2'. The samples are: co2_mauna_loa."
