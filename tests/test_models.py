"""Saved models: what goes in comes out, also where its Python was never seen; what was tampered with is refused."""

import contextlib
import copy
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as pack
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import tidegate as tg
from catalogue import ALL
from tidegate.equations import Cell, cell, linear, sigmoid, tanh, weight
from tidegate.errors import ArgumentError, EquationError, ModelFileError
from tidegate.files import read_model, write_model

GOLDEN = Path(__file__).parent / "golden" / "models"
SIZES = {"P": 5, "S": 4, "R": 2, "N": 8, "G": 6}


@cell(states="h c s:S | n:1", inputs="x", output="y", source="a test: three stages, each of which needs the one before")
def three_stages(x, h, c, s, n, *, leak=0.3, depth=2):
    r = sigmoid(linear("r", x, h, s))  # reset gate
    c = (1 - leak) * c + leak * tanh(linear("c", x, h=r * h))  # memory, sees the reset state
    for k in range(depth):
        h = tanh(linear(f"h{k}", h=h, c=c)) * weight(f"scale{k}", init=1.0)  # state, sees the new memory
    s = 0.9 * s + 0.1 * linear("s", h=h, size="S", bias=None)  # slow summary
    n = (n + 1) % 7  # steps
    y = h + linear("out", s=s) * (n < 6)
    return y, h, c, s, n


def a_layer(found: Any, **options: Any) -> tg.Recurrent:
    graph = found.graph if isinstance(found, Cell) else tg.cells.get(found).graph
    sizes = {k: v for k, v in SIZES.items() if k in graph.letters}
    width = 12 if graph.inputs[0].size == ("H",) else 3
    return tg.Recurrent(found, width, 12, **options, **sizes)


def randomised(module: Any) -> Any:
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.rand_like(p))
    return module


def inputs_of(layer: tg.Recurrent, steps: int = 5, rows: int = 2) -> dict[str, Tensor]:
    kind = next(layer.parameters()).dtype
    return {
        i.name: torch.rand(steps, rows, *(layer.sizes.get(str(p), 1) for p in i.size)).to(kind)
        for i in layer.graph.inputs
    }


def same_module(a: nn.Module, b: nn.Module) -> None:
    assert type(a) is type(b)
    assert repr(a) == repr(b)
    first, second = a.state_dict(), b.state_dict()
    assert list(first) == list(second)
    for name, value in first.items():
        assert second[name].dtype == value.dtype
        assert torch.equal(second[name], value)
    assert [(n, p.requires_grad) for n, p in a.named_parameters()] == [
        (n, p.requires_grad) for n, p in b.named_parameters()
    ]


def refused(message: str, call: Any, *args: Any, error: type[Exception] = ModelFileError) -> None:
    with pytest.raises(error) as caught:
        call(*args)
    assert str(caught.value) == message


# There and back


@pytest.mark.parametrize("name", ALL)
def test_every_cell(name: str, tmp_path: Path) -> None:
    layer = randomised(a_layer(ALL[name]))
    tg.save(layer, tmp_path)
    again = tg.load(tmp_path)
    same_module(layer, again)
    assert again.cell.to_json() == layer.cell.to_json()
    x = inputs_of(layer)
    assert torch.equal(again(x)[0], layer(x)[0])


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 3, "dropout": 0.25, "batch_first": True},
        {"num_layers": 2, "bidirectional": True, "merge": "mean", "learn_initial_state": True},
        {"dtype": torch.float64},
        {"dtype": torch.bfloat16},
    ],
)
def test_every_option(options: dict[str, Any], tmp_path: Path) -> None:
    layer = randomised(tg.Recurrent("lstm", 3, 5, **options))
    tg.save(layer, str(tmp_path))
    same_module(layer, tg.load(str(tmp_path)))


DROP_INS = [
    tg.LSTM(3, 5, 2, batch_first=True, bidirectional=True, proj_size=2),
    tg.LSTM(3, 5, 2, dropout=0.5, bias=False),
    tg.GRU(3, 5).double(),
    tg.RNN(3, 5, nonlinearity="relu"),
    tg.RNN(3, 5, 2, bidirectional=True),
]


@pytest.mark.parametrize("module", DROP_INS, ids=repr)
def test_every_drop_in(module: Any, tmp_path: Path) -> None:
    tg.save(module, tmp_path)
    again = tg.load(tmp_path)
    same_module(module, again)
    x = torch.randn(4, 2, 3, dtype=module.weight_ih_l0.dtype)
    assert torch.equal(again.eval()(x)[0], copy.deepcopy(module).eval()(x)[0])
    again(x)[0].sum().backward()
    assert all(p.grad is not None for p in again.parameters())


STACKS: dict[str, Any] = {
    "mixed": lambda: tg.Stack(
        tg.Recurrent("lstm", 3, 7, learn_initial_state=True, dtype=torch.float64),
        tg.Recurrent("gru", 7, 5, num_layers=2, dropout=0.25, dtype=torch.float64),
        tg.Recurrent("elman", 5, 4, bidirectional=True, dtype=torch.float64),
        dropout=0.5,
    ),
    "highway": lambda: tg.Stack(tg.Recurrent("gru", 3, 3), tg.Recurrent("elman", 3, 3), highway=True),
    "nested": lambda: tg.Stack(
        tg.Recurrent(three_stages, 3, 4, S=2, batch_first=True),
        tg.Stack(*[tg.Recurrent("lstm_peephole", 4, 4, batch_first=True) for _ in range(2)], residual=True),
    ),
}


@pytest.mark.parametrize("name", STACKS)
def test_every_stack(name: str, tmp_path: Path) -> None:
    stack = randomised(STACKS[name]())
    tg.save(stack, tmp_path)
    again = tg.load(tmp_path)
    same_module(stack, again)
    x = torch.randn(4, 2, 3, dtype=next(stack.parameters()).dtype)
    assert torch.equal(again.eval()(x)[0], stack.eval()(x)[0])
    again(x)[0].sum().backward()
    assert all(p.grad is not None for p in again.parameters())
    tg.save(again, tmp_path)
    same_module(stack, tg.load(tmp_path))


def test_a_loaded_layer_trains_moves_and_is_saved_again(tmp_path: Path) -> None:
    tg.save(a_layer(three_stages), tmp_path)
    layer = tg.load(tmp_path)
    layer(inputs_of(layer))[0].square().sum().backward()
    torch.optim.SGD(layer.parameters(), 0.1).step()
    tg.save(layer, tmp_path)
    again = tg.load(tmp_path)
    same_module(layer, again)
    x = inputs_of(again.double())
    assert again(x)[0].dtype == torch.float64
    again.stepper()({"x": x["x"][0, :1]})


def test_a_view_of_other_memory_is_saved_alone(tmp_path: Path) -> None:
    module = tg.GRU(3, 5)
    storage = torch.randn(1000)
    module.weight_ih_l0 = nn.Parameter(storage[:45].reshape(3, 15).t())
    module.bias_hh_l0 = module.bias_ih_l0
    tg.save(module, tmp_path)
    assert torch.equal(tg.load(tmp_path).weight_ih_l0, module.weight_ih_l0)
    assert sum(p.stat().st_size for p in tmp_path.glob("weights-*")) < 2000


# A cell of one's own


def test_three_stages_have_the_right_gradients() -> None:
    layer = randomised(tg.Recurrent(three_stages, 2, 3, S=2, dtype=torch.float64, learn_initial_state=True))
    names = list(dict(layer.named_parameters()))

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))[0]
        return y

    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


def train(layer: tg.Recurrent, steps: int = 80) -> list[float]:
    """The mean of the first and the last input, told at the end: the losses."""
    head = nn.Linear(12, 1)
    optimiser = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.01)
    losses = []
    for _ in range(steps):
        x = torch.randn(6, 32, 3)
        y, _ = layer(x)
        loss = nn.functional.mse_loss(head(y[-1])[:, 0], (x[0, :, 0] + x[-1, :, 0]) / 2)
        optimiser.zero_grad()
        loss.backward()
        tg.nn.clip_norm_(layer.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    return losses


STRANGER = """
import json, sys
import torch
import tidegate as tg

layer = tg.load(sys.argv[1])
x = torch.tensor(json.load(open(sys.argv[2])), dtype=torch.float32)
y, state = layer(x, lengths=[5, 3])
found = {"y": y.tolist(), "s": state["s"].tolist(), "text": layer.cell.print(), "modules": sorted(sys.modules)}
json.dump(found, open(sys.argv[3], "w"))
"""


def test_three_stages_train_and_go_where_their_python_was_never_seen(tmp_path: Path) -> None:
    layer = a_layer(three_stages)
    losses = train(layer)
    assert sum(losses[-10:]) < 0.4 * sum(losses[:10])
    tg.save(layer, tmp_path / "model")
    x = torch.randn(5, 2, 3)
    (tmp_path / "x.json").write_text(json.dumps(x.tolist()))
    (tmp_path / "elsewhere").mkdir()
    subprocess.run(
        [sys.executable, "-c", STRANGER, "../model", "../x.json", "../found.json"],
        cwd=tmp_path / "elsewhere", check=True, timeout=60,
    )  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text())
    y, state = layer(x, lengths=[5, 3])
    assert torch.allclose(torch.tensor(found["y"]), y, rtol=0, atol=1e-6)
    assert torch.allclose(torch.tensor(found["s"]), state["s"], rtol=0, atol=1e-6)
    assert found["text"] == three_stages.print()
    assert not {"test_models", "pytest", "hypothesis", "catalogue"} & set(found["modules"])


# Describing, and what cannot be saved


def test_describe_tells_without_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = tg.Recurrent("gru", 3, 4, dtype=torch.float64)
    tg.save(layer, tmp_path)
    monkeypatch.setattr("tidegate.models.Recurrent", None)
    found = tg.describe(tmp_path)
    assert {k: v for k, v in found.items() if k not in ("spec", "tensors")} == {
        "format": 2, "kind": "recurrent", "tidegate": tg.__version__,
    }  # fmt: skip
    assert found["spec"] == {
        "cell": layer.cell.to_json(), "input_size": 3, "hidden_size": 4, "sizes": {},
        "options": {
            "num_layers": 1, "bidirectional": False, "merge": "concat", "dropout": 0.0, "batch_first": False,
            "learn_initial_state": False,
        },
    }  # fmt: skip
    assert found["tensors"]["l0.z.h"] == {"dtype": "F64", "shape": [4, 4]}
    assert set(found["tensors"]) == set(layer.state_dict())
    json.dumps(found)


def test_describe_tells_of_each_layer_of_a_stack(tmp_path: Path) -> None:
    stack = STACKS["nested"]()
    tg.save(stack, tmp_path)
    found = tg.describe(tmp_path)
    assert (found["kind"], found["format"]) == ("stack", 2)
    below, above = found["spec"]["layers"]
    assert found["spec"]["options"] == {"residual": False, "highway": False, "dropout": 0.0}
    assert (below["kind"], above["kind"]) == ("recurrent", "stack")
    assert below["spec"]["cell"] == three_stages.to_json()
    assert above["spec"]["options"]["residual"] is True
    assert [layer["spec"]["hidden_size"] for layer in above["spec"]["layers"]] == [4, 4]
    assert set(found["tensors"]) == set(stack.state_dict())
    json.dumps(found)


class Mine(tg.Recurrent):
    pass


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    for model, name in [
        (nn.Linear(2, 2), "a Linear"),
        (nn.LSTM(2, 2), "an LSTM"),
        (Mine("gru", 2, 2), "a Mine"),
        (3, "an int"),
    ]:
        refused(
            f"{name} cannot be saved: tidegate.save takes layers (Recurrent, Stack, LSTM, GRU, RNN) and "
            "estimators (Forecaster, OnlineLearner); keep a module of your own with its state_dict",
            tg.save, model, tmp_path, error=ArgumentError,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


class Double(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


PLAIN_AGAIN = (
    "make pruned and parametrised weights plain again (torch.nn.utils.prune.remove, "
    "torch.nn.utils.parametrize.remove_parametrizations), and keep other tensors elsewhere"
)


def test_parametrisations_are_not_saved(tmp_path: Path) -> None:
    layer = tg.Recurrent("gru", 3, 4)
    parametrize.register_parametrization(layer.get_submodule("l0.r"), "h", Double())
    refused(
        f"a layer is saved with its own weights and nothing else, but 'l0.r.h' is missing: {PLAIN_AGAIN}",
        tg.save, layer, tmp_path, error=ArgumentError,
    )  # fmt: skip
    parametrize.remove_parametrizations(layer.get_submodule("l0.r"), "h")
    tg.save(layer, tmp_path)
    assert torch.equal(tg.load(tmp_path).get_parameter("l0.r.h"), layer.get_parameter("l0.r.h"))


@pytest.mark.parametrize(("module", "part", "name"), [(tg.LSTM, "", "weight_hh_l0"), (tg.Recurrent, "l0.f.", "h")])
def test_pruned_layers_are_not_saved(module: Any, part: str, name: str, tmp_path: Path) -> None:
    layer = module(*(["lstm"] if module is tg.Recurrent else []), 3, 4)
    prune.l1_unstructured(layer.get_submodule(part[:-1]), name, amount=0.5)
    refused(
        f"a layer is saved with its own weights and nothing else, but {part + name!r} is missing: "
        + PLAIN_AGAIN,
        tg.save, layer, tmp_path, error=ArgumentError,
    )  # fmt: skip
    prune.remove(layer.get_submodule(part[:-1]), name)
    tg.save(layer, tmp_path)
    x = torch.randn(5, 2, 3)
    assert torch.equal(tg.load(tmp_path)(x)[0], layer(x)[0])


def test_what_was_added_to_a_layer_is_not_saved(tmp_path: Path) -> None:
    layer = tg.Recurrent("gru", 3, 4, learn_initial_state=True)
    layer.register_buffer("extra", torch.zeros(2))
    refused(
        f"a layer is saved with its own weights and nothing else, but 'extra' is not one of them: {PLAIN_AGAIN}",
        tg.save, layer, tmp_path, error=ArgumentError,
    )  # fmt: skip


def test_a_stack_is_saved_with_its_own_layers_and_nothing_else(tmp_path: Path) -> None:
    refused(
        "a Mine cannot be saved: tidegate.save takes layers (Recurrent, Stack, LSTM, GRU, RNN) and estimators "
        "(Forecaster, OnlineLearner); keep a module of your own with its state_dict",
        tg.save, tg.Stack(Mine("gru", 2, 2)), tmp_path, error=ArgumentError,
    )  # fmt: skip
    stack = STACKS["highway"]()
    stack.register_buffer("extra", torch.zeros(2))
    refused(
        f"a layer is saved with its own weights and nothing else, but 'extra' is not one of them: {PLAIN_AGAIN}",
        tg.save, stack, tmp_path, error=ArgumentError,
    )  # fmt: skip
    stack = STACKS["highway"]()
    prune.l1_unstructured(stack.get_submodule("gates.1.l0.t"), "x", amount=0.5)
    refused(
        f"a layer is saved with its own weights and nothing else, but 'l0.t.x' is missing: {PLAIN_AGAIN}",
        tg.save, stack, tmp_path, error=ArgumentError,
    )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_an_option_without_a_name_is_not_saved(tmp_path: Path) -> None:
    @cell(states="h", source="a test")
    def nameless(x, h, *, squash=lambda v: tanh(v)):
        h = squash(linear("h", x, h))
        return h

    refused(
        "cell 'nameless': option 'squash' is a lambda, which has no name to save: define a function with def",
        tg.save, tg.Recurrent(nameless, 3, 4), tmp_path, error=EquationError,
    )  # fmt: skip
    assert not list(tmp_path.iterdir())


# Folders that are not what they claim to be


def rewritten(folder: Path, spec: dict[str, Any] | None = None, kind: str | None = None, tensors: Any = None) -> None:
    """The same folder with another spec, kind or weights, its hash made right."""
    found = read_model(folder)
    weights = found.weights if tensors is None else pack(tensors)
    write_model(folder, kind or found.manifest["kind"], "0.1.0", spec or found.manifest["spec"], weights)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, tg.Recurrent]:
    layer = tg.Recurrent("lstm", 3, 5, num_layers=2)
    tg.save(layer, tmp_path)
    return tmp_path, layer


def spec_of(folder: Path) -> dict[str, Any]:
    return copy.deepcopy(read_model(folder).manifest["spec"])


def test_an_unknown_kind(saved: Any) -> None:
    folder, _ = saved
    rewritten(folder, kind="transformer")
    refused(
        f"{folder} holds a model of kind 'transformer'; this Tidegate reads recurrent, stack, torch-lstm, "
        "torch-gru, torch-rnn, forecaster, online-learner",
        tg.load, folder,
    )  # fmt: skip


@pytest.mark.parametrize("size", [0, -3, 1 << 21, 10**30, "5", 5.0, True, None])
@pytest.mark.parametrize("name", ["input_size", "hidden_size"])
def test_sizes_beyond_measure(saved: Any, name: str, size: Any) -> None:
    folder, _ = saved
    rewritten(folder, spec=spec_of(folder) | {name: size})
    refused(f"{folder} is damaged: {name} must be a whole number from 1 to 1048576, got {size!r}", tg.load, folder)


def test_a_gigantic_size_allocates_nothing(saved: Any) -> None:
    """A hidden size of 2^20 would be 8 terabytes in each gate."""
    folder, _ = saved
    rewritten(folder, spec=spec_of(folder) | {"hidden_size": 1 << 20})
    refused(
        f"{folder} is damaged: tensor 'l0.f.bias' must be torch.float32 (1048576,), got torch.float32 (5,)",
        tg.load, folder,
    )  # fmt: skip


@pytest.mark.parametrize("layers", [0, 10**9, "2", True, 2.0, None])
def test_layers_beyond_measure(saved: Any, layers: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, _ = saved
    spec = spec_of(folder)
    spec["options"]["num_layers"] = layers
    rewritten(folder, spec=spec)
    other = tmp_path_factory.mktemp("gru")
    tg.save(tg.GRU(3, 5), other)
    rewritten(other, spec=spec_of(other) | {"num_layers": layers})
    said = f"{{}} is damaged: num_layers must be a whole number from 1 to 1048576, got {layers!r}"
    for place in (folder, other):
        refused(said.format(place), tg.load, place)


def test_more_layers_than_tensors(saved: Any) -> None:
    folder, _ = saved
    spec = spec_of(folder)
    spec["options"]["num_layers"] = 25
    rewritten(folder, spec=spec)
    refused(f"{folder} is damaged: num_layers is 25, but the model has only 24 tensors", tg.load, folder)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("bidirectional", 2097152, "true or false"),
        ("bidirectional", 1, "true or false"),
        ("batch_first", "false", "true or false"),
        ("learn_initial_state", None, "true or false"),
        ("merge", "product", "'concat', 'sum' or 'mean'"),
        ("dropout", True, "a number from 0 to 1"),
        ("dropout", -0.5, "a number from 0 to 1"),
        ("dropout", "0", "a number from 0 to 1"),
    ],
)
def test_options_are_checked_and_not_converted(saved: Any, name: str, value: Any, expected: str) -> None:
    folder, _ = saved
    spec = spec_of(folder)
    spec["options"][name] = value
    rewritten(folder, spec=spec)
    refused(f"{folder} is damaged: {name} must be {expected}, got {value!r}", tg.load, folder)


@pytest.mark.parametrize(
    ("module", "name", "value", "expected"),
    [
        (tg.LSTM(3, 5, proj_size=2), "bidirectional", 2097152, "true or false"),
        (tg.LSTM(3, 5, proj_size=2), "bias", 1, "true or false"),
        (tg.LSTM(3, 5, proj_size=2), "proj_size", True, "a whole number from 0 to 1048576"),
        (tg.RNN(3, 5), "nonlinearity", "sin", "'tanh' or 'relu'"),
        (tg.Stack(tg.Recurrent("gru", 3, 3)), "residual", 1, "true or false"),
    ],
)
def test_options_of_others_are_checked(module: Any, name: str, value: Any, expected: str, tmp_path: Path) -> None:
    tg.save(module, tmp_path)
    spec = spec_of(tmp_path)
    spec.get("options", spec)[name] = value
    rewritten(tmp_path, spec=spec)
    refused(f"{tmp_path} is damaged: {name} must be {expected}, got {value!r}", tg.load, tmp_path)


def test_a_drop_in_without_one_of_its_options(tmp_path: Path) -> None:
    """Nothing is taken for the default: a relu would become a tanh."""
    tg.save(tg.RNN(3, 5, nonlinearity="relu"), tmp_path)
    spec = spec_of(tmp_path)
    del spec["nonlinearity"]
    rewritten(tmp_path, spec=spec)
    refused(f"{tmp_path} is damaged: its specification is incomplete or at odds: 'nonlinearity'", tg.load, tmp_path)


def test_weights_that_do_not_fit(saved: Any) -> None:
    folder, layer = saved
    tensors = {k: v.detach().clone() for k, v in layer.state_dict().items()}
    first = f"{folder} is damaged: "
    rewritten(folder, tensors=tensors | {"l0.i.x": torch.zeros(5, 4)})
    refused(first + "tensor 'l0.i.x' must be torch.float32 (5, 3), got torch.float32 (5, 4)", tg.load, folder)
    rewritten(folder, tensors=tensors | {"l9.i.x": torch.zeros(5, 4)})
    refused(first + "tensor 'l9.i.x' belongs to no part of the model", tg.load, folder)
    rewritten(folder, tensors={k: v for k, v in tensors.items() if k != "l1.o.bias"})
    refused(first + "tensor 'l1.o.bias' must be torch.float32 (5,), got none", tg.load, folder)
    one = f"{folder} is damaged: the weights must have one floating-point type, got "
    rewritten(folder, tensors={k: v.long() for k, v in tensors.items()})
    refused(one + "torch.int64", tg.load, folder)
    rewritten(folder, tensors=tensors | {"l0.i.x": torch.zeros(5, 3).double()})
    refused(one + "torch.float32, torch.float64", tg.load, folder)


def test_stacks_that_are_not_sound(tmp_path: Path) -> None:
    tg.save(STACKS["highway"](), tmp_path)
    spec, damaged = spec_of(tmp_path), f"{tmp_path} is damaged: its specification is incomplete or at odds: "
    rewritten(tmp_path, spec=spec | {"options": spec["options"] | {"residual": True}})
    refused(
        f"{damaged}residual=True and highway=True exclude each other: choose one",
        tg.load, tmp_path,
    )  # fmt: skip
    rewritten(tmp_path, spec=spec | {"options": spec["options"] | {"highway": False}})
    refused(f"{tmp_path} is damaged: tensor 'gates.0.l0.t.bias' belongs to no part of the model", tg.load, tmp_path)
    rewritten(tmp_path, spec=spec | {"layers": [{**spec["layers"][0], "kind": "forecaster"}]})
    refused(f"{damaged}'forecaster'", tg.load, tmp_path)
    rewritten(tmp_path, spec=spec | {"layers": spec["layers"] * 2})
    refused(
        f"{tmp_path} is damaged: the model has layers[2], but no tensor's name begins with 'layers.2.'",
        tg.load, tmp_path,
    )  # fmt: skip


def test_the_gate_of_a_gigantic_layer_allocates_nothing(tmp_path: Path) -> None:
    """A layer of a few scalars may be a million units wide; the matrix of its gate would be 4 terabytes."""

    @cell(states="h", inputs="x:H", source="a test: any size, and one weight")
    def smooth(x, h):
        h = h + weight("rate", size=1, init=0.5) * (x - h)
        return h

    tg.save(tg.Stack(tg.Recurrent(smooth, 3, 3)), tmp_path)
    spec = spec_of(tmp_path)
    spec["layers"][0]["spec"] |= {"input_size": 1 << 20, "hidden_size": 1 << 20}
    rewritten(tmp_path, spec=spec | {"options": spec["options"] | {"highway": True}})
    refused(
        f"{tmp_path} is damaged: tensor 'gates.0.l0.t.bias' must be torch.float32 (1048576,), got none",
        tg.load, tmp_path,
    )  # fmt: skip


def test_weights_of_another_model(saved: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, _ = saved
    other = tmp_path_factory.mktemp("other")
    tg.save(tg.GRU(3, 5), other)
    rewritten(folder, tensors={k: v.detach().clone() for k, v in tg.load(other).state_dict().items()})
    refused(
        f"{folder} is damaged: tensor 'bias_hh_l0' belongs to no part of the model",
        tg.load, folder,
    )  # fmt: skip


def test_weights_that_safetensors_refuses(saved: Any) -> None:
    folder, _ = saved
    text = b'{"l0.i.x": {"dtype": "F32", "shape": [5, 3], "data_offsets": [0, 0]}}'
    write_model(folder, "recurrent", "0.1.0", spec_of(folder), len(text).to_bytes(8, "little") + text)
    with pytest.raises(ModelFileError) as caught:
        tg.load(folder)
    assert str(caught.value).startswith(f"{folder} is damaged: its weights cannot be read: Error while deserializing")


def test_equations_that_are_not_sound(saved: Any) -> None:
    folder, _ = saved
    spec = spec_of(folder)
    spec["cell"]["format"] = 7
    rewritten(folder, spec=spec)
    with pytest.raises(ModelFileError) as caught:
        tg.load(folder)
    assert str(caught.value).startswith(f"{folder} holds equations that are not sound: ")
    assert isinstance(caught.value.__cause__, EquationError)


@pytest.mark.parametrize("part", ["cell", "input_size", "hidden_size", "sizes", "options"])
def test_a_spec_with_a_part_missing(saved: Any, part: str) -> None:
    folder, _ = saved
    rewritten(folder, spec={k: v for k, v in spec_of(folder).items() if k != part})
    refused(f"{folder} is damaged: its specification is incomplete or at odds: {part!r}", tg.load, folder)


def test_a_spec_at_odds(saved: Any) -> None:
    folder, _ = saved
    spec = spec_of(folder)
    spec["options"]["merge"] = "sum"
    rewritten(folder, spec=spec)
    refused(
        f"{folder} is damaged: its specification is incomplete or at odds: merge='sum' joins two directions, but the "
        "layer has one: set bidirectional=True",
        tg.load, folder,
    )  # fmt: skip


def places(data: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into nested data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else []
    found = [here] if here else []
    for key, value in items:
        found += places(value, (*here, key))
    return found


ODD = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 2, 7, 1 << 20, 1 << 64, 0.5, -1e308, float("nan"), float("inf"), "", "h", "H",
        "x.y", "../x", "__class__", "\ud800", [], [[]], {}, {"a": 1}, ["H", "I"], [1],
        "weight", "linear", "where", "total", "spread", "old",
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def some_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = [tmp_path_factory.mktemp("mutated") for _ in range(4)]
    tg.save(a_layer(ALL["shipped slstm"], num_layers=2, bidirectional=True), found[0])
    tg.save(a_layer(three_stages, learn_initial_state=True), found[1])
    tg.save(tg.RNN(3, 5, 2), found[2])
    tg.save(STACKS["highway"](), found[3])
    return found


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_manifest_loads_or_is_refused(data: st.DataObject, some_folders: list[Path]) -> None:
    """Whatever stands in the manifest, nothing but ModelFileError comes out."""
    folder = some_folders[data.draw(st.integers(0, 3))]
    manifest = folder / "model.json"
    before = manifest.read_bytes()
    changed = {**json.loads(before), "format": 1}  # which has no hash, so that more than the hash is tried
    del changed["sha256"]
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(places(changed)))
        parent = changed
        for key in place[:-1]:
            parent = parent[key]
        if data.draw(st.integers(0, 3)) == 0:
            del parent[place[-1]]
        else:
            parent[place[-1]] = copy.deepcopy(data.draw(ODD))
        if not places(changed):
            break
    try:
        manifest.write_text(json.dumps(changed))
        for read in (tg.load, tg.describe):
            with contextlib.suppress(ModelFileError):
                read(folder)
    finally:
        manifest.write_bytes(before)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_weights_are_refused(data: st.DataObject, some_folders: list[Path]) -> None:
    folder = some_folders[2]
    (path,) = folder.glob("weights-*")
    before = path.read_bytes()
    changed = bytearray(before)
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.booleans())
    try:
        path.write_bytes(changed[:place] if cut else changed)
        with pytest.raises(ModelFileError, match=f"^{path} is damaged: "):
            tg.load(folder)
    finally:
        path.write_bytes(before)


# Others at the same time


def test_readers_see_one_model_or_the_other(tmp_path: Path) -> None:
    """While one thread saves two models in turn, others load: each loads whole."""
    models = [tg.GRU(3, 5), tg.LSTM(3, 5)]
    tg.save(models[0], tmp_path)
    done, seen, errors = threading.Event(), set(), []

    def read() -> None:
        while not done.is_set():
            try:
                seen.add(type(tg.load(tmp_path)).__name__)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told below
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for k in range(60):
        tg.save(models[k % 2], tmp_path)
    done.set()
    for reader in readers:
        reader.join()
    assert not errors
    assert seen == {"GRU", "LSTM"}


def test_writers_leave_a_whole_model(tmp_path: Path) -> None:
    models = [tg.GRU(3, 5) for _ in range(4)]

    def write(model: Any) -> None:
        for _ in range(10):
            tg.save(model, tmp_path)

    writers = [threading.Thread(target=write, args=(model,)) for model in models]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = tg.load(tmp_path)
    assert any(torch.equal(found.weight_ih_l0, m.weight_ih_l0) for m in models)
    assert len(list(tmp_path.iterdir())) == 2


# Models of earlier releases


@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in GOLDEN.glob("*/*/expected.json")), ids=lambda p: f"{p.parent.name}-{p.name}"
)
def test_models_of_every_release_load_for_ever(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    model = tg.load(folder).eval()
    assert list(model.state_dict()) == expected["names"]
    kind = next(model.parameters()).dtype
    y, _ = model(torch.tensor(expected["input"], dtype=kind))
    tolerance = 1e-12 if kind == torch.float64 else 2e-6
    assert torch.allclose(y.double(), torch.tensor(expected["output"], dtype=torch.float64), rtol=0, atol=tolerance)


def test_this_release_has_its_models() -> None:
    assert {p.name for p in (GOLDEN / tg.__version__).iterdir()} == {
        "peephole", "projection", "stack", "torch-lstm", "torch-gru", "torch-rnn",
    }  # fmt: skip
