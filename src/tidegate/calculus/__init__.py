"""Derivatives of graphs as graphs, and properties of graphs found without running them."""

from tidegate.calculus.gates import Gate, Update, updates
from tidegate.calculus.jacobian import Dense, Diagonal, StepJacobians, direct_jacobians, jacobians, on_diagonal
from tidegate.calculus.jvp import Tangent, independent, jvp
from tidegate.calculus.recurrence import recurrent_matrices
from tidegate.calculus.saved import saved_values
from tidegate.calculus.simplify import simplify_graph
from tidegate.calculus.vjp import StepVJP, pulled_back, vjp

__all__ = [
    "Dense",
    "Diagonal",
    "Gate",
    "StepJacobians",
    "StepVJP",
    "Tangent",
    "Update",
    "direct_jacobians",
    "independent",
    "jacobians",
    "jvp",
    "on_diagonal",
    "pulled_back",
    "recurrent_matrices",
    "saved_values",
    "simplify_graph",
    "updates",
    "vjp",
]
