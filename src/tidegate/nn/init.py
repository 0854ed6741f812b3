"""Initialisation as an option of a layer: `Recurrent("lstm", 8, 128, init=init.Chrono(200))`.

An option sets some of a cell's weights, found by their role in the equations, not by their names; the others start as
the cell declares. Options combine as a tuple, `(Glorot(), Chrono(200))`, where later ones override earlier ones.
Options without arguments may be named: "torch_uniform", "glorot", "orthogonal", "identity", "forget_bias".
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from tidegate.calculus import Gate, Update, recurrent_matrices, updates
from tidegate.cells import get
from tidegate.equations import Cell, Graph
from tidegate.equations.values import finite, products
from tidegate.errors import ArgumentError
from tidegate.nn.initialise import DRAWS, draw
from tidegate.reference import weight_shape

__all__ = ["Chrono", "ForgetBias", "Glorot", "Identity", "Init", "Orthogonal", "TorchUniform"]

Sizes = Mapping[str, int]


class Init:
    """Base class of options: which weights it sets, and to what."""

    def sets(self, cell: Cell | str) -> list[str]:
        """The names of the weights that it sets in a cell. Raises ArgumentError if there are none."""
        return self.names((get(cell) if isinstance(cell, str) else cell).graph)

    def names(self, graph: Graph) -> list[str]:
        """The names of the weights that it sets in a graph."""
        raise NotImplementedError

    def draw(self, graph: Graph, sizes: Sizes, dtype: torch.dtype) -> dict[str, Tensor]:
        """Draw the values of these weights with torch's generator; `dtype` is that of the weights."""
        raise NotImplementedError


# Matrices


@dataclass(frozen=True)
class _Scaled(Init):
    """An initialiser `rule` of the equation language, times a gain."""

    gain: float = 1.0
    rule: ClassVar[str]

    def __post_init__(self) -> None:
        checked = finite(self.gain)
        if checked is None or checked <= 0.0:
            raise ArgumentError(f"the gain of {type(self).__name__} must be a positive number, got {self.gain!r}")

    def draw(self, graph: Graph, sizes: Sizes, dtype: torch.dtype) -> dict[str, Tensor]:
        """Draw by the rule."""
        names = self.names(graph)
        return {n: DRAWS[self.rule](weight_shape(graph.weights[n], sizes), float(self.gain)) for n in names}


@dataclass(frozen=True)
class TorchUniform(Init):
    """Every matrix, and the bias of every linear, uniform on +-1 / sqrt(H), as torch's recurrent modules start.

    torch has two biases per gate, one with the input and one with the state; a bias here is the sum of both draws. The
    order of the draws is torch's: "lstm", "lstm_projection", "gru_reset_after", "elman" and "elman_relu" start with the
    weights of torch.nn.LSTM, GRU and RNN for the same seed on a CPU.
    """

    def names(self, graph: Graph) -> list[str]:
        """Matrices and biases of linears; other vectors, such as peepholes and gains, start as the cell declares."""
        biases = {v.args[-1] for v in _biased(graph)}
        found = [n for n, w in graph.weights.items() if w in biases or n in _matrices(graph)]
        return found or _refuse(self, graph, "has neither matrices nor linears with a bias")

    def draw(self, graph: Graph, sizes: Sizes, dtype: torch.dtype) -> dict[str, Tensor]:
        """Draw input matrices, state matrices, the biases of the first, those of the second, then all others."""
        limit, recurrent = 1.0 / math.sqrt(sizes["H"]), recurrent_matrices(graph)

        def one(name: str) -> Tensor:
            return torch.empty(weight_shape(graph.weights[name], sizes), dtype=dtype).uniform_(-limit, limit)

        pairs = [(m.attrs["name"], v.args[-1].attrs["name"]) for v in _biased(graph) for m, _ in products(v)]
        parts = [[p for p in pairs if (p[0] in recurrent) == on_state] for on_state in (False, True)]
        drawn = {matrix: one(matrix) for part in parts for matrix, _ in part}
        for part in parts:
            for bias in dict.fromkeys(bias for _, bias in part):
                drawn[bias] = one(bias) + drawn.get(bias, 0.0)
        return drawn | {n: one(n) for n in self.names(graph) if n not in drawn}


@dataclass(frozen=True)
class Glorot(_Scaled):
    """Every matrix uniform on +-gain sqrt(6 / (rows + columns)), gate by gate (Glorot & Bengio 2010, eq. 16)."""

    rule = "glorot"

    def names(self, graph: Graph) -> list[str]:
        """All learned matrices."""
        return _matrices(graph) or _refuse(self, graph, "has no matrices")


@dataclass(frozen=True)
class Orthogonal(_Scaled):
    """Every matrix on a state orthogonal times `gain`, gate by gate (Saxe, McClelland & Ganguli 2014, arXiv:1312.6120).

    A matrix that is not square has orthonormal rows or columns, whichever are fewer, times `gain`.
    """

    rule = "orthogonal"

    def names(self, graph: Graph) -> list[str]:
        """The learned matrices that multiply what depends on a state."""
        return _recurrent(graph) or _refuse(self, graph, "has no matrix that multiplies a state")


@dataclass(frozen=True)
class Identity(_Scaled):
    """Every square matrix on a state the identity times `gain`: meant for ReLU (Le, Jaitly & Hinton 2015,
    arXiv:1504.00941), where it carries the state unchanged."""

    rule = "identity"

    def names(self, graph: Graph) -> list[str]:
        """The square learned matrices that multiply what depends on a state."""
        found = [n for n in _recurrent(graph) if len(set(graph.weights[n].size)) == 1]
        return found or _refuse(self, graph, "has no square matrix that multiplies a state")


# Forget gates


@dataclass(frozen=True)
class ForgetBias(Init):
    """The forget gate starts open: its bias is `value` (Gers, Schmidhuber & Cummins 2000,
    doi:10.1162/089976600300015015; 1 or 2 in Jozefowicz, Zaremba & Sutskever 2015).

    The forget gate is the sigmoid that multiplies an old state in that state's own update; in a GRU it is z. Where
    1 - sigmoid does so, the bias is -value: either way a state initially keeps the share sigmoid(value), apart from
    the gate's other inputs.
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        if finite(self.value) is None:
            raise ArgumentError(f"the value of ForgetBias must be a finite number, got {self.value!r}")

    def names(self, graph: Graph) -> list[str]:
        """The biases of each forget gate."""
        return [b.attrs["name"] for u in _forgetting(self, graph) for b in u.keep[0].biases]

    def draw(self, graph: Graph, sizes: Sizes, dtype: torch.dtype) -> dict[str, Tensor]:
        """The value, for every unit."""
        found: dict[str, Tensor] = {}
        for gate in (u.keep[0] for u in _forgetting(self, graph)):
            shape = weight_shape(gate.biases[-1], sizes)
            found |= _opened(gate, torch.full(shape, float(self.value), dtype=torch.float64), sizes)
        return found


@dataclass(frozen=True)
class Chrono(Init):
    """Gates for dependencies of up to `T_max` steps: b_f = log u with u uniform on [1, T_max - 1], one draw per unit,
    and b_i = -b_f from the same draw (Tallec & Ollivier 2018, arXiv:1804.11188).

    The forget gate is found as for `ForgetBias`; the input gate is the other sigmoid that scales what enters the state.
    Where one gate does both, as z and 1 - z in a GRU, the two are tied already.
    """

    T_max: float

    def __post_init__(self) -> None:
        number = finite(self.T_max)
        if number is None or number <= 2.0:
            raise ArgumentError(f"the T_max of Chrono must be a number of steps above 2, got {self.T_max!r}")

    def names(self, graph: Graph) -> list[str]:
        """The biases of each forget gate and of the input gate beside it."""
        gates = [g for u in _forgetting(self, graph) for g in (u.keep[0], *self._entrance(graph, u))]
        return [b.attrs["name"] for g in gates for b in g.biases]

    def draw(self, graph: Graph, sizes: Sizes, dtype: torch.dtype) -> dict[str, Tensor]:
        """One draw per unit, with both signs."""
        found: dict[str, Tensor] = {}
        for update in _forgetting(self, graph):
            forget = update.keep[0]
            drawn = DRAWS["uniform"](weight_shape(forget.biases[-1], sizes), 1.0, float(self.T_max) - 1.0).log()
            found |= _opened(forget, drawn, sizes)
            for entrance in self._entrance(graph, update):
                found |= _opened(entrance, -drawn, sizes)
        return found

    def _entrance(self, graph: Graph, update: Update) -> list[Gate]:
        """The input gate, or none if the forget gate is the input gate too."""
        forget = update.keep[0]
        if any(g.sigmoid is forget.sigmoid for g in update.enter):
            return []
        size = forget.biases[-1].size
        fitting = [g for g in update.enter if g.biases and g.biases[-1].size == size]
        if len(fitting) != 1:
            found = ", ".join(g.name for g in fitting) or "none"
            raise ArgumentError(
                f"init={self!r} ties the bias of the forget gate {forget.name!r} to that of one input gate, but the "
                f"input gates of state {update.state!r} of cell {graph.name!r} with a bias are: {found}. Use "
                "ForgetBias, which sets the forget gate alone"
            )
        return fitting


def _forgetting(option: Init, graph: Graph) -> list[Update]:
    """The updates that have exactly one forget gate, with a bias to set."""
    found = [u for u in updates(graph) if u.keep]
    if not found:
        _refuse(option, graph, "has no forget gate: no sigmoid multiplies an old state in that state's own update")
    for update in found:
        if len(update.keep) > 1:
            names = ", ".join(g.name for g in update.keep)
            _refuse(option, graph, f"keeps state {update.state!r} by the product of {len(update.keep)} gates ({names})")
        if not update.keep[0].biases:
            _refuse(option, graph, f"has a forget gate {update.keep[0].name!r} without a bias")
    return found


def _opened(gate: Gate, value: Tensor, sizes: Sizes) -> dict[str, Tensor]:
    """The gate's biases that make it start at sigmoid(value); of several the last one is set and the others are 0."""
    *others, last = gate.biases
    zeros = {w.attrs["name"]: torch.zeros(weight_shape(w, sizes), dtype=torch.float64) for w in others}
    return zeros | {last.attrs["name"]: -value if gate.turned else value}


# Shared helpers


def _refuse(option: Init, graph: Graph, why: str) -> NoReturn:
    raise ArgumentError(f"init={option!r} has no effect: cell {graph.name!r} {why}; omit it")


def _matrices(graph: Graph) -> list[str]:
    return [n for n, w in graph.weights.items() if len(w.size) == 2 and w.attrs["learn"]]


def _recurrent(graph: Graph) -> list[str]:
    return [n for n in recurrent_matrices(graph) if graph.weights[n].attrs["learn"]]


def _biased(graph: Graph) -> list[Any]:
    """The linears with a learned bias, in the order written."""
    return [v for v in graph.values if v.op == "linear" and v.attrs["bias"] and v.args[-1].attrs.get("learn")]


# A layer's argument

NAMES: Mapping[str, type[Init]] = {
    "torch_uniform": TorchUniform,
    "glorot": Glorot,
    "orthogonal": Orthogonal,
    "identity": Identity,
    "forget_bias": ForgetBias,
}


def read_init(init: object, graph: Graph) -> tuple[Init, ...]:
    """Convert a layer's `init` to a tuple of options. Raises ArgumentError for other values and options without
    effect."""
    if init is None:
        return ()
    found = tuple(_option(o) for o in (init if isinstance(init, tuple) and init else (init,)))
    sets = [set(o.names(graph)) for o in found]
    for k, names in enumerate(sets):
        if names <= set().union(*sets[k + 1 :]):
            raise ArgumentError(
                f"init={found[k]!r} has no effect: a later option sets the same weights. Put it last or omit it"
            )
    return found


def _option(init: object) -> Init:
    if isinstance(init, Init):
        return init
    if not isinstance(init, str):
        raise ArgumentError(
            f"init must be an option of tidegate.init such as Orthogonal(), its name, or a tuple of these, got {init!r}"
        )
    if init not in NAMES:
        near = get_close_matches(init.lower(), NAMES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ArgumentError(
            f"unknown init {init!r}: {hint}expected {', '.join(NAMES)}, or Chrono with its number, "
            "as in tidegate.init.Chrono(200)"
        )
    return NAMES[init]()


def initial(graph: Graph, sizes: Sizes, chosen: Iterable[Init], dtype: torch.dtype) -> dict[str, Tensor]:
    """An initial value for each weight: by the options, where later ones override earlier ones, or as declared.

    Declared values are drawn first, so matrices do not depend on options for biases.
    """
    options = tuple(chosen)
    taken = {n for option in options for n in option.names(graph)}
    found = draw(graph, sizes, [n for n in graph.weights if n not in taken])
    for option in options:
        found |= option.draw(graph, sizes, dtype)
    return found
