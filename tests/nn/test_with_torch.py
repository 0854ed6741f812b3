"""Layers among torch's own tools: export, compile, autocast, checkpoints, the meta device, several processes."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from tidegate.cells import CELLS
from tidegate.equations import cell, concat, linear, sigmoid, tanh
from tidegate.nn import Recurrent, State

T, B, I, H = 5, 3, 4, 6  # noqa: E741 - the project's word for the input size


@pytest.fixture
def layer() -> Recurrent:
    torch.manual_seed(2)
    return Recurrent("lstm", I, H, num_layers=2)


def test_export_of_a_sequence_for_any_batch(layer: Recurrent) -> None:
    program = export(layer, (torch.randn(T, B, I),), dynamic_shapes=({1: Dim("B", min=2, max=64)},)).module()
    x = torch.randn(T, 7, I)
    (y, state), (wanted, end) = program(x), layer(x)
    assert torch.allclose(y, wanted, rtol=0, atol=1e-6)
    assert isinstance(state, State)
    assert torch.allclose(state["c"], end["c"], rtol=0, atol=1e-6)


class OneStep(nn.Module):
    def __init__(self, layer: Recurrent) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self.layer.step(x, state)


def test_export_of_a_step(layer: Recurrent) -> None:
    program = export(OneStep(layer), (torch.randn(B, I), layer.initial_state(B))).module()
    state = mine = layer.initial_state(B)
    for x in torch.randn(T, B, I):
        (y, state), (wanted, mine) = program(x, state), layer.step(x, mine)
        assert torch.allclose(y, wanted, rtol=0, atol=1e-6)


def test_compiled_with_and_without_lengths(layer: Recurrent) -> None:
    x = torch.randn(T, B, I)
    compiled = torch.compile(copy.deepcopy(layer), backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        for lengths in (None, [5, 0, 2]):
            y, _ = compiled(x, lengths=lengths)
            assert torch.allclose(y, layer(x, lengths=lengths)[0], rtol=0, atol=1e-6)
        y.sum().backward()


def test_the_meta_device_has_shapes_only() -> None:
    layer = Recurrent("gru", I, H, bidirectional=True, device="meta")
    for x in (torch.empty(T, B, I, device="meta"), torch.empty(T, B, dtype=torch.long, device="meta")):
        y, state = layer(x, lengths=[T, 0, 2], reset=torch.zeros(T, B))
        assert (y.shape, y.is_meta, state["h"].shape) == ((T, B, 2 * H), True, (2, B, H))


def test_checkpoints_give_the_same_gradients(layer: Recurrent) -> None:
    found = []
    for again in (False, True):
        x = torch.linspace(-1, 1, T * B * I).reshape(T, B, I).requires_grad_()
        y, state = checkpoint(layer, x, use_reentrant=False) if again else layer(x)
        found.append(torch.autograd.grad(y.sum() + state["c"].square().sum(), [x, *layer.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.usefixtures("reference_path_notice")
@pytest.mark.parametrize("name", CELLS)
def test_autocast_keeps_states_and_outputs_in_the_weights_type(name: str) -> None:
    graph = CELLS[name].graph
    width = 8 if graph.inputs[0].size == ("H",) else I
    layer = Recurrent(name, width, 8, **{k: 3 for k in graph.letters if k not in "HI"})
    x = torch.randn(T, B, width)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(x, lengths=[5, 0, 2])
        again, _ = layer(x.bfloat16(), state)
    assert {y.dtype, again.dtype, *(t.dtype for t in state.layers[0][0].values())} == {torch.float32}
    assert torch.allclose(y, layer(x, lengths=[5, 0, 2])[0], atol=0.05)


def test_parts_can_be_frozen_and_shared() -> None:
    first, second = Recurrent("lstm", I, I), Recurrent("lstm", I, I)
    second.l0 = first.l0
    first.get_submodule("l0.i").requires_grad_(False)
    y, _ = second(first(torch.randn(T, B, I))[0])
    y.square().sum().backward()
    assert first.get_parameter("l0.i.x").grad is None
    assert first.get_parameter("l0.f.x").grad is second.get_parameter("l0.f.x").grad is not None


def test_an_output_with_a_scalar_part() -> None:
    @cell(states="h s:1", output="y", source="a test")
    def both(x, h, s):
        s = 0.5 * s + sigmoid(linear("s", x, size=1))
        h = tanh(linear("h", x, h))
        return concat(h, s), h, s

    layer = Recurrent(both, I, H, num_layers=2)
    y, state = layer(torch.randn(T, B, I))
    assert y.shape == (T, B, H + 1)
    assert torch.equal(y[-1], torch.cat([state.layers[1][0]["h"], state.layers[1][0]["s"]], 1))


@pytest.mark.parametrize("spoilt", [torch.nan, torch.inf, -torch.inf])
def test_a_reset_selects_and_does_not_multiply(layer: Recurrent, spoilt: float) -> None:
    x, reset = torch.randn(T, B, I), torch.zeros(T, B)
    reset[0] = 1
    state = layer.initial_state(B).map(lambda v: torch.full_like(v, spoilt).requires_grad_())
    y, _ = layer(x, state, reset=reset)
    assert torch.equal(y, layer(x)[0])
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)
    assert not any(v.grad is None or v.grad.any() for d in state.layers for v in d[0].values())


def train_on(rank: int, meeting: str, results: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.manual_seed(2)
    model = nn.parallel.DistributedDataParallel(Recurrent("lstm", I, H, dtype=torch.float64))
    x = torch.randn(T, 4, I, dtype=torch.float64)[:, 2 * rank : 2 * rank + 2]
    y, _ = model(x, lengths=[[5, 2], [3, 4]][rank])
    y.square().sum().backward()
    torch.save({n: p.grad for n, p in model.module.named_parameters()}, f"{results}/{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(train_on, (str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    torch.manual_seed(2)
    layer = Recurrent("lstm", I, H, dtype=torch.float64)
    y, _ = layer(torch.randn(T, 4, I, dtype=torch.float64), lengths=[5, 2, 3, 4])
    (y.square().sum() / 2).backward()
    for rank in "01":
        found = torch.load(tmp_path / rank, weights_only=True)
        for name, p in layer.named_parameters():
            assert torch.allclose(found[name], p.grad, rtol=0, atol=1e-12), name


def test_a_parametrised_weight_is_computed_once_a_call() -> None:
    calls: list[int] = []

    class Counted(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            calls.append(1)
            return weight

    layer = Recurrent("lstm", I, H)
    parametrize.register_parametrization(layer.get_submodule("l0.i"), "h", Counted())
    calls.clear()
    layer(torch.randn(T, B, I))
    assert len(calls) == 1
