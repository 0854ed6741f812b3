"""Native kernels against the reference path: every cell and random ones, values and gradients, in every form."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import graphs
from catalogue import ALL
from layer_cases import make_layer
from native_layers import (
    TOLERANCE,
    Setting,
    assert_as_reference,
    assert_equal,
    assert_near,
    counted_runs,
    normal,
    sizes_of,
)
from tidegate.cells import CELLS
from tidegate.equations import Cell, cell, linear, weight
from tidegate.native.run import kernel as kernels
from tidegate.native.run.workspace import WORKSPACE
from tidegate.nn import Recurrent
from tidegate.nn.trace import trace
from tidegate.runtime import support

TELLING = ["shipped lstm", "shipped gru", "shipped lstm_projection", "shipped slstm", "hard qrnn", "hard gru_d"]
pytestmark = pytest.mark.kernels
every_cell = pytest.mark.parametrize("name", ALL)
telling_cells = pytest.mark.parametrize("name", TELLING)
CANCELLED = 0.1  # of few units and rows some gradient is always nearly zero
both_types = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


@pytest.fixture
def threads_after() -> Iterator[None]:
    """As many threads after the test as before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def divide(monkeypatch: pytest.MonkeyPatch, hidden: bool) -> None:
    """Divide small calls too: their units, or their rows."""
    monkeypatch.setattr(kernels, "split", lambda widest, T, B, wanted: (wanted, hidden and wanted > 1))
    monkeypatch.setattr(support, "_cell_kernel", support._cell_kernel.__wrapped__)  # which remembers other divisions


@pytest.fixture
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, threads_after: None) -> int:
    """So many threads, a parameter of the test, which share the rows."""
    divide(monkeypatch, hidden=False)
    torch.set_num_threads(request.param)
    return int(request.param)


def setting_of(name: str, T: int, B: int, I: int = 3, H: int = 7) -> Setting:  # noqa: E741
    graph = ALL[name].graph
    return Setting(graph, sizes_of(graph, I, H), T, B)


# cells and sizes


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@every_cell
def test_every_cell(name: str, backwards: bool, ragged: bool) -> None:
    for T, B, I, H in [(5, 3, 3, 7), (2, 17, 1, 12)]:  # noqa: E741
        setting = setting_of(name, T, B, I, H)
        assert_as_reference(setting.ragged() if ragged else setting, backwards=backwards)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in TELLING else pytest.mark.slow) for n in ALL])
def test_every_cell_in_single_precision(name: str) -> None:
    assert_as_reference(setting_of(name, 5, 3).ragged(), torch.float32)


@pytest.mark.parametrize(
    ("T", "B", "I", "H"),
    [(1, 1, 1, 1), (1, 3, 3, 100), (2, 1, 3, 37), (5, 17, 1, 37), (5, 1, 3, 100), (2, 17, 1, 100), (1, 17, 3, 1)],
)
@both_types
@telling_cells
def test_sizes(name: str, dtype: torch.dtype, T: int, B: int, I: int, H: int) -> None:  # noqa: E741
    assert_as_reference(setting_of(name, T, B, I, H), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [False, True])
@both_types
@every_cell
def test_every_size(name: str, dtype: torch.dtype, backwards: bool) -> None:
    for H in (1, 7, 37, 100):
        for I in (1, 3):  # noqa: E741
            for B in (1, 3, 17):
                for T in (1, 2, 5):
                    setting = setting_of(name, T, B, I, H)
                    assert_as_reference(setting, dtype, CANCELLED, backwards=backwards)
                    assert_as_reference(setting.ragged(), dtype, CANCELLED, backwards=backwards)


@telling_cells
def test_nothing_to_compute_needs_no_kernel(name: str) -> None:
    empty = [setting_of(name, 0, 3), setting_of(name, 2, 0), setting_of(name, 2, 3)]
    empty[2].lengths = torch.zeros(3, dtype=torch.long)
    for setting in empty:
        with counted_runs() as runs:
            ours = setting.run()
        assert not runs
        with support.disabled():
            assert_equal(ours, setting.run())


def check_random(made: Cell, seed: int, ragged: bool, backwards: bool) -> None:
    torch.manual_seed(seed)
    setting = Setting(made.graph, {x: graphs.SIZES[x] for x in (*made.graph.letters, "H")}, 4, 3, scale=0.5)
    assert_as_reference(setting.ragged() if ragged else setting, cancelled=1e-3, backwards=backwards)


of_infinite_gradients = pytest.mark.filterwarnings("ignore:cell 'random_cell'. where")  # told when such a cell is made
random_ones = given(graphs.cells(), st.integers(0, 1 << 16), st.booleans(), st.booleans())


@of_infinite_gradients
@settings(max_examples=8)
@random_ones
def test_random_cells(made: Cell, seed: int, ragged: bool, backwards: bool) -> None:
    check_random(made, seed, ragged, backwards)


@pytest.mark.slow
@of_infinite_gradients
@settings(max_examples=500)
@random_ones
def test_many_random_cells(made: Cell, seed: int, ragged: bool, backwards: bool) -> None:
    check_random(made, seed, ragged, backwards)


# forms of memory


FORMS = {
    "unaligned": lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape),
    "every other number": lambda t: torch.stack([t, t.detach() + 1], -1)[..., 0],
    "other order": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
    "part of wider rows": lambda t: torch.cat([t, t.detach() + 1], -1)[..., : t.shape[-1]],
}


@pytest.mark.parametrize("form", FORMS)
@telling_cells
def test_memory_of_any_form(name: str, form: str) -> None:
    for T, B, I in [(5, 3, 3), (1, 3, 1), (4, 1, 1)]:  # noqa: E741
        setting = setting_of(name, T, B, I)
        assert_equal(setting.run(form=FORMS[form]), setting.run())


@pytest.mark.parametrize("H", [1, 7])
def test_gradients_that_are_one_number(H: int) -> None:
    """That of a sum is expanded; that of an output which is not used is none at all."""
    setting = setting_of("shipped lstm", 5, 3, H=H)
    layer = make_layer(CELLS["lstm"], 3, H)
    x = setting.inputs["x"].requires_grad_()

    def gradients() -> list[Tensor]:
        y, state = layer(x)
        whole = torch.autograd.grad(y.sum(), [x, *layer.parameters()], retain_graph=True)
        return [*whole, *torch.autograd.grad(state["c"].sum(), [x, *layer.parameters()])]

    ours = gradients()
    with support.disabled():
        theirs = gradients()
    assert_near(_numbered(ours), _numbered(theirs), 1e-12)


def _numbered(tensors: list[Tensor]) -> dict[str, Tensor]:
    return {str(k): t for k, t in enumerate(tensors)}


def test_only_what_is_wanted_has_a_gradient() -> None:
    layer, x = make_layer(CELLS["lstm"], 3, 7), normal(5, 3, 3)
    layer.requires_grad_(False)
    with counted_runs() as runs:
        assert not layer(x)[0].requires_grad
        (found,) = torch.autograd.grad(layer(x.requires_grad_())[0].square().sum(), [x])
        layer.get_parameter("l0.f.h").requires_grad_()
        layer(x.detach())[0].square().sum().backward()
    assert runs == ["forward", "forward", "backward", "forward", "backward"]
    assert [n for n, p in layer.named_parameters() if p.grad is not None] == ["l0.f.h"]
    layer.requires_grad_()
    y = layer(x)[0].square().sum()
    expected = torch.autograd.grad(y, [x, layer.get_parameter("l0.f.h")])
    assert torch.equal(found, expected[0])
    assert torch.equal(layer.get_parameter("l0.f.h").grad, expected[1])


# lengths, resets, indices, starts


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("lengths", [[5, 0, 2], [0, 0, 5], [0, 4, 0], [1, 1, 1]])
@telling_cells
def test_rows_without_steps(name: str, lengths: list[int], backwards: bool) -> None:
    setting = setting_of(name, 5, 3)
    setting.lengths = torch.tensor(lengths)
    assert_as_reference(setting, backwards=backwards)
    found = setting.run(backwards=backwards)
    for row, length in enumerate(lengths):
        assert not found["y"][length:, row].any()
        for name, state in setting.state.items():
            assert length or torch.equal(found[f"end {name}"][row], state[row])


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("when", [[], [0], [4], [0, 1, 2, 3, 4]])
@telling_cells
def test_resets(name: str, when: list[int], backwards: bool) -> None:
    setting = setting_of(name, 5, 3)
    setting.reset = torch.zeros(5, 3, dtype=torch.bool)
    setting.reset[when, 1] = True
    assert_as_reference(setting, backwards=backwards)


@pytest.mark.parametrize("I", [1, 3])
@pytest.mark.parametrize("name", ["shipped lstm", "shipped gru", "shipped slstm"])
def test_indices_of_one_hots(name: str, I: int) -> None:  # noqa: E741
    for ragged in (False, True):
        for backwards in (False, True):
            setting = setting_of(name, 5, 3, I).indexed()
            assert_as_reference(setting.ragged() if ragged else setting, backwards=backwards)


def test_learned_starts() -> None:
    layer = make_layer(CELLS["lstm"], 3, 7, num_layers=2, bidirectional=True, learn_initial_state=True)
    x, reset = normal(5, 4, 3).requires_grad_(), torch.rand(5, 4) < 0.3
    leaves = {"x": x, **dict(layer.named_parameters())}

    def run() -> dict[str, Tensor]:
        y, state = layer(x, lengths=[5, 0, 3, 1], reset=reset)
        loss = y.sin().sum() + sum(s.square().sum() for ds in state.layers for d in ds for s in d.values())
        return {"y": y.detach(), **dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))}

    with counted_runs() as runs:
        ours = run()
    assert len(runs) == 8
    with support.disabled():
        assert_near(ours, run(), 1e-12)


# numbers beside the usual


@telling_cells
@pytest.mark.parametrize("spoilt", [torch.nan, torch.inf])
def test_a_spoilt_number_stays_in_its_row(name: str, spoilt: float) -> None:
    setting = setting_of(name, 5, 4)
    clean = setting.run()
    setting.inputs[setting.graph.inputs[0].name][2, 1] = spoilt
    ours = setting.run()
    with support.disabled():
        theirs = setting.run()
    others = [0, 2, 3]
    for name in ours:
        assert torch.equal(ours[name].isnan(), theirs[name].isnan()), name
        if name[0] in "ye" or name[:2] == "h ":
            rows = (slice(None), others) if name == "y" else others
            assert torch.equal(ours[name][rows], clean[name][rows])
        if name[2:] in setting.moving:
            assert torch.equal(ours[name][:, others], clean[name][:, others])
    assert torch.equal(ours["y"][:2], clean["y"][:2])


@both_types
@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("name", ["shipped lstm", "shipped gru", "shipped elman", "shipped lstm_layer_norm"])
def test_large_inputs(name: str, size: float, dtype: torch.dtype) -> None:
    """Gates shut and open wholly; what does not overflow on the reference path does not on kernels.

    A sum of three odd numbers is never near 0, so no gate is left to what rounding makes of large terms. A third of
    the steps has no input and a third of the units does not read it: there gates are partly open and have gradients.
    """
    setting = setting_of(name, 5, 3)
    for x in setting.inputs.values():
        x[:] = size * _odd(x)
    for n, w in setting.weights.items():
        w[:] = _odd(w) / 8 if n.endswith(".x") else w
    ours = setting.run(dtype)
    with support.disabled():
        theirs = setting.run(dtype)
    for name, value in theirs.items():
        assert torch.equal(ours[name].isfinite(), value.isfinite()), name
        kept = value.isfinite()
        error = (ours[name] - value)[kept].abs().max() / (value[kept].abs().max() + 1e-30)
        assert error <= TOLERANCE[dtype], f"{name}: off by {error:.1e}"


def _odd(like: Tensor) -> Tensor:
    """Random odd numbers from -5 to 5; a third of the rows is 0."""
    odd = torch.randint(-3, 3, like.shape, dtype=like.dtype) * 2 + 1
    return odd * (torch.rand(*like.shape[:-1], 1) > 1 / 3)


@cell(states="h", source="a test: a state that fades")
def fading(x, h):
    h = weight("d", init=0.5) * h + linear("x", x)
    return h


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@both_types
def test_denormals_are_zero_in_kernels_only(dtype: torch.dtype, threads: int) -> None:
    layer = Recurrent(fading, 1, 3, dtype=dtype)
    least = torch.finfo(dtype).tiny
    state = layer.initial_state(4).map(lambda h: torch.full_like(h, 1.5 * least))
    x = torch.zeros(2, 4, 1, dtype=dtype)
    with counted_runs(lambda _, shape: shape.threads) as teams:
        y, _ = layer(x, state)
    assert teams == [threads]
    assert not y.any()
    with support.disabled():
        assert layer(x, state)[0].all()
    assert (torch.full((1 << 18,), least, dtype=dtype) * 0.5).all(), "the mode of some thread was not put back"


# traces


IN_STEPS = {"hard antisymmetric", "hard scrn"}  # a named value is part of another there, or joins two


@pytest.mark.parametrize(
    ("name", "indexed"), [*((n, False) for n in TELLING), ("hard scrn", False), ("shipped lstm", True)]
)
def test_traces(name: str, indexed: bool) -> None:
    check_trace(setting_of(name, 4, 3).indexed() if indexed else setting_of(name, 4, 3), name not in IN_STEPS)


@pytest.mark.slow
@every_cell
def test_every_trace(name: str) -> None:
    check_trace(setting_of(name, 4, 3), name not in IN_STEPS)


def check_trace(setting: Setting, by_kernel: bool) -> None:
    given = setting.graph, setting.sizes, setting.weights, setting.inputs, setting.state
    with counted_runs() as runs:
        ours, output = trace(*given)
    assert runs == ["forward"] * by_kernel
    with support.disabled():
        theirs, their_output = trace(*given)
    assert_near(ours, theirs, 1e-12)
    assert_near({"output": output}, {"output": their_output}, 1e-12)
    assert torch.equal(output, setting.run()["y"]) or not by_kernel
    before = {n: v.clone() for n, v in ours.items()}
    trace(*given[:-1], {n: s + 1 for n, s in setting.state.items()})
    assert_equal(ours, before)


@pytest.mark.slow
@of_infinite_gradients
@settings(max_examples=100)
@random_ones
def test_traces_of_random_cells(made: Cell, seed: int, ragged: bool, backwards: bool) -> None:
    torch.manual_seed(seed)
    setting = Setting(made.graph, {x: graphs.SIZES[x] for x in (*made.graph.letters, "H")}, 3, 3, scale=0.5)
    given = made.graph, setting.sizes, setting.weights, setting.inputs, setting.state
    ours, _ = trace(*given)
    with support.disabled():
        assert_near(ours, trace(*given)[0], 1e-12, cancelled=1e-3)


# graphs that live on


def test_a_second_backward_pass() -> None:
    layer, x = make_layer(CELLS["gru"], 3, 7), normal(5, 3, 3).requires_grad_()
    y, state = layer(x, lengths=[5, 2, 0])
    loss = y.sin().sum() + state["h"].square().sum()
    leaves = [x, *layer.parameters()]
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    layer(torch.full_like(x, 3.0))[0].sum().backward()  # takes memory in between
    again = torch.autograd.grad(loss, leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


@pytest.mark.parametrize("which", ["weight", "input", "state"])
def test_a_change_in_place_is_found(which: str) -> None:
    layer, x = make_layer(CELLS["lstm"], 3, 7), normal(5, 3, 3)
    state = layer.initial_state(3).map(torch.clone)
    y, _ = layer(x, state)
    with torch.no_grad():
        {"weight": layer.get_parameter("l0.i.h"), "input": x, "state": state.layers[0][0]["c"]}[which].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_changing_what_came_out_changes_no_gradient() -> None:
    layer, x = make_layer(CELLS["lstm"], 3, 7), normal(5, 3, 3).requires_grad_()
    y, state = layer(x)
    expected = torch.autograd.grad(state["c"].square().sum(), [x, *layer.parameters()])
    y, state = layer(x)
    loss = state["c"].square().sum()
    with torch.no_grad():
        y.zero_()
        state["h"].zero_()
    found = torch.autograd.grad(loss, [x, *layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_results_share_no_memory_with_what_is_used_again() -> None:
    layer = make_layer(CELLS["lstm"], 3, 64, learn_initial_state=True)
    results: list[tuple[Tensor, Tensor]] = []
    for rows in (1, 40):  # large enough for memory that is lent
        for k in range(4):
            x = normal(60, rows, 3).requires_grad_()
            y, state = layer(x * (k + 1), reset=torch.rand(60, rows) < 0.1)
            (y.sum() + state["c"].sum()).backward()
            some = [y, *state.layers[0][0].values(), x.grad, *(p.grad for p in layer.parameters())]
            results += [(t, t.detach().clone()) for t in some if t is not None]
            layer.zero_grad()
            with torch.no_grad():
                y, state = layer(x * k)
            results += [(t, t.clone()) for t in (y, state["h"], state["c"])]
    assert all(torch.equal(now, then) for now, then in results)
    places = [(t.data_ptr(), t.numel() * t.element_size()) for t, _ in results]
    free = [(b.address, b.size) for blocks in WORKSPACE._free.values() for b in blocks]
    assert free
    assert not [1 for a, n in places for b, m in free if a < b + m and b < a + n]


# bits


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize(("B", "H"), [(1, 37), (3, 100), (17, 7)])
@telling_cells
def test_bits_do_not_depend_on_threads(
    name: str, B: int, H: int, hidden: bool, monkeypatch: pytest.MonkeyPatch, threads_after: None
) -> None:
    divide(monkeypatch, hidden)
    for setting in (setting_of(name, 5, B, H=H), setting_of(name, 5, B, H=H).ragged()):
        found = []
        with counted_runs(lambda _, shape: (shape.threads, shape.hidden)) as teams:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(setting.run(torch.float32))
        assert set(teams) == {(1, False), (2, hidden), (3, hidden)}
        assert_equal(found[1], found[0])
        assert_equal(found[2], found[0])


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@both_types
@telling_cells
def test_a_rows_bits_do_not_depend_on_its_company(name: str, dtype: torch.dtype, threads: int, backwards: bool) -> None:
    setting = setting_of(name, 5, 17, H=37).ragged()
    with counted_runs(lambda _, shape: shape.threads) as teams:
        whole = setting.run(dtype, backwards)
    assert set(teams) == {threads}
    for chosen in ([0], [3, 11, 5], list(range(16, -1, -1))):
        part = setting.rows(chosen).run(dtype, backwards)
        for name in part:
            if name == "y" or name[2:] in setting.moving:
                assert torch.equal(part[name], whole[name][:, chosen]), name
            elif name[0] in "eh" or name[0] == "x":
                assert torch.equal(part[name], whole[name][chosen]), name
