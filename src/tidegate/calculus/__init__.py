"""Derivatives of graphs as graphs, and properties of graphs found without running them."""

from tidegate.calculus.gates import Gate, Update, updates
from tidegate.calculus.jacobian import Dense, Diagonal, StepJacobians, direct_jacobians, jacobians, on_diagonal
from tidegate.calculus.jvp import Tangent, independent, jvp
from tidegate.calculus.phases import Phases, phases
from tidegate.calculus.recurrence import delay_lines, recurrent_matrices
from tidegate.calculus.saved import Kept, kept
from tidegate.calculus.simplify import simplify, simplify_graph
from tidegate.calculus.vjp import Adjoint, pulled_back, reverse_prologue, vjp

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
    "independent",
    "jacobians",
    "jvp",
    "kept",
    "on_diagonal",
    "phases",
    "pulled_back",
    "recurrent_matrices",
    "reverse_prologue",
    "simplify",
    "simplify_graph",
    "updates",
    "vjp",
]
