"""Every exception and warning that Tidegate raises on purpose.

    TidegateError
    ├── EquationError (ValueError)      a cell's equations cannot be understood; names the user's file and line
    ├── ArgumentError (ValueError)      a layer, estimator or function was called with something it cannot use
    ├── DataError (ValueError)          a data file or frame is wrong; names file, row and column
    ├── ModelFileError (ValueError)     a saved model is damaged, too new, or not what it claims to be
    ├── TrainingError (RuntimeError)    a fit cannot go on: the loss is not finite, another process has the folder
    ├── NativeError (RuntimeError)      native code could not be made or run here
    ├── ConformanceError (AssertionError) a cell does not keep what layers promise; lists what is broken
    └── MissingExtraError (ImportError) an optional dependency is not installed; carries the line that installs it

    TidegateNotice (UserWarning)        something was done otherwise than asked, once, with the reason

Each message says what was expected, what was given and what to do.
"""


class TidegateError(Exception):
    """The root of the tree: `except tidegate.TidegateError` catches every error listed above."""


class EquationError(TidegateError, ValueError):
    """A cell's equations cannot be understood. `file` and `line` point at the user's own code, where known."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None) -> None:
        self.file, self.line = file, line
        place = f"{file}:{line}: " if file is not None else ""
        super().__init__(place + message)


class ArgumentError(TidegateError, ValueError):
    """A layer, estimator or function was called with something it cannot use."""


class DataError(TidegateError, ValueError):
    """A data file or frame is wrong; the message names file, row and column."""


class ModelFileError(TidegateError, ValueError):
    """A saved model is damaged, made by a newer version, or not what it claims to be."""


class TrainingError(TidegateError, RuntimeError):
    """A fit cannot go on."""


class NativeError(TidegateError, RuntimeError):
    """Native code could not be made or run here; layers then use the reference path."""


class ConformanceError(TidegateError, AssertionError):
    """A cell does not keep what layers promise. `broken` has a line for each promise."""

    def __init__(self, cell: str, broken: list[str]) -> None:
        self.cell, self.broken = cell, tuple(broken)
        super().__init__(f"cell {cell!r} does not keep {len(broken)} of its promises:\n" + "\n".join(broken))


class MissingExtraError(TidegateError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, what: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs the extra '{extra}': pip install 'tidegate[{extra}]'")


def type_of(value: object) -> str:
    """The type of a value with its article, for messages: "an int", "a GRU", "an LSTM"."""
    name = type(value).__name__
    spoken_with_a_vowel = "AEFHILMNORSX" if name[:2].isupper() else "AEIOaeio"  # initials are spelled out
    return f"{'an' if name[0] in spoken_with_a_vowel else 'a'} {name}"


class TidegateNotice(UserWarning):
    """Something was done otherwise than asked; said once, with the reason."""
