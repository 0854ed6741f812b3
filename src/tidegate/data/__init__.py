"""Readers of tables, regular time grids, series with their gaps marked, windows, batches by length, a real series."""

from tidegate.data.buckets import BucketBatches
from tidegate.data.calendar import calendar_features
from tidegate.data.check import TableCheck, check_table
from tidegate.data.grid import Grid, infer_grid
from tidegate.data.panel import Panel, Series, read_panel
from tidegate.data.resample import How, Reading
from tidegate.data.samples import sample
from tidegate.data.stream import Row, read_stream
from tidegate.data.tables.numbers import Decimal
from tidegate.data.tables.table import Table, read_table
from tidegate.data.windows import draw_windows, window_rows

__all__ = [
    "BucketBatches",
    "Decimal",
    "Grid",
    "How",
    "Panel",
    "Reading",
    "Row",
    "Series",
    "Table",
    "TableCheck",
    "calendar_features",
    "check_table",
    "draw_windows",
    "infer_grid",
    "read_panel",
    "read_stream",
    "read_table",
    "sample",
    "window_rows",
]
