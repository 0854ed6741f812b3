"""Gradients with few stored states against those of plain BPTT: the same bits where kernels run."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.memory import Activations
from tidegate.cells import get
from tidegate.cells.transforms import zoneout
from tidegate.errors import ArgumentError
from tidegate.gradients import BPTT, Rule, gradient, sweep
from tidegate.nn import Recurrent, Stack, State
from tidegate.runtime import support

I, H = 5, 12  # noqa: E741
Run = Callable[[int, int, State | None], tuple[Tensor, State]]


class Problem:
    """A layer on random data; `lengths` and `reset` are cut as the steps are."""

    def __init__(self, layer: nn.Module, steps: int, batch: int, *, lengths: bool = False, reset: bool = False) -> None:
        like = next(layer.parameters())
        self.layer, self.steps = layer, steps
        self.x = nn.Parameter(torch.randn(steps, batch, I, dtype=like.dtype))
        self.module = nn.Module()
        self.module.layer, self.module.x = layer, self.x
        self.target = torch.randn(steps, batch, 1, dtype=like.dtype)
        self.lengths = torch.randint(0, steps + 1, (batch,)) if lengths else None
        self.reset = torch.rand(steps, batch) < 0.02 if reset else None
        self.names = [*dict(layer.named_parameters()), "x"]
        self.parameters = [*layer.parameters(), self.x]

    def run(self, start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        lengths = None if self.lengths is None else (self.lengths - start).clamp(0, stop - start)
        reset = None if self.reset is None else self.reset[start:stop]
        found: tuple[Tensor, State] = self.layer(self.x[start:stop], state, lengths=lengths, reset=reset)
        return found

    def score(self, outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return ((outputs - self.target[start:stop]) ** 2).sum(), torch.tensor(float(stop - start))

    def sweep(self, rule: Rule, run: Run | None = None) -> tuple[Tensor, Tensor]:
        ((total, count),) = sweep(rule, self.module, self.steps, run or self.run, self.score)
        return total, count

    def gradients(self, rule: Rule, run: Run | None = None) -> dict[str, Tensor]:
        total, count = self.sweep(rule, run)
        found = torch.autograd.grad(total / count, self.parameters, materialize_grads=True)
        return dict(zip(self.names, found, strict=True))

    def different(self, states: int | str) -> list[str]:
        """The names whose gradients are not the same bits with so many stored states as with all."""
        plain, found = self.gradients(BPTT()), self.gradients(BPTT(checkpoint=states))
        assert all(g.abs().max() > 0 for g in plain.values())
        return [name for name in plain if not torch.equal(plain[name], found[name])]


def recurrent(cell: str, dtype: torch.dtype = torch.float64, **options: Any) -> Recurrent:
    return Recurrent(get(cell), I, H, dtype=dtype, **options)


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", ["lstm", "gru", "elman", "lstm_peephole", "gru_layer_norm", "indrnn", "mgu"])
def test_a_thousand_steps_on_fifty_states_have_the_bits_of_plain_bptt(cell: str, dtype: torch.dtype) -> None:
    assert Problem(recurrent(cell, dtype), 1000, 3).different(50) == []


@pytest.mark.kernels
@pytest.mark.parametrize("options", [{}, {"lengths": True}, {"reset": True}, {"lengths": True, "reset": True}])
@pytest.mark.parametrize("batch", [1, 7, 33])
def test_two_layers_with_learned_starts(batch: int, options: dict[str, bool]) -> None:
    torch.manual_seed(batch)
    layer = recurrent("lstm_peephole", num_layers=2, learn_initial_state=True)
    assert Problem(layer, 203, batch, **options).different(2) == []


@pytest.mark.kernels
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [3, 40])
def test_any_number_of_threads(threads: int, batch: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        layer = Recurrent("lstm", I, 80, num_layers=2, dtype=torch.float32)
        assert Problem(layer, 150, batch).different(3) == []
    finally:
        torch.set_num_threads(before)


@pytest.mark.kernels
@pytest.mark.parametrize("steps", [31, 32, 33, 64, 100])
@pytest.mark.parametrize("checkpoint", [1, "1GiB", "67KiB"])
def test_short_sequences_and_budgets(steps: int, checkpoint: int | str) -> None:
    assert Problem(recurrent("lstm"), steps, 3).different(checkpoint) == []


@pytest.mark.kernels
def test_indices_of_one_hots() -> None:
    problem = Problem(recurrent("lstm"), 100, 3)
    indices = torch.randint(0, I, (100, 3))

    def run(start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        found: tuple[Tensor, State] = problem.layer(indices[start:stop], state)
        return found

    plain, found = (problem.gradients(rule, run) for rule in (BPTT(), BPTT(checkpoint=2)))
    assert all(torch.equal(plain[name], found[name]) for name in plain)


def compare(plain: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    for name, expected in plain.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-11, atol=1e-13, msg=name)


class Twice(nn.Module):
    """One layer, read forwards and with its rows turned round."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = recurrent("lstm", learn_initial_state=True)

    def forward(self, x: Tensor, state: State | None = None, **options: Any) -> tuple[Tensor, State]:
        first, new = self.layer(x, state, **options)
        return first - self.layer(x.flip(1), state)[0], new


def test_a_layer_that_is_used_twice() -> None:
    problem = Problem(Twice(), 100, 3)
    compare(in_blocks(problem), problem.gradients(BPTT(checkpoint=2)))


class Readout(nn.Module):
    """Layers, and something of torch's own behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Stack(recurrent("gru"), Recurrent("slstm", H, H, dtype=torch.float64))
        self.out = nn.Linear(H, 1, dtype=torch.float64)

    def forward(self, x: Tensor, state: State | None = None, **options: Any) -> tuple[Tensor, State]:
        y, new = self.layers(x, state, **options)
        return self.out(y), new


def test_other_modules_agree_up_to_rounding() -> None:
    problem = Problem(Readout(), 203, 3, lengths=True, reset=True)
    compare(problem.gradients(BPTT()), problem.gradients(BPTT(checkpoint=2)))


def test_the_reference_path_agrees_up_to_rounding() -> None:
    problem = Problem(recurrent("lstm", learn_initial_state=True), 70, 2, lengths=True, reset=True)
    with support.disabled():
        compare(problem.gradients(BPTT()), problem.gradients(BPTT(checkpoint=1)))


@pytest.mark.kernels
def test_a_loss_that_does_not_hang_on_some_blocks() -> None:
    problem = Problem(recurrent("lstm"), 100, 3)

    def score(outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return (outputs * 2).sum() if 32 <= start < 64 else outputs.new_zeros(()), torch.ones(())

    ((total, _),) = sweep(BPTT(checkpoint=2), problem.module, 96, problem.run, score)
    found = torch.autograd.grad(total, problem.parameters)
    y, _ = problem.layer(problem.x[:64])
    expected = torch.autograd.grad((y[32:] * 2).sum(), problem.parameters)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


# random numbers


def in_blocks(problem: Problem, steps: int = 32) -> dict[str, Tensor]:
    """Plain back-propagation through calls of so many steps, which draw what the calls of a checkpointed run draw."""
    state, losses = None, []
    for start in range(0, problem.steps, steps):
        stop = min(start + steps, problem.steps)
        outputs, state = problem.run(start, stop, state)
        losses.append(problem.score(outputs, start, stop)[0])
    found = torch.autograd.grad(sum(losses) / problem.steps, problem.parameters)  # type: ignore[arg-type]
    return dict(zip(problem.names, found, strict=True))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: recurrent("lstm", num_layers=2, dropout=0.5),
        lambda: Recurrent(zoneout(get("lstm"), h=0.2, c=0.3), I, H, dtype=torch.float64),
    ],
    ids=["dropout", "zoneout"],
)
def test_the_same_random_numbers_are_drawn_again(layer: Callable[[], Recurrent]) -> None:
    problem = Problem(layer(), 203, 3)
    torch.manual_seed(5)
    expected, after = in_blocks(problem), torch.rand(3)
    torch.manual_seed(5)
    found = problem.gradients(BPTT(checkpoint=2))
    compare(expected, found)
    assert torch.equal(torch.rand(3), after)  # what comes after is not drawn anew


# memory


def most_bytes(problem: Problem, rule: Rule) -> int:
    watch = Activations([*problem.parameters, problem.target])

    def run(start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        outputs, new = problem.run(start, stop, state)
        new.map(watch.hold)
        return outputs, new

    most = watch.during(lambda: problem.gradients(rule, run))
    gc.collect()
    assert watch.bytes == 0
    return most


@pytest.mark.parametrize("layers", [1, 2])
def test_activations_take_a_seventeenth_of_the_memory(layers: int) -> None:
    problem = Problem(Recurrent("lstm", I, 32, num_layers=layers), 1000, 4)
    plain = most_bytes(problem, BPTT())
    assert plain > 1000 * 4 * 32 * 4 * 6 * layers
    assert most_bytes(problem, BPTT(checkpoint=50)) <= 0.06 * plain


@pytest.mark.kernels
@pytest.mark.parametrize("budget", ["116KiB", "400KiB", "1MiB"])
def test_a_budget_is_kept(budget: str) -> None:
    problem = Problem(Recurrent("lstm", I, 32), 1000, 4)
    assert most_bytes(problem, BPTT(checkpoint=budget)) <= int(budget[:-3]) << (10 if "K" in budget else 20)


def test_a_budget_that_is_large_enough_runs_nothing_again() -> None:
    problem, calls = Problem(recurrent("lstm"), 200, 3), []

    def run(start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        calls.append((start, stop))
        return problem.run(start, stop, state)

    problem.gradients(BPTT(checkpoint="1GiB"), run)
    assert calls == [(0, 32), (0, 200)]  # the first is to measure


# what is refused, and what is left alone


@pytest.mark.kernels
def test_gradients_by_name_with_few_states() -> None:
    layer, x, target = recurrent("lstm"), *torch.randn(2, 100, 3, 1, dtype=torch.float64).unbind()
    x = x.expand(-1, -1, I)
    plain, found = (gradient(layer, x, target, squared, rule=rule) for rule in (BPTT(), BPTT(checkpoint=1)))
    assert all(torch.equal(plain[name], found[name]) for name in plain)
    assert all(p.grad is None for p in layer.parameters())


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets) ** 2).sum()


@pytest.mark.kernels
def test_backward_fills_the_parameters() -> None:
    problem = Problem(recurrent("lstm"), 100, 3)
    problem.sweep(BPTT(checkpoint=1))[0].backward()
    found = [p.grad for p in problem.parameters]
    expected = torch.autograd.grad(problem.sweep(BPTT())[0], problem.parameters)
    assert all(one is not None and torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_the_sum_and_its_number_of_terms() -> None:
    problem = Problem(recurrent("lstm"), 100, 3)
    (plain, all_terms), (total, count) = problem.sweep(BPTT()), problem.sweep(BPTT(checkpoint=1))
    torch.testing.assert_close(total, plain, rtol=1e-13, atol=0)
    assert all_terms == count == 100


def test_nothing_is_found_twice() -> None:
    problem = Problem(recurrent("lstm"), 40, 3)
    total, _ = problem.sweep(BPTT(checkpoint=1))
    total.backward(retain_graph=True)
    with pytest.raises(ArgumentError) as caught:
        total.backward()
    assert str(caught.value) == (
        "A checkpointed loss can be differentiated only once, since its activations are freed: sweep the sequence "
        "again, or use BPTT() without a checkpoint."
    )


def test_weights_must_not_change_before_backward() -> None:
    problem = Problem(recurrent("lstm"), 40, 3)
    total, _ = problem.sweep(BPTT(checkpoint=1))
    with torch.no_grad():
        problem.parameters[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


@pytest.mark.parametrize(
    ("parameters", "where"),
    [([], "none"), ([torch.ones(1), torch.ones(1).to("meta")], "cpu, meta")],
)
def test_parameters_elsewhere(parameters: list[Tensor], where: str) -> None:
    problem = Problem(recurrent("lstm"), 40, 3)
    with pytest.raises(ArgumentError) as caught:
        list(sweep(BPTT(checkpoint=1), nn.ParameterList(parameters), 40, problem.run, problem.score))
    assert str(caught.value) == (
        "Checkpointing needs parameters that require gradients on the CPU, whose random numbers it can draw again, "
        f"got parameters on: {where}. Use a module on the CPU that requires gradients, or BPTT() without a checkpoint."
    )
