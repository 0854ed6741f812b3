"""`check_cell`: runs every check on a cell and lists the promises that are broken."""

from collections.abc import Callable, Iterable, Mapping

from tidegate.conformance import as_module, over_time, processes
from tidegate.conformance.subject import Broken, CheckedCell, Inputs
from tidegate.equations import Cell
from tidegate.errors import ArgumentError, ConformanceError

CHECKS: Mapping[str, Callable[[CheckedCell], None]] = {
    "texts": as_module.texts,
    "initial values": as_module.initial_values,
    "shapes": as_module.shapes,
    "types": as_module.types,
    "sequence": over_time.sequence,
    "steps and chunks": over_time.steps_and_chunks,
    "lengths": over_time.lengths,
    "backward direction": over_time.backward_direction,
    "resets": over_time.resets,
    "order of rows": over_time.order_of_rows,
    "nothing": over_time.nothing,
    "threads": over_time.threads,
    "fresh weights": over_time.fresh_weights,
    "kernels": over_time.kernels,
    "derivatives": as_module.derivatives,
    "copies": as_module.copies,
    "meta device": as_module.meta_device,
    "parametrisations": as_module.parametrisations,
    "processes": processes.distributed,
}


def check_cell(
    cell: Cell, *, only: Iterable[str] | None = None, inputs: Inputs | None = None, **sizes: int
) -> tuple[str, ...]:
    """Check that a layer of this cell does everything that layers promise.

    `only` names some of `CHECKS`; `inputs(T, B)` makes the inputs by name, `[T, B, size]` or `[B, size]` for those of a
    sequence, where normally distributed numbers would mean nothing to the cell; `sizes` binds its further letters.
    Returns the names of the checks that were run. Raises ConformanceError, which lists every promise that is broken.
    """
    if not isinstance(cell, Cell):
        raise ArgumentError(f"check_cell takes a Cell, got {type(cell).__name__}: decorate its function with @cell")
    chosen = list(CHECKS) if only is None else list(only)
    unknown = [name for name in chosen if name not in CHECKS]
    if unknown:
        raise ArgumentError(f"there is no check {unknown[0]!r}: the checks are {', '.join(CHECKS)}")
    subject = CheckedCell(cell, inputs, sizes)
    broken = [said for name in chosen if (said := _said(name, subject)) is not None]
    if broken:
        raise ConformanceError(cell.name, broken)
    return tuple(chosen)


def _said(name: str, subject: CheckedCell) -> str | None:
    try:
        CHECKS[name](subject)
    except Broken as found:
        return f"{name}: {found}"
    except Exception as error:  # noqa: BLE001 - whatever a check meets is what it has to tell
        return f"{name}: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return None
