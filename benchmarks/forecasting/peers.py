"""Statistical forecasters of statsforecast: fitted to a history, their quantiles kept on disk."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.files import write_atomic

try:
    from statsforecast.models import AutoARIMA, AutoETS, Theta
except ImportError:
    AutoARIMA = AutoETS = Theta = None

LACKS = None if AutoARIMA else "statsforecast cannot be imported: pip install 'tidegate[stats]'"
THETA, ETS, ARIMA = "Theta", "ETS", "ARIMA"
PEERS = (
    THETA,  # the standard Theta method, which won M3: Assimakopoulos & Nikolopoulos 2000
    ETS,  # exponential smoothing, the model chosen by AICc: Hyndman et al. 2002
    ARIMA,  # seasonal ARIMA, chosen step by step by AICc: Hyndman & Khandakar 2008
)
HISTORY = 1500  # the last rows that a peer is fitted to: ARIMA takes minutes for more, and gains little
PATIENCE = 600.0  # seconds of processor time for the fits of one peer at all origins of a series


@dataclass(frozen=True)
class Request:
    """A forecast that is asked of a peer: `history [T]` is finite; regressors are `past [T, R]` and `ahead [K, R]`."""

    method: str
    history: np.ndarray
    season: int
    horizon: int
    levels: tuple[float, ...]
    past: np.ndarray | None = None
    ahead: np.ndarray | None = None

    @property
    def key(self) -> str:
        """A hash of all that the forecast depends on, the library's version included."""
        settings = [self.method, version("statsforecast"), self.season, self.horizon, self.levels]
        arrays = [b"" if one is None else one.astype("<f8").tobytes() for one in (self.history, self.past, self.ahead)]
        return hashlib.sha256(b"|".join([json.dumps(settings).encode(), *arrays])).hexdigest()[:32]


@dataclass(frozen=True)
class Answer:
    """Quantiles `[K, Q]` as nested lists, or None where the peer failed; the seconds of processor time; the reason."""

    quantiles: list[list[float]] | None
    seconds: float
    failure: str | None = None


@dataclass(frozen=True)
class PeerCache:
    """A folder with an answer for each request; what is not there is computed."""

    folder: Path

    def answer(self, request: Request) -> Answer:
        """The peer's forecast."""
        path = self.folder / "peers" / request.method / f"{request.key}.json"
        if path.exists():
            return Answer(**json.loads(path.read_text("utf-8")))
        found = ask(request)
        write_atomic(path, json.dumps(asdict(found)).encode())
        return found

    def answers(self, requests: Sequence[Request], patience: float = PATIENCE) -> list[Answer | None]:
        """The forecasts at several origins; None for those that `patience` seconds did not suffice for.

        Origins are taken in a random order that is always the same, so that a cut leaves a sample of all of them.
        """
        found: list[Answer | None] = [None] * len(requests)
        spent = 0.0
        for k in np.random.default_rng(0).permutation(len(requests)):
            if spent > patience:
                break
            answer = found[k] = self.answer(requests[k])
            spent += answer.seconds
        return found


def ask(request: Request) -> Answer:
    """Fit the peer and forecast."""
    start = time.process_time()
    try:
        quantiles = _quantiles(request)
    except Exception as error:  # noqa: BLE001 - the library raises Exception itself where a series suits no model
        return Answer(None, time.process_time() - start, f"{type(error).__name__}: {error}")
    seconds = time.process_time() - start
    if not np.isfinite(quantiles).all():
        return Answer(None, seconds, "the forecast is not finite")
    return Answer(quantiles.tolist(), seconds)


def _quantiles(request: Request) -> np.ndarray:
    """The point forecast as median, the ends of intervals as the other quantiles, in rising order."""
    widths = {level: round(100 * abs(1 - 2 * level), 6) for level in request.levels}
    wanted = sorted({_short(width) for level, width in widths.items() if level != 0.5})
    regressors: dict[str, Any] = {}
    if request.past is not None and request.ahead is not None:
        regressors = {"X": request.past, "X_future": request.ahead}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of optimisers that stop early
        found = _model(request).forecast(y=request.history, h=request.horizon, level=wanted, **regressors)

    def column(level: float) -> np.ndarray:
        side = "lo" if level < 0.5 else "hi"
        return np.asarray(found["mean" if level == 0.5 else f"{side}-{_short(widths[level])}"], float)

    return np.sort(np.stack([column(level) for level in request.levels], axis=-1), axis=-1)


def _model(request: Request) -> Any:
    season = request.season
    if request.method == THETA:
        return Theta(season_length=season)
    if request.method == ETS:
        return AutoETS(season_length=season)
    rough = len(request.history) > 150 or season > 12  # as R's auto.arima decides
    return AutoARIMA(season_length=season, approximation=rough)


def _short(width: float) -> float:
    """A width as the library names its columns: 80, not 80.0."""
    return int(width) if width == int(width) else width
