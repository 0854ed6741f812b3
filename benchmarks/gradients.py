"""Gradients carried forward in time: beside a forward pass, beside libraries, and in a stream."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.contestants import recurrent
from benchmarks.contests import Setting
from benchmarks.influence import load
from benchmarks.limits import bandwidth
from benchmarks.peers import PEERS
from benchmarks.problem import Named, Problem, difference, of_cell, solve
from benchmarks.rows import ELEMENTWISE, FLOAT32, MATRIX, ONLINE, PASS, PRODUCTS, RFLO, SNAP, STEP, WHOLE, Row
from benchmarks.shapes import LANES, SEQUENCES, SHORTER, STREAMS, Shape
from benchmarks.timing import in_turn
from tidegate import gradients as rules
from tidegate.cells import CELLS
from tidegate.gradients import BPTT, RTRL, Forward, Rule, gradient, online
from tidegate.nn import Recurrent

BY_UNIT = ("min_gru", "min_lstm", "lru", "indrnn", "sru")
RULES = {ELEMENTWISE: RTRL(), MATRIX: RTRL(), SNAP: rules.SnAp(), RFLO: rules.RFLO()}
APPROXIMATE = {"elman": (SNAP, RFLO), "lstm": (SNAP,), "gru_reset_after": (SNAP,)}

TURNING = 1e-6  # the bound for lru, a step: angles grow with time, and BPTT in float32 is as far off as RTRL


@dataclass(frozen=True)
class Sweep:
    """A layer, and the sum over all outputs times `output_gradients` as its loss."""

    layer: Recurrent
    x: Tensor
    output_gradients: Tensor

    def forward(self) -> Tensor:
        """The output alone."""
        with torch.no_grad():
            return self.layer(self.x)[0]

    def by(self, rule: Rule) -> Callable[[], dict[str, Tensor]]:
        """What gives the gradients."""
        return lambda: gradient(self.layer, self.x, self.output_gradients, _score, rule=rule)

    def exactly(self) -> Sweep:
        """The same in float64."""
        return Sweep(copy.deepcopy(self.layer).double(), self.x.double(), self.output_gradients.double())


def forward_in_time(case: str, setting: Setting) -> Iterator[Row]:
    """Every row of the case."""
    yield from _products(case, setting)
    pairs = [(name, ELEMENTWISE) for name in BY_UNIT]
    pairs += [(name, what) for name, each in APPROXIMATE.items() for what in each]
    for name, what in pairs[:: len(pairs) - 1] if setting.quick else pairs:
        for shape in SEQUENCES[1:2] if setting.quick else SEQUENCES:
            yield _beside_forward(case, name, what, shape, setting)
    for what in (SNAP, RFLO):
        yield from _traces_beside_libraries(case, what, SEQUENCES[0], setting)
    for name in ["elman"] if setting.quick else ["elman", "lstm"]:
        yield from _beside_libraries(case, name, setting)
    for name, shape in list(STREAMS.items())[: 1 if setting.quick else None]:
        yield _in_a_stream(case, name, shape, setting)


def _products(case: str, setting: Setting) -> Iterator[Row]:
    """The largest matrices, as one product a step and as a whole."""
    layer = sweep("lstm", replace(LANES, T=1)).layer
    D = 2 * LANES.H
    P = sum(p.numel() for p in layer.parameters())
    A, J = torch.randn(LANES.B, D + 1, D), torch.randn(LANES.B, D, P)
    off = difference({"": torch.bmm(A, J)}, {"": torch.bmm(A.double(), J.double())})
    (taken,) = in_turn([lambda: torch.bmm(A, J)], setting.effort)
    setting.limits.again()
    flops = 2 * A.numel() * P
    yield Row(
        case, "lstm", replace(LANES, T=1), PRODUCTS, "-", taken, None, off, flops=flops, limit=setting.limits.flops
    )
    yield _beside_forward(case, "lstm", MATRIX, SHORTER if setting.quick else LANES, setting)


def sweep(name: str, shape: Shape) -> Sweep:
    """A cell's layer with weights and inputs that are always the same; one that has it so reads as wide as it is."""
    graph = CELLS[name].graph
    width = shape.H if graph.inputs[0].size == ("H",) else shape.I
    more: dict[str, Any] = {"N": shape.H} if "N" in graph.letters else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layer = Recurrent(CELLS[name], width, shape.H, **more)
        x, output_gradients = torch.randn(shape.T, shape.B, width), torch.randn(shape.T, shape.B, shape.H)
    return Sweep(layer, x, output_gradients)


def _beside_forward(case: str, name: str, what: str, shape: Shape, setting: Setting) -> Row:
    """The whole gradient. What is exact is held to BPTT in float64, what is not to itself."""
    ours, rule = sweep(name, shape), RULES[what]
    shape = replace(shape, I=ours.x.shape[2])
    call = ours.by(rule)
    off = difference(call(), ours.exactly().by(BPTT() if isinstance(rule, RTRL) else rule)())
    mine, theirs = in_turn([call, ours.forward], setting.effort)
    row = Row(case, name, shape, what, PASS, mine, theirs, off, bound=TURNING * shape.T if name == "lru" else FLOAT32)
    return _limited(row, ours.layer, rule, setting)


def _limited(row: Row, layer: Recurrent, rule: Forward, setting: Setting) -> Row:
    """The row with the least that a rule has to do: its operations, or what it carries read and written."""
    setting.limits.again()
    one, lanes = load(layer, rule), row.shape.T * row.shape.B
    carried = 4 * one.numbers * row.shape.B
    reading = 2 * row.shape.T * carried / bandwidth(carried)
    return replace(row, flops=lanes * one.flops, limit=setting.limits.flops, reading=reading)


def _beside_libraries(case: str, name: str, setting: Setting) -> Iterator[Row]:
    """RTRL by torch.func and by jax, and our own BPTT."""
    problem = _from_zero(of_cell(CELLS[name], SHORTER))
    layer, parameters = recurrent(problem)
    ours = Sweep(layer, problem.x, problem.output_gradients["y"])
    right, mine = solve(problem, training=True), ours.by(RTRL())
    off = difference(_named(mine(), parameters), right)
    for peer in [n for n in setting.peers if MATRIX in PEERS[n].whats and PEERS[n].can(problem)]:
        other: Any = PEERS[peer].make(problem)
        away = difference(other.named(other.training()), right)
        taken, theirs = in_turn([mine, other.training], setting.effort)
        yield Row(case, name, SHORTER, MATRIX, peer, taken, theirs, off, away)
    taken, theirs = in_turn([mine, ours.by(BPTT())], setting.effort)
    yield Row(case, name, SHORTER, MATRIX, WHOLE, taken, theirs, off)


def _traces_beside_libraries(case: str, what: str, shape: Shape, setting: Setting) -> Iterator[Row]:
    """A rule of traces by libraries that have it."""
    problem = _from_zero(of_cell(CELLS["elman"], shape))
    layer, _ = recurrent(problem)
    ours = Sweep(layer, problem.x, problem.output_gradients["y"])
    mine, right = ours.by(RULES[what]), ours.exactly().by(RULES[what])()
    off = difference(mine(), right)
    for peer in [n for n in setting.peers if what in PEERS[n].whats and PEERS[n].can(problem)]:
        other: Any = PEERS[peer].make(problem, what)
        away = difference(other.named(other.training()), right)
        taken, theirs = in_turn([mine, other.training], setting.effort)
        yield Row(case, "elman", shape, what, peer, taken, theirs, off, away)


def _from_zero(problem: Problem) -> Problem:
    states = {n: torch.zeros_like(s) for n, s in problem.states.items()}
    output_gradients = {n: s if n == "y" else torch.zeros_like(s) for n, s in problem.output_gradients.items()}
    return replace(problem, states=states, output_gradients=output_gradients)


def _named(found: Named, parameters: Named) -> dict[str, Tensor]:
    return {f"gradient of {name}": found[f"l0.{name}"] for name in parameters}


def _in_a_stream(case: str, name: str, shape: Shape, setting: Setting) -> Row:
    """A step and the gradient of its output, beside the step alone."""
    ours = sweep(name, shape)
    (x, *_), (dy, *_) = ours.x, ours.output_gradients
    learner, state = online(ours.layer, RTRL()), None
    memory = learner.begin(shape.B)

    def go() -> dict[str, Tensor]:
        nonlocal memory
        _, memory = learner.step(memory, x)
        return learner.gradient(memory, dy)

    def step() -> None:
        nonlocal state
        _, state = ours.layer.step(x, state)

    for _ in range(3):
        came = go()
    longer = replace(ours, x=x.expand(3, -1, -1), output_gradients=torch.stack([*[torch.zeros_like(dy)] * 2, dy]))
    off = difference(came, longer.exactly().by(BPTT())())
    with torch.no_grad():
        mine, theirs = in_turn([go, step], setting.effort)
    return Row(case, name, shape, ONLINE, STEP, mine, theirs, off)


def _score(y: Tensor, output_gradients: Tensor) -> Tensor:
    return torch.dot(y.flatten(), output_gradients.flatten())
