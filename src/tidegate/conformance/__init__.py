"""Does a cell keep the contract that layers promise? `check_cell(cell)` tries it, point by point.

from tidegate.conformance import check_cell
check_cell(my_cell)  # raises ConformanceError, which names what is broken and by how much
"""

from tidegate.conformance.checks import CHECKS, check_cell

__all__ = ["CHECKS", "check_cell"]
