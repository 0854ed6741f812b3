"""Gradients through time against a hand-written oracle: a tiny RNN stepped by a Python loop."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tidegate.errors import ArgumentError
from tidegate.gradients import BPTT, RTRL, Rule, TruncatedBPTT, gradient, sweep
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


def last(outputs: Tensor, targets: Tensor) -> Tensor:
    return squared(outputs[-1], targets[-1])


def mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return squared(outputs, targets) / outputs.numel()


def mixed(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.cumsum(0) * targets).sum().exp().log1p() + outputs.amax() ** 2


@pytest.mark.parametrize("score", [squared, last, mean, mixed])
@pytest.mark.parametrize("rule", [BPTT(checkpoint=1), BPTT(checkpoint="60KiB"), RTRL(every=4), RTRL()], ids=str)
@pytest.mark.parametrize("hooked", [False, True])
def test_any_loss_of_the_whole_sequence(layer: Recurrent, score: Any, rule: Rule, hooked: bool) -> None:
    x, target = torch.randn(70, BATCH, INPUT).double(), torch.randn(70, BATCH, 1).double()
    readout = nn.Linear(HIDDEN, 1).double()
    if hooked:
        layer.register_forward_hook(lambda *_: None)
    plain, found = (gradient(layer, x, target, score, rule=r, readout=readout) for r in (BPTT(), rule))
    assert {"l0.h.h", "readout.bias"} < set(plain)
    for name, expected in plain.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("score", [last, mean, mixed])
def test_truncation_cuts_any_loss_where_it_cuts_a_sum(layer: Recurrent, score: Any) -> None:
    x, target = data()
    y = layer(x)[0].detach().requires_grad_()
    (adjoint,) = torch.autograd.grad(score(y, target), y)
    expected = gradient(layer, x, adjoint, lambda y, d: (y * d).sum(), rule=TruncatedBPTT(3, 5))
    for name, found in gradient(layer, x, target, score, rule=TruncatedBPTT(3, 5)).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-12, atol=1e-14)
    for name, found in gradient(layer, x, target, score, rule=TruncatedBPTT(3, STEPS)).items():
        torch.testing.assert_close(found, gradient(layer, x, target, score)[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", [BPTT(checkpoint=1), TruncatedBPTT(8, 8)], ids=str)
def test_masks_are_those_that_the_loss_has_seen(rule: Rule) -> None:
    layer = Recurrent("elman", INPUT, HIDDEN, num_layers=2, dropout=0.5).double()
    x, target, seen = torch.randn(64, BATCH, INPUT).double(), torch.randn(64, BATCH, HIDDEN).double(), []
    layer.register_forward_hook(lambda _, __, found: seen.append(found[0].detach()))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.clear()
        seen.append(outputs.detach())
        return mean(outputs, targets)

    before = torch.get_rng_state()
    gradient(layer, x, target, loss, rule=rule)
    whole, *again = seen
    assert again
    for part in again:
        assert any(torch.allclose(part, other) for other in whole.split(len(part)))
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_loss_is_called_once(layer: Recurrent) -> None:
    x, target = data()
    for rule in (BPTT(), BPTT(checkpoint=1), TruncatedBPTT(2, 4), RTRL(every=3)):
        calls: list[int] = []
        gradient(layer, x, target, lambda y, t: (calls.append(len(y)), squared(y, t))[1], rule=rule)  # noqa: B023
        assert calls == [STEPS]


@pytest.mark.parametrize("rule", [BPTT(), BPTT(checkpoint=1), TruncatedBPTT(2, 4), RTRL()], ids=str)
def test_a_loss_that_is_not_one_number(layer: Recurrent, rule: Rule) -> None:
    x, target = data()
    with pytest.raises(ArgumentError) as caught:
        gradient(layer, x, target, lambda y, t: (y - t) ** 2, rule=rule)
    assert str(caught.value) == "loss must return a tensor of one number, got [11, 3, 4]: reduce it, as in .sum()"
    with pytest.raises(ArgumentError, match=r"got float"):
        gradient(layer, x, target, lambda y, t: 1.0, rule=rule)


@pytest.mark.parametrize("rule", [BPTT(checkpoint=1), TruncatedBPTT(2, 4)], ids=str)
def test_a_layer_that_cannot_be_cut_along_the_first_axis(rule: Rule) -> None:
    layer = Recurrent("elman", INPUT, HIDDEN, batch_first=True).double()
    with pytest.raises(ArgumentError) as caught:
        gradient(layer, *data(), squared, rule=rule)
    assert str(caught.value) == f"{rule} cuts x along time, its first axis: give a layer with batch_first=False"


def test_no_steps_have_no_gradient(layer: Recurrent) -> None:
    x, target = (t[:0] for t in data())
    for rule in (BPTT(), BPTT(checkpoint=1), TruncatedBPTT(2, 4), RTRL(every=3)):
        assert not any(g.any() for g in gradient(layer, x, target, mean, rule=rule).values())


RULES_IN_PARTS = [BPTT(checkpoint=1), TruncatedBPTT(4, 6), RTRL(every=4)]


def updates(layer: nn.Module, rule: Rule, score: Any) -> int:
    def run(start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        return layer(x[start:stop], state)

    x, target = data()
    return len(list(sweep(rule, layer, STEPS, run, lambda y, a, b: (score(y, target[a:b]), torch.tensor(b - a)))))


@pytest.mark.parametrize("rule", RULES_IN_PARTS, ids=str)
@pytest.mark.parametrize("score", [last, mean, lambda y, t: squared(y, t) + 100.0], ids=["last", "mean", "penalty"])
def test_a_score_that_is_no_sum_over_steps(layer: Recurrent, rule: Rule, score: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        updates(layer, rule, score)
    number = r"-?[\d.e+-]+"
    assert re.fullmatch(
        rf"score must give the sum of the losses of the steps it is called on: it gives {number} for steps 0 to \d, "
        rf"{number} for \d to \d+, but {number} for 0 to \d+. Sum over steps instead of taking a mean or the last "
        "step, and add penalties to the sum that sweep yields; for other losses use BPTT\\(\\) without a checkpoint.",
        str(caught.value),
    )


@pytest.mark.parametrize("rule", RULES_IN_PARTS, ids=str)
def test_scores_are_tried_in_two_halves_once(layer: Recurrent, rule: Rule) -> None:
    calls: list[int] = []

    def counting(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(len(outputs))
        return squared(outputs, targets)

    updates(layer, rule, counting)
    first = len(calls)
    updates(layer, rule, counting)
    assert len(calls) - first == first - 2


def test_a_score_that_draws_is_left_alone(layer: Recurrent) -> None:
    def dropping(outputs: Tensor, targets: Tensor) -> Tensor:
        return squared(nn.functional.dropout(outputs, 0.5), targets)

    assert updates(layer, TruncatedBPTT(4, 4), dropping) == 3


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
