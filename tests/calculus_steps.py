"""What one step of a cell is tried with."""

from torch import Tensor

from oracles.agreement import random_setting
from tidegate.equations import Graph


def first_step(graph: Graph) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    setting = random_setting(graph)
    if "n" in setting.states and graph.name == "slstm":
        setting.states["n"] = setting.states["n"].abs() + 0.5
    if "tau" in setting.weights:
        setting.weights["tau"] = setting.weights["tau"].abs() + 0.5
    return setting.weights, {k: x[0] for k, x in setting.inputs.items()}, setting.states
