"""Gradients through time against a hand-written oracle: a tiny RNN stepped by a Python loop."""

import pytest
import torch
from torch import Tensor

from tidegate.gradients import BPTT, Rule, TruncatedBPTT, gradient, sweep
from tidegate.nn import Recurrent, State

STEPS, BATCH, INPUT, HIDDEN = 11, 3, 2, 4


@pytest.fixture
def layer() -> Recurrent:
    return Recurrent("elman", INPUT, HIDDEN).double()


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64), torch.randn(STEPS, BATCH, HIDDEN, dtype=torch.float64)


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets) ** 2).sum()


def by_hand(layer: Recurrent, x: Tensor, target: Tensor, k1: int, k2: int) -> dict[str, Tensor]:
    """Every loss looks back to a constant state: that of the free run, k2 steps before the end of its update."""
    weights = dict(layer.named_parameters())
    with torch.no_grad():
        states = [torch.zeros(BATCH, HIDDEN, dtype=torch.float64)]
        for step in range(STEPS):
            states.append(elman_step(weights, x[step], states[-1]))
    totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for step in range(STEPS):
        stop = min((step // k1 + 1) * k1, STEPS)
        start = min(step // k1 * k1, max(0, stop - k2))
        h = states[start]
        for inner in range(start, step + 1):
            h = elman_step(weights, x[inner], h)
        found = torch.autograd.grad(squared(h, target[step]), list(weights.values()))
        for name, part in zip(weights, found, strict=True):
            totals[name] += part
    return totals


def elman_step(weights: dict[str, Tensor], x: Tensor, h: Tensor) -> Tensor:
    by_end = {name.rpartition(".")[2]: weight for name, weight in weights.items()}
    return torch.tanh(x @ by_end["x"].T + h @ by_end["h"].T + by_end["bias"])


@pytest.mark.parametrize(("k1", "k2"), [(2, 5), (3, 3), (4, 7), (1, 1), (1, 6), (5, 40)])
def test_truncation_is_that_of_the_hand_written_loop(layer: Recurrent, k1: int, k2: int) -> None:
    x, target = data()
    found = gradient(layer, x, target, squared, rule=TruncatedBPTT(k1, k2))
    for name, expected in by_hand(layer, x, target, k1, k2).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-12, atol=1e-12)


def test_full_bptt_is_autograd(layer: Recurrent) -> None:
    x, target = data()
    squared(layer(x)[0], target).backward()
    for name, found in gradient(layer, x, target, squared).items():
        torch.testing.assert_close(found, layer.get_parameter(name).grad, rtol=1e-12, atol=1e-12)


def test_one_long_truncation_is_bptt_and_a_short_one_is_not(layer: Recurrent) -> None:
    x, target = data()
    full = gradient(layer, x, target, squared, rule=BPTT())
    whole = gradient(layer, x, target, squared, rule=TruncatedBPTT(STEPS, STEPS))
    short = gradient(layer, x, target, squared, rule=TruncatedBPTT(2, 2))
    assert all(torch.equal(full[name], whole[name]) for name in full)
    assert any(not torch.allclose(full[name], short[name], rtol=1e-3) for name in full)


def test_gradient_leaves_the_layer_alone(layer: Recurrent) -> None:
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    gradient(layer, *data(), squared, rule=TruncatedBPTT(2, 3))
    assert all(weight.grad is None for weight in layer.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items())


def losses_of(layer: Recurrent, rule: Rule, x: Tensor, target: Tensor) -> list[tuple[float, int]]:
    def run(start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        outputs, new = layer(x[start:stop], state)
        return outputs, new

    def score(outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return squared(outputs, target[start:stop]), torch.tensor(stop - start)

    return [(total.item(), int(count)) for total, count in sweep(rule, layer, STEPS, run, score)]


def test_state_is_carried_so_the_losses_are_those_of_one_run(layer: Recurrent) -> None:
    x, target = data()
    [(whole, steps)] = losses_of(layer, BPTT(), x, target)
    pieces = losses_of(layer, TruncatedBPTT(3, 4), x, target)
    assert steps == STEPS
    assert [count for _, count in pieces] == [3, 3, 3, 2]
    assert sum(total for total, _ in pieces) == pytest.approx(whole, rel=1e-12)


def test_weights_may_change_between_segments(layer: Recurrent) -> None:
    """With k1 = k2 = 2 each segment starts from the state that the weights of its time gave."""
    x, target = data()
    twin = Recurrent("elman", INPUT, HIDDEN).double()
    twin.load_state_dict(layer.state_dict())

    def run(start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        outputs, new = layer(x[start:stop], state)
        return outputs, new

    def score(outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return squared(outputs, target[start:stop]), torch.tensor(1)

    for total, _ in sweep(TruncatedBPTT(2, 2), layer, 10, run, score):
        descend(layer, total)
    h = torch.zeros(BATCH, HIDDEN, dtype=torch.float64)
    for start in range(0, 10, 2):
        total = torch.zeros((), dtype=torch.float64)
        for step in (start, start + 1):
            h = elman_step(dict(twin.named_parameters()), x[step], h)
            total = total + squared(h, target[step])
        descend(twin, total)
        h = h.detach()
    for name, expected in twin.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[name], expected, rtol=1e-12, atol=1e-12)


def descend(layer: Recurrent, loss: Tensor) -> None:
    found = torch.autograd.grad(loss, list(layer.parameters()))
    with torch.no_grad():
        for weight, part in zip(layer.parameters(), found, strict=True):
            weight -= 0.01 * part
