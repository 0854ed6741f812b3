"""Stacks of different cells: against a loop over their layers, in every form, through torch's tools, and refusals."""

import copy
import io
import pickle
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.export import Dim, export
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import tidegate as tg
from layer_cases import assert_same, by_name, gradients, told_once
from native_layers import counted_runs
from tidegate.equations import cell, linear, sigmoid, tanh
from tidegate.errors import ArgumentError
from tidegate.nn import Recurrent, Stack, StackStepper, State
from tidegate.runtime import support

T, B, I = 6, 4, 3  # noqa: E741 - the project's word for the input size
LENGTHS = [4, 0, 6, 1]
OPTIONS = [{}, {"residual": True}, {"highway": True}]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


@cell(states="h", inputs="x t:1", source="a test: a cell that is told the time")
def timed(x, t, h):
    k = sigmoid(linear("k", t))
    h = (1 - k) * h + k * tanh(linear("n", x, h))
    return h


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def shaken(module: Any) -> Any:
    """In float64, with weights that are no one's initial values."""
    with torch.no_grad():
        for p in module.double().parameters():
            p += 0.4 * torch.randn_like(p)
    return module


def mixed(**options: Any) -> Stack:
    """Sizes 3 to 7 to 5 to 8, learned starts, and a layer of two directions on top."""
    lower = Recurrent("lstm", I, 7, learn_initial_state=True, **options)
    upper = Recurrent("elman", 5, 4, bidirectional=True, learn_initial_state=True, **options)
    found: Stack = shaken(Stack(lower, Recurrent("gru", 7, 5, num_layers=2, **options), upper))
    return found


def forwards(**options: Any) -> Stack:
    """One direction, of one size where something leads around the layers."""
    sizes = (5, 5, 5, 5) if {"residual", "highway"} & options.keys() else (I, 7, 5, 4)
    cells = zip(["lstm", "gru", "elman"], pairwise(sizes), strict=True)
    layers = [Recurrent(name, *width, learn_initial_state=name == "lstm") for name, width in cells]
    found: Stack = shaken(Stack(*layers, **options))
    return found


def an_input(stack: Stack, steps: int = T, rows: int = B) -> Tensor:
    return random(steps, rows, stack.input_size)


def a_state(stack: Stack, rows: int = B) -> State:
    return stack.initial_state(rows).map(lambda t: torch.randn_like(t))


def loop(stack: Stack, x: Tensor, begins: Sequence[Any] | None = None, **given: Any) -> tuple[Tensor, State]:
    """The layers one by one, and around each what the options say, in formulas."""
    ends: list[Any] = []
    parameters = dict(stack.named_parameters())
    for k, layer in enumerate(stack.layers):
        y, end = layer(x, None if begins is None else State(begins[k]), **given)
        ends += end.layers
        if stack.highway:
            gate = 1 / (1 + torch.exp(-(x @ parameters[f"gates.{k}.l0.t.x"].T + parameters[f"gates.{k}.l0.t.bias"])))
            y = gate * y + (1 - gate) * x
        elif stack.residual:
            y = x + y
        if "lengths" in given:
            y = y * (torch.arange(len(y))[:, None] < torch.as_tensor(given["lengths"]))[..., None]
        x = y
    return x, State(ends)


def assert_as_loop(stack: Stack, x: Tensor, **given: Any) -> None:
    """Values, and all gradients."""
    leaves = {"x": x.requires_grad_(), **dict(stack.named_parameters())}
    found = []
    for y, end in (stack(x, **given), loop(stack, x, **given)):
        results = by_name(y, end.layers)
        found.append((results, gradients(results, leaves)))
    assert_same(found[0][0], found[1][0], 1e-12)
    assert_same(found[0][1], found[1][1], 1e-12)
    assert any(d.any() for d in found[0][1].values())


# What a stack computes


FLAGS: dict[str, dict[str, Any]] = {
    "whole": {},
    "lengths": {"lengths": LENGTHS},
    "resets": {"reset": [[0, 1, 0, 0], [0] * 4, [1, 0, 0, 1], [0] * 4, [0, 0, 1, 1], [1] * 4]},
}
FLAGS["both"] = FLAGS["lengths"] | FLAGS["resets"]
every_flag = pytest.mark.parametrize("given", list(FLAGS.values()), ids=list(FLAGS))


@every_flag
def test_a_mixed_stack_is_its_layers_one_after_another(given: dict[str, Any]) -> None:
    stack = mixed()
    assert (stack.input_size, stack.output_size, stack.num_layers) == (I, 8, 4)
    assert_as_loop(stack, an_input(stack), **given)


@every_flag
@every_option
def test_what_leads_around_the_layers(options: dict[str, Any], given: dict[str, Any]) -> None:
    stack = forwards(**options)
    assert_as_loop(stack, an_input(stack), **given)


@every_option
def test_around_a_layer_of_two_directions(options: dict[str, Any]) -> None:
    layers = [Recurrent("gru", 6, 3, bidirectional=True), Recurrent("lstm", 6, 6, bidirectional=True, merge="sum")]
    stack = shaken(Stack(*layers, Recurrent("lstm", 6, 6, bidirectional=True, merge="mean"), **options))
    assert_as_loop(stack, an_input(stack), lengths=LENGTHS, **FLAGS["resets"])


def test_a_highway_by_hand() -> None:
    """One step of one unit: y = t * H(x) + (1 - t) * x, Srivastava et al. 2015, equation 3."""
    stack = Stack(Recurrent("elman", 1, 1), highway=True)
    bias = stack.get_parameter("gates.0.l0.t.bias")
    assert bias.tolist() == [-2.0]
    with torch.no_grad():
        for name, p in stack.named_parameters():
            p.fill_({"layers.0.l0.h.x": 0.5, "gates.0.l0.t.x": 3.0, "gates.0.l0.t.bias": -2.0}.get(name, 0.0))
    t = 1 / (1 + np.exp(-(3.0 * 0.8 - 2.0)))
    assert stack(torch.full((1, 1, 1), 0.8))[0].item() == pytest.approx(t * np.tanh(0.4) + (1 - t) * 0.8, rel=1e-6)


def test_stacks_in_a_stack() -> None:
    inner = Stack(Recurrent("gru", 5, 5), Recurrent("elman", 5, 5), residual=True)
    stack = shaken(Stack(Recurrent("lstm", I, 5, num_layers=2), inner, Recurrent("gru", 5, 2)))
    assert stack.num_layers == 5
    x, state = an_input(stack), a_state(stack)
    leaves, found = dict(stack.named_parameters()), []
    y0, s0 = stack.layers[0](x, State(state.layers[:2]))
    y1, s1 = loop(inner, y0, [state.layers[2:3], state.layers[3:4]])
    y2, s2 = stack.layers[2](y1, State(state.layers[4:]))
    for y, layers in (stack(x, state)[0], stack(x, state)[1].layers), (y2, [*s0.layers, *s1.layers, *s2.layers]):
        results = by_name(y, layers)
        found.append((results, gradients(results, leaves)))
    assert_same(*[f[0] for f in found], 1e-12)
    assert_same(*[f[1] for f in found], 1e-12)
    stepper = stack.stepper(B, state)
    for t in range(T):
        near(stepper(x[t].numpy()), y2[t])
    assert_same(by_name(y2, stepper.state.layers), found[1][0], 1e-12)


def test_dropout_acts_on_what_a_layer_reads_in_training_only() -> None:
    stack = forwards(residual=True, dropout=0.6)
    x = an_input(stack)
    assert torch.equal(stack.eval()(x)[0], loop(stack, x)[0])
    stack.train()
    torch.manual_seed(5)
    y, _ = stack(x)
    torch.manual_seed(5)
    expected = x
    for k, layer in enumerate(stack.layers):
        expected = layer(nn.functional.dropout(expected, 0.6) if k else expected)[0] + expected
    assert torch.equal(y, expected)
    assert not torch.equal(stack(x)[0], y)
    packed = pack_padded_sequence(x, torch.full((B,), T))
    torch.manual_seed(5)
    assert torch.allclose(pad_packed_sequence(stack(packed)[0])[0], y, rtol=0, atol=1e-14)


# States


@every_option
def test_whole_is_chunks_is_steps(options: dict[str, Any]) -> None:
    stack = forwards(**options)
    x, leaves, begin = an_input(stack), dict(stack.named_parameters()), a_state(stack)

    def pieces(state: State, run: Any, parts: Any) -> tuple[Tensor, State]:
        outputs = []
        for part in parts:
            y, state = run(part, state)
            outputs.append(y)
        return torch.cat([y if y.dim() == 3 else y[None] for y in outputs]), state

    whole = stack(x, begin)
    chunks, steps = pieces(begin, stack, x.split([2, 0, 3, 1])), pieces(begin, stack.step, x)
    by_hand = loop(stack, x, [begin.layers[k : k + 1] for k in range(3)])
    found = [by_name(y, end.layers) for y, end in (whole, chunks, steps, by_hand)]
    each_gradient = [gradients(results, leaves) for results in found]
    for values, gradient in zip(found[1:], each_gradient[1:], strict=True):
        assert_same(values, found[0], 1e-12)
        assert_same(gradient, each_gradient[0], 1e-12)


def test_without_a_state_it_starts_at_its_layers_starts() -> None:
    stack = forwards()
    x = an_input(stack)
    (y, end), (expected, last) = stack(x), stack(x, stack.initial_state(B))
    assert_same(by_name(y, end.layers), by_name(expected, last.layers), 0)
    assert stack.initial_state(2).layers[0][0]["h"].any()  # learned, and shaken


def test_a_state_has_all_layers_in_order() -> None:
    stack = forwards()
    _, state = stack(an_input(stack))
    assert [list(d) for (d,) in state.layers] == [["h", "c"], ["h"], ["h"]]
    again = State.from_bytes(state.to_bytes())
    assert_same(by_name(torch.zeros(1), again.layers), by_name(torch.zeros(1), state.layers), 0)
    rows = State.cat([state.rows([2, 3]), state.rows(0)])
    x = an_input(stack)
    assert torch.allclose(stack(x[:, [2, 3, 0]], rows)[0], stack(x, state)[0][:, [2, 3, 0]], rtol=0, atol=1e-14)
    with pytest.raises(ArgumentError, match=r"state 'h' has different sizes in the layers \(7, 5, 4\),"):
        state["h"]


def test_a_reset_goes_to_the_start_and_not_to_the_state_passed() -> None:
    stack = forwards(highway=True)
    x, reset = an_input(stack), torch.zeros(T, B)
    reset[3] = 1
    y, end = stack(x, a_state(stack), reset=reset)
    fresh, last = stack(x[3:])
    assert_same(by_name(y[3:], end.layers), by_name(fresh, last.layers), 1e-14)


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"highway": True}, None], ids=str)
def test_padded_is_lengths_is_alone(options: dict[str, Any] | None) -> None:
    """NaN and infinity in the padding change no value and no gradient."""
    stack = mixed() if options is None else forwards(**options)
    x, found = an_input(stack), []
    spoiled = x.clone()
    for b, n in enumerate(LENGTHS):
        spoiled[n::2, b], spoiled[n + 1 :: 2, b] = torch.nan, torch.inf
    for given in (x, spoiled):
        leaf = given.clone().requires_grad_()
        y, end = stack(leaf, lengths=LENGTHS)
        results = by_name(y, end.layers)
        found.append((results, gradients(results, {"x": leaf, **dict(stack.named_parameters())})))
    assert_same(found[1][0], found[0][0], 0)
    assert_same(found[1][1], found[0][1], 0)
    for b, n in enumerate(LENGTHS):
        alone, finish = stack(x[:n, b])
        assert_same(by_name(alone, finish.layers), by_name(y[:n, b], end.rows([b]).layers), 1e-12)
        assert not y[n:, b].any()


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"highway": True}, None], ids=str)
@pytest.mark.parametrize("shape", [(0, B), (T, 0), (0, 0)])
def test_no_steps_and_no_rows(options: dict[str, Any] | None, shape: tuple[int, int]) -> None:
    stack = mixed() if options is None else forwards(**options)
    y, end = stack(an_input(stack, *shape), lengths=[0] * shape[1], reset=torch.zeros(shape))
    assert y.shape == (*shape, stack.output_size)
    own = stack.initial_state(shape[1])
    assert_same(by_name(y, end.layers), by_name(y, own.layers), 0)
    assert stack(an_input(stack, *shape))[0].shape == y.shape


@pytest.mark.kernels
@every_option
def test_the_same_bits_in_any_company(options: dict[str, Any]) -> None:
    stack = forwards(**options).float()
    x = torch.randn(T, 37, stack.input_size)
    y, _ = stack(x)
    for rows in (1, 5, 36):
        assert torch.equal(stack(x[:, :rows])[0], y[:, :rows])


# Forms


@every_option
def test_forms_of_the_input(options: dict[str, Any]) -> None:
    stack, x = forwards(**options), random(T, 1, 5 if options else I)
    y, end = stack(x, lengths=[5])
    alone, finish = stack(x[:, 0], lengths=5, reset=torch.zeros(T))
    assert_same(by_name(alone, finish.layers), by_name(y[:, 0], end.layers), 0)
    assert torch.equal(stack({"x": x})[0], stack(x)[0])


@every_option
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [[6, 4, 2, 1], [2, 6, 1, 4]])
def test_packed_goes_in_and_comes_out(options: dict[str, Any], batch_first: bool, lengths: list[int]) -> None:
    layers = [Recurrent(n, 5, 5, batch_first=batch_first) for n in ("lstm", "gru")]
    stack = shaken(Stack(*layers, **options))
    x = random(T, B, 5)
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=lengths[0] == 6)
    y, state = stack(packed)
    assert isinstance(y, PackedSequence)
    padded, found = pad_packed_sequence(y)
    assert found.tolist() == lengths
    expected, end = stack(x.transpose(0, 1) if batch_first else x, lengths=lengths)
    expected = expected.transpose(0, 1) if batch_first else expected
    assert_same(by_name(padded, state.layers), by_name(expected, end.layers), 1e-14)


@every_option
def test_batch_first_turns_inputs_outputs_and_resets(options: dict[str, Any]) -> None:
    stack = shaken(Stack(*[Recurrent(n, 5, 5) for n in ("lstm", "gru")], **options))
    first = Stack(*[Recurrent(n, 5, 5, batch_first=True) for n in ("lstm", "gru")], **options).double()
    first.load_state_dict(stack.state_dict())
    x, reset = random(T, B, 5), torch.rand(T, B) < 0.3
    y, end = stack(x, lengths=LENGTHS, reset=reset)
    turned, last = first(x.transpose(0, 1), lengths=LENGTHS, reset=reset.t())
    assert_same(by_name(turned.transpose(0, 1), last.layers), by_name(y, end.layers), 0)


def test_whole_numbers_are_indices_of_one_hots() -> None:
    stack, index = mixed(), torch.randint(0, I, (T, B))
    y, end = stack(index, lengths=LENGTHS)
    expected, last = stack(nn.functional.one_hot(index, I).double(), lengths=LENGTHS)
    assert_same(by_name(y, end.layers), by_name(expected, last.layers), 1e-13)


def told(**options: Any) -> Stack:
    """Inputs by name: t goes to two of the layers, who and rate to one."""
    layers = [
        Recurrent(timed, I, 5, **options), Recurrent("gru", 5, 6, **options),
        Recurrent(told_once, 6, 4, S=2, **options), Recurrent(timed, 4, 4, **options),
    ]  # fmt: skip
    found: Stack = shaken(Stack(*layers))
    return found


def told_inputs() -> dict[str, Tensor]:
    return {"x": random(T, B, I), "t": random(T, B, 1), "who": random(B, 2), "rate": random(B, 1)}


def test_each_input_goes_to_the_layers_that_declare_it() -> None:
    stack, given = told(), told_inputs()
    one, two, three, four = stack.layers
    y = one({"x": given["x"], "t": given["t"]}, lengths=LENGTHS)[0]
    y = three({"x": two(y, lengths=LENGTHS)[0], "who": given["who"], "rate": given["rate"]}, lengths=LENGTHS)[0]
    expected = four({"x": y, "t": given["t"]}, lengths=LENGTHS)[0]
    assert torch.equal(stack(given, lengths=LENGTHS)[0], expected)
    first = told(batch_first=True)
    first.load_state_dict(stack.state_dict())
    turned = {n: v.transpose(0, 1) if v.dim() == 3 else v for n, v in given.items()}
    assert torch.equal(first(turned, lengths=LENGTHS)[0].transpose(0, 1), expected)
    outer = Stack(stack)
    assert torch.equal(outer(given, lengths=LENGTHS)[0], expected)


def test_inputs_by_name_step_by_step() -> None:
    stack, given = told(), told_inputs()
    (y, _), state, stepper = stack(given), None, stack.stepper(B)
    near(stack.trace(given)["h"], y)
    for t in range(T):
        now = {n: v[t] if v.dim() == 3 else v for n, v in given.items()}
        y_t, state = stack.step(now, state)
        near(y_t, y[t])
        near(stepper(now), y[t])


# Streams, and looking inside


def near(ours: Any, theirs: Tensor, tolerance: float = 1e-12) -> None:
    ours, theirs = torch.as_tensor(ours), theirs.detach()
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert ((ours - theirs).abs() <= tolerance * (1 + theirs.abs())).all()


@every_option
@pytest.mark.parametrize("kind", ["torch", "numpy", "off kernels"])
def test_stepper_is_step(options: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "off kernels":
        monkeypatch.setattr(support, "enabled", lambda: False)
    stack = forwards(**options)
    state: Any = a_state(stack)
    stepper = stack.stepper(B, state)
    assert isinstance(stepper, StackStepper)
    assert stepper.batch == B
    for x_t in an_input(stack):
        y, state = stack.step(x_t, state)
        found = stepper(x_t.numpy() if kind == "numpy" else x_t)
        assert isinstance(found, np.ndarray if kind == "numpy" else Tensor)
        near(found, y)
        assert_same(by_name(y, stepper.state.layers), by_name(y, state.layers), 1e-12)


@every_option
def test_only_active_rows_move(options: dict[str, Any]) -> None:
    stack, active = forwards(**options), torch.tensor([True, False, False, True])
    state = a_state(stack)
    stepper = stack.stepper(B, state)
    for form in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.bool):
        x_t = an_input(stack)[0]
        x_t[~active] = torch.nan
        before, y = stepper.state, torch.as_tensor(stepper(x_t, active=form(active))).clone()
        now = stepper.state
        assert not y[~active].any()
        assert_same(by_name(y[:0], now.rows(~active).layers), by_name(y[:0], before.rows(~active).layers), 0)
        expected, moved = stack.step(x_t[active], before.rows(active))
        near(y[active], expected)
        assert_same(by_name(y[:0], now.rows(active).layers), by_name(y[:0], moved.layers), 1e-12)


@every_option
def test_a_stepper_of_single_precision_takes_numbers_of_any_type(options: dict[str, Any]) -> None:
    stack, x_t = forwards(**options).float(), torch.randint(0, 3, (B, 5 if options else I))
    expected = stack.step(x_t.float())[0]
    for given in (x_t.double(), x_t.int(), x_t.tolist(), x_t.float().numpy()):
        near(stack.stepper(B)(given), expected, 1e-6)


def test_a_steppers_state_is_a_copy_and_may_be_set_and_reset() -> None:
    stack = forwards(highway=True)
    stepper, (x0, x1, *_) = stack.stepper(B), an_input(stack)
    stepper(x0)
    kept = stepper.state
    first = torch.as_tensor(stepper(x1)).clone()
    stepper.state = kept
    assert torch.equal(stepper(x1), first)
    stepper.state = kept
    stepper.reset([1, 2])
    fresh = stack.initial_state(B)
    for k, (layer,) in enumerate(stepper.state.layers):
        for name, value in layer.items():
            near(value[[1, 2]], fresh.layers[k][0][name][[1, 2]])
            near(value[[0, 3]], kept.layers[k][0][name][[0, 3]])
    stepper.reset()
    assert_same(by_name(first, stepper.state.layers), by_name(first, fresh.layers), 1e-14)


@every_option
def test_a_steppers_weights_are_a_snapshot_and_go_with_it(options: dict[str, Any]) -> None:
    stack = forwards(**options)
    x_t, stepper = an_input(stack)[0], stack.stepper(B)
    expected = stack.step(x_t)[0].detach()
    with torch.no_grad():
        for p in stack.parameters():
            p.zero_()
    again = pickle.loads(pickle.dumps(stepper))  # noqa: S301 - our own bytes
    near(stepper(x_t), expected)
    near(again(x_t), expected)


def test_what_overflows_in_a_stepper_is_infinite_and_no_warning() -> None:
    stack = Stack(Recurrent("elman_relu", 1, 1), residual=True)
    with torch.no_grad():
        for p in stack.parameters():
            p.fill_(3.0)
    assert stack.stepper()(np.full((1, 1), 3e38, np.float32)).item() == np.inf


@every_option
@pytest.mark.parametrize("rows", [0, B])
def test_trace_of_every_layer(options: dict[str, Any], rows: int) -> None:
    stack = forwards(**options)
    x, state = an_input(stack, T, rows), a_state(stack, rows)
    trace = stack.trace(x, state)
    assert len(trace.layers) == 3
    assert list(trace.layers[1]) == list(stack.layers[1].trace(random(T, B, stack.layers[1].input_size)))
    y, end = stack(x, state)
    for k, values in enumerate(trace.layers):
        assert not any(v.requires_grad for v in values.values())
        near(values["h"][-1], end.layers[k][0]["h"])
    if not options:
        near(trace["h"], y)


def test_trace_takes_the_forms_of_the_layers() -> None:
    stack = Stack(Recurrent("lstm", I, 5, batch_first=True), Recurrent("gru", 5, 4, batch_first=True)).double()
    x = random(B, T, I)
    near(stack.trace(x)["h"], stack(x)[0].transpose(0, 1))
    near(stack.trace(x[0])["h"], stack(x[0])[0][:, None])


# A module among others


def test_names_of_the_state_dict() -> None:
    stack = Stack(Recurrent("elman", 3, 3, bidirectional=True, merge="sum"), Recurrent("gru", 3, 3), highway=True)
    names = list(stack.state_dict())
    assert (
        names[:4] == [f"layers.0.l0.h.{part}" for part in ("bias", "x", "h")] + ["layers.0.l0_reverse.h.bias"] or names
    )
    assert {n.rpartition(".")[0] for n in names} == {
        "layers.0.l0.h", "layers.0.l0_reverse.h", "layers.1.l0.r", "layers.1.l0.z", "layers.1.l0.n",
        "gates.0.l0.t", "gates.1.l0.t",
    }  # fmt: skip


@every_option
def test_copies_are_the_same_and_apart(options: dict[str, Any]) -> None:
    stack = forwards(**options)
    x, file = an_input(stack), io.BytesIO()
    y = stack(x)[0]
    torch.save(stack, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    fresh = forwards(**options)
    fresh.load_state_dict(stack.state_dict())
    for twin in (copy.deepcopy(stack), loaded, fresh):
        assert torch.equal(twin(x)[0], y)
        with torch.no_grad():
            next(twin.parameters()).add_(1.0)
        assert not torch.equal(twin(x)[0], y)
        assert torch.equal(stack(x)[0], y)


def test_from_the_meta_device_to_this_one() -> None:
    layers = [Recurrent(n, 5, 5, device="meta") for n in ("lstm", "gru")]
    for options in OPTIONS:
        stack = Stack(*layers, **options)
        assert all(p.is_meta for p in stack.parameters())
        y, state = stack(torch.empty(T, B, 5, device="meta"), lengths=torch.tensor(LENGTHS))
        assert (y.shape, y.is_meta, state.layers[1][0]["h"].is_meta) == ((T, B, 5), True, True)
    highway = Stack(*layers, highway=True).to_empty(device="cpu")
    torch.manual_seed(4)
    highway.reset_parameters()
    torch.manual_seed(4)
    other = Stack(*[Recurrent(n, 5, 5) for n in ("lstm", "gru")], highway=True)
    assert all(torch.equal(p, other.get_parameter(n)) for n, p in highway.named_parameters())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, on first use
@every_option
def test_torchs_transforms(options: dict[str, Any]) -> None:
    stack = forwards(**options)
    x = an_input(stack, 3, 2)
    names = list(dict(stack.named_parameters()))

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        y: Tensor = torch.func.functional_call(stack, given, (x,), {"lengths": [3, 2]})[0]
        return y

    y = run(x, *stack.parameters())
    tangent = torch.randn_like(x)
    _, derivative = torch.func.jvp(lambda v: run(v, *stack.parameters()).sin().sum(), (x,), (tangent,))
    back = torch.func.grad(lambda v: run(v, *stack.parameters()).sin().sum())(x)
    assert derivative.item() == pytest.approx((back * tangent).sum().item(), rel=1e-10)
    many = torch.func.vmap(lambda v: stack(v, lengths=[3, 2])[0])(torch.stack([x, -x]))
    assert torch.allclose(many[0], y, rtol=0, atol=1e-13)


@pytest.mark.usefixtures("reference_path_notice")
@every_option
def test_autocast_gives_nearly_the_same(options: dict[str, Any]) -> None:
    stack = forwards(**options).float()
    x = an_input(stack).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, state = stack(x.bfloat16(), lengths=LENGTHS)
    assert rough.dtype == state.layers[0][0]["c"].dtype == torch.float32
    assert_same({"y": rough.double()}, {"y": stack(x, lengths=LENGTHS)[0].double()}, 0.05)


def test_repr() -> None:
    shown = repr(Stack(Recurrent("gru", 5, 5), Recurrent("elman", 5, 5), highway=True, dropout=0.25))
    assert shown.startswith("Stack(\n  highway=True, dropout=0.25\n  (layers): ModuleList(\n    (0): Recurrent(")


# Refusals


def refused(message: str, call: Any, *args: Any, **options: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        call(*args, **options)
    assert str(caught.value) == message


def gru(below: int, size: int, **options: Any) -> Recurrent:
    return Recurrent("gru", below, size, **options)


def test_what_is_no_layer() -> None:
    refused(
        "a stack takes at least one layer, got none: give layers from first to last, as in "
        "Stack(Recurrent('lstm', 8, 64), Recurrent('gru', 64, 32))",
        Stack,
    )
    said = "pass layers one by one, as in Stack(*layers), and call other modules separately"
    refused(f"layers[1] must be a Recurrent or a Stack, got Linear: {said}", Stack, gru(3, 5), nn.Linear(5, 5))
    refused(f"layers[0] must be a Recurrent or a Stack, got list: {said}", Stack, [gru(3, 5), gru(5, 5)])
    refused(f"layers[0] must be a Recurrent or a Stack, got LSTM: {said}", Stack, tg.LSTM(3, 5))


def test_layers_that_do_not_fit() -> None:
    refused(
        "layers[2] must have input_size=10, the output size of layers[1], got 7",
        Stack, gru(3, 4), gru(4, 5, bidirectional=True), gru(7, 7),
    )  # fmt: skip
    refused(
        "layers[1] has batch_first=True, but layers[0] has batch_first=False: use the same value "
        "for all layers of a stack",
        Stack, gru(3, 5), gru(5, 5, batch_first=True),
    )  # fmt: skip
    refused(
        "layers[1] has weights of torch.float64, but layers[0] of torch.float32: convert one with .to(dtype)",
        Stack, gru(3, 5), gru(5, 5).double(),
    )  # fmt: skip
    layer = gru(5, 5)
    said = "use a separate layer for each place, such as copy.deepcopy(layer)"
    refused(f"layers[1] has weights of layers[0]: {said}", Stack, layer, layer)
    refused(f"layers[2] has weights of layers[1]: {said}", Stack, gru(5, 5), layer, Stack(gru(5, 5), layer))


def test_one_name_for_two_inputs() -> None:
    @cell(states="h", inputs="x t:1@sequence", source="a test")
    def once(x, t, h):
        h = tanh(linear("h", x, t, h))
        return h

    @cell(states="h", inputs="u x:I", source="a test")
    def wide(u, x, h):
        h = tanh(linear("h", u, x, h))
        return h

    said = "one tensor goes to all layers that declare the name, so rename one of the inputs"
    refused(
        f"input 't' is [B, 1] in layers[2], but [T, B, 1] below: {said}",
        Stack, Recurrent(timed, 3, 5), gru(5, 5), Recurrent(once, 5, 5),
    )  # fmt: skip
    refused(
        f"input 'x' is [T, B, 5] in layers[1], but [T, B, 3] below: {said}", Stack, gru(3, 5), Recurrent(wide, 5, 4)
    )
    stack = shaken(Stack(gru(5, 5), Recurrent(wide, 5, 4)))
    x = random(T, B, 5)
    assert torch.equal(stack(x)[0], stack.layers[1]({"u": stack.layers[0](x)[0], "x": x})[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"residual": "where it fits"}, "residual must be True or False, got 'where it fits'"),
        ({"highway": 2}, "highway must be True or False, got 2"),
        (
            {"residual": True, "highway": True},
            "residual=True and highway=True exclude each other: choose one",
        ),
        ({"dropout": 1.0}, "dropout must be a probability in [0, 1), got 1.0"),
        ({"dropout": True}, "dropout must be a probability in [0, 1), got True"),
        ({"dropout": "much"}, "dropout must be a probability in [0, 1), got 'much'"),
        *[
            (
                {option: True},
                f"{option}=True needs layers with equal input and output sizes, but layers[1] maps 5 to 7: put the "
                "layers with equal sizes into a stack of their own, as in "
                f"Stack(first, Stack(..., {option}=True))",
            )
            for option in ("residual", "highway")
        ],
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    refused(message, Stack, gru(5, 5), gru(5, 7), **options)


def test_an_option_without_effect() -> None:
    said = "dropout=0.5 acts between layers, but num_layers=1: omit it or add layers"
    refused(said, Stack, gru(5, 5, num_layers=2), dropout=0.5)


def test_names_of_the_inputs() -> None:
    wanted = "{'x': tensor, 't': tensor, 'who': tensor, 'rate': tensor}"
    stack, x = told(), random(T, B, I)
    refused(f"this stack takes the inputs x, t, who, rate, got x: give them as {wanted}", stack, x)
    refused(f"this stack takes the inputs x, t, who, rate, got none: give them as {wanted}", stack, {})
    refused("this stack takes the inputs x, got x, 3: give them as {'x': tensor}", forwards().step, {"x": x[0], 3: x})
    refused("the stepper takes the inputs x, t, who, rate, got x", stack.stepper(B), x[0])
    refused("the stepper takes the inputs x, got none", forwards().stepper(B), {})


def test_indices_have_nothing_to_add() -> None:
    said = (
        "residual=True adds a layer's input to its output, got indices of one-hots: pass one-hots, as in "
        "torch.nn.functional.one_hot(x, size).float()"
    )
    index, stack = torch.zeros(T, B, dtype=torch.long), forwards(residual=True)
    refused(said, stack, index)
    refused(said, stack.step, index[0])
    refused(said, stack.stepper(B), index[0])
    said = (
        "cell 'highway' does more with 'x' than multiply it, so it cannot be an index of a one-hot: pass one-hots, "
        "as in "
        "torch.nn.functional.one_hot(x, size).float()"
    )
    stack = forwards(highway=True)
    refused(said, stack, index)
    refused(said, stack.step, index[0])
    refused(said, stack.stepper(B), index[0])


def test_states() -> None:
    stack = forwards()
    x = an_input(stack)
    said = (
        "state must be a tidegate.State as returned by a layer, got tuple. Make one of tensors [B, size] as "
        "State([[{'h': h, 'c': c}]]), with a mapping for each layer and direction"
    )
    refused(said, stack, x, ())
    refused(said, setattr, stack.stepper(B), "state", ())
    refused(
        "the state has 2 layers, but this stack has 3: pass a state that this stack returned, or initial_state(batch)",
        stack, x, State(a_state(stack).layers[1:]),
    )  # fmt: skip
    refused(
        "the state does not fit this layer and batch: layer 0 has h [3, 5], expected h [4, 5]",
        stack, x, State([*a_state(stack).layers[:1], *a_state(stack, 3).layers[1:]]),
    )  # fmt: skip
    refused(
        "the state does not fit this layer and batch: its number of layers is 1, expected 3",
        setattr, stack.stepper(2), "state", gru(3, 5).initial_state(2),
    )  # fmt: skip


@pytest.mark.parametrize("nested", [False, True])
def test_two_directions_refuse_what_has_not_come(nested: bool) -> None:
    stack = mixed()
    if nested:
        stack = Stack(stack.layers[0], Stack(stack.layers[1], stack.layers[2]))
    x, name = an_input(stack), "layers[1]" if nested else "layers[2]"
    _, state = stack(x)
    refused(
        f"{name} is bidirectional, so this stack cannot continue from a state: a backward direction starts at the "
        "end of the sequence. Pass the whole sequence, or use layers of one direction",
        stack, x, state,
    )  # fmt: skip
    calls: dict[str, Any] = {
        "step": lambda: stack.step(x[0]),
        "stepper": stack.stepper,
        "trace": lambda: stack.trace(x),
    }
    for what, call in calls.items():
        refused(
            f"{name} is bidirectional, so this stack has no {what}: a backward direction needs the end of the "
            "sequence first. Use layers of one direction",
            call,
        )


def test_what_its_layers_refuse() -> None:
    stack = forwards(residual=True)
    x = an_input(stack)
    refused("input 'x' must be [T, B, size] = [6, 4, 5], got [6, 4, 2]", stack, x[..., :2])
    refused("lengths must be 4 whole numbers, one per row, got 'long'", stack, x, lengths="long")
    refused("reset must be one flag per step and row, got 'often'", stack, x, reset="often")
    packed = pack_padded_sequence(x, torch.tensor([6, 4, 2, 1]))
    refused("a PackedSequence has its own lengths: omit lengths=", stack, packed, lengths=[6, 4, 2, 1])
    refused(
        "trace takes sequences of equal length, got a PackedSequence: trace its sequences one by one",
        stack.trace,
        packed,
    )
    refused("step takes x_t of shape [B, 5], or integers [B], got [5]", stack.step, x[0, 0])
    refused("active must be one flag per row, [4], got [3] of bool", stack.stepper(B), x[0], active=[True] * 3)


# Compiled and exported


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


compiling = [
    pytest.mark.kernels,
    pytest.mark.usefixtures("fresh_compiler"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # torch's own
]


def marked(test: Any) -> Any:
    for mark in compiling:
        test = mark(test)
    return test


def flags(steps: int, rows: int) -> dict[str, Tensor]:
    return {"lengths": torch.randint(0, steps + 1, (rows,)), "reset": torch.rand(steps, rows) < 0.3}


@marked
@pytest.mark.parametrize(
    "options", [{"highway": True}, *(pytest.param(o, marks=pytest.mark.slow) for o in (None, *OPTIONS[:2]))], ids=str
)
def test_one_graph_for_any_batch_and_time(options: dict[str, Any] | None) -> None:
    """None is a stack of a bidirectional layer, with lengths and resets; the others carry a state on."""
    stack = (mixed() if options is None else forwards(**options)).float()
    compiled, gates = torch.compile(stack, fullgraph=True, dynamic=True, backend="aot_eager"), len(stack.gates)
    for k, (steps, rows) in enumerate([(9, 6), (7, 2), (2, 11)]):
        x = an_input(stack, steps, rows).float()
        given = flags(steps, rows) if options is None else {"state": a_state(stack, rows)}
        found = []
        for call in (compiled, stack):
            leaves = {"x": x.clone().requires_grad_(), **dict(stack.named_parameters())}
            with torch._dynamo.config.patch(error_on_recompile=k > 0), counted_runs() as runs:
                y, end = call(leaves["x"], **given)
                results = by_name(y, end.layers)
                found.append((results, gradients(results, leaves)))
            assert runs.count("forward") == runs.count("backward") == stack.num_layers + stack.bidirectional + gates
        assert_same(*[f[0] for f in found], 1e-6)
        assert_same(*[f[1] for f in found], 1e-5)


@marked
@every_option
def test_an_exported_program_takes_any_batch_and_time(options: dict[str, Any]) -> None:
    stack, steps, rows = forwards(**options).float(), Dim("T", min=1), Dim("B", min=1)
    shapes = {"x": {0: steps, 1: rows}, "lengths": {0: rows}, "reset": {0: steps, 1: rows}}
    x = an_input(stack, 9, 6).float()
    program = export(stack, (x,), flags(9, 6), dynamic_shapes=shapes).module()
    for shape in [(7, 2), (1, 1), (11, 30)]:
        x, given = an_input(stack, *shape).float(), flags(*shape)
        (y, end), (expected, last) = program(x, **given), stack(x, **given)
        assert_same(by_name(y, end.layers), by_name(expected, last.layers), 1e-6)
