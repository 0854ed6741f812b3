"""What the report shows of the data: the series thinned to what a page can draw, and two held-out forecasts."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from tidegate.data import Panel, Series
from tidegate.metrics import quantile_score
from tidegate.tasks.forecast.judging.split import Split
from tidegate.tasks.forecast.judging.tally import held_out_origins
from tidegate.tasks.forecast.model.inputs import ForecastInputs
from tidegate.tasks.forecast.model.net import ForecastNet
from tidegate.tasks.forecast.model.rolling import in_units, outputs_of

_BUCKETS = 1000

Numbers = list[float | None]


@dataclass(frozen=True)
class Example:
    """A forecast of the held-out part: `history` up to `place`, quantiles `[K][Q]`, and the truth."""

    title: str
    place: int
    history: Numbers
    quantiles: list[list[float]]
    truth: Numbers


@dataclass(frozen=True)
class Story:
    """The data of a fit as the report tells it. Places are those of the grid; None is a missing value."""

    data: str
    series: int
    steps: int
    shown: str
    places: list[int]
    values: Numbers
    parts: list[tuple[str, int]]
    examples: list[Example]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The story as plain data."""
        return asdict(self)


def tell(
    panel: Panel, splits: tuple[Split, ...], net: ForecastNet, inputs: ForecastInputs, levels: np.ndarray
) -> Story:
    """The story of a panel, its first series that was judged shown."""
    index = next(k for k, cut in enumerate(splits) if cut.judged)
    series, cut = panel.series[index], splits[index]
    kept = thinned(series.values)
    cuts = {"training": 0, "validation": cut.validation, "held out": cut.held_out}
    return Story(
        data=panel.name,
        series=len(panel.series),
        steps=sum(len(one) for one in panel.series),
        shown=series.name,
        places=[int(place) for place in series.start + kept],
        values=plain(series.values[kept]),
        parts=[(name, int(np.searchsorted(kept, first))) for name, first in cuts.items()],
        examples=_examples(index, series, cut, net, inputs, levels),
        notes=list(panel.notes),
    )


def plain(values: np.ndarray) -> Numbers:
    """Numbers for JSON: a missing value is None."""
    return [None if np.isnan(value) else float(value) for value in values]


def numbers(values: Numbers) -> np.ndarray:
    """The inverse of `plain`."""
    return np.array([np.nan if value is None else value for value in values])


def _examples(
    index: int, series: Series, cut: Split, net: ForecastNet, inputs: ForecastInputs, levels: np.ndarray
) -> list[Example]:
    recipe = inputs.recipe
    origins = held_out_origins(cut, recipe.horizon)
    only = torch.where(torch.arange(len(inputs.lengths)) == index, inputs.lengths, 0)
    outputs, _ = outputs_of(net, inputs, only)
    forecasts = in_units(net, inputs, outputs, index, series, origins)
    truth = series.values[origins[:, None] + np.arange(1, recipe.horizon + 1)]
    losses = np.nan_to_num(quantile_score(truth, forecasts, levels)).mean(-1)
    order = np.argsort(losses, kind="stable")
    chosen = {"A typical forecast (median loss)": order[len(order) // 2], "The worst forecast": order[-1]}
    first = np.maximum(0, origins + 1 - max(3 * recipe.horizon, 2 * recipe.season))
    return [
        Example(
            title,
            series.start + int(origins[k]),
            plain(series.values[first[k] : origins[k] + 1]),
            forecasts[k].tolist(),
            plain(truth[k]),
        )
        for title, k in chosen.items()
    ]


def thinned(values: np.ndarray) -> np.ndarray:
    """Indices of the lowest and the highest known value of each of some buckets, in their order."""
    if len(values) <= 2 * _BUCKETS:
        return np.arange(len(values))
    kept: list[int] = []
    for piece in np.array_split(np.arange(len(values)), _BUCKETS):
        known = piece[~np.isnan(values[piece])]
        extremes = (
            {int(known[values[known].argmin()]), int(known[values[known].argmax()])} if len(known) else {piece[0]}
        )
        kept += sorted(extremes)
    return np.array(kept)
