"""Promises about layers as modules of torch: types, derivatives, copies, files, initial values."""

import copy
import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from tidegate.conformance.subject import CheckedCell, H, expect, expect_near
from tidegate.equations import Cell
from tidegate.errors import TidegateNotice
from tidegate.nn import Recurrent
from tidegate.nn.initialise import draw
from tidegate.reference import bound, weight_shape

T, B = 4, 3
OTHER_GRADIENT = frozenset({"stop", "clip_gradient"})  # whose derivative is not that of their value, on purpose
KINKED = frozenset({"floor", "mod", "lt", "le", "gt", "ge", "eq", "relu", "abs", "maximum", "minimum", "where"})


def shapes(subject: CheckedCell) -> None:
    """Outputs and states have the declared shapes."""
    layer = subject.layer()
    y, end = layer(subject.inputs(T, B))
    expect(tuple(y.shape) == (T, B, layer.output_size), f"the output is {list(y.shape)}")
    for s in subject.graph.states:
        expected = (B, *bound(s.size, subject.sizes))
        found = tuple(end.layers[0][0][s.name].shape)
        expect(found == expected, f"state {s.name!r} is {list(found)}, expected {list(expected)}")


def types(subject: CheckedCell) -> None:
    """float32 in gives float32 out, close to float64; bfloat16 runs."""
    layer, x = subject.layer(), subject.inputs(T, B)
    right = layer(x)[0]
    single = copy.deepcopy(layer).float()
    y, end = single({n: v.float() for n, v in x.items()})
    expect(y.dtype is torch.float32, f"in float32 the output is {y.dtype}")
    for name, value in end.layers[0][0].items():
        expect(value.dtype is torch.float32, f"in float32 state {name!r} is {value.dtype}")
    expect_near("in float32", y, right, 1e-4)
    again = single.double()
    expect(all(p.dtype is torch.float64 for p in again.parameters()), "the layer is not float64 after float32 and back")
    expect_near("after float32 and back", again(x)[0], right, 1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TidegateNotice)
        half = copy.deepcopy(layer).bfloat16()
        y = half({n: v.bfloat16() for n, v in x.items()})[0]
    expect(y.dtype is torch.bfloat16, f"in bfloat16 the output is {y.dtype}")


def derivatives(subject: CheckedCell) -> None:
    """First and second derivatives agree with finite differences."""
    ops = {v.op for v in subject.graph.values}
    if ops & OTHER_GRADIENT:
        return
    layer, x = subject.layer(), subject.inputs(3, 2)
    names = list(dict(layer.named_parameters()))
    state = subject.state(layer, 2)
    carried = [s.name for s in subject.graph.states if not s.bookkeeping]

    def run(*given: Tensor) -> Any:
        weights = dict(zip(names, given, strict=False))
        first = {**x, subject.graph.inputs[0].name: given[len(names)]}
        begin = {**state.layers[0][0], **dict(zip(carried, given[len(names) + 1 :], strict=True))}
        y, end = functional_call(layer, weights, (first, type(state)([[begin]])))
        found = [y, *(end.layers[0][0][n] for n in carried)]
        return tuple(v for v in found if v.requires_grad)

    given = [p.detach().clone() for p in layer.parameters()]
    given += [x[subject.graph.inputs[0].name].clone(), *(state.layers[0][0][n].clone() for n in carried)]
    leaves = [v.requires_grad_() for v in given]
    tried: dict[str, Any] = {"gradcheck": torch.autograd.gradcheck}
    if not ops & KINKED:
        tried["gradgradcheck"] = torch.autograd.gradgradcheck
    for what, check in tried.items():
        try:
            check(run, leaves, fast_mode=True, atol=1e-5, rtol=1e-3)
        except RuntimeError as error:
            expect(False, f"{what}: {str(error).splitlines()[0]}")


def copies(subject: CheckedCell) -> None:
    """deepcopy, state_dict and torch.save give a layer with the same results."""
    layer, x = subject.layer(), subject.inputs(T, B)
    right = layer(x)[0]
    expect_near("a deepcopy", copy.deepcopy(layer)(x)[0], right, 0.0)
    other = subject.layer(seed=9)
    other.load_state_dict(layer.state_dict())
    expect_near("a layer with its state_dict", other(x)[0], right, 0.0)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    expect_near("a layer that torch has pickled", torch.load(buffer, weights_only=False)(x)[0], right, 0.0)


def meta_device(subject: CheckedCell) -> None:
    """A layer on the meta device has shapes only, and moves to a real device with `to_empty`."""
    layer = Recurrent(subject.cell, subject.input_size, H, **subject.letters, device="meta").eval()
    y, _ = layer({n: v.float().to("meta") for n, v in subject.inputs(T, B).items()})
    expect(y.is_meta and tuple(y.shape) == (T, B, layer.output_size), f"on meta the output is {list(y.shape)}")
    real = layer.to_empty(device="cpu")
    real.reset_parameters()
    single = {n: v.float() for n, v in subject.inputs(T, B).items()}
    finite = bool(torch.isfinite(real(single)[0]).all())
    expect(finite, "a layer moved from meta gives values that are not finite")


class _Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2.0 * weight


def parametrisations(subject: CheckedCell) -> None:
    """A parametrised weight is used as computed, and gradients flow through it."""
    layer, x = subject.layer(), subject.inputs(T, B)
    name = next(iter(dict(layer.named_parameters())))
    path, _, leaf = name.rpartition(".")
    with torch.no_grad():
        doubled = copy.deepcopy(layer)
        doubled.get_parameter(name).mul_(2.0)
        right = doubled(x)[0]
    parametrize.register_parametrization(layer.get_submodule(path), leaf, _Twice())
    y = layer(x)[0]
    expect_near(f"with a parametrisation of {name!r}", y, right)
    y.sum().backward()
    original = layer.get_parameter(f"{path}.parametrizations.{leaf}.original")
    expect(original.grad is not None, f"no gradient goes through a parametrisation of {name!r}")


def initial_values(subject: CheckedCell) -> None:
    """A new layer has the initial values that the cell declares, with the same draws for one seed."""
    torch.manual_seed(11)
    layer = Recurrent(subject.cell, subject.input_size, H, **subject.letters, dtype=torch.float64)
    torch.manual_seed(11)
    graph = subject.cell.graph
    drawn = draw(graph, subject.sizes)
    tensors = {k.removeprefix("l0."): v for k, v in layer.state_dict().items()}
    wanted = [n for n in graph.weights if n not in graph.masks]
    expect(
        sorted(tensors) == sorted(wanted), f"the layer has the weights {sorted(tensors)}, but the cell {sorted(wanted)}"
    )
    for name in wanted:
        shape = weight_shape(graph.weights[name], subject.sizes)
        expect(tuple(tensors[name].shape) == shape, f"weight {name!r} is {list(tensors[name].shape)}")
        expect_near(f"initial value of {name!r}", tensors[name], drawn[name], 0.0)


def texts(subject: CheckedCell) -> None:
    """The cell survives JSON, and has formulas and a drawing."""
    cell = subject.cell
    read = Cell.from_json(cell.to_json())
    expect(read.to_json() == cell.to_json(), "JSON changes when it is read and written again")
    expect(read.print() == cell.print(), "the cell read back from JSON prints differently")
    formulas = cell.latex()
    expect(formulas.count("{") == formulas.count("}") and "=" in formulas, "the formulas are not balanced LaTeX")
    drawing = cell.diagram()
    expect(drawing.startswith("<svg") and drawing.rstrip().endswith("</svg>"), "the drawing is not SVG")
