"""The case `electricity` on made-up half-hours, whose demand follows the temperature."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.forecasting import electricity, peers
from benchmarks.forecasting.archives import Archives
from benchmarks.forecasting.electricity import read_days
from benchmarks.forecasting.peers import PeerCache
from benchmarks.forecasting.setting import Setting


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    """300 days of two half-hours each; demand is 100 and 3 for each degree of the day's highest temperature."""
    days = pl.date_range(pl.date(2012, 1, 1), pl.date(2012, 10, 26), eager=True)
    heat = np.random.default_rng(0).uniform(10, 40, len(days))
    demand = 100 + 3 * heat
    folder = tmp_path / "tsdata" / "fpp3"
    folder.mkdir(parents=True)
    halves = pl.DataFrame(
        {
            "Date": np.repeat(days.to_numpy().astype(str), 2),
            "Demand": np.repeat(demand, 2) * 1000,
            "Temperature": np.stack([heat, heat - 5], axis=1).ravel(),
        }
    )
    halves.write_csv(folder / "vic_elec.csv")
    return Setting(Archives(tmp_path, tmp_path), PeerCache(tmp_path / "cache"), quick=True, say=lambda _: None)


def test_half_hours_become_days(setting: Setting) -> None:
    days = read_days(setting.archives)
    assert len(days.values) == 300
    np.testing.assert_allclose(days.values, 100 + 3 * days.regressors[:, 0], rtol=1e-12)
    np.testing.assert_allclose(days.regressors[:, 1], days.regressors[:, 0] ** 2)


@pytest.mark.skipif(peers.LACKS is not None, reason=str(peers.LACKS))
def test_a_known_temperature_is_the_answer_here(setting: Setting) -> None:
    outcome = electricity.measure(replace(setting, peers_only=True))
    figures = outcome.figures
    assert figures[electricity.KNOWN_ARIMA]["loss"] < 0.05 * figures["ARIMA"]["loss"]
    assert electricity.KNOWN not in figures


def test_without_a_known_covariate_it_is_said(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(electricity, "AVAILABLE", False)
    monkeypatch.setattr(electricity, "LACKS", "statsforecast cannot be imported")
    text = electricity.measure(setting).markdown()
    assert "Tidegate, temperature known: not available" in text
    assert "| Tidegate | 3 |" in text
