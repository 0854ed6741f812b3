"""Every cell there is to test with: those that ship, and the hard ones of the examples."""

import importlib.util
from pathlib import Path

from tidegate.cells import CELLS
from tidegate.equations import Cell

_spec = importlib.util.spec_from_file_location("hard_cells", Path(__file__).parents[1] / "examples" / "hard_cells.py")
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

HARD: dict[str, Cell] = {name: value for name, value in vars(_module).items() if isinstance(value, Cell)}
EVERY: dict[str, Cell] = {**CELLS, **HARD}  # by its own name
ALL: dict[str, Cell] = {**{f"shipped {k}": v for k, v in CELLS.items()}, **{f"hard {k}": v for k, v in HARD.items()}}
