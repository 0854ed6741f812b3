"""What transforms draw at random: in training, from torch's generator; elsewhere the average; on kernels as given."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from native_layers import Setting, assert_as_reference, counted_runs
from tidegate.cells import get
from tidegate.cells.transforms import hard, layer_norm_gates, peepholes, recurrent_dropout, weight_drop, zoneout
from tidegate.equations import Cell
from tidegate.errors import ArgumentError
from tidegate.nn import Recurrent
from tidegate.reference.unroll import UnrollArguments
from tidegate.runtime import masks
from tidegate.runtime.masks import chances, without_masks
from tidegate.runtime.unroll import Unroll

T, B, I, H = 6, 4, 3, 5  # noqa: E741 - the project's word for the input size
LSTM, ELMAN = get("lstm"), get("elman")
DRAWN: dict[str, Cell] = {
    "zoneout": zoneout(LSTM, c=0.5, h=0.2),
    "dropout a sequence": recurrent_dropout(get("gru"), 0.3),
    "dropout a step": recurrent_dropout(LSTM, 0.3, on="g"),
    "weight drop": weight_drop(get("lstm_peephole"), 0.4),
    "all together": zoneout(peepholes(weight_drop(recurrent_dropout(LSTM, 0.2), 0.3)), 0.1),
}
every_one = pytest.mark.parametrize("what", DRAWN)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(T, B, I)


def doubles(made: Cell) -> Setting:
    sizes = {letter: {"I": I, "H": H, "P": 2}[letter] for letter in (*made.graph.letters, "H")}
    return Setting(made.graph, sizes, T, B)


@pytest.mark.kernels
@pytest.mark.parametrize("form", ["whole", "ragged", "backwards"])
@pytest.mark.parametrize("what", [*DRAWN, "normalised", "hard"])
def test_kernels_compute_what_the_reference_does(what: str, form: str) -> None:
    made = {**DRAWN, "normalised": layer_norm_gates(LSTM), "hard": hard(get("gru"))}[what]
    setting = doubles(made).ragged() if form == "ragged" else doubles(made)
    assert_as_reference(setting, backwards=form == "backwards")


@every_one
def test_training_draws_and_evaluation_does_not(what: str, x: Tensor) -> None:
    layer = Recurrent(DRAWN[what], I, H)
    one, other = layer(x)[0], layer(x)[0]
    assert not torch.equal(one, other)
    torch.manual_seed(3)
    one = layer(x)[0]
    torch.manual_seed(3)
    assert torch.equal(one, layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


@every_one
def test_evaluation_is_the_average_cell(what: str, x: Tensor) -> None:
    """The formulas with the chances in the place of masks, by the reference path."""
    layer = Recurrent(DRAWN[what], I, H).double().eval()
    graph = layer.graph
    given = {i.name: torch.full((T, B, H), chances(graph)[i.name], dtype=torch.float64) for i in graph.inputs[1:]}
    given = {n: v[0] if n == "dropout_h_mask" else v for n, v in given.items()}
    weights = layer.get_submodule("l0").tensors()  # type: ignore[operator]
    weights |= {n: torch.full((H, H), chances(graph)[n], dtype=torch.float64) for n in graph.masks if "." in n}
    zeros = {s.name: torch.zeros(B, H).double() for s in graph.states}
    expected, _ = layer.unrolls[0].reference(UnrollArguments(weights, {"x": x.double(), **given}, zeros, zeros))
    assert torch.allclose(layer(x.double())[0], expected, rtol=0, atol=1e-12)


def test_dropout_is_no_cost_in_evaluation() -> None:
    """Scaled masks leave nothing behind: the average of dropout is the cell itself."""
    for made in (DRAWN["dropout a sequence"], DRAWN["dropout a step"], DRAWN["weight drop"]):
        average = without_masks(made.graph)
        assert not average.masks
        assert [i.name for i in average.inputs] == ["x"]
        assert not [v for v in average.values if v.op == "div"]
        assert sum(v.op == "mul" for v in average.values) == sum(v.op == "mul" for v in made.graph.values) - (
            1 if "weight" not in made.name else 4
        )


@pytest.mark.kernels
def test_evaluation_is_cached(x: Tensor) -> None:
    layer = Recurrent(DRAWN["zoneout"], I, H).eval()
    expected = layer(x)[0]
    for _ in range(3):
        assert torch.equal(layer(x)[0], expected)
    assert layer.calls.get("forward", x, lambda: None) is not None
    layer.train()
    with counted_runs() as runs:
        assert not torch.equal(layer(x)[0], expected)
    assert runs == ["forward"]


def test_a_unit_that_always_stays_and_one_that_never_does(x: Tensor) -> None:
    still = Recurrent(zoneout(LSTM, 1.0), I, H)
    state = still.initial_state(B).map(lambda t: t + torch.randn(t.shape))
    y, end = still(x, state)
    assert torch.equal(y, state.layers[0][0]["h"].expand(T, B, H))
    assert torch.equal(end["c"], state["c"])
    moving, plain = Recurrent(zoneout(LSTM, 0.0), I, H), Recurrent(LSTM, I, H)
    plain.load_state_dict(moving.state_dict())
    assert torch.allclose(moving(x)[0], plain(x)[0], atol=1e-6)


def test_a_mask_of_a_sequence_is_one_for_all_its_steps() -> None:
    """With the identity for a recurrent matrix, what is dropped at one step is dropped at all."""
    layer = Recurrent(recurrent_dropout(get("elman_relu"), 0.5), H, H)
    with torch.no_grad():
        layer.get_parameter("l0.h.x").copy_(torch.eye(H))
        layer.get_parameter("l0.h.h").copy_(torch.eye(H))
    y, _ = layer(torch.ones(T, 64, H))
    kept = y[1] == 3.0  # 1 + 2 x 1
    assert 0.4 < kept.double().mean() < 0.6
    for t in range(1, T):
        assert torch.equal(y[t] > 1.0, kept)
    by_step = Recurrent(recurrent_dropout(get("elman_relu"), 0.5, per="step"), H, H)
    by_step.load_state_dict(layer.state_dict())
    z, _ = by_step(torch.ones(T, 64, H))
    assert not torch.equal(z[2] > 1.0, z[1] > 1.0)


def test_given_masks_are_used(x: Tensor) -> None:
    layer = Recurrent(DRAWN["zoneout"], I, H)
    masks = {n: torch.ones(T, B, H) for n in ("zoneout_c_mask", "zoneout_h_mask")}
    for mode in (True, False):
        layer.train(mode)
        assert not layer({"x": x, **masks})[0].any()
    half = layer({"x": x, "zoneout_h_mask": masks["zoneout_h_mask"]})[0]
    assert not half.any()


def test_every_layer_and_direction_draws_its_own() -> None:
    layer = Recurrent(recurrent_dropout(ELMAN, 0.5), H, H, num_layers=2, bidirectional=True, merge="sum")
    seen: list[Tensor] = []
    inner = Unroll.__call__

    def told(self: Unroll, given: UnrollArguments) -> object:
        seen.append(given.inputs["dropout_h_mask"])
        return inner(self, given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Unroll, "__call__", told)
        layer(torch.randn(T, 16, H))
    assert len(seen) == 4
    assert all(not torch.equal(a, b) for k, a in enumerate(seen) for b in seen[:k])


def test_masks_are_not_weights() -> None:
    layer = Recurrent(DRAWN["weight drop"], I, H)
    assert sorted(layer.state_dict()) == sorted(Recurrent("lstm_peephole", I, H).state_dict())
    other = copy.deepcopy(layer).eval()
    plain = Recurrent("lstm_peephole", I, H)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(T, B, I)
    assert torch.allclose(other(x)[0], plain(x)[0], atol=1e-6)


def test_weights_are_dropped_once_a_call() -> None:
    layer = Recurrent(weight_drop(ELMAN, 0.5), I, H)
    x = torch.randn(T, B, I)
    layer(x)[0].sum().backward()
    gradient = layer.get_parameter("l0.h.h").grad
    assert gradient is not None
    assert 0 < int((gradient == 0).sum()) < H * H


def test_steppers_and_traces_are_of_the_average_cell(x: Tensor) -> None:
    layer = Recurrent(DRAWN["all together"], I, H).double()
    x = x.double()
    expected = copy.deepcopy(layer).eval()(x)[0]
    stepper = layer.stepper(B)
    assert torch.allclose(torch.stack([torch.as_tensor(stepper(x_t)).clone() for x_t in x]), expected, atol=1e-12)
    assert torch.allclose(layer.trace(x)["h"], expected, atol=1e-12)


def test_a_step_draws_as_a_sequence_of_one(x: Tensor) -> None:
    layer = Recurrent(DRAWN["zoneout"], I, H)
    y, state = layer.step(x[0])
    assert y.shape == (B, H)
    torch.manual_seed(5)
    one = layer.step(x[1], state)[0]
    torch.manual_seed(5)
    assert torch.equal(one, layer(x[1:2], state)[0][0])


REFUSED: dict[str, tuple[Callable[[Recurrent], object], str]] = {
    "of another shape": (
        lambda layer: layer({"x": torch.zeros(T, B, I), "zoneout_c_mask": torch.zeros(T, B, H + 1)}),
        "input 'zoneout_c_mask' must be [T, B, size] = [6, 4, 5], got [6, 4, 6]",
    ),
    "of another name": (
        lambda layer: layer({"x": torch.zeros(T, B, I), "zoneout_mask": torch.zeros(T, B, H)}),
        "cell 'lstm_zoneout' takes the inputs x, got x, zoneout_mask: give them as {'x': tensor}",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_masks_that_are_refused(what: str) -> None:
    call, message = REFUSED[what]
    with pytest.raises(ArgumentError) as caught:
        call(Recurrent(DRAWN["zoneout"], I, H))
    assert str(caught.value) == message


def test_in_one_graph(x: Tensor) -> None:
    """Compiled, a layer draws as it does elsewhere."""
    layer = Recurrent(DRAWN["zoneout"], I, H)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert not torch.equal(compiled(x)[0], compiled(x)[0])
    layer.eval()
    assert torch.allclose(compiled(x)[0], layer(x)[0], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("chance", [0.0, 2.0**-17, 0.05, 0.5, 1.0 - 2.0**-17, 1.0])
@pytest.mark.parametrize("count", [64, 1 << 22])
def test_how_many_ones_there_are(count: int, chance: float, dtype: torch.dtype) -> None:
    """Within six standard deviations, and nothing else than ones and zeros; neighbours know nothing of each other."""
    torch.manual_seed(1)
    found = masks._ones(torch.empty(0, dtype=dtype), (count // 4, 4), chance)
    assert found.dtype == dtype
    assert bool(((found == 0) | (found == 1)).all())
    spread = (count * chance * (1 - chance)) ** 0.5
    assert abs(float(found.double().sum()) - count * chance) <= 6 * spread
    pairs = float((found[:, :-1] * found[:, 1:]).double().sum())
    expected = 0.75 * count * chance**2
    assert abs(pairs - expected) <= 8 * max((0.75 * count) ** 0.5 * chance, 1.0)


def test_large_masks_follow_the_seed_and_differ() -> None:
    like = torch.empty(0)
    torch.manual_seed(1)
    one, other = masks._ones(like, (100, 100), 0.5), masks._ones(like, (100, 100), 0.5)
    torch.manual_seed(1)
    assert torch.equal(one, masks._ones(like, (100, 100), 0.5))
    assert not torch.equal(one, other)
