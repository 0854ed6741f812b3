"""What counts as missing, for tables and streams alike."""

WORDS = ("", "na", "n/a", "nan", "null", "none", "?", "-")  # of a number, in lower case; in a name they are words


def is_missing(value: object) -> bool:
    """None, NaN, NaT and pandas.NA."""
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):  # pandas.NA has no truth value, nor have arrays
        return type(value).__name__ == "NAType"
