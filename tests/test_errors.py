"""The tree drawn in errors.py is the tree of the classes, and each message is whole."""

import builtins
import inspect
import re

import pytest

from tidegate import errors
from tidegate.errors import EquationError, MissingExtraError, TidegateError, TidegateNotice, type_of

LINE = re.compile(r"^\s*(?:[├└]── )?(Tidegate\w+|\w+Error)(?: \((\w+)\))? *", re.MULTILINE)


def drawn() -> dict[str, set[str]]:
    tree = (errors.__doc__ or "").split("\n\n", 1)[1]
    found = {}
    for match in LINE.finditer(tree):
        root = "TidegateError" if re.match(r"\s*[├└]", match.group()) else ""
        found[match.group(1)] = {base for base in (root, match.group(2)) if base}
    return found


def test_the_drawn_tree_is_the_real_one() -> None:
    classes = {n: c for n, c in vars(errors).items() if inspect.isclass(c) and c.__module__ == errors.__name__}
    real = {name: {base.__name__ for base in c.__bases__} - {"Exception"} for name, c in classes.items()}
    assert drawn() == real
    assert len(real) >= 8


def test_every_error_is_also_a_builtin_one_that_people_catch() -> None:
    for name, bases in drawn().items():
        (builtin,) = bases - {"TidegateError"} or {"Exception"}
        assert issubclass(getattr(errors, name), getattr(builtins, builtin))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({}, "i is used and never bound"),
        ({"file": "mine.py", "line": 7}, "mine.py:7: i is used and never bound"),
    ],
)
def test_an_equation_error_points_at_the_line(where: dict[str, object], message: str) -> None:
    error = EquationError("i is used and never bound", **where)
    assert str(error) == message
    assert (error.file, error.line) == (where.get("file"), where.get("line"))


def test_a_missing_extra_says_how_to_install_it() -> None:
    error = MissingExtraError("app", "reading a table")
    assert str(error) == "reading a table needs the extra 'app': pip install 'tidegate[app]'"
    assert error.extra == "app"


def test_a_notice_is_no_error() -> None:
    assert issubclass(TidegateNotice, UserWarning)
    assert not issubclass(TidegateNotice, TidegateError)


@pytest.mark.parametrize(
    ("name", "article"),
    [("OnlineRegressor", "an"), ("Forecaster", "a"), ("LSTM", "an"), ("GRU", "a"), ("RNN", "an"), ("int", "an"),
     ("str", "a"), ("UserDict", "a"), ("Adam", "an"), ("A", "an")],
)  # fmt: skip
def test_a_type_has_the_article_of_how_it_is_spoken(name: str, article: str) -> None:
    assert type_of(type(name, (), {})()) == f"{article} {name}"
