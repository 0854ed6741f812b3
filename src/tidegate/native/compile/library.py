"""The names of the shared library's functions, compiled once for a target and a dtype."""

from tidegate.native.target import DType, Target

FUNCTIONS = (
    *(f"product{n}" for n in range(1, 5)),
    "pack_transposed",
    "pack_plain",
    "weight_gradient",
    "total",
    "spread",
    "gather",
    "barrier",
)


def symbol(function: str, target: Target, dtype: DType) -> str:
    """The symbol of a library function."""
    return f"tg_{function}_{dtype}_{target.name}"
