"""Exact real-time recurrent learning against back-propagation through time and finite differences."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradients.forward_cases import BATCH, STEPS, difference, found, layer_of, loss, problem, swept
from layer_cases import CASES, Case, make_layer
from reproductions.cells import scalar_lru
from tidegate.cells import CELLS, transforms
from tidegate.equations import cell, linear, weight
from tidegate.gradients import BPTT, RTRL, SnAp, gradient
from tidegate.nn import Recurrent, Stack
from tidegate.runtime import support

TOLERANCE = 1e-11
BY_NAME = {str(case): case for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_bptt_for_every_cell(case: Case) -> None:
    layer = layer_of(case)
    x, target = problem(case, layer)
    with support.disabled():
        assert difference(found(layer, x, target, RTRL()), found(layer, x, target)) < TOLERANCE


FAMILIES = (
    "elman",
    "lstm",
    "lstm_peephole",
    "slstm",
    "gru",
    "gru_layer_norm",
    "indrnn",
    "min_gru",
    "lru",
    "looks_back",
)
EVERY_KERNEL = [pytest.param(c, marks=[] if str(c) in FAMILIES else [pytest.mark.slow]) for c in CASES]


@pytest.mark.kernels
@pytest.mark.parametrize("case", EVERY_KERNEL, ids=str)
def test_is_bptt_on_kernels(case: Case) -> None:
    layer = layer_of(case)
    x, target = problem(case, layer)
    assert difference(found(layer, x, target, RTRL()), found(layer, x, target)) < TOLERANCE


@pytest.mark.parametrize("case", [c for c in CASES if c.stackable], ids=str)
def test_is_bptt_two_layers_deep(case: Case) -> None:
    layer = layer_of(case, 2)
    x, target = problem(case, layer)
    with support.disabled():
        assert difference(found(layer, x, target, RTRL()), found(layer, x, target)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.kernels
@pytest.mark.filterwarnings("ignore:cell 'scrn over scrn' computes on the reference path")
@pytest.mark.parametrize("case", [c for c in CASES if c.stackable], ids=str)
def test_is_bptt_two_layers_deep_on_kernels(case: Case) -> None:
    layer = layer_of(case, 2)
    x, target = problem(case, layer)
    assert difference(found(layer, x, target, RTRL()), found(layer, x, target)) < TOLERANCE


@pytest.mark.parametrize("name", ["elman", "lstm", "gru", "min_gru", "lru", "lstm_layer_norm", "looks_back"])
def test_is_what_finite_differences_give(name: str) -> None:
    case = BY_NAME[name]
    layer = layer_of(case)
    x, target = problem(case, layer)
    ours = found(layer, x, target, RTRL())
    for parameter, gradients in ours.items():
        p = layer.get_parameter(parameter)
        for place in ([0] * p.dim(), [-1] * p.dim()):
            moved = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    p[tuple(place)] += step
                    moved.append(loss(layer(x)[0], target))
                    p[tuple(place)] -= step
            expected = (moved[0] - moved[1]) / 2e-6
            torch.testing.assert_close(gradients[tuple(place)], expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["lstm", "min_gru", "gru", "looks_back", "lru", "more-clockwork"])
@pytest.mark.parametrize("rule", [RTRL(), SnAp(n=9)], ids=str)
def test_lengths_and_resets(name: str, rule: Any) -> None:
    case = BY_NAME[name]
    layer = layer_of(case)
    x, target = problem(case, layer)
    reset = torch.rand(STEPS, BATCH) < 0.2
    reset[0] = True
    lengths = [STEPS, 0, 7]
    more = {"lengths": lengths, "reset": reset}
    assert difference(found(layer, x, target, rule, **more), found(layer, x, target, **more)) < TOLERANCE


def test_padding_may_be_anything() -> None:
    case = BY_NAME["gru"]
    layer = layer_of(case)
    x, target = problem(case, layer)
    x["x"][7:, 1] = float("nan")
    more = {"lengths": [STEPS, 7, 9]}
    assert difference(found(layer, x, target, RTRL(), **more), found(layer, x, target, **more)) < TOLERANCE


@pytest.mark.parametrize("name", ["lstm", "min_gru", "slstm"])
@pytest.mark.parametrize("layers", [1, 2])
def test_learned_starts(name: str, layers: int) -> None:
    case = BY_NAME[name]
    layer = layer_of(case, layers, learn_initial_state=True)
    x, target = problem(case, layer)
    more = {"reset": torch.rand(STEPS, BATCH) < 0.2}
    exact = found(layer, x, target, **more)
    assert any("start" in n and g.abs().sum() > 0 for n, g in exact.items())
    assert difference(found(layer, x, target, RTRL(), **more), exact) < TOLERANCE


@pytest.mark.parametrize("every", [1, 4, 5, 13, 100])
@pytest.mark.parametrize("name", ["lstm", "min_gru", "looks_back"])
def test_segments_sum_to_the_whole_where_weights_stand_still(name: str, every: int) -> None:
    case = BY_NAME[name]
    layer = layer_of(case, learn_initial_state=True)
    x, target = problem(case, layer)
    more = {"reset": torch.rand(STEPS, BATCH) < 0.2, "lengths": [STEPS, 5, 8]}
    assert difference(swept(layer, x, target, RTRL(every=every), **more), found(layer, x, target, **more)) < TOLERANCE


def stacks() -> dict[str, Stack]:
    def one(name: str, size: int, hidden: int) -> Recurrent:
        return make_layer(CELLS[name], size, hidden)

    return {
        "three cells": Stack(one("lstm", 3, 4), one("min_gru", 4, 5), one("gru", 5, 2)),
        "residual": Stack(one("elman", 3, 3), one("lru", 3, 3), residual=True),
        "highway": Stack(one("gru", 3, 3), one("lstm", 3, 3), highway=True),
        "a stack within": Stack(one("elman", 3, 4), Stack(one("gru", 4, 4), residual=True)),
    }


@pytest.mark.parametrize("name", stacks())
def test_stacks(name: str) -> None:
    layer = stacks()[name].double()
    x = torch.randn(STEPS, BATCH, 3, dtype=torch.float64)
    target = torch.randn(STEPS, BATCH, layer.output_size, dtype=torch.float64)
    more = {"reset": torch.rand(STEPS, BATCH) < 0.2}
    with support.disabled():
        assert difference(found(layer, x, target, RTRL(), **more), found(layer, x, target, **more)) < TOLERANCE


def test_a_readout_is_learned_with_the_layer() -> None:
    layer, readout = make_layer(CELLS["lstm"], 3, 5), nn.Linear(5, 2).double()
    x, target = torch.randn(STEPS, BATCH, 3, dtype=torch.float64), torch.randn(STEPS, BATCH, 2, dtype=torch.float64)
    ours = found(layer, x, target, RTRL(), readout=readout)
    assert {"readout.weight", "readout.bias"} < set(ours)
    loss(readout(layer(x)[0]), target).backward()
    theirs = {n: p.grad for n, p in layer.named_parameters()}
    theirs |= {f"readout.{n}": p.grad for n, p in readout.named_parameters()}
    assert difference(ours, theirs) < TOLERANCE


def test_whole_numbers_are_one_hots() -> None:
    layer, x = make_layer(CELLS["lstm"], 5, 4), torch.randint(0, 5, (STEPS, BATCH))
    target = torch.randn(STEPS, BATCH, 4, dtype=torch.float64)
    assert difference(found(layer, x, target, RTRL()), found(layer, x, target)) < TOLERANCE


def test_parametrised_and_frozen_weights() -> None:
    layer, x = make_layer(CELLS["gru"], 3, 4), torch.randn(STEPS, BATCH, 3, dtype=torch.float64)
    layer.l0.z.x.requires_grad_(False)
    nn.utils.parametrizations.weight_norm(layer.l0.n, "h")
    target = torch.randn(STEPS, BATCH, 4, dtype=torch.float64)
    exact = found(layer, x, target)
    assert "l0.z.x" not in exact
    assert difference(found(layer, x, target, RTRL()), exact) < TOLERANCE


@pytest.mark.parametrize("where", ["within", "between"])
def test_masks_are_drawn_once_for_states_and_gradients(where: str) -> None:
    """What is drawn is not seen from outside; so the gradient is held against differences with the same draws."""
    made = transforms.zoneout(CELLS["lstm"], h=0.4, c=0.3) if where == "within" else CELLS["lstm"]
    layer = make_layer(made, 3, 4, num_layers=2, dropout=0.5 if where == "between" else 0.0)
    x, target = torch.randn(STEPS, BATCH, 3, dtype=torch.float64), torch.randn(STEPS, BATCH, 4, dtype=torch.float64)
    rule = RTRL()

    def drawn() -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(3)
        seen: list[Tensor] = []

        def watched(outputs: Tensor, targets: Tensor) -> Tensor:
            seen.append(loss(outputs, targets))
            return seen[0]

        with support.disabled():
            return gradient(layer, x, target, watched, rule=rule), seen[0].detach()

    ours, _ = drawn()
    for name in ("l0.f.h", "l1.i.x", "l1.o.bias"):
        p, place = layer.get_parameter(name), (0,) * layer.get_parameter(name).dim()
        moved = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                p[place] += step
            moved.append(drawn()[1])
            with torch.no_grad():
                p[place] -= step
        torch.testing.assert_close(ours[name][place], (moved[0] - moved[1]) / 2e-6, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("rule", [BPTT(), RTRL(), SnAp()], ids=str)
def test_the_linear_recurrent_unit_by_hand(rule: Any) -> None:
    layer = Recurrent(scalar_lru, 1, 1, dtype=torch.float64)
    values = {"l_re": 0.5, "l_im": 0.0, "gamma": 1.0, "b_re": 2.0, "b_im": 2.0, "c_re": 2.0, "c_im": 1.0}
    with torch.no_grad():
        for name, value in values.items():
            layer.get_parameter(f"l0.{name}").fill_(value)
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).view(3, 1, 1)
    y, _ = layer(x)
    assert y.flatten().tolist() == [2.0, 5.0, 8.5]
    ours = gradient(layer, x, torch.ones_like(x), lambda a, b: 0.5 * (a - b).square().sum(), rule=rule)
    by_hand = {"l_re": 53.0, "l_im": -159.0, "gamma": 85.75, "b_re": 85.75, "b_im": -42.875}
    for name, value in by_hand.items():
        assert ours[f"l0.{name}"].item() == value, name


def test_states_that_nothing_learned_influences() -> None:
    @cell(states="h", output="y", inputs="x:H", source="a test: what is learned is read after the states only")
    def reads(x: Any, h: Any) -> Any:
        h = 0.5 * h + x * weight("fixed", init=0.3, learn=False)
        y = linear("y", h=h)
        return y, h

    layer, x = make_layer(reads, 4, 4), torch.randn(STEPS, BATCH, 4, dtype=torch.float64)
    target = torch.randn(STEPS, BATCH, 4, dtype=torch.float64)
    assert difference(found(layer, x, target, RTRL()), found(layer, x, target)) < TOLERANCE
