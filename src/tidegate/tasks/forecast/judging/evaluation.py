"""The judgement: rolling origins of the held-out part, the net beside the baselines, and what follows in a sentence."""

from dataclasses import asdict, dataclass, field
from textwrap import fill
from typing import Annotated, Any

import numpy as np

from tidegate.config import BeforeValidator
from tidegate.metrics import Comparison
from tidegate.report.html import element, escape

NET, START = "net", "untrained start"
METRICS = {"scaled_loss", "quantile_loss", "weighted_quantile_loss", "mae", "rmse", "mase", "coverage"}
Score = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]
_NEGLIGIBLE = 1e-6  # of the series' usual change: a percentage of a smaller loss says nothing
_WIDTH = 100  # characters of a line
_OFF = 0.05  # by which a coverage may miss before the verdict says so


@dataclass(frozen=True)
class SeriesScore:
    """One series: the net's scaled loss and the best baseline's, at how many origins."""

    name: str
    net: Score
    baseline: Score
    origins: int


@dataclass(frozen=True)
class Evaluation:
    """Scores on the held-out part, for the net and each baseline.

    `scores[method]` has `scaled_loss` (the mean quantile score, each series in units of its mean absolute change from
    season to season before the held-out part), `quantile_loss` (the same in the units of the data),
    `weighted_quantile_loss`, `mae` and `rmse` of the median, `mase`, and `coverage` of the widest interval;
    `by_horizon[method]` has `quantile_loss` and `mae` for each step ahead, scaled where there are several series;
    `below[method]` the share of truths at or below each quantile level. "untrained start" is the net before training,
    a fixed mixture of plain forecasts; it is no baseline but shows what training added.
    `best_baseline` is the one of lowest scaled loss, and `comparison` is the difference of the net's scaled loss to
    its; `median` is that of the absolute errors of the medians. `interval` is the nominal coverage. `by_series` has the
    net and the best baseline for each series, `origins` counts forecasts over all of them.
    """

    levels: tuple[float, ...]
    origins: int
    interval: float
    scores: dict[str, dict[str, Score]]
    by_horizon: dict[str, dict[str, list[Score]]]
    below: dict[str, list[Score]]
    best_baseline: str
    comparison: Comparison
    median: Comparison
    by_series: list[SeriesScore] = field(default_factory=list)

    def __repr__(self) -> str:
        """The verdict, and a line for each method, the lowest scaled loss first."""
        head = f"  {'':28}{'scaled loss':>12}{'MASE':>9}{f'in {self.interval:.0%}':>9}"
        rows = [
            f"  {name:28}{found['scaled_loss']:12.4g}{found['mase']:9.3g}{found['coverage']:9.0%}"
            for name, found in sorted(self.scores.items(), key=lambda item: item[1]["scaled_loss"])
        ]
        return "\n".join([fill(self.verdict, _WIDTH), head, *rows])

    def _repr_html_(self) -> str:
        return element("pre", escape(repr(self)))

    @property
    def gain(self) -> float:
        """The share by which the net's scaled loss is below the best baseline's; negative where it is above."""
        return self._share(self.best_baseline)

    @property
    def learned(self) -> float:
        """The share by which training brought the scaled loss below that of the mixture it started from."""
        return self._share(START)

    @property
    def outcome(self) -> str:
        """ "better" or "worse" where the net differs from the best baseline by more than noise, else "same"."""
        return self.comparison.outcome

    @property
    def instead(self) -> str | None:
        """What should forecast instead of the net: the best baseline where the net lost to it, or the untrained start
        where training raised the loss on the held-out part."""
        if self.outcome == "worse":
            return self.best_baseline
        return START if self.learned < 0 else None

    def _share(self, method: str) -> float:
        theirs = self.scores[method]["scaled_loss"]
        return 1 - self.scores[NET]["scaled_loss"] / theirs if theirs > _NEGLIGIBLE else 0.0

    @property
    def verdict(self) -> str:
        """The judgement in one or two sentences, also when the net loses."""
        return f"{self._judged()}{self._off_coverage()}"

    def _judged(self) -> str:
        theirs = self.scores[self.best_baseline]["scaled_loss"]
        baseline, basis = f"{self.best_baseline}, the best baseline", self._basis()
        if theirs <= _NEGLIGIBLE:
            return (
                f"There is nothing to gain: {self.best_baseline} forecasts the series nearly without error ({basis})."
            )
        match self.outcome:
            case "better":
                return f"The net beats {baseline}, by {_percent(self.gain)} ({basis}){self._unproved_median()}."
            case "worse":
                return f"The net loses to {baseline}, by {_percent(-self.gain)} ({basis})."
        seen = "ahead of" if self.gain > 0 else "behind"
        if round(abs(self.gain), 3) == 0:
            return f"The net does as well as {baseline} ({basis})."
        if self.comparison.low is None:
            why = "the held-out part is too short to tell whether that is more than noise"
        else:
            why = "noise can explain that"
        return f"The net is {_percent(abs(self.gain))} {seen} {baseline}, but {why} ({basis})."

    def _basis(self) -> str:
        ours, theirs = (self.scores[method]["scaled_loss"] for method in (NET, self.best_baseline))
        found, counted = self.comparison, f"{self.origins} held-out forecasts"
        losses = f"scaled quantile loss {ours:.4g} against {theirs:.4g} over {counted}"
        if found.low is None or found.high is None or theirs <= _NEGLIGIBLE:
            return losses
        worst, best = -found.high / theirs, -found.low / theirs
        return f"95 % interval {_signed(worst)} to {_signed(best)}; {losses}"

    def _off_coverage(self) -> str:
        held = self.scores[NET]["coverage"]
        if np.isnan(held) or abs(held - self.interval) <= _OFF:
            return ""
        kind = "narrow" if held < self.interval else "wide"
        return f" Its {self.interval:.0%} intervals are too {kind}: they held {held:.0%} of the values."

    def _unproved_median(self) -> str:
        if self.median.outcome == "better":
            return ""
        ours, theirs = (self.scores[method]["mase"] for method in (NET, self.best_baseline))
        return f"; for its median alone (MASE {ours:.4g} against {theirs:.4g}) that is not shown"

    def to_json(self) -> dict[str, Any]:
        """Every number as plain data, the verdict among them; None is a mean over nothing."""
        found = {"outcome": self.outcome, "gain": self.gain, "learned": self.learned}
        data: dict[str, Any] = _nan_to_none(asdict(self) | found | {"verdict": self.verdict})
        return data


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 10 else f"{share + 1:.0f} times"


def _signed(share: float) -> str:
    return f"{share:+.1%}".replace("-", "−")


def _nan_to_none(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _nan_to_none(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_nan_to_none(value) for value in data]
    return None if isinstance(data, float) and np.isnan(data) else data
