"""`check_cell(cell)`: does a layer of this cell do everything that layers promise?

from tidegate.conformance import check_cell
check_cell(my_cell)  # raises ConformanceError, which names what is broken and by how much
"""

from tidegate.conformance.checks import CHECKS, check_cell

__all__ = ["CHECKS", "check_cell"]
