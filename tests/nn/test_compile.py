"""Layers under torch.compile and torch.export: one graph for any batch and time, with the values of eager calls."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.export import Dim, export
from torch.library import opcheck

import tidegate as tg
from layer_cases import make_layer
from native_layers import counted_runs
from tidegate.cells import CELLS
from tidegate.nn import Recurrent, State, swap
from tidegate.reference.unroll import UnrollArguments
from tidegate.runtime import operators, support

I, H = 3, 5  # noqa: E741 - the project's word for the input size
SHAPES = [(4, 6), (7, 2), (2, 11)]  # T, B: the first is compiled for, and no two sizes of it are the same
pytestmark = [
    pytest.mark.kernels,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # torch's own
]
slow = pytest.mark.slow
COMPILERS = [shutil.which(os.environ.get("CXX", "")), *map(shutil.which, ("g++", "clang++"))]
INDUCTOR = pytest.param("inductor", marks=[slow, pytest.mark.skipif(not any(COMPILERS), reason="needs a C++ compiler")])
backends = pytest.mark.parametrize("backend", ["aot_eager", INDUCTOR])


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Recurrent("lstm", I, H, bidirectional=True, learn_initial_state=True),
    "gru": lambda: Recurrent("gru", I, H, num_layers=2),
    "peephole": lambda: Recurrent("lstm_peephole", I, H, bidirectional=True, merge="sum"),
    "LSTM": lambda: tg.LSTM(I, H, bidirectional=True),
    "GRU": lambda: tg.GRU(I, H),
    "RNN": lambda: tg.RNN(I, H),
}

OTHERS = ["lstm", "gru", "peephole", "GRU", "RNN"]


def results(module: nn.Module, call: Any, *given: Any, **options: Any) -> dict[str, Tensor]:
    """Outputs, states, and the gradients of a sum of both."""
    module.zero_grad()
    y, state = call(*given, **options)
    ends = [t for ds in state.layers for d in ds for t in d.values()] if isinstance(state, State) else state
    found = {"y": y, **{f"end {k}": t for k, t in enumerate([ends] if isinstance(ends, Tensor) else ends)}}
    sum((t.sin().sum() for t in found.values()), torch.zeros(())).backward()
    found |= {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    found |= {f"gradient {k}": t.grad for k, t in enumerate(given) if isinstance(t, Tensor) and t.grad is not None}
    for t in given:
        if isinstance(t, Tensor):
            t.grad = None
    return {n: t.detach().clone() for n, t in found.items()}


def assert_compiled_as_eager(module: nn.Module, backend: str, calls: Any) -> None:
    """One graph, made at the first call, serves the others; kernels run; all values are those of eager calls."""
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=backend)
    for k, (given, options) in enumerate(calls):
        with torch._dynamo.config.patch(error_on_recompile=k > 0), counted_runs() as runs:
            ours = results(module, compiled, *given, **options)
        theirs = results(module, module, *given, **options)
        assert runs.count("forward") == runs.count("backward") > 0
        assert list(ours) == list(theirs)
        for name, value in theirs.items():
            if backend == "aot_eager":
                assert torch.equal(ours[name], value), name
            else:
                assert torch.allclose(ours[name], value, rtol=1e-5, atol=1e-5), name  # sums in an order of its own


def an_input(T: int, B: int) -> Tensor:
    return torch.randn(T, B, I, requires_grad=True)


@backends
@pytest.mark.parametrize("name", ["LSTM", *(pytest.param(n, marks=slow) for n in OTHERS)])
def test_any_batch_and_time(name: str, backend: str) -> None:
    with torch._dynamo.config.patch(allow_rnn=True):  # without it torch refuses whatever is an nn.RNNBase
        assert_compiled_as_eager(LAYERS[name](), backend, [((an_input(*shape),), {}) for shape in SHAPES])


@backends
@pytest.mark.parametrize("name", ["lstm", pytest.param("LSTM", marks=slow)])
def test_lengths_and_resets(name: str, backend: str) -> None:
    calls = [
        ((an_input(T, B),), {"lengths": torch.randint(0, T + 1, (B,)), "reset": torch.rand(T, B) < 0.3})
        for T, B in SHAPES
    ]
    with torch._dynamo.config.patch(allow_rnn=True):
        assert_compiled_as_eager(LAYERS[name](), backend, calls)


@backends
def test_a_state_that_is_carried_on(backend: str) -> None:
    layer = Recurrent("lstm", I, H)
    calls = [((an_input(T, B), layer.initial_state(B).map(torch.randn_like)), {}) for T, B in SHAPES]
    assert_compiled_as_eager(layer, backend, calls)


@backends
def test_indices_of_one_hots(backend: str) -> None:
    calls = [((torch.randint(0, I, shape),), {}) for shape in SHAPES]
    assert_compiled_as_eager(Recurrent("gru", I, H), backend, calls)


def test_errors_come_from_compiled_programs_too() -> None:
    layer = Recurrent("gru", I, H)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    compiled(torch.randint(0, I, (4, 6)))
    with pytest.raises(tg.ArgumentError, match="indices of a one-hot of size 3 must be between 0 and 2, got 3 to 3"):
        compiled(torch.full((4, 6), 3))
    compiled(an_input(4, 6), lengths=torch.full((6,), 4))
    with pytest.raises(tg.ArgumentError, match=r"lengths must be 6 whole numbers between 0 and 4, got .*"):
        compiled(an_input(4, 6), lengths=torch.full((6,), 5))


def test_without_gradients_nothing_is_kept() -> None:
    layer = Recurrent("lstm", I, H)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 6, I)
    with torch.no_grad(), counted_runs() as runs:
        assert torch.equal(compiled(x)[0], layer(x)[0])
    assert runs == ["forward", "forward"]


@slow
def test_part_of_a_model() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.layer, self.above = nn.Linear(I, I), Recurrent("gru", I, H), nn.Linear(H, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.above(self.layer(self.below(x).relu())[0])
            return y, y[-1]

    assert_compiled_as_eager(Model(), "aot_eager", [((an_input(*shape),), {}) for shape in SHAPES])


@slow
def test_modules_that_were_swapped_or_unpickled(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LSTM(I, H))
    swap(model)
    torch.save(model[0], tmp_path / "module")
    for module in (model[0], torch.load(tmp_path / "module", weights_only=False)):
        with torch._dynamo.config.patch(allow_rnn=True):
            assert_compiled_as_eager(module, "aot_eager", [((an_input(*shape),), {}) for shape in SHAPES])


def test_on_the_reference_path() -> None:
    """An operator that finds no kernels computes without them, forward and backward."""
    layer, x = Recurrent("lstm", I, H), an_input(4, 6)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    options = {"lengths": torch.tensor([4, 2, 0, 1, 3, 4]), "reset": torch.rand(4, 6) < 0.3}
    expected = results(layer, compiled, x, **options)
    with pytest.MonkeyPatch.context() as patch, counted_runs() as runs:
        patch.setattr(operators, "cell_kernel", lambda *_, **__: None)
        found = results(layer, compiled, x, **options)
    assert not runs
    assert list(found) == list(expected)
    assert all(torch.allclose(found[n], expected[n], rtol=1e-5, atol=1e-5) for n in expected)  # in another order


@pytest.mark.usefixtures("reference_path_notice")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_in_one_graph(dtype: torch.dtype) -> None:
    layer, x = Recurrent("lstm", I, H).to(dtype), an_input(4, 3).detach().to(dtype).requires_grad_()
    expected = results(layer, layer, x)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with counted_runs() as runs:
        found = results(layer, compiled, x)
    assert not runs
    assert list(found) == list(expected)
    assert all(f.dtype is e.dtype for f, e in zip(found.values(), expected.values(), strict=True))
    assert all(torch.allclose(found[n], expected[n], rtol=0.02, atol=0.01) for n in expected)


@pytest.mark.parametrize("kind", ["autocast", "disabled"])
def test_one_graph_where_layers_leave_kernels(kind: str) -> None:
    layer, x = Recurrent("lstm", I, H), an_input(4, 3)
    expected = results(layer, layer, x)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    context = support.disabled() if kind == "disabled" else torch.autocast("cpu", torch.bfloat16)
    with context, counted_runs() as runs:
        found = results(layer, compiled, x)
    assert runs == ([] if kind == "disabled" else ["forward", "backward"])
    assert list(found) == list(expected)
    assert all(torch.allclose(found[n], expected[n], rtol=0, atol=1e-5) for n in expected)


# operators


def operands(name: str, T: int, B: int, indices: bool = False) -> tuple[Any, ...]:
    """What names a cell to an operator, and a call's tensors."""
    layer = make_layer(CELLS[name], I, H).float()
    known = support.kernel_inputs(layer.graph, tuple(layer.sizes.items()), indices)
    x = torch.randint(0, I, (T, B)) if indices else torch.randn(T, B, I)
    rows = [{n: torch.randn(k, H) for n in known.states} for k in (B, 1)]
    with torch.no_grad():
        tensors = known.tensors(UnrollArguments(layer.get_submodule("l0").tensors(), {"x": x}, *rows))
    return known, (known.text, known.numbers, indices), [t.detach().clone() for t in tensors]


@pytest.mark.parametrize("name", ["lstm", pytest.param("gru", marks=slow)])
@pytest.mark.parametrize("form", ["resets", *(pytest.param(f, marks=slow) for f in ("whole", "backwards", "indices"))])
def test_operators_are_what_torch_expects(name: str, form: str) -> None:
    T, B = 4, 3
    known, cell, tensors = operands(name, T, B, form == "indices")
    reset = torch.rand(T, B) < 0.4 if form == "resets" else None
    rest = (form == "backwards",)
    leaves = [t.requires_grad_() if t.is_floating_point() else t for t in tensors]
    opcheck(operators._forward, (*cell, *rest, True, leaves, None, reset))
    ragged = torch.tensor([4, 0, 2])
    opcheck(operators._forward, (*cell, *rest, False, [t.detach() for t in leaves], ragged, reset))
    plain = [t.detach() for t in leaves]
    *found, kept = operators._forward(*cell, *rest, True, plain, ragged, reset)
    gradients, wanted = [torch.randn_like(t) for t in found], [t.is_floating_point() for t in plain]
    opcheck(operators._backward, (*cell, *rest, wanted, gradients, plain, kept, ragged, reset))
    for chosen in range(len(wanted)):
        only = [k == chosen and want for k, want in enumerate(wanted)]
        count = sum(known.needs_grad(only, reset is not None))
        assert len(operators._backward(*cell, *rest, only, gradients, plain, kept, ragged, reset)) == count


# programs on their own


class Ragged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Recurrent("lstm", I, H, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.layer(x, lengths=lengths, reset=reset)
        return y, state["c"]


def ragged_call(T: int, B: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(T, B, I), torch.randint(0, T + 1, (B,)), torch.rand(T, B) < 0.3


IN_ANOTHER_PROCESS = """
import sys, torch
import tidegate.nn
program = torch.export.load(sys.argv[1] + "/program.pt2").module()
for given, expected in torch.load(sys.argv[1] + "/calls.pt"):
    assert all(torch.equal(a, b) for a, b in zip(program(*given), expected, strict=True))
"""


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=slow)])
def test_an_exported_program_takes_any_batch_and_time(strict: bool, tmp_path: Path) -> None:
    model, T, B = Ragged(), Dim("T", min=1), Dim("B", min=1)
    program = export(model, ragged_call(4, 6), dynamic_shapes=({0: T, 1: B}, {0: B}, {0: T, 1: B}), strict=strict)
    assert sum(n.target is torch.ops.tidegate.forward.default for n in program.graph.nodes) == 2
    calls = []
    for shape in [(7, 2), (1, 1), (9, 30)]:
        given = ragged_call(*shape)
        with torch.no_grad():
            expected = model(*given)
        found = program.module()(*given)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        calls.append((given, expected))
    if strict:
        return
    torch.export.save(program, tmp_path / "program.pt2")
    torch.save(calls, tmp_path / "calls.pt")
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path)], check=True)
