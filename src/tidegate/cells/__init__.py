"""The cells that Tidegate ships, each defined by its equations only."""

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from tidegate.cells import elementwise, greff, gru, lstm, minimal, simple
from tidegate.equations import Cell
from tidegate.errors import ArgumentError

FAMILIES = (simple, lstm, greff, gru, minimal, elementwise)
CELLS: Mapping[str, Cell] = MappingProxyType(
    {found.name: found for family in FAMILIES for found in vars(family).values() if isinstance(found, Cell)}
)


def get(name: str) -> Cell:
    """The cell with this name. Raises ArgumentError with the closest names if there is none."""
    if not isinstance(name, str):
        raise ArgumentError(f"a cell's name must be a string such as 'lstm', got {name!r}")
    if name in CELLS:
        return CELLS[name]
    small = name.lower()
    near = [small] if small in CELLS else get_close_matches(small, CELLS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ArgumentError(f"there is no cell {name!r}: {hint}`tidegate cells` lists them all")
