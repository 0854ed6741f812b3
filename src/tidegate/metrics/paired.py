"""Is one forecaster better than another, or is the difference noise?

The losses of both at the same origins are compared as a pair. Neighbouring origins share most of their targets, so
their differences say much the same: they are averaged over blocks of at least one horizon, and the blocks are taken as
independent. The interval for the mean difference is Student's, from the means of the blocks (as in the test of Diebold
& Mariano 1995, doi:10.1080/07350015.1995.10524599, with blocks in place of autocovariances); where series are many and
blocks are few, the means of the series take their place.
"""

import math
from dataclasses import dataclass

import numpy as np

_MOST_BLOCKS = 14
_ENOUGH_BLOCKS = 6  # with fewer, and as many series, the series are the units
_STUDENT = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.16,
)  # 97.5 %, 1 to 13
_NORMAL = 1.95996


@dataclass(frozen=True)
class Comparison:
    """The mean difference of two losses (ours minus theirs), and its 95 % interval from `low` to `high`.

    The interval rests on `blocks` means `over` "blocks of origins" or "series"; with less than two there is none.
    """

    difference: float
    low: float | None
    high: float | None
    blocks: int
    origins: int
    over: str = "blocks of origins"

    @property
    def outcome(self) -> str:
        """ "better" or "worse" where the interval does not contain zero, else "same"."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "same"
        return "better" if self.high < 0 else "worse"


def compare(ours: np.ndarray, theirs: np.ndarray, horizon: float) -> Comparison:
    """Two losses at N origins in their order in time, `[N]` each, of forecasts up to `horizon` origins ahead.

    Origins at which either is NaN are omitted. Where origins are plenty the blocks are longer than a horizon: there
    are at most 14.
    """
    differences = np.asarray(ours, float) - np.asarray(theirs, float)
    differences = differences[~np.isnan(differences)]
    blocks = min(int(len(differences) // max(horizon, 1)), _MOST_BLOCKS)
    means = [block.mean() for block in np.array_split(differences, blocks)] if blocks else []
    return _comparison(differences, np.array(means), "blocks of origins")


def compare_series(ours: list[np.ndarray], theirs: list[np.ndarray], horizon: float) -> Comparison:
    """Losses of several series, each `[N]` at its origins; the ends of the series are taken to be at the same time.

    With at least six blocks in time the series are averaged at each time; otherwise, with more series than blocks, the
    means of the series are the units: then what moves all series at once is not in the interval.
    """
    longest = max(len(one) for one in ours)
    table = np.full((len(ours), longest), np.nan)
    for row, one, other in zip(table, ours, theirs, strict=True):
        row[longest - len(one) :] = one - other
    known = ~np.isnan(table)
    by_time = table.sum(0, where=known) / np.maximum(known.sum(0), 1)
    found = compare(np.where(known.any(0), by_time, np.nan), np.zeros(longest), horizon)
    by_series = (table.sum(1, where=known) / np.maximum(known.sum(1), 1))[known.any(1)]
    if found.blocks >= min(_ENOUGH_BLOCKS, len(by_series)):
        return found
    return _comparison(by_series, by_series, "series")


def _comparison(differences: np.ndarray, means: np.ndarray, over: str) -> Comparison:
    count, mean = len(means), float(differences.mean()) if len(differences) else 0.0
    if count < 2:
        return Comparison(mean, None, None, count, len(differences), over)
    error = float(means.std(ddof=1)) / math.sqrt(count) * _student(count - 1)
    return Comparison(mean, mean - error, mean + error, count, len(differences), over)


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's distribution; beyond 13 by Cornish and Fisher's first term."""
    return _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _NORMAL * (1 + (_NORMAL**2 + 1) / (4 * freedom))
