"""Drift detection: an alarm when errors grow."""

from __future__ import annotations

from typing import NamedTuple

from tidegate.online.scale import RunningScale

WINDOW = 1000  # errors that say what is usual
FIRST = 30  # errors before any alarm
SLACK = 0.25  # deviations that an error may be above the mean for ever


class PageHinkley(NamedTuple):
    """Page's test for a larger mean (Page 1954, doi:10.1093/biomet/41.1-2.100, section 2.3), of errors in deviations
    from their own running mean.

    `excess` is what they were above the mean and the slack in sum, never less than 0: in Page's words the sum of
    scores less its lowest value so far. An error counts for at most ten deviations, so that it takes several to raise
    an alarm.
    """

    errors: RunningScale = RunningScale()
    excess: float = 0.0

    def after(self, error: float, threshold: float) -> tuple[PageHinkley, bool]:
        """The test after one more error, and whether it raises the alarm; then it starts anew."""
        excess = self.excess
        if self.errors.weight >= FIRST:
            excess = max(0.0, excess + self.errors.scaled(error) - SLACK)
        if excess > threshold:
            return PageHinkley(), True
        return PageHinkley(self.errors.seen(error, WINDOW), excess), False
