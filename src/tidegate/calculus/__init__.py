"""Derivatives of graphs as graphs, and what can be said of a graph without running it."""

from tidegate.calculus.hoist import Phases, phases
from tidegate.calculus.jacobian import Dense, Diagonal, StepJacobians, jacobians
from tidegate.calculus.keep import Kept, kept
from tidegate.calculus.reverse import Adjoint, reverse, reverse_prologue
from tidegate.calculus.simplify import simplify, simplify_graph
from tidegate.calculus.structure import delay_lines

__all__ = [
    "Adjoint",
    "Dense",
    "Diagonal",
    "Kept",
    "Phases",
    "StepJacobians",
    "delay_lines",
    "jacobians",
    "kept",
    "phases",
    "reverse",
    "reverse_prologue",
    "simplify",
    "simplify_graph",
]
