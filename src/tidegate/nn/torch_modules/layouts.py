"""How torch's recurrent modules store a cell's weights, as one table.

A row lists the tensors and row blocks whose sum is a weight of the cell.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

Terms = tuple[tuple[str, int], ...]
TENSORS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


@dataclass(frozen=True)
class TorchLayout:
    """The mapping of a module's tensors to a cell's weights."""

    cell: str
    blocks: int
    rows: Mapping[str, Terms]


def _both(name: str, k: int) -> dict[str, Terms]:
    return {
        f"{name}.x": (("weight_ih", k),),
        f"{name}.h": (("weight_hh", k),),
        f"{name}.bias": (("bias_ih", k), ("bias_hh", k)),
    }


def _gates(names: str) -> dict[str, Terms]:
    return {key: terms for k, name in enumerate(names.split()) for key, terms in _both(name, k).items()}


_CANDIDATE: dict[str, Terms] = {
    "n.x": (("weight_ih", 2),),
    "n.bias": (("bias_ih", 2),),
    "m.h": (("weight_hh", 2),),
    "m.bias": (("bias_hh", 2),),
}

TORCH: dict[str, TorchLayout] = {
    "LSTM": TorchLayout("lstm", 4, _gates("i f g o")),
    "LSTM with projection": TorchLayout("lstm_projection", 4, {**_gates("i f g o"), "p.m": (("weight_hr", 0),)}),
    "GRU": TorchLayout("gru_reset_after", 3, {**_gates("r z"), **_CANDIDATE}),
    "RNN_TANH": TorchLayout("elman", 1, _gates("h")),
    "RNN_RELU": TorchLayout("elman_relu", 1, _gates("h")),
}


def cell_weights(layout: TorchLayout, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The cell's weights computed from torch's tensors (by name without layer suffix); missing biases are zero."""
    parts = {name: (t,) if name == "weight_hr" else t.chunk(layout.blocks) for name, t in tensors.items()}
    rows = parts["weight_ih"][0]
    zero = rows.new_zeros(rows.shape[0])
    found: dict[str, Tensor] = {}
    for weight, terms in layout.rows.items():
        given = [parts[name][k] for name, k in terms if name in parts]
        found[weight] = given[0] if len(given) == 1 else sum(given[1:], given[0]) if given else zero
    return found
