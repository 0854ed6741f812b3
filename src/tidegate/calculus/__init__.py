"""Derivatives of graphs as graphs, and what can be said of a graph without running it."""

from tidegate.calculus.gates import Gate, Update, updates
from tidegate.calculus.hoist import Phases, phases
from tidegate.calculus.jacobian import Dense, Diagonal, StepJacobians, direct_jacobians, jacobians, on_diagonal
from tidegate.calculus.keep import Kept, kept
from tidegate.calculus.reverse import Adjoint, pulled_back, reverse, reverse_prologue
from tidegate.calculus.simplify import simplify, simplify_graph
from tidegate.calculus.structure import delay_lines, recurrent_matrices
from tidegate.calculus.tangent import Tangent, tangent

__all__ = [
    "Adjoint",
    "Dense",
    "Diagonal",
    "Gate",
    "Kept",
    "Phases",
    "StepJacobians",
    "Tangent",
    "Update",
    "delay_lines",
    "direct_jacobians",
    "jacobians",
    "kept",
    "on_diagonal",
    "phases",
    "pulled_back",
    "recurrent_matrices",
    "reverse",
    "reverse_prologue",
    "simplify",
    "simplify_graph",
    "tangent",
    "updates",
]
