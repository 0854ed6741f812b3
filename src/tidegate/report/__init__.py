"""Pages and figures: one-file HTML from parts, SVG text from numpy arrays. Independent of models and torch.

    from tidegate import report
    html = report.page("Forecast of co2", [
        report.banner("Better than seasonal naive by 12 %.", tone="good"),
        report.section("The series", report.figure(report.series(times, values), "Monthly means, ppm.")),
        report.section("The cell", report.formulas(cell.latex()), report.diagram(cell.diagram(), "One step.")),
    ])

Functions that make parts escape their strings; a page fetches nothing and needs no script.
"""

from tidegate.errors import MissingExtraError

try:
    import latex2mathml as _latex2mathml  # noqa: F401
    import matplotlib as _matplotlib  # noqa: F401
except ModuleNotFoundError as missing:
    raise MissingExtraError("app", "A report") from missing

from tidegate.report.diagnosis import diagnosis_page
from tidegate.report.figures import by_horizon, calibration, fan, learning_curve, series
from tidegate.report.formulas import formulas
from tidegate.report.gradients import agreement, by_rank, eigenvalues, gradient_norms
from tidegate.report.page import page
from tidegate.report.parts import (
    Part,
    banner,
    columns,
    details,
    diagram,
    figure,
    key_figures,
    listing,
    section,
    table,
    text,
)
from tidegate.report.traces import traces
from tidegate.report.units import Spread, per_unit, saturation

__all__ = [
    "Part",
    "Spread",
    "agreement",
    "banner",
    "by_horizon",
    "by_rank",
    "calibration",
    "columns",
    "details",
    "diagnosis_page",
    "diagram",
    "eigenvalues",
    "fan",
    "figure",
    "formulas",
    "gradient_norms",
    "key_figures",
    "learning_curve",
    "listing",
    "page",
    "per_unit",
    "saturation",
    "section",
    "series",
    "table",
    "text",
    "traces",
]
