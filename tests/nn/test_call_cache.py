"""Cached calls: what has changed in between is seen, and results are those of the first call."""

import copy
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize, prune
from torch.utils import _pytree as pytree

import tidegate
from tidegate.errors import ArgumentError
from tidegate.nn import Recurrent, State
from tidegate.runtime import call_cache, support
from tidegate.runtime.call_cache import LayerCall

T, B, I, H = 5, 3, 4, 6  # noqa: E741 - the project's word for the input size
pytestmark = [
    pytest.mark.kernels,
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning"),
]


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """For each call, whether the cached call took it."""
    taken: list[bool] = []
    call = LayerCall.__call__

    def seen(self: LayerCall, x: Tensor, begins: Any) -> Any:
        found = call(self, x, begins)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(LayerCall, "__call__", seen)
    return taken


def layer_of(name: str = "lstm", **options: Any) -> Recurrent:
    torch.manual_seed(7)
    return Recurrent(name, I, H, **options)


def warm(layer: Recurrent, x: Tensor) -> None:
    for _ in range(3):
        layer(x)


def assert_right(layer: Recurrent, x: Tensor, state: State | None = None) -> None:
    """The values of the reference path, and its gradients."""
    found = _values(layer, x, state)
    with support.disabled():
        wanted = _values(layer, x, state)
    for a, b in zip(found, wanted, strict=True):
        assert_near(a, b)


def assert_near(found: Tensor, wanted: Tensor) -> None:
    """Up to the rounding of some dozens of terms, summed in another order: the bound is that of the largest sum."""
    largest = max(wanted.detach().abs().flatten().tolist(), default=0.0)
    bound = 64 * torch.finfo(wanted.dtype).eps * (1 + largest)
    torch.testing.assert_close(found.double(), wanted.double(), rtol=0, atol=bound)


def _values(layer: Recurrent, x: Tensor, state: State | None) -> list[Tensor]:
    y, end = layer(x, state)
    found = [y, *(t for d in end.layers for t in d[0].values())]
    if torch.is_grad_enabled():
        loss = sum((t.sin().sum() for t in found), torch.zeros(()))
        found += torch.autograd.grad(loss, [p for p in layer.parameters() if p.requires_grad])
    return found


@pytest.mark.parametrize("name", ["lstm", "gru", "lstm_peephole", "elman_relu"])
@pytest.mark.parametrize("layers", [1, 2])
def test_as_the_first_call(name: str, layers: int, cached: list[bool]) -> None:
    layer, x = layer_of(name, num_layers=layers), torch.randn(T, B, I)
    first, end = layer(x)
    again, last = layer(x)
    assert torch.equal(layer(x)[0], first)
    assert cached == [True, True]
    with torch.no_grad():
        assert torch.equal(layer(x)[0], first)
        carried, _ = layer(x, end)
        assert torch.equal(carried, layer(x, end)[0])
    with torch.inference_mode():
        assert torch.equal(layer(x, last)[0], carried)
    assert all(cached)
    assert_right(layer, x)
    assert_right(layer, x, end.map(lambda t: t.detach().clone()))
    assert again.requires_grad
    assert not carried.requires_grad


def test_an_input_that_needs_a_gradient(cached: list[bool]) -> None:
    layer, x = layer_of(), torch.randn(T, B, I)
    warm(layer, x)
    x.requires_grad_()
    found = torch.autograd.grad(layer(x)[0].sin().sum(), x)[0]
    with support.disabled():
        wanted = torch.autograd.grad(layer(x)[0].sin().sum(), x)[0]
    assert cached[-1]
    assert_near(found, wanted)


def test_steps_are_the_sequence(cached: list[bool]) -> None:
    layer, x = layer_of(num_layers=2), torch.randn(T, B, I)
    whole, last = layer(x)
    for recording in (torch.enable_grad, torch.no_grad):
        state = layer.initial_state(B)
        with recording():
            for t in range(T):
                y, state = layer.step(x[t], state)
                assert torch.equal(y, whole[t])
        assert torch.equal(state["h"], last["h"])
    assert sum(cached) >= 2 * T - 3


def test_weights_are_read_at_each_call(cached: list[bool]) -> None:
    layer, x = layer_of(), torch.randn(T, B, I)
    warm(layer, x)
    before = layer(x)[0]
    with torch.no_grad():
        layer.l0.i.x.mul_(2.0)
    assert_right(layer, x)
    layer.l0.f.h.data = layer.l0.f.h.data.clone() * 3.0
    assert_right(layer, x)
    layer.l0.f.h.data = layer.l0.f.h.data.t()
    assert_right(layer, x)
    assert not cached[-1]
    layer.l0.f.h.data = layer.l0.f.h.data.contiguous()
    layer.l0.i.h = nn.Parameter(torch.randn(H, H))
    assert_right(layer, x)
    assert not torch.equal(layer(x)[0], before)
    assert cached[-1]


def test_what_computes_a_weight_is_asked_each_time(cached: list[bool]) -> None:
    layer, x = layer_of(), torch.randn(T, B, I)
    warm(layer, x)

    class Doubled(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return 2 * w

    parametrize.register_parametrization(layer.l0.i, "h", Doubled())
    assert_right(layer, x)
    assert not cached[-1]
    parametrize.remove_parametrizations(layer.l0.i, "h")
    prune.random_unstructured(layer.l0.o, "x", amount=0.5)
    assert_right(layer, x)
    assert not cached[-1]


def test_modules_that_were_replaced(cached: list[bool]) -> None:
    layer, other, x = layer_of(), layer_of(), torch.randn(T, B, I)
    for p in other.parameters():
        nn.init.normal_(p)
    warm(layer, x)
    layer.l0.g = other.l0.g
    assert_right(layer, x)
    warm(layer, x)
    layer.l0 = other.l0
    assert_right(layer, x)
    assert torch.equal(layer(x)[0], other(x)[0])


def test_weights_given_from_outside() -> None:
    layer, x = layer_of(), torch.randn(T, B, I)
    warm(layer, x)
    given = {n: torch.randn_like(p) for n, p in layer.named_parameters()}
    found = functional_call(layer, given, (x,))[0]
    with support.disabled():
        wanted = functional_call(layer, given, (x,))[0]
    assert_near(found, wanted)


def test_other_shapes_types_and_forms(cached: list[bool]) -> None:
    layer = layer_of()
    for shape in [
        (T, B, I),
        (T, B, I),
        (T, B, I),
        (2, B, I),
        (2, 1, I),
        (2, 1, I),
        (T, I),
        (0, B, I),
        (0, B, I),
        (T, 0, I),
    ]:
        with torch.set_grad_enabled(0 not in shape):
            assert_right(layer, torch.randn(shape))
    x = torch.randn(B, T, I).transpose(0, 1)
    for _ in range(3):
        assert_right(layer, x)
    for _ in range(3):
        assert_right(layer, torch._neg_view(torch.randn(T, B, I)))
    layer.double()
    x = torch.randn(T, B, I, dtype=torch.float64)
    for _ in range(3):
        assert_right(layer, x)
    assert any(cached)
    assert not all(cached)


def test_errors_are_those_of_the_first_call() -> None:
    layer, x = layer_of(), torch.randn(T, B, I)
    state = layer(x)[1]
    calls: list[Callable[[], Any]] = [
        lambda: layer(x.double()),
        lambda: layer(torch.randn(T, B, I + 1)),
        lambda: layer(x, state.rows([0])),
        lambda: layer(x, "state"),
        lambda: layer.step(x[0, :, :2], state),
        lambda: layer.step(x[0], state.rows([0])),
    ]
    for call in calls:
        messages = []
        for _ in range(3):
            with pytest.raises(ArgumentError) as caught:
                call()
            messages.append(str(caught.value))
        warm(layer, x)
        assert len(set(messages)) == 1


def test_copies_have_their_own() -> None:
    layer, x = layer_of(), torch.randn(T, B, I)
    warm(layer, x)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert torch.equal(other(x)[0], layer(x)[0])
        with torch.no_grad():
            other.l0.i.x.zero_()
        warm(other, x)
        assert_right(other, x)
        assert not torch.equal(other(x)[0], layer(x)[0])


def test_dropout_in_training_and_out_of_it() -> None:
    layer, x = layer_of(num_layers=2, dropout=0.5), torch.randn(T, B, I)
    drawn = [layer(x)[0] for _ in range(3)]
    assert not torch.equal(drawn[1], drawn[2])
    layer.eval()
    warm(layer, x)
    assert_right(layer, x)


def test_threads_of_pythons_own_share_a_layer() -> None:
    layer = layer_of(num_layers=2)
    xs = [torch.randn(T, B, I) for _ in range(4)]
    with torch.no_grad():
        wanted = [layer(x)[0] for x in xs]
    wrong: list[int] = []

    def run(k: int) -> None:
        with torch.no_grad():
            wrong.extend(k for _ in range(200) if not torch.equal(layer(xs[k])[0], wanted[k]))

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_another_number_of_threads() -> None:
    layer, x = layer_of(), torch.randn(40, 8, I)
    warm(layer, x)
    before = layer(x)[0]
    torch.set_num_threads(2)
    try:
        warm(layer, x)
        assert torch.equal(layer(x)[0], before)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("made", [lambda: layer_of("gru"), lambda: tidegate.GRU(I, H)])
def test_the_last_few_shapes(
    made: Callable[[], nn.Module], cached: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_cache, "MOST_CALLS", 3)
    layer, each = made(), [torch.randn(t, B, I) for t in (5, 2, 4)]
    wanted = [layer(x)[0] for x in each]
    assert not cached
    for x, y in zip(each * 2, wanted * 2, strict=True):
        assert torch.equal(layer(x)[0], y)
    assert cached == [True] * 6
    one_more = torch.randn(3, B, I)
    layer(one_more)
    layer(each[0])
    assert len(cached) == 6
    layer(each[0])
    layer(one_more)
    assert len(cached) == 8


DROP_INS: dict[str, tuple[type[nn.RNNBase], type[nn.RNNBase], dict[str, Any]]] = {
    "LSTM": (tidegate.LSTM, nn.LSTM, {}),
    "LSTM without biases": (tidegate.LSTM, nn.LSTM, {"bias": False}),
    "LSTM with projection": (tidegate.LSTM, nn.LSTM, {"proj_size": 2}),
    "GRU": (tidegate.GRU, nn.GRU, {}),
    "RNN": (tidegate.RNN, nn.RNN, {"nonlinearity": "relu"}),
}


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", DROP_INS)
def test_drop_ins(kind: str, layers: int, cached: list[bool]) -> None:
    ours, theirs, options = DROP_INS[kind]
    mine, other = ours(I, H, num_layers=layers, **options), theirs(I, H, num_layers=layers, **options)
    other.load_state_dict(mine.state_dict())
    x = torch.randn(T, B, I)
    given = pytree.tree_map(torch.detach, other(x)[1])
    for hx in (None, given, given):
        for _ in range(3):
            for recording in (torch.enable_grad, torch.no_grad):
                with recording():
                    found, wanted = mine(x, hx), other(x, hx)
                    pytree.tree_map(assert_near, found, wanted)
            gradients = [torch.autograd.grad(m(x, hx)[0].sin().sum(), list(m.parameters())) for m in (mine, other)]
            for a, b in zip(*gradients, strict=True):
                assert_near(a, b)
        with torch.no_grad():
            for a, b in zip(mine.parameters(), other.parameters(), strict=True):
                b.copy_(a.mul_(1.5))
    assert sum(cached) >= len(cached) - 2 > 10
    prune.random_unstructured(mine, "weight_hh_l0", amount=0.5)
    other.weight_hh_l0.data.copy_(mine.weight_hh_l0)
    for _ in range(3):
        assert_near(mine(x)[0], other(x)[0])
    assert not cached[-1]


def test_drop_ins_after_a_change_of_class_or_type(cached: list[bool]) -> None:
    model = nn.Sequential(nn.LSTM(I, H))
    x = torch.randn(T, B, I)
    wanted = model(x)[0]
    tidegate.swap(model)
    warm_up = [model(x)[0] for _ in range(3)]
    assert cached == [True, True]
    for found in warm_up:
        assert_near(found, wanted)
    model.double()
    with pytest.raises(ArgumentError, match=r"input 'x' is torch\.float32"):
        model(x)
    for _ in range(3):
        assert_near(model(x.double())[0], wanted)


@pytest.mark.parametrize("kind", [k for k in DROP_INS if k != "RNN"])
def test_second_derivatives_of_drop_ins(kind: str, cached: list[bool]) -> None:
    ours, _, options = DROP_INS[kind]
    module = ours(2, 3, **options).double()
    x = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    module(x)
    assert torch.autograd.gradgradcheck(lambda x, *_: module(x)[0], (x, *module.parameters()))
    assert torch.autograd.gradcheck(lambda x, *_: module(x)[0], (x, *module.parameters()))
    assert cached
    assert all(cached)


def test_calls_that_keep_too_much_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Keeping:
        nbytes = 100

        def serves(self) -> bool:
            return True

    monkeypatch.setattr(call_cache, "MOST_BYTES", 250)
    calls, x, made = call_cache.CallCache(), torch.zeros(2, 3), [Keeping() for _ in range(4)]
    for k, call in enumerate(made):
        assert calls.get(k, x, lambda call=call: call) is None
        assert calls.get(k, x, lambda call=call: call) is call
    assert calls.get(3, x, Keeping) is made[3]
    assert calls.get(2, x, Keeping) is made[2]
    assert calls.get(1, x, Keeping) is None
    assert calls.get(0, x, Keeping) is None
    assert calls.get(0, x, Keeping) is not None
