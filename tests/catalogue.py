"""Every cell there is to test with: those that ship, and the hard ones of the examples."""

from from_file import module_of
from tidegate.cells import CELLS
from tidegate.equations import Cell

HARD: dict[str, Cell] = {
    name: value for name, value in vars(module_of("examples/hard_cells.py")).items() if isinstance(value, Cell)
}
EVERY: dict[str, Cell] = {**CELLS, **HARD}  # by its own name
ALL: dict[str, Cell] = {**{f"shipped {k}": v for k, v in CELLS.items()}, **{f"hard {k}": v for k, v in HARD.items()}}
