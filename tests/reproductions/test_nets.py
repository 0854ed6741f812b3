"""The nets of 1997 and 2000: their numbers of weights, their values, and where their gradient ends."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles.blocks import cells_of, lstm_blocks_1997, lstm_blocks_2000
from oracles.common import affine, logistic, unroll
from reproductions import adding, distractors, embedded_reber
from reproductions.cells import blocks_1997, blocks_2000
from reproductions.net import Adam, Descent, LogisticNet, count
from tidegate.equations import Cell, ramp
from tidegate.nn import Recurrent

T, B, CELLS, BLOCKS = 5, 3, 6, 2


def test_small_updates_at_each_step_sum_to_the_gradient_of_a_string(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_reber, "EYE", embedded_reber.EYE.double())
    (walk,) = embedded_reber.strings(np.random.default_rng(4), 1)
    x, wanted = embedded_reber.example(walk)
    net = embedded_reber.made(embedded_reber.Settings(truncated=True)).double()
    begun = [p.detach().clone() for p in net.parameters()]
    loss = embedded_reber.half_square(torch.sigmoid(net(x)[0]), wanted)
    right = torch.autograd.grad(loss, list(net.parameters()))
    embedded_reber.Stepwise(net, rate=1e-7)(x, wanted)
    for before, after, gradient in zip(begun, net.parameters(), right, strict=True):
        assert torch.allclose((before - after.detach()) / 1e-7, gradient, rtol=1e-3, atol=1e-6)


def test_weights_of_the_embedded_reber_grammar() -> None:
    net = embedded_reber.made(embedded_reber.Settings())
    assert count(net) == 276
    assert [w.item() for w in net.get_parameter("layer.l0.o.bias")] == [-1, -2, -3]
    assert net.get_parameter("layer.l0.i.bias").abs().max() <= 0.2


def test_weights_of_the_adding_problem() -> None:
    net = adding.made(adding.Settings(100, 1))
    assert count(net) == 93
    assert [w.item() for w in net.get_parameter("layer.l0.i.bias")] == [-3, -6]
    others = [w for name, w in net.named_parameters() if name != "layer.l0.i.bias"]
    assert 0.05 < max(w.abs().max().item() for w in others) <= 0.1


@pytest.mark.parametrize(("lag", "weights"), [(50, 364), (100, 664), (200, 1264), (500, 3064), (1000, 6064)])
def test_weights_of_the_distractors(lag: int, weights: int) -> None:
    assert count(distractors.made(distractors.Settings(lag, 1))) == weights


def test_weights_of_the_continual_grammar() -> None:
    assert count(LogisticNet(blocks_2000, (7, 8, 7), bias=True, shortcut=True, G=4)) == 424


def layer_of(cell: Cell) -> tuple[Recurrent, dict[str, Tensor], dict[str, Tensor]]:
    layer = Recurrent(cell, 4, CELLS, G=BLOCKS, dtype=torch.float64)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.uniform_(-1.5, 1.2)
    weights = {name.removeprefix("l0."): w for name, w in layer.named_parameters()}
    return layer, weights, {"x": torch.randn(T, B, 4, dtype=torch.float64)}


def zeros(**widths: int) -> dict[str, Tensor]:
    return {name: torch.zeros(B, width, dtype=torch.float64) for name, width in widths.items()}


def gradients(y: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
    factors = torch.linspace(0.3, 1.7, y.numel(), dtype=torch.float64).reshape(y.shape)
    return list(torch.autograd.grad((y * factors).sum(), list(weights.values())))


def truncated_1997(w: Any, inputs: Any, states: Any) -> Any:
    """The same oracle, where what gates and inputs see of the last step has no past."""
    old = {name: state if name == "c" else state.detach() for name, state in states.items()}
    return lstm_blocks_1997(w, inputs, old)


def truncated_2000(w: Any, inputs: Any, states: Any) -> Any:
    return lstm_blocks_2000(w, inputs, {"h": states["h"].detach(), "c": states["c"]})


def kept_2000(w: Any, inputs: Any, states: Any) -> Any:
    """Without forget gates."""
    sources = {"x": inputs["x"], "h": states["h"]}
    y_in, y_out = (logistic(affine(w, gate, **sources)) for gate in "io")
    g = 4 * logistic(affine(w, "g", **sources)) - 2
    s = torch.zeros_like(states["c"])
    y = torch.zeros_like(s)
    for j in range(BLOCKS):
        for v in cells_of(j, CELLS, BLOCKS):
            s[:, v] = states["c"][:, v] + y_in[:, j] * g[:, v]
            y[:, v] = y_out[:, j] * (2 * logistic(s[:, v]) - 1)
    return y, {"h": y, "c": s}


@pytest.mark.parametrize(
    ("cell", "oracle"),
    [
        (blocks_1997(input_bias=0.0), lstm_blocks_1997),
        (blocks_1997(cell_bias=0.0, input_bias=ramp(-3, -3)), lstm_blocks_1997),
        (blocks_1997(output_bias=None, truncated=True), truncated_1997),
        (blocks_2000, lstm_blocks_2000),
        (blocks_2000(truncated=True), truncated_2000),
        (blocks_2000(forgets=False), kept_2000),
    ],
    ids=["gates biased", "all biased", "1997 truncated", "2000", "2000 truncated", "2000 without forget gates"],
)
def test_values_and_gradients(cell: Cell, oracle: Any) -> None:
    layer, weights, inputs = layer_of(cell)
    widths = {"h": CELLS, "c": CELLS, "i": BLOCKS, "o": BLOCKS}
    start = zeros(**{s.name: widths[s.name] for s in cell.graph.states})
    y, _ = layer(inputs["x"])
    wanted, _ = unroll(oracle, weights, inputs, start)
    torch.testing.assert_close(y, wanted, rtol=1e-11, atol=1e-12)
    for ours, theirs in zip(gradients(y, weights), gradients(wanted, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


def test_outputs() -> None:
    net = LogisticNet(blocks_2000, (7, 8, 3), bias=True, shortcut=True, G=4)
    x = torch.tensor([[1, 6], [0, 2], [5, 5]])
    nets, state = net(x)
    h, _ = net.layer(x)
    assert net.shortcut is not None
    V, W = net.shortcut.weight, net.out.weight
    wanted = torch.stack([torch.stack([W @ h[t, b] + net.out.bias + V[x[t, b]] for b in range(2)]) for t in range(3)])
    torch.testing.assert_close(nets, wanted)
    torch.testing.assert_close(state["h"][0], h[-1])


def test_linear_outputs() -> None:
    net, x = adding.made(adding.Settings(20, 1)), torch.randn(6, 2, 2)
    torch.testing.assert_close(torch.sigmoid(net.last(x, linear=True)), net.last(x))
    torch.testing.assert_close(net.last(x, linear=True), net(x)[0][-1])


def test_outputs_at_the_end_of_rows() -> None:
    net = distractors.made(distractors.Settings(6, 1, width=1.0))
    x = torch.randint(10, (9, 2))
    both = net.at_end(x, [9, 4])
    torch.testing.assert_close(both[0], net.last(x[:, :1])[0])
    torch.testing.assert_close(both[1], net.last(x[:4, 1:])[0])


def test_descent_is_that_of_torch() -> None:
    ours, theirs = (torch.nn.Linear(4, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    x, descend, optimiser = torch.randn(3, 4), Descent(ours, 0.3), torch.optim.SGD(theirs.parameters(), 0.3)
    for _ in range(3):
        descend(ours(x).square().sum())
        optimiser.zero_grad()
        theirs(x).square().sum().backward()
        optimiser.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_adam_clips() -> None:
    ours, theirs = (torch.nn.Linear(4, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    update, optimiser = Adam(ours, 0.02, clip=0.5), torch.optim.Adam(theirs.parameters(), 0.02)
    for k in range(3):
        x = torch.randn(3, 4) * 10.0 ** (1 - k)
        update(ours(x).square().sum())
        optimiser.zero_grad()
        theirs(x).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimiser.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_which_strings_a_net_knows() -> None:
    random = np.random.default_rng(1)
    walks = embedded_reber.strings(random, 9)
    net = embedded_reber.made(embedded_reber.Settings())
    known = []
    for walk in walks:
        nets, _ = net(torch.from_numpy(walk.symbols[:-1]).unsqueeze(1))
        known.append(
            all(
                min(row[legal]) > max(row[~legal])
                for row, legal in zip(nets[:, 0].detach().numpy(), walk.legal, strict=True)
            )
        )
    assert embedded_reber.Judge(walks)(net) == np.mean(known)


def test_a_net_that_knows_some_strings() -> None:
    walks = embedded_reber.strings(np.random.default_rng(2), 40)

    def knows_if_t(x: Tensor) -> tuple[Tensor, None]:
        """Right for the strings between two T, by looking them up."""
        nets = torch.zeros(*x.shape, 7)
        for row, walk in enumerate(walks):
            if walk.text[1] == "T":
                nets[: len(walk.legal), row] = torch.from_numpy(walk.legal).float()
        return nets, None

    share = np.mean([walk.text[1] == "T" for walk in walks])
    assert 0 < share < 1
    assert embedded_reber.Judge(walks)(knows_if_t) == share  # type: ignore[arg-type]
