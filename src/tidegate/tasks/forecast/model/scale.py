"""The scale of one series: logarithm where changes grow with the level, seasonal component, centre and unit."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from tidegate.config import Field
from tidegate.metrics.baselines import last_known

Finite = Annotated[float, Field(ge=-1e100, le=1e100)]

_FEWEST_SEASONS = 3  # for a seasonal component: two leave one difference to tell season from chance
_FEWEST_BLOCKS = 8
_MOST_SEASONS = 20  # the latest ones give the component, which drifts over longer times
_CRITICAL = 1.645  # of a normal deviate: 5 % on one side, as in the seasonality test of the Theta method
_FAR = 20.0  # differences beyond this many medians count as that many: one sentinel must not set the unit
_REACH = 10.0  # distances between the quartiles: far beyond heavy tails and growth, short of a sentinel
_LEAST_UNIT = 1e-6  # of the spread of the series: what float32 resolves beside it
_LEAST_SHARE = 0.1  # of the lowest value seen: what a logarithm reads instead of a value at or below zero
_MANY_ZEROS = 0.05  # of the values: then zero is where a quantity ends, as of sales or rain
_LARGEST_EXPONENT = 700.0  # beyond it exp overflows
_ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Scale:
    """How a series is scaled: z = (f(y) - pattern - centre) / unit, with f the logarithm where `log`, else y itself.

    `pattern` is the seasonal component by place modulo season (empty where none was found). `alpha` smooths the level
    of z; with `log`, values below `floor` are read as `floor`. Forecasts are not below `least`, and whole numbers where
    `whole`.
    """

    centre: Finite
    unit: Annotated[float, Field(gt=0, le=1e101)]
    log: bool = False
    floor: Annotated[float, Field(ge=0, le=1e100)] = 0.0
    pattern: tuple[Finite, ...] = ()
    alpha: Annotated[float, Field(gt=0, le=1)] = 1.0
    least: Finite | None = None
    whole: bool = False

    def scaled(self, values: np.ndarray, start: int) -> np.ndarray:
        """Values `[N]`, the first of which is at place `start`, in scaled units."""
        raw = np.log(np.maximum(values, self.floor)) if self.log else values
        return np.asarray((raw - self._season(start + np.arange(len(values))) - self.centre) / self.unit)

    def restored(self, scaled: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Scaled numbers `[..., Q]` at places `[...]` in the units of the series: the inverse of `scaled`, within what
        the series can be."""
        found = scaled * self.unit + self.centre + self._season(places)[..., None]
        if self.log:
            found = np.exp(np.minimum(found, _LARGEST_EXPONENT))
        if self.least is not None:
            found = np.maximum(found, self.least)
        return np.round(found) if self.whole else found

    def _season(self, places: np.ndarray) -> np.ndarray:
        if not self.pattern:
            return np.zeros(places.shape)
        return np.array(self.pattern)[places % len(self.pattern)]


def scale_of(
    values: np.ndarray, start: int, season: int, *, positive: bool | None = None, count: bool = False
) -> Scale:
    """The scale of a series with gaps, whose first value is at place `start`.

    Forecasts are not negative where `positive` or `count` says so, or, with `positive` None, where no value is negative
    and one in twenty is zero; with `count` they are whole numbers.

    Outliers count as missing, so that a sentinel decides nothing. The unit is the mean absolute difference of
    neighbours after the seasonal component is taken out, with differences beyond twenty medians cut. Where that is zero
    plainer measures of spread take its place, at last 1.
    """
    values = values.copy()
    values[outliers(values)] = np.nan
    first = int(np.flatnonzero(~np.isnan(values))[0])
    values, start = values[first:], start + first
    known = values[~np.isnan(values)]
    log = changes_grow(values, season)
    floor = _LEAST_SHARE * float(known.min()) if log else 0.0
    raw = np.log(values) if log else values
    pattern = seasonal_component(raw, start, season)
    adjusted = raw - (pattern[(start + np.arange(len(raw))) % season] if len(pattern) else 0.0)
    unit, centre = _unit(raw, adjusted, season), float(np.nanmedian(adjusted))
    alpha = _best_alpha((last_known(adjusted) - centre) / unit)
    zeros = positive is None and bool((known >= 0).all() and (known == 0).mean() >= _MANY_ZEROS)
    least = 0.0 if positive or count or zeros else None
    return Scale(centre, unit, log, floor, tuple(pattern.tolist()), alpha, least, count)


def outliers(values: np.ndarray) -> np.ndarray:
    """Indices of values that are ten times the distance between the quartiles outside of them; none where that is 0."""
    low, high = np.nanquantile(values, (0.25, 0.75))
    reach = _REACH * (high - low)
    outside = (values < low - reach) | (values > high + reach)
    return np.flatnonzero(outside) if reach > 0 else np.zeros(0, int)


def changes_grow(values: np.ndarray, season: int) -> bool:
    """Whether a positive series changes in proportion to its level rather than by the same amounts everywhere.

    Guerrero's method (1993, doi:10.1002/for.3980120104) between the two ends of the Box-Cox family: over blocks of a
    season the ratio of standard deviation to mean (logarithm) must vary less than the standard deviation itself.
    Without a season, where a logarithm mostly makes trends exponential, it takes eight blocks of four steps.
    """
    if not (values[~np.isnan(values)] > 0).all():
        return False
    length = max(season, 4)
    blocks = values[len(values) % length :].reshape(-1, length)
    blocks = blocks[~np.isnan(blocks).any(1)]
    means, spreads = blocks.mean(1), blocks.std(1)
    if len(blocks) < (_FEWEST_BLOCKS if season == 1 else 2) or not (spreads > 0).any():
        return False
    return bool(_variation(spreads / means) < _variation(spreads))


def seasonal_component(values: np.ndarray, start: int, season: int) -> np.ndarray:
    """The seasonal component `[season]` by place modulo season, of zero mean; empty where no season is found.

    Classical decomposition (Macaulay 1931): means, by season, of the differences to a centred moving average. There
    is a season where the autocorrelation at its lag is significant (Bartlett 1946), and three seasons are seen.
    """
    if season < 2 or len(values) < _FEWEST_SEASONS * season or not _is_seasonal(values, season):
        return np.zeros(0)
    start, values = start + max(0, len(values) - _MOST_SEASONS * season), values[-_MOST_SEASONS * season :]
    filled = last_known(values) if not np.isnan(values[0]) else np.nan_to_num(values, nan=float(np.nanmean(values)))
    weights = np.full(season + 1 - season % 2, 1.0)
    if season % 2 == 0:
        weights[[0, -1]] = 0.5
    trend = np.convolve(filled, weights / weights.sum(), "valid")
    first = len(weights) // 2
    detrended = values[first : first + len(trend)] - trend
    phase = (start + first + np.arange(len(trend))) % season
    known = ~np.isnan(detrended)
    counts = np.bincount(phase[known], minlength=season)
    means = np.bincount(phase[known], detrended[known], season) / np.maximum(counts, 1)
    return np.asarray(means - means.mean())


def _is_seasonal(values: np.ndarray, season: int) -> bool:
    deviations = np.nan_to_num(values - np.nanmean(values))
    total = float(deviations @ deviations)
    if total == 0:
        return False
    lags = np.array([deviations[lag:] @ deviations[:-lag] for lag in range(1, season + 1)]) / total
    error = np.sqrt((1 + 2 * float(lags[:-1] @ lags[:-1])) / len(values))
    return bool(abs(lags[-1]) > _CRITICAL * error)


def _variation(values: np.ndarray) -> float:
    return float(values.std() / values.mean())


def _unit(raw: np.ndarray, adjusted: np.ndarray, season: int) -> float:
    spread = float(np.nanstd(raw)) or abs(float(np.nanmean(raw))) or 1.0
    for values, lag in ((adjusted, 1), (raw, season), (raw, 1)):
        differences = np.abs(values[lag:] - values[:-lag])
        differences = differences[~np.isnan(differences)]
        if len(differences):
            middle = float(np.median(differences))
            unit = float((np.minimum(differences, _FAR * middle) if middle > 0 else differences).mean())
            if unit > _LEAST_UNIT * spread:
                return unit
    return spread if float(np.nanstd(raw)) else 1.0


def _best_alpha(scaled: np.ndarray) -> float:
    """The weight of simple exponential smoothing with the smallest mean absolute one-step error."""
    alphas = np.array(_ALPHAS)
    level, total = np.full(len(alphas), scaled[0]), np.zeros(len(alphas))
    for value in scaled[1:][-2000:].tolist():
        error = value - level
        total += np.abs(error)
        level += alphas * error
    return float(alphas[total.argmin()])
