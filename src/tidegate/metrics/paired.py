"""Is one forecaster better than another, or is the difference noise?

The losses of both at the same origins are compared as a pair. Neighbouring origins share most of their targets, so
their differences say much the same: they are averaged over blocks of at least one horizon, and the blocks are taken as
independent. If neither forecaster were better, each block's difference could as well have had the other sign; the
p-value is the share of all changes of signs that give a mean as far from zero as the one found (a sign-flip test over
blocks; compare Lehmann & Romano 2005, Testing Statistical Hypotheses, section 15.2). One extreme block cannot decide
it, and with fewer than six blocks no difference can be shown.
"""

from dataclasses import dataclass

import numpy as np

LEVEL = 0.05
FEWEST_BLOCKS = 6
_MOST_BLOCKS = 14


@dataclass(frozen=True)
class Comparison:
    """The mean difference of two losses (ours minus theirs), and the p-value (two-sided) over that many blocks."""

    difference: float
    p_value: float
    blocks: int
    origins: int

    @property
    def outcome(self) -> str:
        """ "better" or "worse" where the difference is more than noise at the 5 % level, else "same"."""
        if self.p_value > LEVEL or self.difference == 0:
            return "same"
        return "better" if self.difference < 0 else "worse"


def compare(ours: np.ndarray, theirs: np.ndarray, horizon: int) -> Comparison:
    """Two losses at N origins in their order in time, `[N]` each, of forecasts up to `horizon` steps ahead.

    Origins at which either is NaN are omitted. Where origins are plenty the blocks are longer than a horizon: there
    are at most 14. With few blocks, which are then close together, a difference is found a little too often (up to one
    time in nine instead of twenty, where there is none).
    """
    differences = np.asarray(ours, float) - np.asarray(theirs, float)
    differences = differences[~np.isnan(differences)]
    origins = len(differences)
    blocks = min(origins // max(horizon, 1), _MOST_BLOCKS)
    mean = float(differences.mean()) if origins else float("nan")
    if blocks < FEWEST_BLOCKS:
        return Comparison(mean, 1.0, blocks, origins)
    sums = np.array([block.sum() for block in np.array_split(differences, blocks)])
    return Comparison(mean, _share_as_far(sums), blocks, origins)


def _share_as_far(sums: np.ndarray) -> float:
    """The share of all 2 ** blocks choices of signs whose sum is at least as far from zero as that of `sums`."""
    signs = 1 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
    found = np.abs(signs @ sums)
    return float(np.mean(found >= found[0] * (1 - 1e-12)))
