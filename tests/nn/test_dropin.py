"""tg.LSTM, tg.GRU and tg.RNN against torch's: initial values, state_dict, outputs, states and every gradient."""

import copy
import io
import pickle
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import tidegate as tg
from tidegate.errors import ArgumentError, TidegateNotice
from tidegate.runtime import support

PAIRS: dict[str, tuple[Any, Any]] = {"LSTM": (tg.LSTM, nn.LSTM), "GRU": (tg.GRU, nn.GRU), "RNN": (tg.RNN, nn.RNN)}
COUNT, TOLERANCE = 200, 2e-6
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")


@dataclass(frozen=True)
class Setting:
    """One configuration: a module's arguments, and how it is called."""

    kind: str
    options: dict[str, Any]
    unbatched: bool
    lengths: list[int] | None
    ordered: bool
    state: bool
    seed: int


def draw(seed: int) -> Setting:
    chance = random.Random(seed)
    kind = chance.choice(["LSTM", "LSTM", "GRU", "RNN"])
    options: dict[str, Any] = {
        "input_size": chance.randint(1, 5),
        "hidden_size": chance.randint(2, 6),
        "num_layers": chance.randint(1, 3),
        "bias": chance.random() < 0.7,
        "batch_first": chance.random() < 0.5,
        "bidirectional": chance.random() < 0.5,
    }
    if kind == "LSTM" and chance.random() < 0.4:
        options["proj_size"] = chance.randint(1, options["hidden_size"] - 1)
    if kind == "RNN":
        options["nonlinearity"] = chance.choice(["tanh", "relu"])
    unbatched = chance.random() < 0.25
    lengths, ordered = None, chance.random() < 0.5
    if not unbatched and chance.random() < 0.5:
        lengths = [chance.randint(1, 7) for _ in range(chance.randint(1, 4))]
        lengths = sorted(lengths, reverse=True) if ordered else lengths
    return Setting(kind, options, unbatched, lengths, ordered, chance.random() < 0.5, seed)


def an_input(s: Setting) -> Tensor:
    steps = max(s.lengths) if s.lengths else 1 + s.seed % 7
    if s.unbatched:
        return torch.randn(steps, s.options["input_size"])
    rows = len(s.lengths) if s.lengths else 1 + s.seed % 4
    lead = (rows, steps) if s.options["batch_first"] else (steps, rows)
    return torch.randn(*lead, s.options["input_size"])


def a_state(s: Setting, rows: int) -> tuple[Tensor, ...]:
    places = s.options["num_layers"] * (1 + s.options["bidirectional"])
    sizes = [s.options.get("proj_size") or s.options["hidden_size"]]
    sizes += [s.options["hidden_size"]] if s.kind == "LSTM" else []
    return tuple(torch.randn(places, *([] if s.unbatched else [rows]), size) for size in sizes)


def call(module: nn.Module, s: Setting, x: Tensor, state: tuple[Tensor, ...]) -> dict[str, Tensor]:
    first = s.options["batch_first"]
    given = pack_padded_sequence(x, torch.tensor(s.lengths), first, enforce_sorted=s.ordered) if s.lengths else x
    hx = (state if s.kind == "LSTM" else state[0]) if s.state else None
    y, end = module(given, hx)
    if s.lengths:
        assert isinstance(y, PackedSequence)
        y = pad_packed_sequence(y, first)[0]
    return {"y": y, **{f"state {k}": v for k, v in enumerate(end if s.kind == "LSTM" else (end,))}}


def run(module: nn.Module, s: Setting, x: Tensor, state: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Results, and the gradients of one random sum of them in input, initial states and parameters."""
    x = x.clone().requires_grad_()
    state = tuple(v.clone().requires_grad_() for v in state)
    results = call(module, s, x, state)
    chance = torch.Generator().manual_seed(s.seed)
    loss = sum(((v * torch.randn(v.shape, generator=chance)).sum() for v in results.values()), torch.zeros(()))
    leaves = {"x": x, **dict(module.named_parameters())}
    leaves |= {f"initial state {k}": v for k, v in enumerate(state)} if s.state else {}
    found = torch.autograd.grad(loss, list(leaves.values()))
    return results | {f"gradient of {name}": d for name, d in zip(leaves, found, strict=True)}


def distance(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / (1 + a.abs().max()))


SETTINGS = [draw(seed) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def compared() -> Callable[[Setting], dict[str, float]]:
    done: dict[int, dict[str, float]] = {}

    def compare(s: Setting) -> dict[str, float]:
        if s.seed not in done:
            ours, theirs = PAIRS[s.kind]
            torch.manual_seed(s.seed)
            module = theirs(**s.options)
            torch.manual_seed(s.seed)
            twin = ours(**s.options)
            assert list(twin.state_dict()) == list(module.state_dict())
            assert all(torch.equal(twin.state_dict()[k], v) for k, v in module.state_dict().items())
            x = an_input(s)
            state = a_state(s, 1 if s.unbatched else x.shape[0 if s.options["batch_first"] else 1])
            expected, found = run(module, s, x, state), run(twin, s, x, state)
            assert set(found) == set(expected)
            done[s.seed] = {name: distance(v, found[name]) for name, v in expected.items()}
        return done[s.seed]

    return compare


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s.seed}-{s.kind}")
def test_is_torchs(setting: Setting, compared: Callable[[Setting], dict[str, float]]) -> None:
    far = {name: d for name, d in compared(setting).items() if not d <= TOLERANCE}
    assert not far


def test_two_hundred_configurations_are_compared(compared: Callable[[Setting], dict[str, float]]) -> None:
    """And every thing that can be set is set both ways, for each module, among them."""
    assert len([compared(s) for s in SETTINGS]) == COUNT == 200
    for kind in PAIRS:
        of_kind = [s for s in SETTINGS if s.kind == kind]
        for option in ("bias", "batch_first", "bidirectional"):
            assert {s.options[option] for s in of_kind} == {False, True}
        assert {s.options["num_layers"] for s in of_kind} == {1, 2, 3}
        assert {(s.unbatched, bool(s.lengths), s.state) for s in of_kind} >= {
            (True, False, False), (True, False, True), (False, True, False), (False, True, True), (False, False, True),
        }  # fmt: skip
        assert {s.ordered for s in of_kind if s.lengths} == {False, True}
    assert {"proj_size" in s.options for s in SETTINGS if s.kind == "LSTM"} == {False, True}
    assert {s.options["nonlinearity"] for s in SETTINGS if s.kind == "RNN"} == {"tanh", "relu"}


def both(kind: str, *args: Any, **options: Any) -> tuple[Any, Any]:
    """The drop-in and torch's module with the same weights."""
    ours, theirs = (make(*args, **options) for make in PAIRS[kind])
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def first_state(state: Any) -> Tensor:
    return state[0] if isinstance(state, tuple) else state


every_kind = pytest.mark.parametrize("kind", PAIRS)


@every_kind
def test_state_dict_goes_both_ways_through_a_file(kind: str) -> None:
    ours, theirs = (make(3, 5, 2) for make in PAIRS[kind])
    x = torch.randn(6, 4, 3)
    for source, target in ((ours, theirs), (theirs, ours)):
        with torch.no_grad():
            for p in source.parameters():
                p.uniform_(-1, 1)
        file = io.BytesIO()
        torch.save(source.state_dict(), file)
        file.seek(0)
        assert str(target.load_state_dict(torch.load(file, weights_only=True))) == "<All keys matched successfully>"
        assert distance(source(x)[0], target(x)[0]) <= TOLERANCE


@every_kind
def test_is_a_torch_module_of_its_kind(kind: str) -> None:
    ours, theirs = both(kind, 3, 5)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)


@every_kind
def test_copies_and_pickles(kind: str) -> None:
    ours, theirs = both(kind, 3, 5, 2, bidirectional=True)
    x = torch.randn(6, 4, 3)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):  # noqa: S301 - our own bytes
        assert type(twin) is type(ours)
        assert torch.equal(twin(x)[0], ours(x)[0])
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x)[0], ours(x)[0])
    assert distance(theirs(x)[0], ours(x)[0]) <= TOLERANCE


@pytest.mark.usefixtures("reference_path_notice")
@every_kind
def test_other_types_and_back(kind: str) -> None:
    ours, theirs = both(kind, 3, 5, 2)
    x = torch.randn(6, 4, 3)
    wide, expected = ours.double()(x.double())[0], theirs.double()(x.double())[0]
    assert wide.dtype == torch.float64
    assert distance(wide, expected) <= 1e-14
    assert distance(ours.float()(x)[0], theirs.float()(x)[0]) <= TOLERANCE
    assert distance(ours.bfloat16()(x.bfloat16())[0].float(), theirs.float()(x)[0]) <= 0.05


@every_kind
def test_no_grad_and_inference_mode(kind: str) -> None:
    ours, theirs = both(kind, 3, 5)
    x = torch.randn(6, 4, 3)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y, state = ours(x)
            assert not y.requires_grad
            assert not first_state(state).requires_grad
            assert distance(theirs(x)[0], y) <= TOLERANCE


@every_kind
def test_gradients_of_gradients(kind: str) -> None:
    module = PAIRS[kind][0](2, 3, bidirectional=True).double()
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: module(x)[0], x)
    assert torch.autograd.gradgradcheck(lambda x: module(x)[0], x)


class Doubled(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


@every_kind
def test_parametrisations_count(kind: str) -> None:
    ours, theirs = both(kind, 3, 5)
    with torch.no_grad():
        theirs.weight_hh_l0.mul_(2)
    parametrize.register_parametrization(ours, "weight_hh_l0", Doubled())
    x = torch.randn(6, 4, 3)
    y, expected = ours(x)[0], theirs(x)[0]
    assert distance(expected, y) <= TOLERANCE
    y.sum().backward()
    expected.sum().backward()
    original = ours.parametrizations.weight_hh_l0.original
    assert distance(2 * theirs.weight_hh_l0.grad, original.grad) <= TOLERANCE


@every_kind
def test_dropout_is_in_training_only(kind: str) -> None:
    ours, theirs = both(kind, 3, 5, 3, dropout=0.5)
    x = torch.randn(6, 4, 3)
    assert distance(theirs.eval()(x)[0], ours.eval()(x)[0]) <= TOLERANCE
    ours.train()
    assert not torch.equal(ours(x)[0], ours(x)[0])


@every_kind
def test_dropout_of_one_layer_warns_as_torch_does(kind: str) -> None:
    for make in PAIRS[kind]:
        with pytest.warns(UserWarning, match="dropout option adds dropout after all but last recurrent layer"):
            make(3, 5, 1, dropout=0.5)


@every_kind
@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_are_packing_without_the_packing(kind: str, batch_first: bool) -> None:
    ours, theirs = both(kind, 3, 5, 2, bidirectional=True, batch_first=batch_first)
    x, lengths = torch.randn(4, 6, 3) if batch_first else torch.randn(6, 4, 3), [2, 6, 1, 4]
    y, state = ours(x, lengths=lengths)
    packed, end = theirs(pack_padded_sequence(x, torch.tensor(lengths), batch_first, enforce_sorted=False))
    assert distance(pad_packed_sequence(packed, batch_first)[0], y) <= TOLERANCE
    assert distance(first_state(end), first_state(state)) <= TOLERANCE


@every_kind
def test_a_length_of_zero_gives_back_the_state(kind: str) -> None:
    ours, _ = both(kind, 3, 5)
    h = torch.randn(1, 4, 5)
    y, state = ours(torch.randn(6, 4, 3), (h, torch.randn(1, 4, 5)) if kind == "LSTM" else h, lengths=[2, 0, 6, 1])
    assert not y[:, 1].any()
    assert torch.equal(first_state(state)[:, 1], h[:, 1])


@every_kind
def test_no_steps_and_no_rows(kind: str) -> None:
    ours, _ = both(kind, 3, 5, 2, bidirectional=True)
    h = torch.randn(4, 2, 5)
    y, state = ours(torch.zeros(0, 2, 3), (h, h) if kind == "LSTM" else h)
    assert y.shape == (0, 2, 10)
    assert torch.equal(first_state(state), h)
    assert ours(torch.zeros(3, 0, 3))[0].shape == (3, 0, 10)


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_reset_is_the_pieces_one_by_one(kind: str, bidirectional: bool) -> None:
    """Forwards each piece starts at zero, the first from the state passed; backwards likewise from the other end."""
    ours, theirs = both(kind, 3, 5, bidirectional=bidirectional)
    x, h = torch.randn(7, 1, 3), torch.randn(1 + bidirectional, 1, 5)
    reset = torch.zeros(7, 1)
    reset[[3, 5]] = 1
    y, state = ours(x, (h, h) if kind == "LSTM" else h, reset=reset)
    pieces = []
    for begin, end in ((0, 3), (3, 5), (5, 7)):
        own = torch.zeros_like(h)
        own[0] = h[0] if begin == 0 else 0
        own[-1] = h[-1] if end == 7 and bidirectional else own[-1]
        pieces.append(theirs(x[begin:end], (own, own) if kind == "LSTM" else own))
    assert distance(torch.cat([p[0] for p in pieces]), y) <= TOLERANCE
    assert distance(first_state(pieces[-1][1])[0], first_state(state)[0]) <= TOLERANCE
    assert distance(first_state(pieces[0 if bidirectional else -1][1])[-1], first_state(state)[-1]) <= TOLERANCE


@every_kind
def test_resets_in_the_padding_start_nothing_afresh(kind: str) -> None:
    ours, _ = both(kind, 3, 5, bidirectional=True)
    x, h, lengths = torch.randn(6, 2, 3), torch.randn(2, 2, 5), [3, 5]
    hx = (h, h) if kind == "LSTM" else h
    reset = torch.arange(6)[:, None] >= torch.tensor(lengths)
    (y, state), (expected, end) = ours(x, hx, lengths=lengths, reset=reset), ours(x, hx, lengths=lengths)
    assert torch.equal(y, expected)
    assert torch.equal(first_state(state), first_state(end))


@every_kind
def test_whole_numbers_are_indices(kind: str) -> None:
    ours, theirs = both(kind, 7, 5, 2, bidirectional=True)
    index = torch.randint(0, 7, (6, 4))
    assert distance(theirs(nn.functional.one_hot(index, 7).float())[0], ours(index)[0]) <= TOLERANCE


@pytest.mark.parametrize("proj_size", [0, 2])
def test_forget_bias_is_the_sum_of_the_two_biases(proj_size: int) -> None:
    torch.manual_seed(3)
    plain = nn.LSTM(3, 5, 2, bidirectional=True, proj_size=proj_size)
    torch.manual_seed(3)
    ours = tg.LSTM(3, 5, 2, bidirectional=True, proj_size=proj_size, forget_bias=1.5)
    for name, p in plain.named_parameters():
        mine = ours.get_parameter(name)
        if name.startswith("bias"):
            assert mine[5:10].tolist() == [1.5 if name.startswith("bias_ih") else 0.0] * 5
            assert torch.equal(torch.cat([mine[:5], mine[10:]]), torch.cat([p[:5], p[10:]]))
        else:
            assert torch.equal(mine, p)


# Off the CPU


@pytest.fixture(autouse=True)
def _said_nothing_yet() -> None:
    support.warn_once.cache_clear()


@every_kind
def test_off_the_cpu_torchs_own_forward_runs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(PAIRS[kind][1], "forward", lambda self, x, hx=None: seen.append((self, x, hx)) or ("y", "end"))
    module = PAIRS[kind][0](3, 5, device="meta")
    x, h = torch.empty(6, 4, 3, device="meta"), torch.empty(1, 4, 5, device="meta")
    assert module(x, h) == ("y", "end")
    assert seen == [(module, x, h)]
    assert module(packed := pack_padded_sequence(x, torch.tensor([6, 3, 2, 1]))) == ("y", "end")
    assert seen[1] == (module, packed, None)


@every_kind
def test_on_the_cpu_it_does_not(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PAIRS[kind][1], "forward", None)
    assert PAIRS[kind][0](3, 5)(torch.randn(6, 4, 3))[0].shape == (6, 4, 5)


@every_kind
@pytest.mark.parametrize("batch_first", [False, True])
def test_shapes_off_the_cpu(kind: str, batch_first: bool) -> None:
    module = PAIRS[kind][0](3, 5, 2, bidirectional=True, batch_first=batch_first, device="meta")
    lead = (4, 6) if batch_first else (6, 4)
    y, state = module(torch.empty(*lead, 3, device="meta"))
    assert (y.shape, y.device.type, first_state(state).shape) == ((*lead, 10), "meta", (4, 4, 5))


@every_kind
@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_off_the_cpu_are_packed(kind: str, batch_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs there is torch's op on a PackedSequence: tried here on the CPU, which it is told not to be."""
    ours, theirs = both(kind, 3, 5, 2, bidirectional=True, batch_first=batch_first)
    x, lengths = torch.randn(4, 7, 3) if batch_first else torch.randn(7, 4, 3), [2, 6, 1, 4]
    expected, end = ours(x, lengths=lengths)
    seen = []
    own = type(theirs).forward
    monkeypatch.setattr(type(theirs), "forward", lambda self, x, hx=None: seen.append(type(x)) or own(self, x, hx))
    y, state = ours._elsewhere(x, None, lengths, None)
    assert seen == [PackedSequence]
    assert distance(expected, y) <= TOLERANCE
    assert distance(first_state(end), first_state(state)) <= TOLERANCE


BEYOND = {
    "reset": ({"reset": torch.zeros(6, 4)}, torch.randn(6, 4, 7)),
    "a length of 0": ({"lengths": [0, 6, 1, 4]}, torch.randn(6, 4, 7)),
    "an index of a one-hot": ({}, torch.zeros(6, 4, dtype=torch.int64)),
    "the length of a sequence alone": ({"lengths": 4}, torch.randn(6, 7)),
}


@every_kind
@pytest.mark.parametrize("what", BEYOND)
def test_what_torch_cannot_do_is_said_once(kind: str, what: str) -> None:
    ours, _ = both(kind, 7, 5)
    options, x = BEYOND[what]
    arguments = (x, None, options.get("lengths"), options.get("reset"))
    with pytest.warns(TidegateNotice) as caught:
        y, _ = ours._elsewhere(*arguments)
    assert [str(w.message) for w in caught] == [
        f"{what} has no torch op off the CPU: the cell's equations run step by step there"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours._elsewhere(*arguments)
    assert torch.equal(y, ours(x, **options)[0])


# Errors


def refused(message: str, module: nn.Module, *args: Any, **options: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        module(*args, **options)
    assert str(caught.value) == message


def test_errors_of_the_initial_state() -> None:
    x = torch.randn(6, 4, 3)
    lstm, gru = tg.LSTM(3, 5, 2, proj_size=2), tg.GRU(3, 5)
    h, c = torch.zeros(2, 4, 2), torch.zeros(2, 4, 5)
    refused("hx must be the pair of tensors (h_0, c_0) for LSTM, got a Tensor", lstm, x, h)
    refused("hx must be the pair of tensors (h_0, c_0) for LSTM, got a tuple", lstm, x, (h,))
    refused("hx must be the pair of tensors (h_0, c_0) for LSTM, got a tuple", lstm, x, (h, None))
    refused("hx must be the tensor h_0 for GRU, got a tuple", gru, x, (torch.zeros(1, 4, 5), c))
    refused("h_0 must be [2, 4, 2], got [2, 4, 5]", lstm, x, (c, c))
    refused("c_0 must be [2, 4, 5], got [2, 4, 2]", lstm, x, (h, h))
    refused("h_0 must be [1, 5], got [1, 1, 5]", gru, x[:, 0], torch.zeros(1, 1, 5))


def test_errors_of_the_input() -> None:
    gru = tg.GRU(3, 5)
    refused("input 'x' must be [T, B, size] = [6, 4, 3], got [6, 4, 2]", gru, torch.randn(6, 4, 2))
    refused(
        "input 'x' is torch.float64, but the weights are torch.float32: pass x.to(torch.float32), or convert the "
        "layer with .to(dtype)",
        gru,
        torch.randn(6, 4, 3).double(),
    )
    packed = pack_padded_sequence(torch.randn(6, 2, 3), torch.tensor([6, 4]))
    refused("a PackedSequence has its own lengths: omit lengths=", gru, packed, lengths=[6, 4])
    with pytest.raises(ArgumentError) as caught:
        gru._elsewhere(packed, None, [6, 4], None)
    assert str(caught.value) == "a PackedSequence has its own lengths: omit lengths="


def test_forget_bias_without_biases() -> None:
    with pytest.raises(ArgumentError) as caught:
        tg.LSTM(3, 5, bias=False, forget_bias=1.0)
    assert str(caught.value) == "forget_bias=1.0 has no effect with bias=False: omit one of them"


@every_kind
def test_torchs_own_errors_stay(kind: str) -> None:
    for make in PAIRS[kind]:
        with pytest.raises(ValueError, match="hidden_size must be greater than zero"):
            make(3, 0)
