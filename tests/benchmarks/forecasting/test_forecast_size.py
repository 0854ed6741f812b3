"""The case `size`, in small: a process of its own, and figures that add up."""

from pathlib import Path

import pytest

from benchmarks.forecasting import size
from benchmarks.forecasting.archives import Archives
from benchmarks.forecasting.peers import PeerCache
from benchmarks.forecasting.setting import Setting
from benchmarks.forecasting.size import LOADS, Load, run
from tidegate.errors import TidegateError

MEBIBYTE = 1 << 20


def test_a_fit_is_measured_in_a_process_of_its_own() -> None:
    ballast = bytearray(512 * MEBIBYTE)  # of this process: it must not count
    measured = run(Load("small", 2, 120, 4), {"budget": "1s"})
    assert len(ballast) > 0
    assert measured["updates"] > 0
    assert 0.5 < measured["training"] < 30
    assert all(measured[part] > 0 for part in ("reading", "judging", "forecast"))
    assert 50 * MEBIBYTE < measured["start"] < measured["peak"]
    assert measured["start"] < 512 * MEBIBYTE


def test_the_data_are_as_large_as_they_say() -> None:
    frame = Load("small", 3, 40, 4).frame()
    assert frame["series"].value_counts()["count"].to_list() == [40, 40, 40]
    assert frame["value"].is_finite().all()
    assert [(load.series, load.rows) for load in LOADS] == [(1, 200_000), (1000, 200)]


def test_a_refusal_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(size, "run", lambda *_: {"refused": "too short", "start": 3 << 20, "peak": 5 << 20})
    setting = Setting(Archives(None, tmp_path), PeerCache(tmp_path), quick=True, say=lambda _: None)
    outcome = size.measure(setting)
    assert "| one series of 2,000 rows | - | - | - | - | - | 5 MiB | 3 MiB |" in outcome.markdown()
    assert "- one series of 2,000 rows: too short" in outcome.markdown()


def test_a_process_that_fails_is_an_error() -> None:
    with pytest.raises(TidegateError, match="the fit of small failed"):
        run(Load("small", 1, 60, 4), {"budget": "never"})
