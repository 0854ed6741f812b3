"""Random cells for property tests: `cells()` is a hypothesis strategy; `random_arrays` fills one with numbers.

Each cell has one to three states of sizes H, G or 1, one to three inputs, linears with labelled terms and blocks,
peepholes, matrices of weights, reductions and groups. Values stay moderate, so that derivatives can be compared.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tidegate.equations import (
    Cell,
    Graph,
    Rate,
    Value,
    cell,
    clip_gradient,
    concat,
    cos,
    exp,
    expm1,
    floor,
    hard_sigmoid,
    layer_norm,
    linear,
    log,
    log1p,
    log_sigmoid,
    matrix,
    maximum,
    mean,
    minimum,
    named,
    relu,
    rms_norm,
    sigmoid,
    silu,
    sin,
    softplus,
    spread,
    sqrt,
    stop,
    tanh,
    total,
    weight,
    where,
)
from tidegate.reference import bound, weight_shape

SIZES = {"I": 3, "H": 4, "G": 2, "K": 5}  # H has blocks and groups of 2
SMOOTH = [tanh, sigmoid, softplus, sin, cos, log_sigmoid, silu]
CORNERED = [relu, abs, hard_sigmoid, floor, stop]
GUARDED = [
    lambda v: exp(minimum(v, 2.0)),
    lambda v: expm1(minimum(v, 2.0)),
    lambda v: log(softplus(v) + 0.1),
    lambda v: log1p(abs(v)),
    lambda v: sqrt(v * v + 0.5),
    lambda v: 1.0 / (1.5 + sin(v)),
    lambda v: (tanh(v) + 1.5) ** 1.7,
    lambda v: tanh(v) ** 3,
    lambda v: tanh(v) % 0.6,
    lambda v: clip_gradient(tanh(v), 0.3),
    lambda v: -v,
]
PAIRS = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: tanh(a) * tanh(b),
    lambda a, b: tanh(a) / (1.2 + sigmoid(b)),
    maximum,
    minimum,
    lambda a, b: where(a > b, tanh(a), b),
    lambda a, b: (a <= b) * sigmoid(b),
    lambda a, b: (sigmoid(a) + 0.1) ** tanh(b),
]


@dataclass
class Writer:
    """Writes the equations of one random cell; `pool` holds the values that may be used next."""

    draw: Callable[..., Any]
    smooth: bool
    pool: list[Value] = field(default_factory=list)
    count: int = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def pick(self, *sizes: str | int) -> Value:
        fitting = [v for v in self.pool if not sizes or v.size[0] in sizes]
        return fitting[self.draw(st.integers(0, len(fitting) - 1))]

    def linear(self, size: str | int) -> Value:
        terms = {f"v{k}": self.pick() for k in range(self.draw(st.integers(1, 3)))}
        even = [k for k, v in terms.items() if v.size[0] in ("H", "G")] if size in ("H", "G") else []
        blocks = {k: 2 for k in even if self.draw(st.booleans())}
        bias = self.draw(st.sampled_from([0.0, None, 1.0]))
        return linear(self.name("n"), size=size, bias=bias, blocks=blocks, **terms)

    def peephole(self) -> Value:
        return tanh(weight(self.name("p"), init=0.5) * self.pick("H"))

    def product(self) -> Value:
        m = matrix(self.name("M"))
        return tanh((m - m.T if self.draw(st.booleans()) else m @ matrix(self.name("N"))) @ self.pick("H"))

    def across(self) -> Value:
        v = self.pick("H")
        kind = self.draw(st.sampled_from(["mean", "total", "groups", "layer", "rms"]))
        if kind == "groups":
            return spread(tanh(total(v, to="G")), to="H")
        if kind in ("layer", "rms"):
            return (layer_norm if kind == "layer" else rms_norm)(self.name("norm"), v)
        return tanh(mean(v) if kind == "mean" else total(v))

    def unary(self) -> Value:
        return self.draw(st.sampled_from([*SMOOTH, *GUARDED] if self.smooth else [*SMOOTH, *CORNERED, *GUARDED]))(
            self.pick()
        )

    def pair(self) -> Value:
        a = self.pick()
        return self.draw(st.sampled_from(PAIRS[:4] if self.smooth else PAIRS))(a, self.pick(a.size[0], 1))

    def grow(self) -> None:
        kind = self.draw(
            st.sampled_from(["linear", "linear", "unary", "unary", "pair", "pair", "peephole", "across", "product"])
        )
        made = (
            tanh(self.linear(self.draw(st.sampled_from(["H", "H", "G", 1]))))
            if kind == "linear"
            else getattr(self, kind)()
        )
        self.pool.append(named(self.name("u"), made) if self.draw(st.booleans()) and not made.is_leaf else made)

    def last(self, size: str | int, must: list[Value]) -> Value:
        """A value of a size that reads everything in `must`."""
        return tanh(linear(self.name("z"), size=size, **{f"v{k}": v for k, v in enumerate(must)}))


@st.composite
def cells(draw: Callable[..., Any], smooth: bool = False) -> Cell:
    """A random cell. With `smooth`, every operation has a continuous derivative, so that finite differences apply."""
    sizes = draw(st.lists(st.sampled_from(["H", "H", "G", 1]), min_size=0, max_size=2))
    states = {"h": "H"} | {f"s{k}": size for k, size in enumerate(sizes)}
    inputs = {"x": "I"} | dict(draw(st.sampled_from([(), (("d", 1),), (("d", 1), ("e", "H"))])))
    late = draw(st.sampled_from(["state", "new", "concat"]))
    steps = draw(st.integers(1, 8))

    def random_cell(x, *, scale=0.7, **given):  # its parameters are set below
        raise AssertionError

    def body(**given: Value) -> Any:
        writer = Writer(draw, smooth, [v for k, v in given.items() if k != "scale"])
        read = list(writer.pool)
        writer.pool.append(tanh(linear("first", x=given["x"], h=given["h"])))
        for _ in range(steps):
            writer.grow()
        loose = writer.pool[len(read) :]
        new = [
            writer.last(size, [*read, *loose] if k == 0 else [writer.pick(), given["x"]])
            for k, size in enumerate(states.values())
        ]
        new[0] = new[0] * given["scale"]
        output = {"new": [sigmoid(writer.pick("H") + new[0])], "concat": [concat(new[0], new[-1] + 0.0)], "state": []}[
            late
        ]
        return (*output, *new) if len(output) + len(new) > 1 else new[0]

    made = _with_parameters(body, [*inputs, *states])
    header = {
        "states": " ".join(f"{k}:{v}" for k, v in states.items()),
        "inputs": " ".join(f"{k}:{v}" for k, v in inputs.items()),
    }
    return cell(**header, output=None if late == "state" else "y", source="made at random")(made)


def _with_parameters(body: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """A function of these parameters, as the reader of cells wants them by name."""
    scope: dict[str, Any] = {"body": body}
    given = ", ".join(f"{n}={n}" for n in [*names, "scale"])
    exec(f"def random_cell({', '.join(names)}, *, scale=0.7):\n    return body({given})\n", scope)  # noqa: S102
    return scope["random_cell"]


def random_arrays(graph: Graph, seed: int, *lead: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Weights by name, and inputs and states of shape `[*lead, size]`: normal numbers of scale 1/2, float64."""
    chance = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return 0.5 * chance.standard_normal(shape)

    weights = {name: normal(*weight_shape(w, SIZES)) for name, w in graph.weights.items()}
    inputs = {i.name: normal(*lead, *bound(i.size, SIZES)) for i in graph.inputs}
    states = {s.name: normal(*lead, *bound(s.size, SIZES)) for s in graph.states}
    return weights, inputs, states


def rates_are_sound(graph: Graph) -> bool:
    """Whether every value's rate is the highest of its operands'."""
    leaf: Mapping[str, tuple[Rate, ...]] = {"input": (Rate.SEQUENCE, Rate.INPUT), "old": (Rate.STATE,)}
    return all(
        v.rate == max(a.rate for a in v.args) if v.args else v.rate in leaf.get(v.op, (Rate.WEIGHTS,))
        for v in graph.values
    )
