"""The slow reference implementation of every cell, on numpy or torch, which everything else is tested against."""

from tidegate.reference.program import Program, bound, evaluate, leaves, step, weight_shape

__all__ = ["Program", "bound", "evaluate", "leaves", "step", "weight_shape"]
