"""The report of a forecaster: one HTML page, and its numbers as plain data."""

from importlib.metadata import version
from typing import Any

import numpy as np

from tidegate import report
from tidegate.equations import Cell
from tidegate.equations.formats.latex import legend
from tidegate.report.parts import Part, Tone
from tidegate.tasks.forecast.fitted import Fitted, trace_end
from tidegate.tasks.forecast.judging.evaluation import NET, Evaluation
from tidegate.tasks.forecast.result import Forecast
from tidegate.tasks.forecast.story import Example, numbers

_TONES: dict[str, Tone] = {"better": "good", "same": "mixed", "worse": "bad"}
_MOST_FANS = 4
_BIASED = 0.1  # by which the share below the median may be off before the page says so
_RANKED = 5


def forecast_page(fitted: Fitted) -> str:
    """The page: verdict, forecast, series, judgement, training, gates and states, the cell, the run."""
    columns, story = fitted.columns, fitted.story
    several = f"{story.series} series, in all " if story.series > 1 else ""
    subtitle = f"{story.data}: {several}{story.steps} steps of {fitted.tail.panel.grid.spacing}"
    parts = [
        report.banner(fitted.verdict, tone=_TONES[fitted.evaluation.outcome]),
        _key_figures(fitted),
        _forecast(fitted),
        _series(fitted),
        _judgement(fitted),
        _training(fitted),
        _inside(fitted),
        _cell(fitted.net.layer.cell),
        _run(fitted),
    ]
    title = f"Forecast of {columns.target}"
    return report.page(title, parts, subtitle=subtitle, footer=f"Written by Tidegate {version('tidegate')}.")


def forecast_numbers(fitted: Fitted) -> dict[str, Any]:
    """Every number of the page, as plain data."""
    forecast = fitted.forecast(fitted.tail)
    return {
        "verdict": fitted.verdict,
        "evaluation": fitted.evaluation.to_json(),
        "forecast": forecast.to_json(),
        "history": fitted.history.to_json(),
        "options": fitted.options.model_dump(),
        "data": fitted.story.to_json(),
        "parameters": _parameters(fitted),
    }


def _key_figures(fitted: Fitted) -> Part:
    evaluation = fitted.evaluation
    ours, theirs = evaluation.scores[NET], evaluation.scores[evaluation.best_baseline]
    gain = f"{evaluation.gain:+.1%}".replace("-", "−") if theirs["scaled_loss"] > 0 else "–"
    return report.key_figures(
        [
            (gain, f"gain on {evaluation.best_baseline}", "scaled quantile loss, held out"),
            (f"{ours['mae']:.4g}", "mean absolute error", f"in units of {fitted.columns.target}"),
            (_number(ours["mase"], ".3g"), "MASE", "error in units of the usual change from season to season"),
            (f"{ours['coverage']:.0%}", f"in the {evaluation.interval:.0%} interval", "of held-out values"),
        ]
    )


def _forecast(fitted: Fitted) -> Part:
    forecast, target = fitted.forecast(fitted.tail), fitted.columns.target
    back = max(3 * fitted.recipe.horizon, 2 * fitted.recipe.season)
    fans = []
    grid, ahead = fitted.tail.panel.grid, np.arange(fitted.recipe.horizon)
    for index, series in enumerate(fitted.tail.panel.series[:_MOST_FANS]):
        values = series.values[-back:]
        times = grid.clocks(np.arange(series.stop - len(values), series.stop))
        fan = report.fan(times, values, grid.clocks(series.stop + ahead), _paired(forecast, index), unit=target)
        name = f"Series {series.name}: the" if series.name else "The"
        fans.append(report.figure(fan, f"{name} next {fitted.recipe.horizon} steps after the end of the data."))
    more = len(fitted.tail.panel.series) - _MOST_FANS
    rest = [report.text(f"{more} more series are in the JSON beside this page.")] if more > 0 else []
    rows = _forecast_rows(forecast)
    header = [fitted.columns.time or "step", *(f"{level:g}" for level in forecast.levels)]
    table = report.details("The numbers of the first series: quantiles by level", report.table(header, rows))
    return report.section("The forecast", *fans, *rest, table)


def _paired(forecast: Forecast, index: int) -> dict[float, np.ndarray]:
    levels = forecast.levels
    return {
        level: forecast.quantiles[index][:, k]
        for k, level in enumerate(levels)
        if any(abs(level + other - 1) < 1e-9 for other in levels)
    }


def _forecast_rows(forecast: Forecast) -> list[list[str]]:
    return [
        [text, *(f"{value:.4f}" for value in row)]
        for text, row in zip(forecast.texts[0], forecast.quantiles[0], strict=True)
    ]


def _number(value: float, style: str) -> str:
    return "–" if np.isnan(value) else f"{value:{style}}"


def _series(fitted: Fitted) -> Part:
    story, grid = fitted.story, fitted.tail.panel.grid
    picture = report.series(
        grid.clocks(np.array(story.places)), numbers(story.values), parts=story.parts, unit=fitted.columns.target
    )
    name = f"Series {story.shown}. " if story.shown else ""
    caption = f"{name}The held-out part was not used for scales, for training or for when to stop."
    return report.section("The series", report.figure(picture, caption), report.text(*story.notes))


def _judgement(fitted: Fitted) -> Part:
    evaluation, target = fitted.evaluation, fitted.columns.target
    curves = {method: np.array(found["quantile_loss"]) for method, found in evaluation.by_horizon.items()}
    lines = report.by_horizon(curves, label=f"quantile loss ({target})", ours=NET)
    dots = report.calibration(evaluation.levels, evaluation.below[NET])
    caption = "Of all held-out values, the share at or below each quantile; on the diagonal it is the share promised."
    shown = [report.figure(_example(fitted, example), example.title + ".") for example in fitted.story.examples]
    return report.section(
        "Judged on the held-out part",
        report.text(_method(fitted)),
        _score_table(fitted),
        *_ranking(fitted),
        report.columns(
            report.figure(lines, "The mean quantile loss by steps ahead; lower is better."),
            report.figure(dots, f"{caption} {_bias(evaluation)}"),
        ),
        *shown,
    )


def _method(fitted: Fitted) -> str:
    evaluation, comparison = fitted.evaluation, fitted.evaluation.comparison
    interval = (
        "There are too few of them for an interval of the difference."
        if comparison.low is None
        else f"The interval of the difference rests on {comparison.blocks} {comparison.over}, taken as independent."
    )
    refitted = "" if not fitted.refitted else " The forecast above is by the same net, fitted again on all of the data."
    return (
        f"{evaluation.origins} forecasts were made over the held-out part, {fitted.recipe.horizon} steps ahead, each "
        "from what was known then. The loss is the mean quantile score: the absolute error, extended to all quantiles; "
        "scaled, it is in units of the series' usual change from season to season, and so is MASE, the scaled error of "
        f"the median. {interval} The untrained start is the mixture of plain forecasts that training begins with: "
        f"training brought its loss {'down' if evaluation.learned >= 0 else 'up'} by {abs(evaluation.learned):.1%}."
        f"{refitted}"
    )


def _bias(evaluation: Evaluation) -> str:
    """What the calibration picture says of the median, in words."""
    share = evaluation.below[NET][evaluation.levels.index(0.5)]
    if abs(share - 0.5) <= _BIASED:
        return "The median forecast was too high about as often as too low."
    side = "too high" if share > 0.5 else "too low"
    return f"The median forecast was {side} for {max(share, 1 - share):.0%} of the values."


def _ranking(fitted: Fitted) -> list[Part]:
    """The series with the best and the worst result beside the best baseline."""
    scored = [one for one in fitted.evaluation.by_series if np.isfinite(one.net) and np.isfinite(one.baseline)]
    if len(scored) < 2:
        return []
    order = sorted(scored, key=lambda one: one.net - one.baseline)
    shown = order if len(order) <= 2 * _RANKED else order[:_RANKED] + order[-_RANKED:]
    rows = [[one.name, f"{one.net:.3g}", f"{one.baseline:.3g}", str(one.origins)] for one in shown]
    won = sum(one.net < one.baseline for one in scored) / len(scored)
    caption = f"The net was ahead in {won:.0%} of {len(scored)} series. Best first" + (
        "." if len(shown) == len(order) else f": the first and the last {_RANKED}."
    )
    header = ["series", "net, scaled loss", fitted.evaluation.best_baseline, "forecasts"]
    return [report.table(header, rows, caption=caption)]


def _score_table(fitted: Fitted) -> Part:
    evaluation = fitted.evaluation
    names = ("scaled_loss", "quantile_loss", "mae", "rmse", "mase", "coverage")
    held = f"in {evaluation.interval:.0%} interval"
    header = ["method", "scaled quantile loss", "quantile loss", "MAE", "RMSE", "MASE", held]
    rows = [
        [method, *(_number(scores[name], ".4g") for name in names[:-1]), _number(scores["coverage"], ".1%")]
        for method, scores in evaluation.scores.items()
    ]
    return report.table(header, rows, strong=[list(evaluation.scores).index(NET)])


def _example(fitted: Fitted, example: Example) -> str:
    grid, history = fitted.tail.panel.grid, numbers(example.history)
    times = grid.clocks(np.arange(example.place - len(history) + 1, example.place + 1))
    ahead = grid.clocks(np.arange(example.place + 1, example.place + 1 + fitted.recipe.horizon))
    whole = Forecast(("",), ahead[None], fitted.options.quantiles, np.array([example.quantiles]), "", "", None, grid)
    return report.fan(
        times, history, ahead, _paired(whole, 0), truth=numbers(example.truth), unit=fitted.columns.target
    )


def _training(fitted: Fitted) -> Part:
    history = fitted.history
    checks = history.checks[1:] or history.checks
    curves = {
        "training": np.array([np.nan if check.training is None else check.training for check in checks]),
        "validation": np.array([check.validation for check in checks]),
    }
    best = history.best - (len(history.checks) - len(checks))
    picture = report.learning_curve(curves, best=best if best >= 0 else None, label="quantile loss, scaled", x="check")
    end = history.finished
    words = (
        f"Training took {end.updates} updates in {end.seconds:.0f} s and ended because {end.reason}. "
        f"The weights after update {end.best_update}, of the lowest validation loss, were kept."
    )
    if end.best_update == 0:
        words += " No update improved on the mixture of plain forecasts from which training starts."
    return report.section(
        "Training", report.figure(picture, "The loss at each check on the validation part."), report.text(words)
    )


def _inside(fitted: Fitted) -> Part:
    times, traced = trace_end(fitted)
    graph = fitted.net.layer.cell.graph
    gates = {name: traced[name] for name, value in graph.named.items() if value.op == "sigmoid" and name in traced}
    order = sorted(
        (state.name for state in graph.states if not state.bookkeeping), key=lambda name: name == graph.output_name
    )
    states = {name: traced[name] for name in order if name in traced}
    legends = {name: value.legend for name, value in graph.named.items() if value.legend}
    picture = report.traces(gates, states, times=times, legends=legends)
    caption = "The top layer over the last steps of the data: gates between 0 and 1, then the states."
    return report.section("Gates and states over time", report.figure(picture, caption))


def _cell(cell: Cell) -> Part:
    return report.section(
        f"The cell: {cell.name}",
        report.text(cell.source),
        report.formulas(cell.latex(), legend=legend(cell.graph)),
        report.diagram(cell.diagram(), "One step."),
    )


def _run(fitted: Fitted) -> Part:
    rows = [[name.replace("_", " "), _shown(value)] for name, value in fitted.options.model_dump().items()]
    rows += [
        ["season used", str(fitted.recipe.season)],
        ["context used", str(fitted.recipe.context)],
        ["learned weights", str(_parameters(fitted))],
    ]
    return report.section("The run", report.table(["what", "value"], rows))


def _shown(value: object) -> str:
    if value is None:
        return "not given"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _parameters(fitted: Fitted) -> int:
    return sum(weight.numel() for weight in fitted.net.parameters())
