"""statsforecast behind its wrapper: right quantiles, kept answers, cuts and failures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.forecasting import peers
from benchmarks.forecasting.peers import ARIMA, ETS, PEERS, Answer, PeerCache, Request, ask

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
SEASONAL = 50 + 10 * np.sin(np.arange(48) * np.pi / 2) + np.random.default_rng(1).normal(size=48)
REQUEST = Request(ETS, SEASONAL, 4, 4, LEVELS)
needs_peers = pytest.mark.skipif(peers.LACKS is not None, reason=str(peers.LACKS))


@needs_peers
@pytest.mark.parametrize("method", PEERS)
def test_a_peer_forecasts_a_plain_season(method: str) -> None:
    answer = ask(replace(REQUEST, method=method))
    quantiles = np.array(answer.quantiles)
    assert quantiles.shape == (4, 7)
    assert (np.diff(quantiles, axis=1) > 0).all()
    np.testing.assert_allclose(quantiles[:, 3], 50 + 10 * np.sin(np.arange(48, 52) * np.pi / 2), atol=2.5)
    spread = quantiles[:, 5] - quantiles[:, 1]  # of an 80 % interval of noise whose standard deviation is 1
    assert ((spread > 1.5) & (spread < 5)).all()


@needs_peers
def test_the_widths_of_intervals_are_those_of_a_normal() -> None:
    (row,) = np.array(ask(replace(REQUEST, method=ARIMA, horizon=1)).quantiles)
    assert (row[6] - row[3]) / (row[5] - row[3]) == pytest.approx(1.644854 / 1.281552, rel=1e-5)
    assert (row[3] - row[2]) / (row[3] - row[1]) == pytest.approx(0.674490 / 1.281552, rel=1e-5)


@needs_peers
def test_regressors_are_used() -> None:
    weather = np.random.default_rng(2).normal(size=(52, 2))
    demand = 100 + weather @ [20.0, -5.0]
    request = Request(ARIMA, demand[:48], 1, 4, LEVELS, weather[:48], weather[48:])
    median = np.array(ask(request).quantiles)[:, 3]
    np.testing.assert_allclose(median, demand[48:], atol=1e-2)


@needs_peers
def test_a_failure_is_an_answer() -> None:
    answer = ask(replace(REQUEST, history=np.array([1.0, 2.0])))
    assert answer.quantiles is None
    assert answer.failure


@needs_peers
def test_keys_tell_requests_apart() -> None:
    others = [
        replace(REQUEST, method=ARIMA),
        replace(REQUEST, history=SEASONAL + 1e-9),
        replace(REQUEST, season=2),
        replace(REQUEST, horizon=5),
        replace(REQUEST, levels=(0.5,)),
        replace(REQUEST, past=SEASONAL[:, None], ahead=SEASONAL[:4, None]),
    ]
    assert len({REQUEST.key, *(other.key for other in others)}) == 7
    assert replace(REQUEST, history=SEASONAL.copy()).key == REQUEST.key


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests that were computed, each in 40 seconds."""
    found: list[Request] = []

    def stand_in(request: Request) -> Answer:
        found.append(request)
        return Answer([[1.0]], 40.0)

    monkeypatch.setattr(peers, "ask", stand_in)
    monkeypatch.setattr(peers, "version", lambda _: "1")
    return found


def test_answers_are_kept(asked: list[Request], tmp_path: Path) -> None:
    cache = PeerCache(tmp_path)
    assert cache.answer(REQUEST) == cache.answer(REQUEST) == Answer([[1.0]], 40.0)
    assert len(asked) == 1
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text("utf-8"))["seconds"] == 40.0


def test_a_peer_is_cut_when_its_time_is_up_also_with_kept_answers(asked: list[Request], tmp_path: Path) -> None:
    requests = [replace(REQUEST, horizon=h) for h in range(1, 9)]
    first = PeerCache(tmp_path).answers(requests, patience=100)
    assert sum(answer is not None for answer in first) == len(asked) == 3
    assert PeerCache(tmp_path).answers(requests, patience=100) == first
    assert len(asked) == 3
    assert None not in PeerCache(tmp_path).answers(requests, patience=1000)
