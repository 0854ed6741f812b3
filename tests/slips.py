"""Cells with a slip: what the reader says of them, and that it points at the right line of this project's own tests."""

from collections.abc import Callable
from inspect import getsourcelines
from typing import Any

import pytest

from tidegate.equations import Value, cell, linear, tanh
from tidegate.errors import EquationError

SIGN = "# here"


def message_at(error: EquationError, file: str, line: int) -> str:
    """The text after `file:line: `, which must be these."""
    assert (error.file, error.line) == (file, line)
    place = f"{file}:{line}: "
    assert str(error).startswith(place)
    return str(error).removeprefix(place)


def complaint(function: Callable[..., Any], **header: Any) -> str:
    """What is said of a cell, at its line marked `# here`, or else at its first line."""
    lines, first = getsourcelines(function)
    marked = [first + k for k, line in enumerate(lines) if SIGN in line]
    with pytest.raises(EquationError) as caught:
        cell(**{"states": "h", "source": "a slip", **header})(function)
    return message_at(caught.value, function.__code__.co_filename, marked[0] if marked else first)


def complaint_within(slip: Callable[[Value, Value], Any]) -> str:
    """What is said of one expression in an otherwise sound cell, at the expression's own line."""

    def step(x, h):
        found = slip(x, h)
        new = tanh(linear("step", x, h))
        return new + found if isinstance(found, Value) and found.size in (("H",), (1,)) else new

    with pytest.raises(EquationError) as caught:
        cell(states="h", source="a slip")(step)
    return message_at(caught.value, slip.__code__.co_filename, slip.__code__.co_firstlineno)
