"""A forecaster on one screen."""

from textwrap import fill

from tidegate.config import ForecastOptions
from tidegate.tasks.forecast.fitted import Fitted
from tidegate.tasks.forecast.version1 import FittedVersion1

_WIDTH = 100


def forecaster_text(options: ForecastOptions, fitted: Fitted | FittedVersion1 | None) -> str:
    """The options that differ from their defaults, and what a fit found."""
    fields = type(options).model_fields
    given = [f"{n}={v!r}" for n, v in options.model_dump().items() if fields[n].is_required() or v != fields[n].default]
    lines = [fill(f"Forecaster({', '.join(given)})", _WIDTH, subsequent_indent="    ")]
    if fitted is None:
        return "\n".join([*lines, "not fitted: call fit(data, target=...)"])
    lines.append(fill(fitted.verdict, _WIDTH, initial_indent="  ", subsequent_indent="  "))
    if isinstance(fitted, Fitted):
        story, cell, weights = fitted.story, fitted.net.layer.cell.name, fitted.net.parameters()
        series = f"{story.series} series, {story.steps} steps" if story.series > 1 else f"{story.steps} steps"
        lines.append(f"  data: {fitted.columns.target} of {story.data}, {series} of {fitted.tail.panel.grid.spacing}")
        lines.append(f"  net: {cell}, {sum(weight.numel() for weight in weights)} weights, {_predicts(fitted)}")
    return "\n".join(lines)


def _predicts(fitted: Fitted) -> str:
    if fitted.instead is not None:
        return f"replaced by {fitted.instead}"
    return "trained again after scoring" if fitted.refitted else "the scored one"
