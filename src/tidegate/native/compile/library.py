"""The names of what does not depend on a cell: functions compiled once for a target and a type of numbers."""

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
    """The name under which kernels call a function of the library."""
    return f"tg_{function}_{dtype}_{target.name}"
