"""Shipped cells whose results are known: counted by hand, or given by other equations of their papers."""

import math

import pytest
import torch
from torch import Tensor

from oracles import slstm_unstabilised, unroll
from oracles.agreement import BATCH, SIZES, positive_normaliser, random_setting, reference_of, run
from tidegate.cells import CELLS
from tidegate.reference import step, torch_ops


def scalar(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64, requires_grad=True)


def test_lru_by_hand() -> None:
    """Eigenvalue 1/2, B = 2 + 2j, C = 2 + j, D = 0, gamma = 1; x = 1, 2, 3; loss half the squared distance to 1."""
    nu_log = scalar(math.log(math.log(2)))
    weights = {"nu_log": nu_log, "theta_log": scalar(-800.0), "gamma_log": scalar(0.0), "d": scalar(0.0)}
    weights |= {"b_re.x": scalar(2.0)[None], "b_im.x": scalar(2.0)[None]}
    weights |= {"c_re.re": scalar(2.0)[None], "c_im.im": scalar(1.0)[None]}
    x = torch.tensor([[[1.0]], [[2.0]], [[3.0]]], dtype=torch.float64)
    state = {"re": torch.zeros(1, 1, dtype=torch.float64), "im": torch.zeros(1, 1, dtype=torch.float64)}
    graph, outputs, hidden = CELLS["lru"].graph, [], []
    for x_t in x:
        y, state = step(graph, weights, {"x": x_t}, state, torch_ops, {"H": 1, "N": 1})
        outputs.append(y.item())
        hidden.append(complex(state["re"].item(), state["im"].item()))
    assert outputs == pytest.approx([2, 5, 8.5], abs=1e-14)
    assert hidden == pytest.approx([2 + 2j, 5 + 5j, 8.5 + 8.5j], abs=1e-14)


def test_lru_gradients_by_hand() -> None:
    """The same case: 53 for the real part of the eigenvalue, 85.75 for gamma, (85.75, -42.875) for B."""
    weights = {name: scalar(v) for name, v in [("nu_log", math.log(math.log(2))), ("theta_log", -800.0)]}
    weights |= {"gamma_log": scalar(0.0), "d": scalar(0.0), "b_re.x": scalar(2.0), "b_im.x": scalar(2.0)}
    weights |= {"c_re.re": scalar(2.0), "c_im.im": scalar(1.0)}
    shaped = {k: v[None] if "." in k else v for k, v in weights.items()}
    x = torch.tensor([[[1.0]], [[2.0]], [[3.0]]], dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    graph, state, loss = CELLS["lru"].graph, {"re": zero, "im": zero}, torch.zeros(())
    for x_t in x:
        y, state = step(graph, shaped, {"x": x_t}, state, torch_ops, {"H": 1, "N": 1})
        loss = loss + ((y - 1) ** 2).sum() / 2
    loss.backward()
    gradient = {k: v.grad.item() for k, v in weights.items() if v.grad is not None}
    by_modulus = -math.log(2) / 2  # d(eigenvalue) / d(nu_log), at 1/2
    assert gradient["nu_log"] == pytest.approx(53 * by_modulus, abs=1e-12)
    assert gradient["gamma_log"] == pytest.approx(85.75, abs=1e-12)
    assert (gradient["b_re.x"], gradient["b_im.x"]) == pytest.approx((85.75, -42.875), abs=1e-12)


def test_slstm_starts_without_overflow_or_nan() -> None:
    """From its declared start the stabilised cell gives what the bare exponentials give."""
    graph = CELLS["slstm"].graph
    setting = random_setting(graph)
    start = {s.name: torch.full((BATCH, SIZES["H"]), s.start, dtype=torch.float64) for s in graph.states}
    assert start["m"][0, 0] == -1e9
    ours, last = unroll(reference_of(graph), setting.weights, setting.inputs, start)
    bare, _ = unroll(slstm_unstabilised, setting.weights, setting.inputs, start)
    assert torch.allclose(ours, bare, rtol=0, atol=1e-13)
    assert all(torch.isfinite(v).all() for v in last.values())


def test_slstm_survives_large_gates() -> None:
    """Exponents that overflow exp() leave the output finite, and its gradient too."""
    graph = CELLS["slstm"].graph
    setting = random_setting(graph)
    setting.weights["i.bias"] = torch.full((SIZES["H"],), 5000.0, dtype=torch.float64)
    positive_normaliser(graph, setting)
    values, gradients = run(reference_of(graph), setting, {})
    assert all(torch.isfinite(v).all() for v in (*values.values(), *gradients.values()))


def test_min_lstm_where_both_gates_are_shut() -> None:
    """f / (f + i) is 0 / 0 in single precision once both net inputs are near -120; by logarithms it is exact."""
    graph = CELLS["min_lstm"].graph
    weights = {f"{k}.x": torch.zeros(1, 1) for k in "fi"} | {"n.x": torch.ones(1, 1), "n.bias": torch.zeros(1)}
    weights |= {"f.bias": torch.tensor([-120.0]), "i.bias": torch.tensor([-121.0])}
    leaves = [v.requires_grad_() for v in weights.values()]
    y, _ = step(graph, weights, {"x": torch.ones(1, 1)}, {"h": torch.full((1, 1), 3.0)}, torch_ops, {"H": 1, "I": 1})
    kept = 1 / (1 + math.exp(-1))
    assert y.item() == pytest.approx(3 * kept + (1 - kept), rel=1e-5)
    found = torch.autograd.grad(y.sum(), leaves)
    assert all(torch.isfinite(v).all() for v in found)
    assert found[list(weights).index("f.bias")].item() == pytest.approx(2 * kept * (1 - kept), rel=1e-4)


def test_irnn_adds_up_its_inputs_at_the_start() -> None:
    """Le, Jaitly & Hinton 2015: with the identity and no bias, units that are not negative sum what comes."""
    graph = CELLS["irnn"].graph
    weights = {"h.x": torch.tensor([[1.0, 2.0]]), "h.h": torch.eye(1), "h.bias": torch.zeros(1)}
    state = {"h": torch.zeros(1, 1)}
    for x in ([1.0, 0.5], [3.0, 0.25], [-2.0, 0.5]):
        y, state = step(graph, weights, {"x": torch.tensor([x])}, state, torch_ops, {"H": 1, "I": 2})
    assert y.item() == 1 + 1 + 3 + 0.5 - 2 + 1


def test_janet_writes_as_much_as_it_forgets_where_beta_is_zero() -> None:
    """Van der Westhuizen & Lasenby 2018: with beta at 0 it is the coupled LSTM without an output gate."""
    graph = CELLS["janet"](beta=0.0).graph
    setting = random_setting(graph)
    values, _ = run(reference_of(graph), setting, {})
    w, c = setting.weights, setting.states["c"]
    for x in setting.inputs["x"]:
        f, g = (x @ w[f"{k}.x"].T + c @ w[f"{k}.c"].T + w[f"{k}.bias"] for k in "fg")
        c = torch.sigmoid(f) * c + torch.sigmoid(-f) * torch.tanh(g)
    assert torch.allclose(values["c at the end"], c, rtol=0, atol=1e-14)
