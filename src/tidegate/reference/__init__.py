"""The slow definition of every cell, over numpy or torch; what everything else is tested against."""

from tidegate.reference.program import Program, bound, evaluate, leaves, step, weight_shape

__all__ = ["Program", "bound", "evaluate", "leaves", "step", "weight_shape"]
