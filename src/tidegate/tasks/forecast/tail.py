"""The end of the series, which a fitted forecaster keeps, and rows that continue it.

For each series the last `context` steps are kept, with the net's state and the features' memory before them: so a
forecast from the end has the same bits as one by a net that has gone through the whole series.
"""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from tidegate.config import Field
from tidegate.data import Grid, Panel, Series
from tidegate.errors import DataError, ModelFileError
from tidegate.nn import State
from tidegate.tasks.forecast.model.features import SeriesMemory, run_memory
from tidegate.tasks.forecast.model.inputs import ForecastInputs, SeriesPart, known_filled, make_inputs
from tidegate.tasks.forecast.model.net import ForecastNet
from tidegate.tasks.forecast.model.recipe import Recipe
from tidegate.tasks.forecast.model.rolling import outputs_of

Number = Annotated[float, Field(ge=-1e100, le=1e100)]


@dataclass(frozen=True)
class Tail:
    """The last rows of the series of `panel`; `parts` says where the kept steps begin, `states` are those before them.

    A state of None is the net's own start.
    """

    panel: Panel
    parts: tuple[SeriesPart, ...]
    states: tuple[State | None, ...]

    @classmethod
    def whole(cls, panel: Panel) -> "Tail":
        """All steps of a panel, none of which a net has gone through."""
        return cls(panel, tuple(SeriesPart(series) for series in panel.series), (None,) * len(panel.series))

    def inputs(self, recipe: Recipe) -> ForecastInputs:
        """The tensors of the kept steps."""
        return make_inputs(self.panel, recipe, self.parts)


@dataclass(frozen=True)
class TailSeries:
    """A series of a saved tail: its first place, its number of rows, how many only lead up to the kept steps, and the
    memory before these; `ahead` is the number of rows of what is known in advance."""

    name: str
    start: Annotated[int, Field(ge=-(2**62), le=2**62)]
    rows: Annotated[int, Field(ge=1, le=2**40)]
    lead: Annotated[int, Field(ge=0, le=2**40)]
    ahead: Annotated[int, Field(ge=0, le=2**40)]
    static: tuple[Number | str, ...]
    memory: tuple[Number, Number, Number, Number, Number, Number, Number] | None


@dataclass(frozen=True)
class TailData:
    """A tail without its numbers."""

    name: str
    target: str
    covariates: tuple[str, ...]
    known: tuple[str, ...]
    static: tuple[str, ...]
    grid: Grid
    series: tuple[TailSeries, ...]


def shorten(tail: Tail, recipe: Recipe, net: ForecastNet, *, keep_rows: bool = False) -> Tail:
    """The tail with at most `context` steps a series: the net goes through those before them.

    With `keep_rows` the rows stay and only the place moves from which the net goes on.
    """
    inputs = tail.inputs(recipe)
    cuts = (inputs.lengths - recipe.context).clamp(min=0)
    _, states = outputs_of(net, inputs, cuts, list(tail.states))
    parts = tuple(
        _moved(part, cut, recipe, keep_rows) if cut else part
        for part, cut in zip(tail.parts, cuts.tolist(), strict=True)
    )
    ends = tuple(state if cut else old for state, cut, old in zip(states, cuts.tolist(), tail.states, strict=True))
    return Tail(replace(tail.panel, series=tuple(part.series for part in parts), notes=()), parts, ends)


def _moved(part: SeriesPart, steps: int, recipe: Recipe, keep_rows: bool) -> SeriesPart:
    """The part with its first steps gone through; of these only the rows are kept that are looked back at."""
    series, lead = part.series, part.lead + steps
    scale = recipe.scale(series)
    memory = replace(part.memory) if part.memory else SeriesMemory()
    run_memory(scale.scaled(series.values, series.start)[part.lead : lead], memory, scale.alpha, recipe.season)
    first = 0 if keep_rows else max(0, lead - recipe.past)
    while first and np.isnan(series.values[first]):
        first -= 1
    known = series.known.copy()
    known[:lead] = known_filled(series, recipe)[: len(known[:lead])]  # of the season before, which is not kept
    return SeriesPart(_from(replace(series, known=known), first), lead - first, memory)


def _from(series: Series, first: int) -> Series:
    """The series from a row on; a covariate that is missing there takes its last known value."""
    covariates = series.covariates[first:].copy()
    for column in range(covariates.shape[1] if first else 0):
        known = np.flatnonzero(~np.isnan(series.covariates[: first + 1, column]))
        if len(known):
            covariates[0, column] = series.covariates[known[-1], column]
    return replace(
        series,
        start=series.start + first,
        values=series.values[first:],
        covariates=covariates,
        known=series.known[first:],
    )


def continue_tail(tail: Tail, new: Panel, recipe: Recipe, timed: bool) -> Tail:
    """The series of `new`, each after what is kept of the series of that name before it; where both have a row, the
    new one counts.

    Without a time column (`timed` false) rows of a known series go on where it ended. A series that begins before the
    kept steps or so long after them that nothing kept is looked back at, or that the fit did not see, is not joined; it
    must have the steps that a forecast needs.
    """
    known = {part.series.name: (part, state) for part, state in zip(tail.parts, tail.states, strict=True)}
    joined = [_continue(known.get(series.name), series, timed, recipe.past) for series in new.series]
    for part, _ in joined:
        steps = len(part.series)
        if steps <= recipe.first_origin:
            name = f"series '{part.series.name}'" if part.series.name else "the series"
            counted = "1 step" if steps == 1 else f"{steps} steps"
            raise DataError(
                f"{new.name}: {name} has {counted}, but a forecast needs at least {recipe.first_origin + 1}. Give more "
                "steps, or rows that follow the data of the fit."
            )
    parts, states = (tuple(column) for column in zip(*joined, strict=True))
    return Tail(replace(new, series=tuple(part.series for part in parts)), parts, states)


def _continue(
    found: tuple[SeriesPart, State | None] | None, new: Series, timed: bool, past: int
) -> tuple[SeriesPart, State | None]:
    if found is None:
        return SeriesPart(new), None
    (part, state), kept = found, found[0].series
    start = new.start if timed else kept.stop + new.start
    gap = start - kept.stop
    if gap > past or start <= kept.start + part.lead:
        return SeriesPart(new), None
    before, missing = len(kept) + min(gap, 0), np.full((max(gap, 0), new.covariates.shape[1]), np.nan)
    values = np.concatenate([kept.values[:before], np.full(max(gap, 0), np.nan), new.values])
    covariates = np.concatenate([kept.covariates[:before], missing, new.covariates])
    known = joined_known(kept, new.known, len(kept) + gap)
    return replace(part, series=replace(kept, values=values, covariates=covariates, known=known)), state


def joined_known(kept: Series, new: np.ndarray, at: int) -> np.ndarray:
    """What is known in advance of a series, with `new [N, K]` from its row `at` on; new values count where they are."""
    if not new.shape[1]:
        return kept.known
    rows = max(len(kept.known), at + len(new))
    found = np.full((rows, new.shape[1]), np.nan)
    found[: len(kept.known)] = kept.known
    place = found[max(at, 0) : at + len(new)]
    fresh = new[max(-at, 0) :]
    place[~np.isnan(fresh)] = fresh[~np.isnan(fresh)]
    return found


def merged(tail: Tail, new: Tail) -> Tail:
    """The tail with the series of `new` in place of those of their names, and after them those that it had not."""
    found = {part.series.name: (part, state) for part, state in zip(tail.parts, tail.states, strict=True)}
    found |= {part.series.name: (part, state) for part, state in zip(new.parts, new.states, strict=True)}
    parts, states = (tuple(column) for column in zip(*found.values(), strict=True))
    return Tail(replace(tail.panel, series=tuple(part.series for part in parts)), parts, states)


def tail_to_data(tail: Tail, net: ForecastNet) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A tail as plain data and tensors."""
    panel = tail.panel
    data = {
        "name": panel.name,
        "target": panel.target,
        "covariates": list(panel.covariates),
        "known": list(panel.known),
        "static": list(panel.static),
        "grid": asdict(panel.grid),
        "series": [
            {
                "name": part.series.name,
                "start": part.series.start,
                "rows": len(part.series),
                "lead": part.lead,
                "ahead": len(part.series.known),
                "static": list(part.series.static),
                "memory": part.memory.to_numbers() if part.memory else None,
            }
            for part in tail.parts
        ],
    }
    own = net.layer.initial_state(1)
    states = State.cat([own if state is None else state for state in tail.states])
    tensors = {
        "tail.values": torch.from_numpy(np.concatenate([part.series.values for part in tail.parts])),
        "tail.covariates": torch.from_numpy(np.concatenate([part.series.covariates for part in tail.parts])),
        "tail.known": torch.from_numpy(np.concatenate([part.series.known for part in tail.parts])),
    }
    return data, tensors | {name: tensor.detach().clone() for name, tensor in _named(states).items()}


def tail_from_data(data: TailData, tensors: dict[str, Tensor]) -> Panel:
    """The panel of a saved tail; its tensors are taken out of the others."""
    rows, ahead = [one.rows for one in data.series], [one.ahead for one in data.series]
    shapes = {
        "tail.values": (sum(rows),),
        "tail.covariates": (sum(rows), len(data.covariates)),
        "tail.known": (sum(ahead), len(data.known)),
    }
    values, covariates, known = (_taken(tensors, name, shape, torch.float64) for name, shape in shapes.items())
    pieces = zip(data.series, values.split(rows), covariates.split(rows), known.split(ahead), strict=True)
    series = tuple(
        Series(one.name, one.start, some.numpy(), extra.numpy(), before.numpy(), one.static)
        for one, some, extra, before in pieces
    )
    own = {"known": data.known, "static": data.static}
    return Panel(data.name, data.target, data.covariates, data.grid, series, (), **own)  # type: ignore[arg-type]


def _taken(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor that is taken out of the others, if it is of this shape and type."""
    found = tensors.pop(name, None)
    if found is None or found.shape != shape or found.dtype != dtype:
        got = "none" if found is None else f"{list(found.shape)} of {found.dtype}"
        raise ModelFileError(f"{name} must be {list(shape)} of {dtype}, got {got}")
    return found


def with_states(panel: Panel, data: TailData, tensors: dict[str, Tensor], net: ForecastNet) -> Tail:
    """The tail of a saved panel with its states, which are taken out of the tensors."""
    own = net.layer.initial_state(1)
    found = {
        name: _taken(tensors, name, (len(panel.series), *tensor.shape[1:]), tensor.dtype)
        for name, tensor in _named(own).items()
    }
    filled = State(
        [
            [{name: found[f"tail.state.{k}.{d}.{name}"] for name in named} for d, named in enumerate(layer)]
            for k, layer in enumerate(own.layers)
        ]
    )
    parts = tuple(
        SeriesPart(series, one.lead, None if one.memory is None else SeriesMemory.from_numbers(list(one.memory)))
        for series, one in zip(panel.series, data.series, strict=True)
    )
    return Tail(panel, parts, tuple(filled.rows([k]) for k in range(len(parts))))


def _named(state: State) -> dict[str, Tensor]:
    return {
        f"tail.state.{k}.{d}.{name}": tensor
        for k, layer in enumerate(state.layers)
        for d, named in enumerate(layer)
        for name, tensor in named.items()
    }
