"""Layers held against the slow oracle: which cells, how they are set up, and the comparison itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from catalogue import EVERY
from oracles import ORACLES
from oracles.common import Oracle
from oracles.sequence import Direction, Plan, run_rows, with_options
from tidegate.cells import CELLS
from tidegate.equations import Cell, Rate, cell, linear, mean, sigmoid, spread, tanh, weight
from tidegate.nn import Recurrent, State
from tidegate.reference import bound

T, B, I, H = 6, 4, 3, 12  # noqa: E741 - the project's word for the input size
SIZES = {"P": 5, "S": 4, "R": 2, "N": 8, "G": 6}
TOLERANCE = 1e-10
Tensors = dict[str, Tensor]


@cell(states="h", inputs="x who:S@sequence rate:1@sequence", source="a test: inputs that come once a sequence")
def told_once(x, who, rate, h):
    k = sigmoid(linear("k", who))
    h = (1 - rate * k) * h + rate * k * tanh(linear("n", x, h))
    return h


def told_once_oracle(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    k = 1 / (1 + torch.exp(-(inputs["who"] @ w["k.who"].T + w["k.bias"])))
    n = torch.tanh(inputs["x"] @ w["n.x"].T + states["h"] @ w["n.h"].T + w["n.bias"])
    h = states["h"] + inputs["rate"] * k * (n - states["h"])
    return h, {"h": h}


@cell(states="h:1 c", source="a test: the output and a state of one unit, a state whose new value is a scalar")
def narrow(x, h, c):
    c_new = mean(c) * weight("a", size=1, init=0.5) + h
    h = tanh(linear("h", x, c, h, size=1))
    return h, c_new


def narrow_oracle(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    c = (states["c"].sum(1, keepdim=True) / states["c"].shape[1]) * w["a"] + states["h"]
    net = inputs["x"] @ w["h.x"].T + states["c"] @ w["h.c"].T + states["h"] @ w["h.h"].T + w["h.bias"]
    return torch.tanh(net), {"h": torch.tanh(net), "c": c.expand(states["c"].shape)}


@cell(states="c", source="a test: the output is a state of H units whose value is a scalar")
def broadcast(x, c):
    c = 0.5 * mean(c) + mean(linear("g", x)) * weight("a", size=1, init=0.5)
    return c


def broadcast_oracle(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    g = inputs["x"] @ w["g.x"].T + w["g.bias"]
    c = (0.5 * states["c"].mean(1, keepdim=True) + g.mean(1, keepdim=True) * w["a"]).expand(states["c"].shape)
    return c, {"c": c}


@cell(states="c:G h", output="y", source="a test: the output reads the old state, the input and a weight only")
def looks_back(x, c, h):
    y = spread(c) * h + linear("y", x) * weight("a", init=0.5)
    c_new = sigmoid(linear("c", x, h, size="G"))
    h = tanh(linear("h", h, x))
    return y, c_new, h


def looks_back_oracle(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    x, h = inputs["x"], states["h"]
    each = torch.repeat_interleave(states["c"], h.shape[1] // states["c"].shape[1], 1)
    y = each * h + (x @ w["y.x"].T + w["y.bias"]) * w["a"]
    c = 1 / (1 + torch.exp(-(x @ w["c.x"].T + h @ w["c.h"].T + w["c.bias"])))
    return y, {"c": c, "h": torch.tanh(x @ w["h.x"].T + h @ w["h.h"].T + w["h.bias"])}


@dataclass(frozen=True)
class Case:
    """A cell with its oracle; `fixed` names inputs and states through which the two do not agree on a gradient."""

    name: str
    cell: Cell
    oracle: Oracle
    fixed: frozenset[str] = frozenset()
    prepare: Callable[[Tensors], Tensors] = field(default=lambda inputs: inputs)
    stackable: bool = True

    def __str__(self) -> str:
        return self.name


def more(name: str, oracle_options: Mapping[str, Any] | None = None, options: Any = None, **kept: Any) -> Case:
    return Case(
        f"more-{name}", EVERY[name](**(options or {})), with_options(ORACLES[name], oracle_options or {}), **kept
    )


def gru_d_inputs(inputs: Tensors) -> Tensors:
    seen = (inputs["m"] > 0).double()
    return {"x": torch.where(seen > 0, inputs["x"], torch.nan), "m": seen, "d": inputs["d"].abs()}


PRODUCTS = [Case(name, found, ORACLES[name]) for name, found in CELLS.items()]
OTHERS = [
    more("gated_feedback"),
    more("qrnn", {"delay": 2}, {"delay": 2}),
    more("elstm"),
    more("slstm", options={"heads": 3}),
    more("augru"),
    more("lstm_phased", prepare=lambda inputs: {**inputs, "t": 20 * inputs["t"]}),
    more("gru_d", fixed=frozenset({"m"}), prepare=gru_d_inputs, stackable=False),
    more("clockwork", fixed=frozenset({"n"})),
    more("lstm_blocks_1997"),
    more("lstm_projection", {"peepholes": True}, {"peepholes": True}),
    more("scrn"),
    more("antisymmetric", {"gated": True}, {"gated": True}),
    more("recurrent_highway", {"depth": 3}, {"depth": 3}),
    more("fast_grnn"),
    Case("told_once", told_once, told_once_oracle),
    Case("narrow", narrow, narrow_oracle),
    Case("broadcast", broadcast, broadcast_oracle),
    Case("looks_back", looks_back, looks_back_oracle),
]
CASES = [*PRODUCTS, *OTHERS]


def make_layer(found: Cell, input_size: int = I, hidden_size: int = H, **options: Any) -> Recurrent:
    """A layer in float64 with weights that are no one's initial values; fixed ones stay as declared."""
    sizes = {k: v for k, v in SIZES.items() if k in found.graph.letters}
    width = hidden_size if found.graph.inputs[0].size == ("H",) else input_size
    layer = Recurrent(found, width, hidden_size, dtype=torch.float64, **options, **sizes)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            shift = 0.4 * torch.randn(p.shape, dtype=p.dtype)
            p += shift.abs() if name.endswith("tau") else shift
    return layer


def make_inputs(case: Case, layer: Recurrent, steps: int = T, rows: int = B) -> Tensors:
    """Normal numbers for each input, `[T, B, size]`, `[B, size]` where it comes once a sequence."""
    found = {}
    for i in layer.graph.inputs:
        lead = (rows,) if i.rate == Rate.SEQUENCE else (steps, rows)
        found[i.name] = torch.randn(*lead, *bound(i.size, layer.sizes), dtype=torch.float64)
    return case.prepare(found)


def make_state(layer: Recurrent, rows: int = B) -> State:
    """A state that no step has led to; bookkeeping states stay at their start."""
    kept = {s.name for s in layer.graph.states if s.bookkeeping}
    own = layer.initial_state(rows)
    layers = [
        [{k: v.detach().clone() if k in kept else positive(k, torch.randn_like(v)) for k, v in d.items()} for d in ds]
        for ds in own.layers
    ]
    return State(layers)


def positive(name: str, value: Tensor) -> Tensor:
    """Normalisers divide."""
    return value.abs() + 0.5 if name == "n" and value.shape[1] > 1 else value


def plan_of(case: Case, layer: Recurrent) -> Plan:
    """The layer's own tensors in the oracle's form, taken from its state_dict names."""
    tensors = dict(layer.named_parameters()) | dict(layer.named_buffers())
    layers = []
    for k in range(layer.num_layers):
        sizes, parts = layer.sizes | ({"I": layer.output_size} if k else {}), []
        for suffix in ("", "_reverse")[: 1 + layer.bidirectional]:
            own = f"l{k}{suffix}."
            weights = {n.removeprefix(own): v for n, v in tensors.items() if n.startswith(own)}
            start = {}
            for s in layer.graph.states:
                declared = torch.full(bound(s.size, sizes), s.start, dtype=torch.float64)
                start[s.name] = tensors.get(f"start_{own}{s.name}", declared)
            parts.append(Direction(weights, start))
        layers.append(parts)
    once = frozenset(i.name for i in layer.graph.inputs if i.rate == Rate.SEQUENCE)
    return Plan(case.oracle, layers, layer.graph.inputs[0].name, layer.merge, once)


def by_name(y: Tensor, layers: Sequence[Sequence[Mapping[str, Tensor]]]) -> Tensors:
    """Output and final states under one name each."""
    states = {
        f"{name} of layer {k}, direction {d}": v
        for k, ds in enumerate(layers)
        for d, named in enumerate(ds)
        for name, v in named.items()
    }
    return {"y": y, **states}


def gradients(results: Tensors, leaves: Tensors) -> Tensors:
    """The gradient of one random sum of all results in each leaf; zeros where nothing depends on it."""
    chance = torch.Generator().manual_seed(11)
    loss = sum((v * torch.randn(v.shape, dtype=v.dtype, generator=chance)).sum() for v in results.values())
    if not loss.requires_grad:
        return {k: torch.zeros_like(v) for k, v in leaves.items()}
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {k: torch.zeros_like(v) if d is None else d for (k, v), d in zip(leaves.items(), found, strict=True)}


def assert_same(ours: Tensors, theirs: Tensors, tolerance: float = TOLERANCE) -> None:
    """Same names and shapes, finite, and close to each other."""
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name].shape == value.shape, name
        assert torch.isfinite(value).all(), name
        if value.numel():
            error = torch.max((ours[name] - value).abs()) / (1 + value.abs().max())
            assert error <= tolerance, f"{name}: off by {error:.1e}"


def assert_layer(
    case: Case,
    layer: Recurrent,
    inputs: Tensors,
    lengths: Any = None,
    reset: Tensor | None = None,
    state: State | None = None,
) -> None:
    """Layer and oracle agree on outputs, final states, and all gradients."""
    leaves = dict(layer.named_parameters())
    free = {k: v for k, v in inputs.items() if k not in case.fixed and v.is_floating_point()}
    leaves |= {f"input {k}": v.requires_grad_() for k, v in free.items()}
    if state is not None:
        parts = by_name(torch.zeros(()), state.layers)
        leaves |= {k: v.requires_grad_() for k, v in parts.items() if k != "y" and k.split()[0] not in case.fixed}
    y, end = layer(inputs, state, lengths=lengths, reset=reset)
    plain = None if lengths is None else [int(n) for n in lengths]
    flags = None if reset is None else reset.tolist()
    given = None if state is None else state.layers
    expected, ends = run_rows(plan_of(case, layer), inputs, layer.output_size, plain, flags, given)
    ours, theirs = by_name(y, end.layers), by_name(expected, ends)
    assert_same(ours, theirs)
    assert_same(gradients(ours, leaves), gradients(theirs, leaves))
