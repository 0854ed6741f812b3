"""The rows of each series of a table, in long form or in wide form, before they are placed on a grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidegate.data.tables.delimited import no_column
from tidegate.data.tables.numbers import kind_of
from tidegate.data.tables.table import Table
from tidegate.data.values import WORDS
from tidegate.errors import ArgumentError, DataError


@dataclass(frozen=True)
class Roles:
    """Which column is what: the target, the time, the series' name, covariates, known ones, and static features."""

    target: str
    time: str | None
    id: str | None
    covariates: tuple[str, ...]
    known: tuple[str, ...]
    static: tuple[str, ...]

    def check(self) -> None:
        """Raise ArgumentError where a column has two roles."""
        if self.target in self.covariates + self.known:
            raise ArgumentError(
                f"The target '{self.target}' cannot be its own covariate: its past is read anyway. Leave it out of "
                "the covariates."
            )
        named = [self.target, self.time, self.id, *self.covariates, *self.known, *self.static]
        given = [name for name in named if name is not None]
        twice = next((name for name in given if given.count(name) > 1), None)
        if twice is not None:
            raise ArgumentError(f"Column '{twice}' is given two roles. Name each column once.")


@dataclass(frozen=True)
class SeriesRows:
    """One series: the numbers of its rows in the table `[n]`, the target `[n]`, the columns beside it `[n, C]`, and its
    static features.
    """

    name: str
    index: np.ndarray
    values: np.ndarray
    beside: np.ndarray
    static: tuple[float | str, ...] = ()

    def taken(self, order: np.ndarray) -> "SeriesRows":
        """The rows in another order."""
        return SeriesRows(self.name, self.index[order], self.values[order], self.beside[order], self.static)


Placed = tuple[SeriesRows, np.ndarray]  # the rows of a series, and the place of each on a grid


def long_rows(table: Table, roles: Roles) -> list[SeriesRows]:
    """Rows whose column `id` names their series, in the order in which the names first occur."""
    _check_target(table, roles.target)
    values, beside = table.numbers(roles.target), _columns(table, roles.covariates + roles.known)
    if np.isnan(values).all():
        raise DataError(f"{table.name} has no value in column '{roles.target}'. Expected a number in most of its rows.")
    groups = _groups(table, roles.id)
    static = [_static(table, name, groups) for name in roles.static]
    return [
        SeriesRows(name, index, values[index], beside[index], tuple(column[name] for column in static))
        for name, index in groups.items()
    ]


def wide_rows(table: Table, roles: Roles) -> list[SeriesRows]:
    """Rows in which each column is a series, but for the time and the columns that all series share."""
    if roles.id is not None or roles.static or roles.target in table.columns:
        problem = (
            f"target='{roles.target}' is a column" if roles.target in table.columns
            else "id and static name columns of a long table"
        )  # fmt: skip
        raise ArgumentError(
            f"With wide, each column but the time and the covariates is a series, and target is what to call their "
            f"values: {problem}. Give a target such as 'value', and no id."
        )
    shared = {roles.time, *roles.covariates, *roles.known}
    beside, index = _columns(table, roles.covariates + roles.known), np.arange(table.frame.height)
    names = [name for name in table.columns if name not in shared]
    rows = [SeriesRows(name, index, table.numbers(name), beside) for name in names]
    if not any((~np.isnan(one.values)).any() for one in rows):
        raise DataError(f"{table.name} has no values. Expected a column for each series.")
    return rows


def _columns(table: Table, names: Sequence[str]) -> np.ndarray:
    return np.array([table.numbers(name) for name in names]).reshape(len(names), table.frame.height).T


def _check_target(table: Table, target: str) -> None:
    if target in table.columns:
        return
    error = no_column(table.name, target, table.columns)
    first = (str(value) for column in table.frame.head(1) for value in column)
    if sum(bool(kind_of(value)) for value in first) >= 2:
        raise DataError(f"{error} If each column is a series of its own, add --wide (in Python wide=True).")
    raise error


def _groups(table: Table, id: str | None) -> dict[str, np.ndarray]:
    if id is None:
        return {"": np.arange(table.frame.height)}
    names = table.texts(id)
    if names.null_count():
        raise DataError(
            f"{table.place(int(names.is_null().arg_max() or 0), id)} is empty. "
            "Expected the name of a series in every row."
        )
    found, inverse = np.unique(names.to_numpy(), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    groups = {str(name): part for name, part in zip(found, parts, strict=True)}
    return dict(sorted(groups.items(), key=lambda item: int(item[1][0])))


def _static(table: Table, name: str, groups: dict[str, np.ndarray]) -> dict[str, float | str]:
    """The one value of each series: a number where the whole column holds numbers, else text; missing where empty."""
    text = table.texts(name, WORDS)
    numeric = all(kind_of(value) for value in text.drop_nulls().unique())
    values = table.numbers(name) if numeric else table.texts(name).to_numpy()
    found: dict[str, float | str] = {}
    for series, index in groups.items():
        known = [int(row) for row in index if text[int(row)] is not None]
        other = next((row for row in known if values[row] != values[known[0]]), None)
        if other is not None:
            raise DataError(
                f"{table.place(other, name)}: {text[other]!r}, but series '{series}' has {text[known[0]]!r} in row "
                f"{table.rows[known[0]]}. Expected one value in all rows of a series; name a column that varies as a "
                "covariate."
            )
        missing = np.nan if numeric else ""
        value = values[known[0]] if known else missing
        found[series] = float(value) if numeric else str(value)
    return found
